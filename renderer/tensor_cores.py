"""How the kernels are compiled for one model: `cuda/shade_mma.cu`, the field on tensor cores, with room for its layers
and no more; the others for its kind.

Tensor cores shade InfNeRFs only. A PyNeRF's samples are answered by two heads each, whose layers are wider and more
than that kernel's fragments hold: the portable `cuda/shade.cu` shades them.
"""

from __future__ import annotations

from ..models.config import InfNeRFConfig
from ..models.infnerf import InfNeRF
from ..models.pynerf import PyNeRF

STEP = 16  # inputs of one mma
PYRAMID = ("-DPYRAMID=1",)  # of cuda/model.cuh


def suits_tensor_cores(model: InfNeRF | PyNeRF) -> bool:
    """Whether `shade_mma.cu` shades a model."""
    return isinstance(model, InfNeRF)


def kind_options(model: InfNeRF | PyNeRF) -> tuple[str, ...]:
    """Compiler options for what marches, shades and composites samples of a model."""
    return PYRAMID if isinstance(model, PyNeRF) else ()


def shade_shape(config: InfNeRFConfig) -> tuple[int, int, int]:
    """Features, hidden units and outputs of the density MLP, each padded to whole mma steps.

    >>> shade_shape(InfNeRFConfig(n_grid_levels=5, geo_dim=15))
    (16, 32, 16)
    """
    return _padded(config.n_features), _padded(config.hidden_dim), _padded(config.geo_dim + 1)


def shade_options(config: InfNeRFConfig) -> tuple[str, ...]:
    """Compiler options for `shade_mma.cu`; without them it has room for every model, and needs it.

    >>> shade_options(InfNeRFConfig())
    ('-DSHADE_FEATURES=16', '-DSHADE_HIDDEN=32', '-DSHADE_OUTPUTS=16')
    """
    names = "FEATURES", "HIDDEN", "OUTPUTS"
    return tuple(f"-DSHADE_{name}={size}" for name, size in zip(names, shade_shape(config), strict=True))


def _padded(n: int) -> int:
    return -(-n // STEP) * STEP
