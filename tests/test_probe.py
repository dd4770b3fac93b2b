"""The pixel inspector's ray is the one that the torch executor renders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from random_models import random_model, view_camera
from random_pyramids import random_pyramid

from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.probe import Prober
from infnerf.renderer.torch_executor import TorchExecutor


@pytest.mark.parametrize(
    "request_of",
    [
        {},
        {"frame": 3},
        {"lod_bias": -1.5, "max_level": 2},
        {"min_level": 1, "step_scale": 2.0, "early_stop": 0.02},
    ],
    ids=["plain", "jittered", "coarse", "stopped early"],
)
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("pyramid", [False, True])
def test_the_ray_is_the_torch_executors(request_of: dict, background: bool, pyramid: bool) -> None:
    model = (random_pyramid if pyramid else random_model)(5, background=background)
    request = RenderRequest(view_camera(24, 16, distance=6.0 if pyramid else 9.0), **request_of)
    out = FrameBuffers.allocate(24, 16)
    TorchExecutor(model).render(request, out)
    seen, prober = 0, Prober(model)
    for column, row in [(3, 2), (12, 8), (20, 13), (0, 15), (23, 0), (11, 9)]:
        ray = prober.probe(request, column, row)
        used = ray.samples.trans > 0
        at = row, column
        np.testing.assert_allclose(ray.color, out.color[at], atol=1e-5)
        assert ray.depth == pytest.approx(float(out.depth[at]), abs=1e-4)
        assert used.sum() == out.samples[at]
        assert (ray.samples.node[ray.heaviest] if ray.heaviest is not None else -1) == out.node[at]
        alpha = ray.color[3]
        if alpha > 1e-3:
            seen += 1
            share, s = ray.samples.weight / alpha, ray.samples
            assert share @ s.level == pytest.approx(float(out.level[at]), abs=1e-4)
            assert share @ (s.wanted > s.level) == pytest.approx(float(out.clamped[at]), abs=1e-4)
            assert share @ np.log2(s.footprint / s.gsd) == pytest.approx(float(out.gsd_ratio[at]), abs=1e-3)
    assert seen >= 3


def test_what_is_told_of_a_ray_agrees_with_itself(tmp_path: Path) -> None:
    model = random_model(5)
    ray = Prober(model).probe(RenderRequest(view_camera(24, 16)), 12, 8)
    samples = ray.samples
    assert (np.diff(samples.t) > 0).all()
    np.testing.assert_allclose(samples.weight, samples.trans * samples.alpha, rtol=1e-5)
    np.testing.assert_allclose(samples.level, model.octree.level.numpy()[samples.node])
    assert ray.position is not None
    np.testing.assert_allclose(np.linalg.norm(ray.position - ray.origin), ray.depth)
    nodes = ray.nodes()
    assert [node for node, *_ in nodes] == list(dict.fromkeys(samples.node.tolist()))
    assert sum(count for _, _, count, _ in nodes) == len(samples)
    assert sum(weight for *_, weight in nodes) == pytest.approx(float(ray.color[3]), abs=1e-5)
    ray.save_json(tmp_path / "ray.json")
    stored = json.loads((tmp_path / "ray.json").read_text())
    assert stored["pixel"] == [12, 8]
    assert stored["unit"] == model.scene["unit"]
    np.testing.assert_allclose(stored["samples"]["rgb"], samples.rgb)
    np.testing.assert_allclose(stored["camera"]["c2w"], ray.camera.c2w)
    assert len(stored["nodes"]) == len(nodes)


def test_a_ray_into_nothing_and_a_pixel_outside() -> None:
    model = random_model(5)
    away = view_camera(24, 16)
    turned = away.c2w.copy()
    turned[:3, :3] = turned[:3, :3] @ np.diag([1.0, -1, -1])
    ray = Prober(model).probe(RenderRequest(away.moved(turned)), 5, 5)
    assert (len(ray.samples), ray.depth, ray.position, ray.heaviest, ray.nodes()) == (0, 0.0, None, None, [])
    assert ray.to_dict()["position"] is None
    with pytest.raises(ValueError, match=r"must lie in the image of 24x16, got \(24, 0\)"):
        Prober(model).probe(RenderRequest(away), 24, 0)
    with pytest.raises(ValueError, match="this model is a list"):
        Prober([])
