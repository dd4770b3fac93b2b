"""Interop on real hardware: what CUDA writes by each path is in the texture, bit for bit, as the host path brings it.

In an OpenGL context of its own, on an EGL device: no display is needed. The check itself is tested without a GPU, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from fake_interop import GLFakeDriver

from infnerf.renderer.device_picture import DevicePicture, PictureBuffers
from infnerf.renderer.frame import CHANNELS, FrameBuffers
from infnerf.renderer.interop import PATHS, DevicePaths, Layout
from infnerf.viewer.path_check import arrives, check_path, known_picture, read_texture, uploaded
from infnerf.viewer.texture import SceneTexture
from infnerf.viewer.windowless import windowless_context

pytestmark = pytest.mark.needs("gl")


@pytest.fixture
def context() -> Iterator[str]:
    with windowless_context() as where:
        yield where


def fake_picture(driver: GLFakeDriver) -> DevicePicture:
    host = known_picture()
    addresses = {name: 1 + number for number, name in enumerate(CHANNELS)}
    driver.memory = {addresses[name]: channel.tobytes() for name, channel in host.channels().items()}
    return DevicePicture(0, host.width, host.height, addresses, lambda name: getattr(host, name))


def test_the_host_path_brings_every_bit(context: str) -> None:
    texture = SceneTexture()
    texture.show(known_picture())
    texture.need(CHANNELS)
    for name, channel in known_picture().channels().items():
        found = read_texture(texture.textures[name], channel)
        np.testing.assert_array_equal(found.view(np.int32), channel.view(np.int32), err_msg=name)
    texture.close()


@pytest.mark.parametrize("path", PATHS)
def test_the_check_sees_what_does_not_arrive(context: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = GLFakeDriver()
    assert arrives(DevicePaths(driver, names=(path,)), fake_picture(driver)) == ""
    driver = GLFakeDriver()
    picture = fake_picture(driver)
    wrong = np.frombuffer(driver.memory[picture.addresses["depth"]], np.int32).copy()
    wrong[7] ^= 1
    driver.memory[picture.addresses["depth"]] = wrong.tobytes()
    problem = arrives(DevicePaths(driver, names=(path,)), picture)
    assert problem == f"1 of {wrong.size} values of depth did not arrive"
    driver = GLFakeDriver()
    monkeypatch.setattr(
        driver, "_put", lambda texture, layout: None
    )  # says nothing, writes nothing: the poison is left
    assert "values of color did not arrive" in arrives(DevicePaths(driver, names=(path,)), fake_picture(driver))
    driver = GLFakeDriver()
    driver.failing = {"map": 3}
    assert arrives(DevicePaths(driver, names=(path,)), fake_picture(driver)) == f"not {path}: map: out of luck"
    driver.assert_nothing_is_held()


@pytest.mark.gpu
@pytest.mark.parametrize("path", PATHS)
def test_the_gpu_writes_every_bit_of_every_channel(context: str, path: str) -> None:
    assert check_path(path) == ""


@pytest.mark.gpu
def test_the_gpu_shows_a_hundred_pictures_of_two_sizes_and_leaks_nothing(context: str) -> None:
    """Sizes alternate, so textures are registered anew; memory of the device is what it was."""
    from cuda.bindings import runtime

    from infnerf.renderer.interop_cuda import CudaGL, checked_cuda

    driver = CudaGL(runtime)
    texture = SceneTexture(DevicePaths(driver))
    large, free = known_picture(), []
    small = type(large)(**{name: channel[:20, :30].copy() for name, channel in large.channels().items()})
    with uploaded(runtime, large, driver.device) as first, uploaded(runtime, small, driver.device) as second:
        for number in range(100):
            picture, host = ((first, large), (second, small))[number % 2]
            texture.show(PictureBuffers(picture))
            texture.need(CHANNELS)
            assert texture.path.name == "surface", texture.path.reason
            found = read_texture(texture.textures["color"], host.color)
            np.testing.assert_array_equal(found.view(np.int32), host.color.view(np.int32))
            if number in (9, 99):
                free.append(checked_cuda(runtime.cudaMemGetInfo)[0])
        assert free[0] - free[1] < 16 << 20
        assert Layout.of_channel("color", first).n_bytes == large.color.nbytes
    texture.close()


def flipped(host: FrameBuffers) -> FrameBuffers:
    return type(host)(**{name: np.ascontiguousarray(channel[::-1]) for name, channel in host.channels().items()})


@pytest.mark.gpu
def test_two_pictures_of_a_comparison_have_paths_of_their_own(context: str) -> None:
    """As the panes of a comparison: in turn, in one context; what one gives back the other still has."""
    from cuda.bindings import runtime

    from infnerf.renderer.interop_cuda import open_paths

    paths = [open_paths(), open_paths()]
    textures = [SceneTexture(path) for path in paths]
    hosts = [known_picture(), flipped(known_picture())]
    device = paths[0].device
    assert device is not None
    with uploaded(runtime, hosts[0], device) as first, uploaded(runtime, hosts[1], device) as second:
        for number in range(6):
            side = number % 2
            textures[side].show(PictureBuffers((first, second)[side]))
            textures[side].need(CHANNELS)
            for shown, host in list(zip(textures, hosts, strict=True))[: number + 1]:
                found = read_texture(shown.textures["color"], host.color)
                np.testing.assert_array_equal(found.view(np.int32), host.color.view(np.int32))
        textures[0].close()
        textures[1].show(PictureBuffers(second))
        textures[1].need(CHANNELS)
        assert textures[1].path.name == "surface", textures[1].path.reason
    textures[1].close()
