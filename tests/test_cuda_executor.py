"""The cuda executor on a stand-in for CuPy that runs the CPU build of its kernels: everything but the GPU itself."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from fake_cupy import LAUNCH_FAILURE, OUT_OF_MEMORY, UNSUPPORTED_CAPTURE, FakeCupy
from random_models import random_model, view_camera

from infnerf.models.infnerf import InfNeRF
from infnerf.renderer import executors, gpu_frame
from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.cuda_executor import CudaExecutor
from infnerf.renderer.frame import CHANNELS, FrameBuffers, RenderRequest, RenderStats
from infnerf.renderer.gpu_buffers import MAX_ROUNDS, MIN_RAYS, Plan, slices
from infnerf.renderer.gpu_driver import GpuDriver
from infnerf.renderer.gpu_errors import DeviceLost, GpuError, GpuMemoryError
from infnerf.renderer.gpu_frame import RoundCount

POISON = -77
SIZE = 45, 29  # px: tiles of rays hang over both edges


def poisoned(width: int, height: int) -> FrameBuffers:
    out = FrameBuffers.allocate(width, height)
    for channel in out.channels().values():
        channel.fill(POISON)
    return out


def executor_of(model: InfNeRF, cupy: FakeCupy | None = None) -> CudaExecutor:
    return CudaExecutor(model, driver=GpuDriver(cupy or FakeCupy()))


def rendered(executor: Any, **request: Any) -> tuple[FrameBuffers, RenderStats]:
    camera = request.pop("camera", None) or view_camera(*SIZE)
    out = poisoned(camera.width, camera.height)
    return out, executor.render(RenderRequest(camera, **request), out)


def assert_same(a: tuple[FrameBuffers, RenderStats], b: tuple[FrameBuffers, RenderStats]) -> None:
    for name in CHANNELS:
        np.testing.assert_allclose(getattr(a[0], name), getattr(b[0], name), rtol=1e-5, atol=1e-5, err_msg=name)
    assert a[1].node_samples is not None
    assert b[1].node_samples is not None
    np.testing.assert_array_equal(a[1].node_samples, b[1].node_samples)
    written = a[0].samples[a[0].samples != POISON]
    assert a[1].samples == b[1].samples == int(written.sum())


CASES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"density_shift": 2.0}, {}),
    ({"background": True}, {"frame": 3}),
    ({"features_per_level": 4, "n_grid_levels": 4, "hidden_dim": 64}, {"lod_bias": 1.0, "frame": 2}),
    ({"level_table_sizes": (1024, 64, 256), "level_hidden_dims": (32, 16)}, {"region": (9, 3, 40, 22)}),
    ({"sh_degree": 4}, {"early_stop": 0.5}),
    ({"background": True, "appearance_dim": 3}, {"early_stop": 0.0, "max_level": 1}),
)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_wavefront_takes_the_samples_of_one_thread_a_ray(case: int) -> None:
    shape, request = CASES[case]
    model = random_model(case, **shape)
    expected, actual = rendered(CpuExecutor(model, plain=True), **request), rendered(executor_of(model), **request)
    assert_same(actual, expected)
    assert expected[1].samples > 1000
    if shape.get("density_shift"):  # surfaces: rays end early, pixels have normals
        assert (expected[0].color[..., 3] > 0.99).mean() > 0.1
        assert (expected[0].normal != 0).any(-1).mean() > 0.1


def test_a_camera_inside_the_scene_and_one_that_looks_away() -> None:
    model = random_model(0)
    camera = view_camera(*SIZE, distance=2.0)
    away = camera.moved(camera.c2w @ np.diag([-1.0, 1, -1, 1]))
    executor = executor_of(model)
    for view in (camera, away):
        assert_same(rendered(executor, camera=view), rendered(CpuExecutor(model, plain=True), camera=view))


def test_the_order_of_the_blocks_changes_no_bit() -> None:
    model, cupy = random_model(1, background=True), FakeCupy()
    executor = executor_of(model, cupy)
    forward = rendered(executor, frame=1)
    cupy.backwards = True
    backward = rendered(executor, frame=1)
    for name in CHANNELS:
        np.testing.assert_array_equal(getattr(forward[0], name), getattr(backward[0], name))
    np.testing.assert_array_equal(forward[1].node_samples, backward[1].node_samples)


@pytest.mark.parametrize("rounds", [1, 3])
def test_rays_that_outlive_the_rounds_are_finished(rounds: int) -> None:
    model, executor = random_model(1, background=True), executor_of(random_model(1, background=True))
    executor.frame.round_count.rounds = rounds
    assert_same(rendered(executor), rendered(CpuExecutor(model, plain=True)))
    rendered(executor)  # what the first one counted is known now
    assert executor.frame.round_count.rounds == 2 * rounds


def test_small_buffers_give_the_same_picture_in_several_slices() -> None:
    model, cupy = random_model(2), FakeCupy()
    camera = view_camera(72, 64)
    executor = executor_of(model, cupy)
    whole = rendered(executor, camera=camera)
    assert cupy.launched.count("wave_begin") == 1
    executor.frame.free()
    executor.frame._at_most = Plan(MIN_RAYS, MIN_RAYS)
    assert_same(rendered(executor, camera=camera), whole)
    assert cupy.launched.count("wave_begin") == 1 + len(slices((0, 0, 72, 64), MIN_RAYS)) == 3


def test_pixels_outside_the_region_and_other_sizes_are_left_alone() -> None:
    executor = executor_of(random_model(0))
    out, stats = rendered(executor, region=(10, 7, 31, 20))
    assert stats.rays == 21 * 13
    for channel in out.channels().values():
        inside = channel[7:20, 10:31]
        assert not (inside == POISON).all(axis=(0, 1)).any()
        assert (channel == POISON).sum() == channel.size - inside.size
    assert rendered(executor, region=(5, 5, 5, 9))[1].rays == 0
    with pytest.raises(ValueError, match="out must be 45x29 as the camera, got 44x29"):
        executor.render(RenderRequest(view_camera(*SIZE)), FrameBuffers.allocate(44, 29))


def test_buffers_and_graphs_are_made_once_and_reused() -> None:
    cupy = FakeCupy()
    executor = executor_of(random_model(0), cupy)
    first = rendered(executor)
    taken = cupy.calls.count("Memory")
    for size in (SIZE, (20, 30), SIZE):
        again = rendered(executor, camera=view_camera(*size))
    assert_same(again, first)
    assert cupy.calls.count("Memory") == taken
    assert cupy.calls.count("begin_capture") == 1  # of 8 rounds, which is enough here: 16 ran once
    assert cupy.calls.count("graph") == 2
    rendered(executor, camera=view_camera(80, 60))
    assert cupy.calls.count("Memory") == taken + 2  # an image and a wave
    executor.close()
    executor.close()
    gc.collect()
    assert cupy.used == 0


def test_sixty_frames_take_no_more_memory() -> None:
    cupy = FakeCupy()
    executor = executor_of(random_model(0, resolution=32), cupy)
    camera = view_camera(4, 3)
    used = []
    for frame in range(60):
        rendered(executor, camera=camera, frame=frame)
        used.append(cupy.used)
    assert len(set(used)) == 1


@pytest.mark.parametrize("call", ["begin_capture", "end_capture"])
def test_without_graphs_kernels_are_launched_one_by_one(call: str) -> None:
    cupy = FakeCupy(status=UNSUPPORTED_CAPTURE)
    cupy.fail_on = call
    executor = executor_of(random_model(0), cupy)
    first = rendered(executor)
    assert_same(rendered(executor), first)
    assert cupy.calls.count("graph") == 0


def test_cancelling_leaves_the_picture_alone_and_says_so() -> None:
    executor = executor_of(random_model(0))
    out = poisoned(*SIZE)
    stats = executor.render(RenderRequest(view_camera(*SIZE)), out, lambda: True)
    assert stats.cancelled
    assert stats.rays == 0
    assert (out.color == POISON).all()
    assert not rendered(executor)[1].cancelled


def test_a_slow_device_is_not_waited_for_once_cancelled() -> None:
    cupy = FakeCupy()
    executor = executor_of(random_model(0), cupy)
    rendered(executor)
    cupy.cuda.Event.done = False
    polls = iter([False, False, False, True])
    out = poisoned(*SIZE)
    assert executor.render(RenderRequest(view_camera(*SIZE)), out, lambda: next(polls)).cancelled
    assert (out.depth == POISON).all()
    cupy.cuda.Event.done = True
    assert not rendered(executor)[1].cancelled


def test_normals_of_a_picture_made_elsewhere() -> None:
    model = random_model(1, density_shift=2.0)
    picture, _ = rendered(CpuExecutor(model))
    assert picture.normal.any()
    picture.normal.fill(POISON)
    region = (4, 3, 41, 27)
    executor_of(model).fill_normals(view_camera(*SIZE), picture, region)
    CpuExecutor(model, plain=True).fill_normals(view_camera(*SIZE), reference := poisoned_like(picture), region)
    np.testing.assert_allclose(picture.normal, reference.normal, atol=1e-5)
    assert (picture.normal[:3] == POISON).all()


def poisoned_like(picture: FrameBuffers) -> FrameBuffers:
    copy = FrameBuffers(**{name: channel.copy() for name, channel in picture.channels().items()})
    copy.normal.fill(POISON)
    return copy


def test_a_frame_left_on_the_device_is_the_frame() -> None:
    executor = executor_of(random_model(0))
    frame = executor.render_on_device(RenderRequest(view_camera(*SIZE)))
    assert (frame.width, frame.height) == SIZE
    assert executor.driver.wait(frame.ready)
    left = {name: np.array(frame.array(name)) for name in CHANNELS}
    out, _ = rendered(executor)
    for name in CHANNELS:
        np.testing.assert_array_equal(left[name], getattr(out, name))


def two_frames(cupy: FakeCupy) -> list[tuple[FrameBuffers, RenderStats]]:
    """Of a small model in few rounds, so that every call can be made to fail."""
    executor = executor_of(SMALL, cupy)
    executor.frame.round_count.rounds = 2
    camera = view_camera(12, 7)
    frames = [rendered(executor, camera=camera), rendered(executor, camera=camera)]
    executor.close()
    return frames


SMALL = random_model(0, table_size=64, n_grid_levels=2, hidden_dim=16)


def test_whichever_call_runs_out_of_memory_the_picture_is_the_same_or_one_sentence_says_why() -> None:
    unharmed = FakeCupy()
    expected = two_frames(unharmed)
    fakes, refused = [], set()
    for call in range(1, len(unharmed.calls) + 1):
        cupy = FakeCupy(fail_at=call, status=OUT_OF_MEMORY)
        try:
            for frame, wanted in zip(two_frames(cupy), expected, strict=True):
                assert_same(frame, wanted)
        except GpuMemoryError:
            refused.add(cupy.calls[call - 1])
        fakes.append(cupy)
    gc.collect()
    assert [cupy.calls[i] for i, cupy in enumerate(fakes) if cupy.used] == []
    # What cannot be had smaller; kernels and graphs are tried again with smaller buffers.
    assert refused == {"Stream", "Memory", "memcpy", "Event", "record", "memcpy2DAsync"}


def test_whichever_call_finds_the_device_gone_says_that_it_is() -> None:
    unharmed = FakeCupy()
    two_frames(unharmed)
    fakes = []
    for call in range(1, len(unharmed.calls) + 1):
        fakes.append(FakeCupy(fail_at=call, status=LAUNCH_FAILURE, lasting=True))
        with pytest.raises(DeviceLost, match="the GPU stopped answering"):
            two_frames(fakes[-1])
    gc.collect()
    assert [cupy.calls[i] for i, cupy in enumerate(fakes) if cupy.used] == []


def test_a_refusal_that_is_neither_is_told_as_it_is() -> None:
    cupy = FakeCupy(status=1)
    cupy.fail_on = "wave_begin"
    with pytest.raises(GpuError, match=r"the GPU refused wave_begin: cudaError1"):
        rendered(executor_of(random_model(0), cupy))


def test_too_little_memory_shrinks_what_is_in_flight_and_then_says_so() -> None:
    model = random_model(0)
    roomy = FakeCupy()
    executor = executor_of(model, roomy)
    expected = rendered(executor, camera=view_camera(80, 56))
    assert executor.frame.buffers is not None
    wanted = executor.frame.buffers.plan
    scarce = FakeCupy(memory=roomy.used - 1000)
    executor = executor_of(model, scarce)
    assert_same(rendered(executor, camera=view_camera(80, 56)), expected)
    assert executor.frame.buffers is not None
    assert executor.frame.buffers.plan.samples < wanted.samples
    with pytest.raises(GpuMemoryError, match=r"too little memory for an image of 192000000 pixels \(\d+ MiB are"):
        executor.frame.reserve(16000 * 12000)
    with pytest.raises(GpuMemoryError, match=r"the model's \d+ MiB do not fit on the GPU, where \d MiB are free"):
        executor_of(model, FakeCupy(memory=1 << 20))


def test_auto_takes_the_gpu_where_it_works_and_says_why_not_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from infnerf.renderer import cuda_executor

    model = random_model(0)
    monkeypatch.setattr(cuda_executor, "gpu_problem", lambda device: "no NVIDIA driver answers: install it")
    executor, reason = executors.make_executor("auto", model)
    assert executor.name == "cpu"
    assert reason.endswith("; not cuda: no NVIDIA driver answers: install it")
    with pytest.raises(executors.ExecutorUnavailable, match=r"^not cuda: no NVIDIA driver answers: install it$"):
        executors.make_executor("cuda", model)
    monkeypatch.setattr(cuda_executor, "gpu_problem", lambda device: None)
    monkeypatch.setattr(cuda_executor, "GpuDriver", lambda device: GpuDriver(FakeCupy()))
    executor, reason = executors.make_executor("auto", model)
    assert (executor.name, reason) == ("cuda", "cuda: Fake GPU, compute capability 9.0")
    monkeypatch.setattr(cuda_executor, "GpuDriver", lambda device: GpuDriver(FakeCupy(memory=1 << 20)))
    executor, reason = executors.make_executor("auto", model)
    assert executor.name == "cpu"
    assert "not cuda: the model's" in reason


def test_rounds_follow_what_frames_needed() -> None:
    count = RoundCount()
    for used, left, expected in ((16, 9, 32), (30, 0, 32), (8, 0, 16), (1, 0, 8), (1, 0, 8), (8, 1, 16)):
        count.measured(used, left)
        assert count.rounds == expected
    for _ in range(9):
        count.measured(1, 1)
    assert count.rounds == MAX_ROUNDS


def test_slices_cover_a_region_once_and_fit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        x0, y0 = (int(v) for v in rng.integers(0, 50, 2))
        region = (x0, y0, x0 + int(rng.integers(1, 700)), y0 + int(rng.integers(1, 90)))
        rays = int(rng.integers(32, 6000))
        seen = np.zeros((150, 800), int)
        for a, b, c, d in slices(region, rays):
            assert -(-(c - a) // 8) * -(-(d - b) // 4) * 32 <= rays
            seen[b:d, a:c] += 1
        assert seen[region[1] : region[3], region[0] : region[2]].min() == seen.max() == 1
        assert seen.sum() == (region[2] - region[0]) * (region[3] - region[1])


def test_a_plan_shrinks_to_its_floor() -> None:
    plan: Plan | None = Plan.for_pixels(10**9)
    sizes = []
    while plan is not None:
        assert plan.samples >= plan.rays >= MIN_RAYS
        sizes.append(sum(words for _, words in plan.words(100)))
        plan = plan.smaller()
    assert sizes == sorted(sizes, reverse=True)
    assert 4 * sizes[-1] < 1 << 20


def test_launch_shapes_do_not_depend_on_the_picture() -> None:
    frame = executor_of(random_model(0)).frame
    assert frame._grid("wave_scan_nodes") == (1, 1)
    assert frame._grid("wave_march") == (2 * gpu_frame.BLOCKS_PER_PROCESSOR, 1)
