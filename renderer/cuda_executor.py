"""The `cuda` executor: the wavefront of `cuda/wave.cuh` on an NVIDIA GPU, to the host or left there for a texture."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.camera import Camera
from ..models.infnerf import InfNeRF
from ..models.pynerf import PyNeRF
from .cpu_executor import view_struct
from .cuda_pictures import PicturePool
from .device_picture import INTEGER, preferred_device
from .frame import CHANNELS, FrameBuffers, RenderRequest, RenderStats
from .gpu_buffers import IMAGE_WORDS, DeviceBuffers, DeviceScene
from .gpu_driver import GpuDriver, gpu_problem
from .gpu_errors import GpuMemoryError
from .gpu_frame import WaveFrame

Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class DeviceFrame:
    """An image that was left on the device: addresses of its channels, row after row without gaps, in the layout of
    `FrameBuffers`. It is whole when the device has come to `ready`, and lasts until the executor's next call."""

    width: int
    height: int
    addresses: dict[str, int]  # of `frame.CHANNELS`; color is float4
    stream: int  # cudaStream_t: what is put on it comes after the image
    ready: Any  # cupy.cuda.Event after the image's last kernel
    driver: GpuDriver

    def array(self, name: str) -> Any:
        """A channel as a CuPy array [H, W] or [H, W, C], without a copy; `torch.from_dlpack` takes it."""
        words = IMAGE_WORDS[name]
        shape = (self.height, self.width, *([words] if words > 1 else []))
        kind = np.int32 if name in INTEGER else np.float32
        return self.driver.array(self.addresses[name], shape, kind, self)


class CudaExecutor:
    """Renders an `InfNeRF` or a `PyNeRF` on a CUDA device. Raises `GpuError` (see `gpu_errors`) where that fails, from
    every method.

    After `DeviceLost` only `close` may be called.
    """

    name = "cuda"

    def __init__(self, model: InfNeRF | PyNeRF, device: int | None = None, driver: GpuDriver | None = None) -> None:
        """`device`: CUDA ordinal; None: the one that draws the window, where there is one."""
        self.model = model
        self.driver = driver if driver is not None else GpuDriver(device=device or preferred_device() or 0)
        self._pictures: PicturePool | None = None
        self.frame = WaveFrame(self.driver, DeviceScene(self.driver, model))
        self._staging = np.empty(0, np.uint8)

    @classmethod
    def supports(cls, model: object) -> str | None:
        if not isinstance(model, (InfNeRF, PyNeRF)):
            return f"the cuda executor renders InfNeRF and PyNeRF models, not {type(model).__name__}"
        return gpu_problem(preferred_device() or 0)

    def allocate(self, width: int, height: int) -> FrameBuffers:
        """Buffers that `render` leaves on the device; on the host where the device has no room for them."""
        try:
            self._pictures = self._pictures or PicturePool(self.driver)
            return self._pictures.allocate(width, height)
        except GpuMemoryError:
            return FrameBuffers.allocate(width, height)

    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        """See `Executor.render`. `out` is written when the whole region is done; `cancelled` is polled meanwhile.

        Buffers of `allocate` are written on the device.
        """
        began = time.perf_counter()
        _check_size("render", request.camera, out)
        n_nodes = self.model.octree.n_nodes
        stats = RenderStats(node_samples=np.zeros(n_nodes, np.int64), cancelled=True)
        region = request.bounds
        whole = self.frame.enqueue(view_struct(self.model, request), region, cancelled)
        if not whole:
            return stats
        buffers = self.frame.reserve(0)
        area = (region[2] - region[0]) * (region[3] - region[1])
        if area:
            names = CHANNELS
            if out.device is not None and self._pictures is not None:
                self._pictures.fill(out.device, buffers.image, region)
                names = ()
            channels, counts = self._stage(buffers, names, out, region)
            if not self.driver.wait(self.driver.record(), cancelled):
                return stats
            _unstage(channels, out, region)
            stats.node_samples = counts.astype(np.int64)
        stats.cancelled = False
        stats.rays, stats.samples = area, int(stats.node_samples.sum()) if stats.node_samples is not None else 0
        if stats.node_samples is not None:
            stats.node_samples = self.model.octree.answering(stats.node_samples)
        stats.seconds = time.perf_counter() - began
        stats.stages = {"trace": stats.seconds}
        return stats

    def render_on_device(self, request: RenderRequest) -> DeviceFrame:
        """Renders `request.region` and leaves the channels on the device, without waiting for them.

        Pixels outside the region are as the last image of this size left them.
        """
        camera = request.camera
        self.frame.enqueue(view_struct(self.model, request), request.bounds)
        addresses = self.frame.reserve(camera.width * camera.height).image.address
        ready = self.driver.record()
        return DeviceFrame(
            camera.width, camera.height, {name: int(addresses[name]) for name in CHANNELS},
            int(self.driver.stream.ptr), ready, self.driver,
        )  # fmt: skip

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: Region) -> None:
        """See `Executor.fill_normals`: depth and colour go up, normals come down."""
        _check_size("fill_normals", camera, out)
        if region[0] >= region[2] or region[1] >= region[3]:
            return
        buffers = self.frame.reserve(camera.width * camera.height)
        for name in ("color", "depth"):
            at, pitch, width, rows = _rows(name, region, camera.width)
            host = getattr(out, name).ctypes.data + at
            self.driver.copy_rows(buffers.image.address[name] + at, pitch, host, pitch, width, rows, to_host=False)
        self.frame.normals(view_struct(self.model, RenderRequest(camera)), region)
        channels, _ = self._stage(buffers, ("normal",), out, region)
        self.driver.wait(self.driver.record())
        _unstage(channels, out, region)

    def close(self) -> None:
        """Gives the device's memory back; harmless a second time. A picture that is still shown keeps its own."""
        if self._pictures is not None:
            self._pictures.close()
        self.frame.free()
        self.frame.scene.free()
        self._staging = np.empty(0, np.uint8)

    def _stage(
        self, buffers: DeviceBuffers, names: tuple[str, ...], out: FrameBuffers, region: Region
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Puts copies of a region's channels to pinned memory on the stream: they are there after the next event."""
        x0, y0, x1, y1 = region
        n_nodes = self.model.octree.n_nodes
        sizes = {name: 4 * IMAGE_WORDS[name] * (x1 - x0) * (y1 - y0) for name in names}
        total = sum(sizes.values()) + 4 * n_nodes
        if len(self._staging) < total:
            self.driver.wait(self.driver.record())  # nothing is still being copied to the old one
            self._staging = self.driver.pinned(total)
        channels, offset = {}, 0
        for name, size in sizes.items():
            at, pitch, width, rows = _rows(name, region, out.width)
            part = self._staging[offset : offset + size]
            self.driver.copy_rows(part.ctypes.data, width, buffers.image.address[name] + at, pitch, width, rows, True)
            array = getattr(out, name)
            channels[name] = part.view(array.dtype).reshape(y1 - y0, x1 - x0, *array.shape[2:])
            offset += size
        counts = self._staging[offset : offset + 4 * n_nodes]
        source = buffers.image.address["node_samples"]
        self.driver.copy_rows(counts.ctypes.data, counts.nbytes, source, counts.nbytes, counts.nbytes, 1, True)
        return channels, counts.view(np.int32)


def _rows(name: str, region: Region, width: int) -> tuple[int, int, int, int]:
    """(offset, pitch, bytes a row, rows) of a region in a channel of an image `width` px wide."""
    x0, y0, x1, y1 = region
    n_bytes = 4 * IMAGE_WORDS[name]
    return (y0 * width + x0) * n_bytes, width * n_bytes, (x1 - x0) * n_bytes, y1 - y0


def _unstage(channels: dict[str, np.ndarray], out: FrameBuffers, region: Region) -> None:
    x0, y0, x1, y1 = region
    for name, values in channels.items():
        getattr(out, name)[y0:y1, x0:x1] = values


def _check_size(operation: str, camera: Camera, out: FrameBuffers) -> None:
    if (out.height, out.width) != (camera.height, camera.width):
        raise ValueError(
            f"{operation}: out must be {camera.width}x{camera.height} as the camera, got {out.width}x{out.height}"
        )
