"""Masks, weights and lenses in what training draws: no pixel that counts for nothing, every other one; each ray's own
weight; rays through lenses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_scenes import SIZE, check_colours, make_data, write_mask

from infnerf.data.dataset import DatasetError
from infnerf.data.masks import WORD, n_words, pack, select
from infnerf.data.pyramid import ImagePyramid

# --- masks and weights -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([0.01, 0.5, 0.99]))
def test_the_kth_pixel_of_a_mask(seed: int, n: int, share: float) -> None:
    mask = np.random.default_rng(seed).random(n) < share
    words = n_words(n) + 2  # an image lies somewhere in a longer array
    bits, before = np.zeros(words, np.int64), np.zeros(words, np.int32)
    count = pack(mask, n, bits[1:-1], before[1:-1])
    expected = np.flatnonzero(mask)
    assert count == len(expected)
    first, length = torch.full((count,), 1), torch.full((count,), (n + WORD - 1) // WORD)
    found = select(torch.arange(count), first, length, torch.from_numpy(bits), torch.from_numpy(before))
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("budget", [None, 160_000])
def test_masked_pixels_are_never_drawn(tmp_path: Path, budget: int | None) -> None:
    """Image 0 has no mask, 1 counts in its left half but for a hole, 2 not at all, 3 in a checkerboard only."""
    n, (width, height) = 4, (48, 32)
    left = np.zeros((height, width), bool)
    left[:, :24] = True
    left[5, 7] = False
    board = np.indices((height, width)).sum(0) % 2 == 0
    kinds = [None, left, np.zeros_like(left), board]
    masks = [None if m is None else write_mask(tmp_path / f"m{i}.png", m) for i, m in enumerate(kinds)]
    data = make_data(tmp_path, n, (width, height), masks=masks, weights=[1.0, 0.5, 2.0, 0.25])
    pyramid = ImagePyramid.load(data, (1, 2, 4), budget_bytes=budget, rays_per_swap=700)
    assert pyramid.store.plan.rotates == (budget is not None)
    generator = torch.Generator().manual_seed(0)
    seen: dict[tuple[int, int], set[int]] = {}
    for _ in range(22):
        batch = pyramid.draw_mixed(3000, generator, fractions=(0.8, 0.1, 0.1))
        check_colours(batch)
        assert torch.equal(batch.weight, torch.tensor([1.0, 0.5, 2.0, 0.25])[batch.image])
        for s in range(3):
            for i in range(n):
                chosen = (batch.scale == s) & (batch.image == i)
                camera = pyramid.cameras[s][i]
                local = batch.rays_d[chosen].numpy().astype(np.float64) + camera.position
                x, y = np.floor(camera.project(local)[0]).astype(int).T
                seen.setdefault((s, i), set()).update((y * camera.width + x).tolist())
    whole = np.ones((height, width), bool)
    for i, mask in enumerate([whole if m is None else m for m in kinds]):
        for s, scale in enumerate((1, 2, 4)):
            blocks = mask.reshape(height // scale, scale, width // scale, scale).all((1, 3))
            assert seen[s, i] == set(np.flatnonzero(blocks).tolist())
    pyramid.close()


def test_masks_that_leave_a_scale_nothing_give_its_share_to_a_finer_one(tmp_path: Path) -> None:
    board = np.indices((16, 16)).sum(0) % 2 == 0
    data = make_data(tmp_path, 1, (16, 16), masks=[write_mask(tmp_path / "mask.png", board)])
    batch = ImagePyramid.load(data, (1, 2)).draw_mixed(100)
    assert len(batch.cones) == 100
    assert (batch.scale == 0).all()


def test_wrong_masks_and_weights(tmp_path: Path) -> None:
    data = make_data(tmp_path, 2)
    full, small = np.ones(SIZE[::-1], bool), np.ones((4, 4), bool)
    (tmp_path / "text.png").write_text("no image")
    wrong = [
        (write_mask(tmp_path / "small.png", small), "small.png: expected an image of 64x48 as its camera, found 4x4"),
        (tmp_path / "text.png", "text.png: expected a mask image that opens"),
        (tmp_path / "absent.png", "absent.png: expected a mask image that opens"),
    ]
    for mask, message in wrong:
        data.masks = [mask, None]
        with pytest.raises(DatasetError, match=message):
            ImagePyramid.load(data)
    data.masks = [write_mask(tmp_path / f"none{i}.png", ~full) for i in range(2)]
    with pytest.raises(DatasetError, match="expected masks that leave some pixel, found all of them masked"):
        ImagePyramid.load(data)
    data.masks, data.weights = [None, None], [1.0, float("nan")]
    with pytest.raises(DatasetError, match=r"001.png: expected a weight of at least 0, found nan"):
        ImagePyramid.load(data)


# --- lenses ----------------------------------------------------------------------------------------------------------


def test_rays_through_lenses_equal_the_cameras_own(tmp_path: Path) -> None:
    data = make_data(tmp_path, 4)
    lenses: list[dict[str, Any]] = [
        {},
        {"distortion": (-0.1, 0.02, 0.003, -0.002)},
        {"lens": "fisheye", "distortion": (0.05, -0.01, 0.002, 0)},
        {"distortion": (0.3, 0.1, 0.001, 0.001, 0.01, 0.2, 0.05, 0.01)},
    ]
    data.cameras = [replace(camera, **lens) for camera, lens in zip(data.cameras, lenses, strict=True)]
    pyramid = ImagePyramid.load(data)
    assert not pyramid.store.masked
    for s in range(4):
        image = torch.arange(4).repeat_interleave(40)
        pixel = torch.randint(pyramid.cameras[s][0].width * pyramid.cameras[s][0].height, (160,))
        rays_o, rays_d, cones, _ = pyramid.rays_at(s, image, pixel)
        assert {t.dtype for t in (rays_o, rays_d, cones)} == {torch.float32}
        for i, camera in enumerate(pyramid.cameras[s]):
            part = slice(i * 40, i * 40 + 40)
            y, x = np.divmod(pixel[part].numpy(), camera.width)
            want_o, want_d, want_cones = camera.pixel_rays(x + 0.5, y + 0.5)
            np.testing.assert_allclose(rays_o[part], want_o, rtol=1e-6)
            np.testing.assert_allclose(rays_d[part], want_d, atol=1e-6)
            np.testing.assert_allclose(cones[part], want_cones, rtol=1e-5)


def test_what_a_lens_does_not_show_is_not_drawn(tmp_path: Path) -> None:
    """A lens that folds at r = 1, in an image that reaches further: the corners are no image of anything."""
    data = make_data(tmp_path, 2)
    data.cameras[1] = replace(data.cameras[1], distortion=(-1 / 3, 0.0, 0.0, 0.0))
    pyramid = ImagePyramid.load(data, (1, 2))
    camera = pyramid.cameras[0][1]
    y, x = np.divmod(np.arange(SIZE[0] * SIZE[1]), SIZE[0])
    shown = camera.pixel_valid(x + 0.5, y + 0.5)
    assert 0.5 < shown.mean() < 0.99
    batch = pyramid.draw(0, 60_000, torch.Generator().manual_seed(0))
    second = batch.image == 1
    directions = batch.rays_d[second].numpy() @ camera.c2w[:3, :3]
    assert (np.linalg.norm(directions[:, :2] / directions[:, 2:], axis=1) < 0.99995).all()
    assert len(torch.unique(batch.rays_d[second], dim=0)) == shown.sum()
