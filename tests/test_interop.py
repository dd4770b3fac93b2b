"""Interop's paths with a driver that fails at each call in turn: the picture arrives, and nothing leaks."""

from __future__ import annotations

from typing import Any

import pytest
from fake_interop import FakeDriver, make_picture

from infnerf.renderer.device_picture import DevicePicture, PictureBuffers
from infnerf.renderer.frame import CHANNELS, FrameBuffers
from infnerf.renderer.interop import HOST, PIXEL_BUFFER, SURFACE, DevicePaths, InteropError, PathStatus, Resource

#: Calls of each path in one write, in order; `finished` and `destroy_surface` come with the next one.
SURFACE_CALLS = (
    "register_texture", "map", "wait_for", "array", "create_surface", "write_surface", "record", "unmap",
    "finished", "destroy_surface",
)  # fmt: skip
BUFFER_CALLS = (
    "create_buffer", "register_buffer", "map", "wait_for", "pointer", "copy", "record", "unmap", "fill_texture",
    "finished",
)  # fmt: skip
CLEANUP = ("unregister", "synchronize", "destroy_surface", "delete_buffer", "close")


def show(driver: FakeDriver, paths: DevicePaths, seed: int) -> None:
    """What the viewer does with a picture, and what must then be in the textures."""
    picture, host = make_picture(driver, seed)
    for texture, name in enumerate(("color", "normal", "node")):
        if not paths.write(texture, name, picture):
            driver.textures[texture] = getattr(host, name).tobytes()
        assert driver.textures[texture] == getattr(host, name).tobytes()
        assert driver.mapped == set()


def test_a_texture_is_registered_once_a_size_and_mapped_for_each_picture() -> None:
    driver = FakeDriver()
    paths = DevicePaths(driver)
    assert paths.device == 0
    for seed in range(3):
        show(driver, paths, seed)
    assert driver.calls.count("register_texture") == 3
    assert driver.calls.count("map") == driver.calls.count("unmap") == 9
    assert len(driver.surfaces) == len(driver.events) == 1  # of the last write: the others were seen to be done
    assert paths.status(make_picture(driver)[0]).name == SURFACE
    paths.forget(0)
    assert len(driver.resources) == 2
    show(driver, paths, 4)
    assert driver.calls.count("register_texture") == 4
    paths.close()
    driver.assert_nothing_is_held()
    assert not paths.possible


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("call", SURFACE_CALLS)
def test_whatever_fails_on_the_surface_the_picture_comes_by_the_next_path(call: str, after: int) -> None:
    driver = FakeDriver()
    driver.failing = {call: after}
    paths = DevicePaths(driver)
    for seed in range(3):
        show(driver, paths, seed)
    status = paths.status(make_picture(driver)[0])
    shared = call in BUFFER_CALLS  # then the next path meets the same failure
    failed = driver.calls.count(call) > after
    assert status.name == ((HOST if shared else PIXEL_BUFFER) if failed else SURFACE)
    assert (f"not surface: {call}: out of luck" in status.reason) == failed
    paths.close()
    driver.assert_nothing_is_held()


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("call", BUFFER_CALLS)
def test_whatever_fails_on_the_pixel_buffer_the_host_takes_over(call: str, after: int) -> None:
    driver = FakeDriver()
    driver.failing = {call: after}
    paths = DevicePaths(driver, names=(PIXEL_BUFFER,))
    for seed in range(3):
        show(driver, paths, seed)
    failed = driver.calls.count(call) > after
    assert paths.possible == (not failed)
    status = paths.status(make_picture(driver)[0])
    assert (status.name, status.reason.startswith("not pixel buffer")) == (
        (HOST, True) if failed else (PIXEL_BUFFER, False)
    )
    paths.close()
    driver.assert_nothing_is_held()


@pytest.mark.parametrize("call", CLEANUP)
def test_what_fails_while_giving_back_hides_nothing_and_leaks_nothing(call: str) -> None:
    driver = FakeDriver()
    driver.failing = {call: 0, "write_surface": 2}
    paths = DevicePaths(driver)
    for seed in range(2):
        show(driver, paths, seed)
    assert "not surface" in paths.status(make_picture(driver)[0]).reason
    paths.close()
    driver.assert_nothing_is_held()


def test_a_picture_and_its_surface_are_kept_while_the_device_copies() -> None:
    driver = FakeDriver()
    driver.busy = True
    paths = DevicePaths(driver)
    for seed in range(3):
        show(driver, paths, seed)
    assert len(driver.surfaces) == 9
    assert "synchronize" not in driver.calls  # the window's thread does not wait for them
    driver.busy = False
    driver.in_use.clear()
    show(driver, paths, 5)
    assert len(driver.surfaces) == 1
    paths.close()
    driver.assert_nothing_is_held()


def test_other_devices_pictures_go_over_the_host_and_the_path_stays() -> None:
    driver = FakeDriver(devices=(1,))
    paths = DevicePaths(driver)
    picture, _ = make_picture(driver, device=0)
    assert not paths.write(0, "color", picture)
    assert paths.status(picture) == PathStatus(HOST, "it is on CUDA device 0, the window is drawn by 1")
    assert paths.device == 1
    here, _ = make_picture(driver, device=1)
    assert paths.write(0, "color", here)


@pytest.mark.parametrize("devices", [(), None])
def test_without_a_device_behind_gl_there_is_the_host_copy(devices: tuple[int, ...] | None) -> None:
    driver = FakeDriver(devices or ())
    if devices is None:
        driver.failing = {"gl_devices": 0}
    paths = DevicePaths(driver)
    picture, _ = make_picture(driver)
    assert not paths.write(0, "color", picture)
    reason = "gl_devices: out of luck" if devices is None else "no CUDA device is behind the window's OpenGL"
    assert (paths.status(picture).name, paths.status(picture).reason, paths.device) == (HOST, reason, None)
    paths.close()
    assert driver.calls[-1] == "close"


def test_without_a_driver_the_reason_is_kept() -> None:
    paths = DevicePaths(None, "cuda-bindings is not installed")
    picture, _ = make_picture(FakeDriver())
    assert not paths.write(0, "color", picture)
    assert paths.status(picture) == PathStatus(HOST, "cuda-bindings is not installed")
    assert paths.status(None) == PathStatus(HOST, "made in host memory")
    paths.close()


def test_a_resource_goes_through_its_states() -> None:
    driver = FakeDriver()
    resource = Resource(driver, lambda: driver.register_texture(3))
    seen = [resource.state]

    def fault() -> None:
        with resource.mapped():
            seen.append(resource.state)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):  # a fault of the block's own unmaps, too
        fault()
    seen.append(resource.state)
    driver.failing = {"unmap": 0}
    with pytest.raises(InteropError), resource.mapped():
        pass
    seen.append(resource.state)
    resource.release()
    resource.release()
    assert [*seen, resource.state] == ["unregistered", "mapped", "registered", "failed", "unregistered"]
    assert driver.resources == {}


def test_a_device_picture_reads_as_buffers_once_a_channel_and_empty_when_the_device_is_lost() -> None:
    fetched: list[str] = []
    source = FrameBuffers.allocate(5, 3)
    source.depth[:] = 2

    def fetch(name: str) -> Any:
        fetched.append(name)
        if name == "node":
            raise RuntimeError("the device fell out")
        return getattr(source, name)

    buffers = PictureBuffers(DevicePicture(0, 5, 3, {}, fetch))
    assert (buffers.width, buffers.height, fetched) == (5, 3, [])
    assert buffers.depth.max() == buffers.depth.min() == 2
    assert fetched == ["depth"]
    assert (buffers.node == -1).all()
    assert buffers.node.shape == (3, 5)
    assert fetched == ["depth", "node"]
    assert set(buffers.channels()) == set(CHANNELS)
    assert FrameBuffers.allocate(2, 2).device is None
    with pytest.raises(AttributeError):
        _ = buffers.nothing
