"""PSNR, SSIM and sums per level against references made by hand."""

from __future__ import annotations

import math
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from infnerf.models.camera import Camera, look_at
from infnerf.training.evaluate import pinhole_truth
from infnerf.training.metrics import SSIM_WINDOW, LevelErrors, compare, open_lpips, ssim, ssim_map


def image(seed: int, height: int = 24, width: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def test_equal_images_are_perfect() -> None:
    scores = compare(image(0), image(0)).scores()
    assert scores.psnr == 120  # the cap of `losses.psnr`, for JSON has no infinity
    assert scores.ssim == pytest.approx(1, abs=1e-12)
    assert scores.lpips is None


def test_psnr_of_known_errors() -> None:
    grey = np.full((24, 20, 3), 0.5, np.float32)
    assert compare(grey, grey + np.float32(0.1)).scores().psnr == pytest.approx(20, abs=1e-4)
    noise = np.random.default_rng(1).normal(0, 0.05, (200, 200, 3)).astype(np.float32)
    flat = np.full((200, 200, 3), 0.5, np.float32)
    assert compare(flat, flat + noise).scores().psnr == pytest.approx(-20 * math.log10(0.05), abs=0.05)


def wang(truth: np.ndarray, render: np.ndarray, y: int, x: int) -> float:
    """SSIM of the window around one pixel, written out from Wang et al. 2004, equations 13 to 16."""
    offset = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    gauss = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    weight = (gauss / gauss.sum())[..., None]
    window = slice(y - 5, y + 6), slice(x - 5, x + 6)
    a, b = truth[window].astype(np.float64), render[window].astype(np.float64)
    mean_a, mean_b = (weight * a).sum((0, 1)), (weight * b).sum((0, 1))
    var_a, var_b = (weight * (a - mean_a) ** 2).sum((0, 1)), (weight * (b - mean_b) ** 2).sum((0, 1))
    covariance = (weight * (a - mean_a) * (b - mean_b)).sum((0, 1))
    c1, c2 = 0.01**2, 0.03**2
    return float(
        (
            (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        ).mean()
    )


def test_ssim_is_the_published_formula() -> None:
    truth = image(2)
    render = np.clip(truth + np.random.default_rng(3).normal(0, 0.2, truth.shape), 0, 1).astype(np.float32)
    values = ssim_map(truth, render)
    assert values is not None
    inside = [(y, x) for y in range(5, 24 - 5) for x in range(5, 20 - 5)]
    for y, x in inside:
        assert values[y, x] == pytest.approx(wang(truth, render, y, x), abs=1e-9)
    assert np.isfinite(values).sum() == len(inside)
    assert ssim(truth, render) == pytest.approx(np.mean([wang(truth, render, y, x) for y, x in inside]), abs=1e-9)


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (1, 1)])
def test_a_small_image_has_no_ssim(size: tuple[int, int]) -> None:
    scores = compare(image(0, *size), image(1, *size)).scores()
    assert scores.ssim is None
    assert 0 < scores.psnr < 20


def test_pixels_that_do_not_count_do_not_count() -> None:
    truth, render = image(0), image(0)
    render[:, :4] = 1 - render[:, :4]
    valid = np.ones((24, 20), bool)
    assert compare(truth, render, valid).scores().psnr < 20
    valid[:, :4] = False
    assert compare(truth, render, valid).scores().psnr == 120
    with pytest.raises(ValueError, match="no pixel"):
        compare(truth, render, np.zeros((24, 20), bool)).scores()


def test_unequal_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[24, 20, 3\], \[20, 24, 3\]"):
        compare(image(0), image(0, 20, 24))


def test_levels_gather_their_own_pixels() -> None:
    truth = np.full((2, 3, 3), 0.5, np.float32)
    errors = np.array([[0.1, 0.1, 0.2], [0.01, 0.4, 0.4]], np.float32)
    level = np.array([[0.0, 0.4, 2.4], [1.6, 3.0, 0.0]], np.float32)  # rounds to 0 0 2 / 2 3, and one shows nothing
    alpha = np.array([[1, 1, 1], [1, 1, 0]], np.float32)
    pair = compare(truth, truth + errors[..., None])
    sums = LevelErrors()
    sums.add(pair, level, alpha)
    rows = sums.rows()
    assert list(rows) == ["0", "2", "3", "none"]
    assert [rows[key]["pixels"] for key in rows] == [2, 2, 1, 1]
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert rows["0"]["psnr"] == pytest.approx(20, abs=1e-4)
    assert rows["2"]["psnr"] == pytest.approx(-10 * math.log10((0.2**2 + 0.01**2) / 2), abs=1e-3)
    assert all(row["ssim"] is None for row in rows.values())  # the image is too small for a window
    sums.add(pair, np.full_like(level, 5), alpha)  # deeper than before
    assert [sums.rows()[key]["pixels"] for key in ("0", "2", "3", "5", "none")] == [2, 2, 1, 5, 2]


def test_levels_have_the_ssim_of_their_windows() -> None:
    truth, render = image(4), image(5)
    values = ssim_map(truth, render)
    assert values is not None
    level = np.zeros((24, 20), np.float32)
    level[12:] = 1
    sums = LevelErrors()
    sums.add(compare(truth, render), level, np.ones((24, 20), np.float32))
    assert sums.rows()["0"]["ssim"] == pytest.approx(np.nanmean(values[:12]))
    assert sums.rows()["1"]["ssim"] == pytest.approx(np.nanmean(values[12:]))


def test_lpips_says_what_it_lacks_and_asks_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    lpips, why = open_lpips()
    assert lpips is None
    assert why is not None
    assert why.startswith("LPIPS needs ")
    assert list(tmp_path.iterdir()) == []


def test_a_torchvision_that_does_not_import_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    lpips, why = open_lpips()
    assert lpips is None
    assert why is not None
    assert "torchvision does not import" in why
    assert "nms does not exist" in why


def scene(directions: np.ndarray) -> np.ndarray:
    """Something smooth to see in every direction [n, 3], as RGBA [n, 4]."""
    x, y, z = directions.T
    return np.stack([0.5 + 0.4 * np.sin(3 * x), 0.5 + 0.4 * np.cos(2 * y + x), 0.3 + 0.2 * z, np.ones_like(x)], -1)


@pytest.mark.parametrize("distortion", [(-0.2, 0.03, 0.001, -0.002), (0.15, 0.0, 0.0, 0.0)])
def test_a_distorted_image_is_measured_as_a_pinhole_would_see_it(distortion: tuple[float, ...]) -> None:
    pose = look_at(np.array([1.0, 2.0, 3.0]), np.zeros(3), np.array([0.0, 0, 1]))
    camera = Camera(pose, 70, 72, 41, 29, 80, 60, distortion)
    y, x = (grid.ravel() + 0.5 for grid in np.indices((60, 80)))
    taken, wanted = (scene(c.pixel_rays(x, y)[1]).reshape(60, 80, 4) for c in (camera, camera.pinhole()))
    straight, valid = pinhole_truth(taken.astype(np.float32), camera)
    assert 0.8 < valid.mean() <= 1
    assert valid.all() == (distortion[0] < 0)  # a barrel's image reaches further than the pinhole's, a cushion's less
    assert np.abs(straight - wanted)[valid].max() < 2e-3
    assert np.abs(taken - wanted)[valid].max() > 1e-2  # there was something to undo
    counts = np.ones((60, 80), bool)
    counts[20:30, 20:40] = False
    _, masked = pinhole_truth(taken.astype(np.float32), camera, counts)
    assert 200 * 0.8 < (valid & ~masked).sum() < (10 + 2) * (20 + 2) * 1.2
    same, everything = pinhole_truth(wanted.astype(np.float32), camera.pinhole())
    assert everything.all()
    np.testing.assert_array_equal(same, wanted.astype(np.float32))
