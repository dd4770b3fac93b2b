"""One frame on the GPU: slices, rounds and launches of the wavefront (`cuda/wave.cuh`), put on a stream without
waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .gpu_buffers import MAX_ROUNDS, N_COUNTERS, RAYS_LEFT, ROUNDS_USED, DeviceBuffers, DeviceScene, Plan, slices
from .gpu_driver import GpuDriver
from .gpu_errors import GpuMemoryError
from .gpu_loader import KERNELS, THREADS
from .kernels import SliceStruct, ViewStruct

FIRST_ROUNDS, MIN_ROUNDS = 16, 8
BLOCKS_PER_PROCESSOR = 8  # of 256 threads: as many as a multiprocessor holds
AHEAD = 2  # slices on the stream at once where a frame takes several, so that it can be cancelled


class RoundCount:
    """How many rounds a frame gets: powers of two, from what the frames before needed. Too few cost time (the rays left
    are finished one by one), too many next to nothing."""

    def __init__(self) -> None:
        self.rounds = FIRST_ROUNDS

    def measured(self, used: int, rays_left: int) -> None:
        if rays_left:
            self.rounds = min(2 * self.rounds, MAX_ROUNDS)
        elif used <= self.rounds // 4:
            self.rounds = max(self.rounds // 2, MIN_ROUNDS)


class WaveFrame:
    """Renders regions of images into `buffers`, on the driver's stream. Not for two threads at once."""

    def __init__(self, driver: GpuDriver, scene: DeviceScene) -> None:
        self.driver, self.scene = driver, scene
        self.shader = scene.shader
        self.round_count = RoundCount()
        self.buffers: DeviceBuffers | None = None
        self._counters = driver.pinned(4 * N_COUNTERS).view(np.int32)
        self._counted: Any = None  # the event after which `_counters` holds the last frame's
        self._warm: set[int] = set()  # numbers of rounds that ran without a graph: their kernels are loaded
        self._at_most: Plan | None = None  # what fitted when memory ran out
        self._graphs: dict[int, Any] = {}  # rounds -> graph; None: can't be captured

    def reserve(self, pixels: int) -> DeviceBuffers:
        """Buffers for images of so many pixels: those there are, or larger ones. Raises `GpuMemoryError`."""
        if self.buffers is None or self.buffers.pixels < pixels:
            self.free()
            self.buffers = DeviceBuffers(self.driver, self.scene, pixels, self._at_most)
        return self.buffers

    def free(self) -> None:
        """Gives buffers back; `reserve` takes new ones."""
        self._graphs.clear()
        if self.buffers is not None:
            self.buffers.free()
        self.buffers = None

    def enqueue(
        self, view: ViewStruct, region: tuple[int, int, int, int], cancelled: Callable[[], bool] = lambda: False
    ) -> bool:
        """Puts the rendering of a region on the stream, normals included. False: cancelled, part is not written.

        Waits only where the region takes more than `AHEAD` slices. Raises `GpuMemoryError` where the smallest buffers
        are too large.
        """
        while True:
            try:
                return self._enqueue(view, region, cancelled)
            except GpuMemoryError:  # a kernel's own memory, or a graph's: less for us leaves more for it
                smaller = self.buffers.plan.smaller() if self.buffers is not None else None
                if smaller is None:
                    raise
                self.free()
                self._at_most = smaller

    def _enqueue(self, view: ViewStruct, region: tuple[int, int, int, int], cancelled: Callable[[], bool]) -> bool:
        buffers = self.reserve(view.width * view.height)
        self._look_back()
        events = []
        for i, part in enumerate(slices(region, buffers.plan.rays)):
            if i >= AHEAD and not self.driver.wait(events[i - AHEAD], cancelled):
                return False
            if cancelled():
                return False
            begin = SliceStruct(view, part, int(i == 0))
            self._launch("wave_begin", self.scene.struct, buffers.struct, begin)
            self._run_slice(buffers)
            events.append(self.driver.record())
        self.normals(view, region)
        counters = buffers.wave.address["counters"]
        self.driver.copy_rows(
            self._counters.ctypes.data, 4 * N_COUNTERS, counters, 4 * N_COUNTERS, 4 * N_COUNTERS, 1, True
        )
        self._counted = self.driver.record()
        return True

    def normals(self, view: ViewStruct, region: tuple[int, int, int, int]) -> None:
        """Puts the normals of a region whose depth and colour are written on the stream."""
        x0, y0, x1, y1 = region
        if x0 < x1 and y0 < y1:
            wide, high = KERNELS["fill_normals"].threads
            grid = (-(-(x1 - x0) // wide), -(-(y1 - y0) // high))
            self.driver.launch("fill_normals", grid, view, self.reserve(view.width * view.height).out, *region)

    def shade(self, buffers: DeviceBuffers) -> None:
        """Puts the shading of all tiles on the stream."""
        self._launch(self.shader, self.scene.struct, buffers.samples, buffers.tiles, buffers.n_tiles)

    def _launch(self, name: str, *arguments: Any) -> None:
        self.driver.launch(name, self._grid(name), *arguments, options=self.scene.options(name))

    def _look_back(self) -> None:
        """Takes in what the last frame counted, if the device has come so far."""
        if self._counted is not None and self.driver.finished(self._counted):
            self._counted = None
            self.round_count.measured(int(self._counters[ROUNDS_USED]), int(self._counters[RAYS_LEFT]))

    def _run_slice(self, buffers: DeviceBuffers) -> None:
        rounds = self.round_count.rounds
        if rounds in self._warm and rounds not in self._graphs:
            self._graphs[rounds] = self.driver.capture(lambda: self._launch_rounds(buffers, rounds))
        graph = self._graphs.get(rounds)
        if graph is not None:
            self.driver.replay(graph)
        else:
            self._launch_rounds(buffers, rounds)
            self._warm.add(rounds)

    def _launch_rounds(self, buffers: DeviceBuffers, rounds: int) -> None:
        def launch(name: str, number: int) -> None:
            self._launch(name, self.scene.struct, buffers.struct, number)

        for name in ("wave_rays", "wave_scan_rays", "wave_compact"):
            launch(name, 0)
        for number in range(1, rounds + 1):
            for name in ("wave_march", "wave_scan_nodes", "wave_scatter"):
                launch(name, number)
            self.shade(buffers)
            for name in ("wave_composite", "wave_scan_rays", "wave_compact"):
                launch(name, number)
        launch("wave_finish", rounds + 1)

    def _grid(self, name: str) -> tuple[int, int]:
        """A launch shape that depends on the device alone: blocks stride over what there is."""
        if "_scan_" in name:
            return (1, 1)
        return (self.driver.multiprocessors * BLOCKS_PER_PROCESSOR * THREADS // KERNELS[name].threads[0], 1)
