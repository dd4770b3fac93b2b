"""What is rendered: octree, hash grid, InfNeRF, volume rendering, cameras, the checkpoint. Needs no GPU and no GL."""

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from .camera import Camera as Camera
    from .camera import look_at as look_at
    from .checkpoint import Checkpoint as Checkpoint
    from .checkpoint import CheckpointError as CheckpointError
    from .checkpoint import load_checkpoint as load_checkpoint
    from .checkpoint import save_checkpoint as save_checkpoint
    from .config import InfNeRFConfig as InfNeRFConfig
    from .infnerf import InfNeRF as InfNeRF
    from .mipnerf import MipNeRF as MipNeRF
    from .mipnerf_config import MipNeRFConfig as MipNeRFConfig
    from .octree import Octree as Octree
    from .pynerf import PyNeRF as PyNeRF
    from .pynerf_config import PyNeRFConfig as PyNeRFConfig
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        camera=("Camera", "look_at"),
        checkpoint=("Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"),
        config=("InfNeRFConfig",),
        infnerf=("InfNeRF",),
        mipnerf=("MipNeRF",),
        mipnerf_config=("MipNeRFConfig",),
        octree=("Octree",),
        pynerf=("PyNeRF",),
        pynerf_config=("PyNeRFConfig",),
    )
