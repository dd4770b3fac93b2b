"""Does what CUDA writes into a texture arrive there? Each path tried with a known picture, and read back."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..renderer.device_picture import DevicePicture, PictureBuffers
from ..renderer.frame import CHANNELS, FrameBuffers
from ..renderer.interop import PATHS, DevicePaths, InteropError, Layout
from ..renderer.interop_cuda import CudaGL, checked_cuda, gl_formats
from .texture import SceneTexture

SIZE = (67, 35)  # px: no multiple of a block's, nor of a cache line's


def check_paths() -> dict[str, str]:
    """Path -> why it does not work; empty: it does. Needs a current GL context, and the CUDA device behind it."""
    return {name: check_path(name) for name in PATHS}


def check_path(name: str) -> str:
    """Writes every channel of a picture by one path over another one and compares all bits."""
    runtime = importlib.import_module("cuda.bindings.runtime")
    try:
        driver = CudaGL(runtime)
        with uploaded(runtime, known_picture(), driver.device) as picture:
            return arrives(DevicePaths(driver, names=(name,)), picture)
    except InteropError as error:
        return str(error)


def arrives(paths: DevicePaths, picture: DevicePicture) -> str:
    """Empty, if `picture`, which is `known_picture` on a device, comes into textures by the first of `paths`."""
    wanted = paths.status(picture)
    texture = SceneTexture(paths)
    try:
        texture.show(poison())
        texture.need(CHANNELS)
        texture.show(PictureBuffers(picture))
        texture.need(CHANNELS)
        if texture.path != wanted:
            return texture.path.reason
        for name, channel in known_picture().channels().items():
            found = read_texture(texture.textures[name], channel)
            if wrong := int((found.view(np.int32) != channel.view(np.int32)).sum()):
                return f"{wrong} of {channel.size} values of {name} did not arrive"
        return ""
    finally:
        texture.close()


def known_picture() -> FrameBuffers:
    """Numbers that differ everywhere, every bit of them: halves, denormals and infinities are among them."""
    rng = np.random.default_rng(0)
    picture = FrameBuffers.allocate(*SIZE)
    for channel in picture.channels().values():
        bits = rng.integers(0, 2**31 - 2**24, channel.shape, np.int32)  # no NaN: GL may change one's bits
        channel[:] = bits.view(channel.dtype)
    return picture


def poison() -> FrameBuffers:
    """What a texture that was not written would show."""
    picture = FrameBuffers.allocate(*SIZE)
    for channel in picture.channels().values():
        channel.fill(-77)
    return picture


def read_texture(texture: int, like: NDArray) -> NDArray:
    """A texture's pixels in the shape and type of the channel `like`."""
    from OpenGL import GL

    _, outside, kind = gl_formats(Layout.of(like))
    out = np.empty_like(like)
    GL.glBindTexture(GL.GL_TEXTURE_2D, texture)
    GL.glPixelStorei(GL.GL_PACK_ALIGNMENT, 4)
    GL.glGetTexImage(GL.GL_TEXTURE_2D, 0, outside, kind, out)
    return out


@contextlib.contextmanager
def uploaded(runtime: Any, host: FrameBuffers, device: int) -> Iterator[DevicePicture]:
    """A picture in the device's memory, for as long as the block runs. Raises `InteropError`."""
    addresses: dict[str, int] = {}

    def unreadable(name: str) -> NDArray:
        raise InteropError(f"{name} was fetched over the host")

    try:
        for name, channel in host.channels().items():
            addresses[name] = int(checked_cuda(runtime.cudaMalloc, channel.nbytes))
            kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
            checked_cuda(runtime.cudaMemcpy, addresses[name], channel.ctypes.data, channel.nbytes, kind)
        yield DevicePicture(device, host.width, host.height, addresses, unreadable)
    finally:
        for address in addresses.values():
            with contextlib.suppress(InteropError):
                checked_cuda(runtime.cudaFree, address)
