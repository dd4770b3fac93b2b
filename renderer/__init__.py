"""A model and a camera in, pixels out: scheduler, executors, resolve, camera paths, video."""

from typing import TYPE_CHECKING

from ..models.lazy import lazy_names

if TYPE_CHECKING:
    from .executors import ExecutorUnavailable as ExecutorUnavailable
    from .paths import orbit as orbit
    from .paths import spiral as spiral
    from .renderer import DEMO as DEMO
    from .renderer import RenderedImage as RenderedImage
    from .renderer import Renderer as Renderer
    from .resolve import VIEW_MODES as VIEW_MODES
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        executors=("ExecutorUnavailable",),
        paths=("orbit", "spiral"),
        renderer=("DEMO", "RenderedImage", "Renderer"),
        resolve=("VIEW_MODES",),
    )
