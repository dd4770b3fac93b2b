"""Pictures that the cuda executor leaves on the device, on the stand-in for CuPy."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from fake_cupy import LAUNCH_FAILURE, FakeCupy
from random_models import random_model, view_camera
from test_cuda_executor import POISON, SIZE, SMALL, executor_of, rendered

from infnerf.renderer.device_picture import PictureBuffers
from infnerf.renderer.frame import CHANNELS, DeviceLost, FrameBuffers, RenderRequest


def test_a_picture_left_on_the_device_is_the_one_on_the_host_and_stays_as_it_is() -> None:
    executor = executor_of(random_model(0, density_shift=2.0))
    expected, stats = rendered(executor)
    kept = executor.allocate(*SIZE)
    assert isinstance(kept, PictureBuffers)
    left = executor.render(RenderRequest(view_camera(*SIZE)), kept)
    other = executor.allocate(*SIZE)
    executor.render(RenderRequest(view_camera(*SIZE), max_level=0), other)  # the executor's own buffers are used again
    for name in CHANNELS:
        np.testing.assert_array_equal(getattr(kept, name), getattr(expected, name), err_msg=name)
    assert not np.array_equal(other.level, kept.level)
    assert (left.samples, left.rays) == (stats.samples, stats.rays)
    executor.close()


def test_only_the_region_is_written() -> None:
    executor = executor_of(SMALL)
    out = executor.allocate(*SIZE)
    assert isinstance(out, PictureBuffers)
    whole = executor.allocate(*SIZE)
    executor.render(RenderRequest(view_camera(*SIZE)), whole)
    executor.render(RenderRequest(view_camera(*SIZE), region=(5, 3, 40, 20)), out)
    np.testing.assert_array_equal(out.depth[3:20, 5:40], whole.depth[3:20, 5:40])
    poison = np.full(4, 0xCD, np.uint8).view(np.float32)[0]  # the stand-in's memory comes like this
    assert (out.depth[:3] == poison).all()
    assert (out.depth[20:] == poison).all()
    assert POISON not in out.depth
    executor.close()


def test_the_memory_of_a_picture_that_was_let_go_is_used_again() -> None:
    cupy = FakeCupy()
    executor = executor_of(SMALL, cupy)
    executor.render(RenderRequest(view_camera(*SIZE)), executor.allocate(*SIZE))
    gc.collect()
    used = cupy.used
    shown = None
    for _ in range(20):
        shown = executor.allocate(*SIZE)  # the one shown before goes
        executor.render(RenderRequest(view_camera(*SIZE)), shown)
    picture = sum(channel.nbytes for channel in FrameBuffers.allocate(*SIZE).channels().values())
    assert cupy.used <= used + 2 * picture + 16 * 256
    executor.allocate(8, 8)
    executor.close()
    assert cupy.used > 0  # the picture shown keeps its memory
    assert shown is not None
    assert shown.depth.shape == SIZE[::-1]
    del shown, executor
    gc.collect()
    assert cupy.used == 0


def test_without_room_the_picture_is_on_the_host_and_a_lost_device_is_the_viewers_error() -> None:
    cupy = FakeCupy()
    executor = executor_of(SMALL, cupy)
    rendered(executor)
    cupy.memory = cupy.used
    out = executor.allocate(*SIZE)
    assert out.device is None
    executor.render(RenderRequest(view_camera(*SIZE)), out)
    cupy.status, cupy.fail_on = LAUNCH_FAILURE, "record"
    with pytest.raises(DeviceLost):
        executor.render(RenderRequest(view_camera(*SIZE)), out)
    executor.close()
