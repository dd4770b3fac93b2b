"""The `torch` executor of mip-NeRFs: rays in batches through one large MLP, in half precision on a CUDA device.

Frame 0 has pixel centres and the exact fenceposts; later frames jitter both by the counter-based generator, so that a
frame is the same whenever it is rendered. Hundreds of looks at a network of a million multiplications a ray: so it says
what `pace` it wants, polls `cancelled` between batches of bounded work, and stops along a ray that is opaque.

Channels: `level` is 0 and `clamped` 0, since there is one node; `gsd_ratio` is log2 of a sample's footprint over half a
period of the finest wave of the encoding; `samples` counts the intervals of all looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..models.camera import Camera
from ..models.marching import JITTER_X, JITTER_Y, random_uniform
from ..models.mipnerf import Look, MipNeRF, MipNetwork, MipRays, frame_jitter, look_along
from .frame import DeviceLost, FrameBuffers, RenderRequest, RenderStats
from .normals import fill_normals
from .pace import FIRST_SCALE, MIN_SCALE, Pace

BATCH_WORK = {"cpu": 4e8, "cuda": 3e11}  # multiplications between two looks at `cancelled`
PICTURE_WORK = {"cpu": 5e9, "cuda": 5e12}  # multiplications that a first picture may take: a fraction of a second
PICTURE_PIXELS = 1280 * 720  # of the window that is reckoned with
LEAST_SCALE, LEAST_SLICE = 1 / 64, 64  # of the window's edge; px
HURRY = 4.0  # while the view moves, rays have so many times fewer samples
LEAST_SAMPLES = 8
ENCODING_WORK = 10_000  # multiplications that take as long as encoding a sample, which small networks notice
BLOCKS = 4  # parts of a ray, between which those stop that are opaque


class _Stopped(Exception):
    """The picture is not wanted any more."""


class MipExecutor:
    """Renders a `MipNeRF` with torch, on a CUDA device where there is one."""

    name = "torch"

    def __init__(self, model: MipNeRF, dtype: torch.dtype | None = None, device: str | None = None) -> None:
        """`dtype`: of the network, None: half on CUDA, else float32; float64 makes all float64."""
        self.device = torch.device(device or working_device())
        on_gpu = self.device.type == "cuda"
        self.dtype = dtype or (torch.float16 if on_gpu else torch.float32)
        self.precise = torch.float64 if self.dtype == torch.float64 else torch.float32  # of all but the network
        self.model = model
        self.network: MipNetwork = model.network(self.dtype, self.device)
        kind = "cuda" if on_gpu else "cpu"
        self._rows = max(64, int(BATCH_WORK[kind] / model.n_parameters))
        self.pace = _pace(model, PICTURE_WORK[kind])

    @classmethod
    def supports(cls, model: object) -> str | None:
        return None if isinstance(model, MipNeRF) else f"the torch executor does not know {type(model).__name__}"

    def describe(self) -> str:
        """Where and how it computes, in words."""
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return f"mip-NeRF in batches on {where}, {str(self.dtype).removeprefix('torch.')}"

    @torch.no_grad()
    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        """See `Executor.render`. `cancelled` is polled between batches."""
        began = time.perf_counter()
        stats = RenderStats(node_samples=np.zeros(1, np.int64))
        x0, y0, x1, y1 = request.bounds
        row, column = (grid.ravel() for grid in np.mgrid[y0:y1, x0:x1])
        count = max(LEAST_SAMPLES, round(self.model.config.num_samples / request.step_scale))
        size = max(8, self._rows * BLOCKS // count)
        try:
            for first in range(0, len(row), size):
                if cancelled():
                    raise _Stopped
                self._batch(request, out, row[first : first + size], column[first : first + size], count, cancelled)
                n = len(row[first : first + size])
                stats.rays += n
                stats.samples += n * count * self.model.config.num_levels
        except _Stopped:
            stats.cancelled = True
        except RuntimeError as error:
            if self.device.type == "cuda" and "CUDA error" in str(error):
                raise DeviceLost(f"the CUDA device failed while a mip-NeRF was rendered: {error}") from error
            raise
        else:
            self.fill_normals(request.camera, out, request.bounds)
        assert stats.node_samples is not None
        stats.node_samples[0] = stats.samples
        stats.seconds = time.perf_counter() - began
        stats.stages = {"field": stats.seconds}
        return stats

    def _batch(
        self, request: RenderRequest, out: FrameBuffers, row: np.ndarray, column: np.ndarray, count: int,
        cancelled: Callable[[], bool],
    ) -> None:  # fmt: skip
        counters = torch.from_numpy(row * request.camera.width + column)
        rays, cones = self._rays(request, row, column, counters)
        jitter = frame_jitter(counters.to(self.device), request.frame) if request.frame else None

        def poll() -> None:
            if cancelled():
                raise _Stopped

        look = look_along(
            self.network, rays, jitter, count, all_colors=False, early_stop=request.early_stop, blocks=BLOCKS,
            between=poll,
        )[-1]  # fmt: skip
        for name, value in self._channels(look, rays, cones).items():
            getattr(out, name)[row, column] = value.cpu().numpy()
        out.level[row, column] = out.clamped[row, column] = 0
        out.samples[row, column] = count * self.model.config.num_levels

    def _rays(
        self, request: RenderRequest, row: np.ndarray, column: np.ndarray, counters: Tensor
    ) -> tuple[MipRays, Tensor]:
        """The rays of pixels, and the radius of each at unit distance along it."""
        x, y = column + 0.5, row + 0.5
        if request.frame:
            x = x + random_uniform(counters, JITTER_X, request.frame).numpy() - 0.5
            y = y + random_uniform(counters, JITTER_Y, request.frame).numpy() - 0.5
        arrays = [torch.from_numpy(np.ascontiguousarray(array)) for array in request.camera.pixel_rays(x, y)]
        cones = arrays[2] * 2.0**-request.lod_bias
        placed = self.model.place_rays(arrays[0], arrays[1], cones, torch.from_numpy(request.camera.c2w[:3, 2].copy()))
        moved = (array.to(self.device, self.precise) for array in (placed.origins, placed.directions, placed.radii))
        return MipRays(*moved), cones.to(self.device, self.precise)

    def _channels(self, look: Look, rays: MipRays, cones: Tensor) -> dict[str, Tensor]:
        alpha = look.opacity
        mean = torch.where(alpha > 1e-6, 1 / alpha.clamp(min=1e-6), torch.zeros_like(alpha))
        along = rays.lengths / self.model.config.scale  # world units along the ray for each of depth
        middles = (look.t[:, 1:] + look.t[:, :-1]) / 2
        footprints = middles * (cones * along / float(self.model.gsd(0)))[:, None]
        ratio = (look.weights * torch.log2(footprints.clamp(min=1e-30))).sum(-1)
        return {
            "color": torch.cat([look.color, alpha[:, None]], -1),
            "depth": look.depth * along * mean,
            "gsd_ratio": ratio * mean,
            "node": torch.where(alpha > 1e-6, 0, -1).int(),
        }

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
        """See `Executor.fill_normals`."""
        fill_normals(camera, out, region)

    def close(self) -> None:
        """Nothing to give back: torch keeps its memory."""


def working_device() -> str:
    """The GPU that torch has, if it answers (one that was lost does not, in this process), else the processor."""
    if not torch.cuda.is_available():
        return "cpu"
    try:
        torch.ones(1, device="cuda").sum().item()
    except RuntimeError:
        return "cpu"
    return "cuda"


def _pace(model: MipNeRF, work: float) -> Pace:
    """First pictures as large as `work` multiplications allow."""
    ray = (
        (model.n_parameters + ENCODING_WORK)
        * model.config.num_levels
        * max(LEAST_SAMPLES, model.config.num_samples / HURRY)
    )
    scale = (work / ray / PICTURE_PIXELS) ** 0.5
    first, least = (min(max(scale, LEAST_SCALE), most) for most in (FIRST_SCALE, MIN_SCALE))
    return Pace(first, least, LEAST_SLICE, HURRY, ladder=True)
