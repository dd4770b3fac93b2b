"""Pictures held against each other, which side has what, where pictures lie, and turns at the machine. No window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infnerf.models.camera import Camera
from infnerf.renderer.colormaps import to_bytes
from infnerf.renderer.comparison import UNKNOWN, comparison_legend, compose, difference_map, error_map, psnr
from infnerf.viewer import sides
from infnerf.viewer.areas import divide
from infnerf.viewer.photographs import PhotoSet, area_average, read_photograph
from infnerf.viewer.sides import LEFT, RIGHT
from infnerf.viewer.state import PHOTO, ViewerState

RNG = np.random.default_rng(0)
A, B = (RNG.integers(0, 256, (12, 16, 3), np.uint8) for _ in range(2))


def test_psnr_is_of_the_pixels_that_are_known() -> None:
    known = np.zeros(A.shape[:2], bool)
    known[:, :8] = True
    error = (A[:, :8].astype(float) - B[:, :8]) / 255
    assert psnr(A, B, known) == pytest.approx(-10 * np.log10((error**2).mean()))
    assert psnr(A, A) == np.inf
    assert psnr(A, B, np.zeros_like(known)) is None
    half = np.where(known[..., None], A, B)
    assert psnr(A, half, known) == np.inf


def test_maps_show_sign_and_size_and_what_is_not_known() -> None:
    low, high = np.full((1, 2, 3), 100, np.uint8), np.full((1, 2, 3), 132, np.uint8)
    red, _, blue = difference_map(low, high, 64)[0, 0].tolist()
    assert red > blue  # left is darker
    red, _, blue = difference_map(high, low, 64)[0, 0].tolist()
    assert blue > red
    np.testing.assert_array_equal(error_map(low, high, 64), error_map(high, low, 64))
    light = [int(error_map(low, high, limit).sum()) for limit in (255, 128, 64, 32)]
    assert light == sorted(light)
    masked = error_map(low, high, 64, np.array([[True, False]]))
    np.testing.assert_array_equal(masked[0, 0], error_map(low, high, 64)[0, 0])
    np.testing.assert_array_equal(masked[0, 1], to_bytes(np.array(UNKNOWN)))


def test_a_wipe_gives_each_side_its_share() -> None:
    for share, edge in ((0.0, 0), (0.25, 4), (1.0, 16)):
        whole = compose("wipe", A, B, share)
        np.testing.assert_array_equal(whole[:, :edge], A[:, :edge])
        np.testing.assert_array_equal(whole[:, edge:], B[:, edge:])
    with pytest.raises(ValueError, match="one size"):
        compose("wipe", A, B[:4])
    with pytest.raises(ValueError, match="got 'flicker'"):
        compose("flicker", A, B)


def test_legends_tell_the_range() -> None:
    signed, error = comparison_legend("difference", 32.0), comparison_legend("error", 32.0)
    assert signed is not None
    assert error is not None
    assert [text for _, text in signed.ticks] == ["-32", "-16", "0", "+16", "+32"]
    assert [text for _, text in error.ticks] == ["0", "8", "16", "24", "32"]
    assert comparison_legend("wipe", 32.0) is None


# Sides


numbers = st.integers(PHOTO, 5)


@given(numbers, numbers, st.integers(1, 5), st.booleans())
def test_settled_sides_name_what_is_there_and_never_the_same(left: int, right: int, n_scenes: int, data: bool) -> None:
    if left == right == PHOTO:
        return
    state = ViewerState(left=left, right=right)
    sides.settle(state, n_scenes, data)
    assert 0 <= sides.scene_number(state) < n_scenes
    assert state.left != state.right
    assert data or PHOTO not in (state.left, state.right)
    if n_scenes > 1:
        assert max(state.left, state.right) < n_scenes
    before = (state.left, state.right)
    sides.settle(state, n_scenes, data)
    assert (state.left, state.right) == before


def test_choosing_what_the_other_side_has_exchanges_them() -> None:
    state = ViewerState(left=0, right=2)
    sides.choose(state, RIGHT, 0)
    assert (state.left, state.right) == (2, 0)
    sides.choose(state, LEFT, PHOTO)
    assert (state.left, state.right) == (PHOTO, 0)
    assert sides.leading(state) == RIGHT
    sides.show(state, 1)  # the scene that leads is exchanged, the photograph stays
    assert (state.left, state.right) == (PHOTO, 1)
    sides.choose(state, RIGHT, PHOTO)
    assert (state.left, state.right) == (1, PHOTO)


def test_a_closed_scene_lets_the_others_move_up() -> None:
    state = ViewerState(left=0, right=2)
    sides.removed(state, 0)
    sides.settle(state, 2, False)
    assert (state.left, state.right) == (0, 1)
    state = ViewerState(left=2, right=0)
    sides.removed(state, 2)
    sides.settle(state, 2, False)
    assert sorted((state.left, state.right)) == [0, 1]


def test_nothing_is_compared_with_nothing() -> None:
    state = ViewerState(compare="wipe")
    assert not sides.comparing(state, 1, False)
    assert sides.comparing(state, 2, False)
    state.right = PHOTO
    assert not sides.comparing(state, 2, False)
    assert sides.comparing(state, 1, True)


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("shape", [(640, 480), (300, 900), (20, 20)])
def test_a_photograph_keeps_its_shape_inside_its_pane(two: bool, shape: tuple[int, int]) -> None:
    camera = Camera(np.eye(4), 50, 50, 1, 1, *shape)
    areas = divide((10, 20, 801, 500), two, camera)
    for x, y, width, height in (areas.left, areas.right):
        assert x >= 10
        assert x + width <= 811
        assert y >= 20
        assert y + height <= 520
        assert abs(width / height - shape[0] / shape[1]) < 0.02
    assert areas.left[2:] == areas.right[2:]
    assert (areas.left == areas.right) is not two
    assert areas.size == (shape[0] // areas.factor, shape[1] // areas.factor)
    assert areas.factor == 1 or 0.6 < areas.size[0] / areas.left[2] < 1.6


def test_a_large_photograph_is_averaged_over_whole_blocks() -> None:
    camera = Camera(np.eye(4), 900, 900, 500, 300, 1003, 601)
    areas = divide((0, 0, 260, 400), False, camera)
    assert (areas.factor, areas.size) == (4, (250, 150))  # the remainder is dropped, as in evaluation


# Photographs


def test_a_photograph_by_a_lens_is_undistorted_and_what_it_lacks_counts_nowhere(tmp_path: Path) -> None:
    from PIL import Image

    lens = Camera(np.eye(4), 30.0, 30.0, 20.0, 15.0, 40, 30, (0.3, 0.05, 0.0, 0.0))
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    _, rays, _ = lens.pixel_rays(x.ravel(), y.ravel())
    taken = (255 * (0.5 + 0.4 * rays[:, 0] / rays[:, 2])).reshape(30, 40)  # brightness by direction
    Image.fromarray(taken.astype(np.uint8)).convert("RGB").save(tmp_path / "a.png")
    data = PhotoSet(tmp_path, ["a"], [tmp_path / "a.png"], [None], [lens], [])
    photograph = read_photograph(data, 0, 1, (40, 30), "srgb")
    assert photograph.camera.is_pinhole
    straight = 0.5 + 0.4 * (x - 20) / 30
    known = photograph.known
    assert known is not None
    assert 0.3 < known.mean() < 1  # the lens saw less than its pinhole does
    assert np.abs(photograph.buffers.color[..., 0] - straight)[known].max() < 0.01
    smaller = read_photograph(data, 0, 2, (20, 15), "srgb")
    assert smaller.known is not None
    np.testing.assert_allclose(smaller.buffers.color, area_average(photograph.buffers.color, (20, 15)), atol=1e-6)
    np.testing.assert_array_equal(smaller.known, known.reshape(15, 2, 20, 2).all((1, 3)))


def test_an_image_that_went_away_is_a_sentence(tmp_path: Path) -> None:
    camera = Camera(np.eye(4), 30.0, 30.0, 20.0, 15.0, 40, 30)
    data = PhotoSet(tmp_path, ["a"], [tmp_path / "a.png"], [None], [camera], [])
    with pytest.raises(ValueError, match=r"a\.png: expected an image that opens") as caught:
        read_photograph(data, 0, 1, (40, 30), "srgb")
    assert "\n" not in str(caught.value)
