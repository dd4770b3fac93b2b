"""A PyNeRF on a real GPU: whole frames against torch, and its kernels compiled for a pyramid against their twins."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import assert_same_pictures
from random_models import view_camera
from random_pyramids import VARIETIES, random_pyramid

from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.cuda_executor import CudaExecutor
from infnerf.renderer.frame import CHANNELS, FrameBuffers, RenderRequest
from infnerf.renderer.gpu_driver import GpuDriver
from infnerf.renderer.torch_executor import TorchExecutor

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def driver() -> GpuDriver:
    return GpuDriver()


@pytest.mark.parametrize("variety", range(len(VARIETIES)))
def test_a_whole_frame_is_torchs(driver: GpuDriver, variety: int) -> None:
    model = random_pyramid(variety, **VARIETIES[variety])
    request = RenderRequest(view_camera(157, 118, distance=6.0), frame=variety % 3, lod_bias=-1.5)
    executor = CudaExecutor(model, driver=driver)
    assert executor.frame.shader == "shade_tiles"
    pictures, counts = [], []
    for one in (TorchExecutor(model), CpuExecutor(model), executor, executor):  # twice: kernels, then their graph
        out = FrameBuffers.allocate(157, 118)
        for name in CHANNELS:
            getattr(out, name).fill(-77)
        counts.append(one.render(request, out).node_samples)
        pictures.append(out)
    executor.close()
    assert_same_pictures(pictures[0], pictures[2])
    for name in CHANNELS:
        np.testing.assert_array_equal(getattr(pictures[2], name), getattr(pictures[3], name))
    np.testing.assert_allclose(counts[2], counts[1], rtol=1e-2, atol=20)
