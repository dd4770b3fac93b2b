"""The `cpu` executor: the kernels of `cuda/` in SIMD on all cores, tile by tile, cancellable within a tile."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

import numpy as np

from ..models.camera import Camera
from ..models.infnerf import InfNeRF
from ..models.pynerf import PyNeRF
from .frame import FrameBuffers, RenderRequest, RenderStats
from .kernels import (
    BuffersStruct,
    KernelsUnavailable,
    SceneArrays,
    ViewStruct,
    load_kernels,
    n_threads,
    pointer,
    run_parallel,
    thread_pool,
)

BAND = 16  # rows of normals a call
TILE, SMALLEST_TILE = 32, 8  # px; a large tile is some milliseconds of one core


def tile_side(area: int) -> int:
    """Edge of the tiles that a region of `area` px is cut into: small where it is small, so that no core waits long for
    the last one."""
    side = TILE
    while side > SMALLEST_TILE and area < 4 * n_threads() * side * side:
        side //= 2
    return side


def view_struct(model: InfNeRF | PyNeRF, request: RenderRequest) -> ViewStruct:
    """A request as the kernels see it."""
    camera, octree = request.camera, model.octree
    v = ViewStruct()
    v.origin[:] = ((camera.position - octree.corner[0].double().numpy()) / octree.root_size).tolist()
    v.axes[:] = camera.c2w[:3, :3].T.flatten().tolist()
    v.fx, v.fy, v.cx, v.cy = camera.fx, camera.fy, camera.cx, camera.cy
    v.width, v.height, v.frame = camera.width, camera.height, request.frame
    v.min_level, v.max_level = request.min_level, request.max_level
    v.lod_scale, v.step_scale, v.early_stop = 2.0**-request.lod_bias, request.step_scale, request.early_stop
    return v


class CpuExecutor:
    """Renders an `InfNeRF` or a `PyNeRF` with the CPU kernels. `plain`: ray by ray, as CUDA threads do (for tests)."""

    name = "cpu"

    def __init__(self, model: InfNeRF | PyNeRF, plain: bool = False) -> None:
        self.kernels = load_kernels()
        self.model, self.plain = model, plain
        self.scene = SceneArrays(model)

    @classmethod
    def supports(cls, model: object) -> str | None:
        if not isinstance(model, (InfNeRF, PyNeRF)):
            return f"the cpu executor renders InfNeRF and PyNeRF models, not {type(model).__name__}"
        try:
            load_kernels()
        except KernelsUnavailable as error:
            return str(error)
        return None

    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        """See `Executor.render`. Tiles go to the threads as these become free; `cancelled` is polled every 2 ms."""
        began = time.perf_counter()
        x0, y0, x1, y1 = request.bounds
        if (out.height, out.width) != (request.camera.height, request.camera.width):
            raise ValueError(
                f"render: out must be {request.camera.width}x{request.camera.height} as the camera, "
                f"got {out.width}x{out.height}"
            )
        view = view_struct(self.model, request)
        stop = ctypes.c_int(0)
        side = tile_side((x1 - x0) * (y1 - y0))
        tiles = [(x, y, min(x + side, x1), min(y + side, y1)) for y in range(y0, y1, side) for x in range(x0, x1, side)]
        queue, lock = iter(tiles), threading.Lock()
        threads = min(n_threads(), len(tiles))
        counts = np.zeros((max(threads, 1), self.model.octree.n_nodes), np.int32)

        def work(thread: int) -> None:
            buffers = BuffersStruct(*[pointer(a) for a in out.channels().values()], pointer(counts[thread]))
            arguments = self.scene.address, ctypes.addressof(view), ctypes.addressof(buffers)
            while not stop.value:
                with lock:
                    tile = next(queue, None)
                if tile is None:
                    return
                region = (ctypes.c_int * 4)(*tile)
                self.kernels.library.render_region(*arguments, region, int(self.plain), ctypes.addressof(stop))

        if threads == 1:  # a slice of the scheduler: not worth a hand-over
            stop.value = int(cancelled())
            work(0)
        else:
            self._run(work, threads, stop, cancelled)
        if not stop.value:
            self.fill_normals(request.camera, out, request.bounds)
        per_node = counts.sum(0, dtype=np.int64)
        seconds = time.perf_counter() - began
        rays = 0 if stop.value else (x1 - x0) * (y1 - y0)
        answering = self.model.octree.answering(per_node)
        return RenderStats(rays, int(per_node.sum()), seconds, {"trace": seconds}, answering, bool(stop.value))

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
        """See `Executor.fill_normals`."""
        view = view_struct(self.model, RenderRequest(camera))
        buffers = BuffersStruct(*[pointer(a) for a in out.channels().values()], None)
        bounds = (ctypes.c_int * 4)(*region)
        arguments = ctypes.addressof(view), ctypes.addressof(buffers), bounds
        first, last = region[1], region[3]
        if (last - first) * (region[2] - region[0]) <= TILE * TILE:
            self.kernels.library.fill_normals(*arguments, first, last, int(self.plain))
            return
        bands = [(y, min(y + BAND, last)) for y in range(first, last, BAND)]
        run_parallel(self.kernels.library.fill_normals, [(*arguments, *band, int(self.plain)) for band in bands])

    @staticmethod
    def _run(work: Callable[[int], None], threads: int, stop: ctypes.c_int, cancelled: Callable[[], bool]) -> None:
        futures = [thread_pool().submit(work, i) for i in range(threads)]
        for future in futures:
            while not future.done():
                try:
                    future.result(timeout=0.002)
                except TimeoutError:
                    if cancelled():
                        stop.value = 1
            future.result()

    def close(self) -> None:
        """Nothing to give back: arrays go with the object."""
