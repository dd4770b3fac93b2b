"""Images within a budget: the same numbers as without one, no more memory than stated, every image in its turn,
whatever the disk does."""

from __future__ import annotations

import random
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_scenes import N_IMAGES, check_colours, make_data
from PIL import Image

from infnerf.data import pixels
from infnerf.data.dataset import DatasetError
from infnerf.data.memory_plan import plan_memory
from infnerf.data.pyramid import ImagePyramid, RayBatch, box_average, read_image

BUDGET = 400_000  # of 780,000 that the images would take


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_data(tmp_path_factory.mktemp("images"))


def same(a: RayBatch, b: RayBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


# --- everything fits -------------------------------------------------------------------------------------------------


def test_what_fits_is_the_whole_images_averages_bit_for_bit(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "STRIP_PIXELS", 700)  # strips of 8 rows
    pyramid = ImagePyramid.load(data, budget_bytes=10_000_000)
    assert not pyramid.store.plan.rotates
    for i in (0, 7):
        expected = read_image(data.images[i])
        for s in range(4):
            expected = box_average(expected, 2 if s else 1)
            np.testing.assert_array_equal(pyramid.image(s, i), expected.astype(np.float16).astype(np.float32))
    plain = ImagePyramid.load(data)
    a, b = (p.draw_mixed(300, torch.Generator().manual_seed(0)) for p in (pyramid, plain))
    assert same(a, b)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1", "I;16", "CMYK"])
def test_strips_of_every_kind_of_image_are_the_images(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    source = Image.fromarray(rng.integers(0, 256, (13, 9, 4)).astype(np.uint8), "RGBA")
    options: dict[str, Any] = {"P": {"transparency": 3}, "RGB": {"transparency": (0, 0, 0)}}.get(mode, {})
    if mode == "I;16":
        Image.fromarray(rng.integers(0, 65536, (13, 9)).astype(np.uint16)).save(path)
    else:
        (source.convert("RGB") if mode in ("P", "CMYK") else source).convert(mode).save(path, **options)
    with Image.open(path) as file:
        assert file.mode == mode
        whole = np.asarray(file.convert("RGBA"))
    np.testing.assert_array_equal(np.concatenate(list(pixels.read_strips(path, (9, 13), 4))), whole)


# --- within a budget -------------------------------------------------------------------------------------------------


def test_memory_stays_within_the_budget(tmp_path: Path, data: Any) -> None:
    """All that numpy allocates, loading and rotating through every image; Pillow's own buffers are added as planned."""
    size, n, budget = (160, 120), 40, 4_000_000
    many = make_data(tmp_path, n, size)
    ImagePyramid.load(data).draw_mixed(10)  # imports and tables are nobody's images
    tracemalloc.start()
    try:
        pyramid = ImagePyramid.load(many, budget_bytes=budget, rays_per_swap=50)
        for _ in range(n + 5):
            pyramid.draw_mixed(50)
        pyramid.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    plan = pyramid.store.plan
    assert plan.rotates
    assert plan.resident == (False, False, True, True)
    decoders = plan.n_loaders * size[0] * size[1] * pixels.DECODER_BYTES
    assert peak + decoders <= budget
    assert pyramid.nbytes < plan.n_bytes <= budget
    assert pyramid.nbytes > 0.4 * budget  # and makes use of it
    needed = sum(c.width * c.height * 8 for row in pyramid.cameras for c in row)
    assert needed > 2 * budget


def test_every_image_has_its_turn(data: Any) -> None:
    pyramid = ImagePyramid.load(data, budget_bytes=BUDGET, rays_per_swap=100)
    n_live = pyramid.store.plan.n_live
    assert 3 <= n_live < N_IMAGES
    turns, drawn = Counter[int](), Counter[int]()
    generator = torch.Generator().manual_seed(0)
    for _ in range(N_IMAGES):
        batch = pyramid.draw(0, 100, generator)
        check_colours(batch)
        turns.update(pyramid.store.working_set)
        drawn.update(batch.image.tolist())
        assert set(batch.image.tolist()) <= set(pyramid.store.working_set)
        coarse = pyramid.draw(3, 0, generator)
        assert len(coarse.image) == 0
    assert [turns[i] for i in range(N_IMAGES)] == [n_live] * N_IMAGES
    assert sorted(drawn) == list(range(N_IMAGES))
    assert min(drawn.values()) > 50
    assert max(drawn.values()) < 150
    # the coarsest scale is in memory for all
    batch = pyramid.draw(3, 1000, generator)
    check_colours(batch)
    assert len(batch.image.unique()) == N_IMAGES
    pyramid.close()
    assert same(
        pyramid.draw(0, 5000, torch.Generator().manual_seed(1)), pyramid.draw(0, 5000, torch.Generator().manual_seed(1))
    )


def test_rotation_depends_on_the_seed_and_not_on_the_disk(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(seed: int) -> list[RayBatch]:
        pyramid = ImagePyramid.load(data, budget_bytes=BUDGET, rays_per_swap=30, seed=seed)
        generator = torch.Generator().manual_seed(5)
        batches = [pyramid.draw_mixed(n, generator) for n in (10, 70, 33, 90, 1, 64)]
        pyramid.close()
        return batches

    plain, other = run(1), run(2)
    read, delays = pixels.PixelReader.read, random.Random(0)

    def slow(*arguments: Any) -> None:
        time.sleep(delays.random() * 0.01)
        read(*arguments)

    monkeypatch.setattr(pixels.PixelReader, "read", slow)
    assert all(same(a, b) for a, b in zip(plain, run(1), strict=True))
    assert not any(same(a, b) for a, b in zip(plain, other, strict=True))


def test_a_restored_pyramid_goes_on_bit_for_bit(data: Any) -> None:
    first = ImagePyramid.load(data, budget_bytes=BUDGET, rays_per_swap=30)
    generator = torch.Generator().manual_seed(5)
    for _ in range(9):
        first.draw_mixed(50, generator)
    state, random_state = first.state(), generator.get_state()
    second = ImagePyramid.load(data, budget_bytes=BUDGET, rays_per_swap=30)
    second.restore(state)
    assert second.store.working_set == first.store.working_set
    generators = [torch.Generator(), torch.Generator()]
    for g in generators:
        g.set_state(random_state)
    for _ in range(6):
        a, b = first.draw_mixed(50, generators[0]), second.draw_mixed(50, generators[1])
        assert same(a, b)
        check_colours(a)
    for bad in ({}, {"drawn": -1, "position": 0}, {"drawn": 0, "position": 1.5}):
        with pytest.raises(ValueError, match="ImageStore: a state is 'drawn' and 'position'"):
            second.restore(bad)  # type: ignore[arg-type]
    first.close()
    second.close()


def test_images_that_are_not_in_memory_are_read_when_asked_for(data: Any) -> None:
    pyramid, plain = ImagePyramid.load(data, budget_bytes=BUDGET), ImagePyramid.load(data)
    away = next(i for i in range(N_IMAGES) if i not in pyramid.store.working_set)
    for s in range(4):
        for i in (away, pyramid.store.working_set[0]):
            np.testing.assert_allclose(pyramid.image(s, i), plain.image(s, i), rtol=1e-3, atol=1e-7)
    with pytest.raises(ValueError, match="not in memory now"):
        pyramid.rays_at(0, torch.tensor([away]), torch.tensor([0]))
    pyramid.close()


def test_threads_end(data: Any) -> None:
    def count() -> int:
        return sum(thread.name.startswith("images") for thread in threading.enumerate())

    before = count()
    pyramid = ImagePyramid.load(data, budget_bytes=BUDGET)
    assert count() > before
    pyramid.close()
    assert count() == before
    ImagePyramid.load(data)
    assert count() == before


def test_plans() -> None:
    pixels_of = np.array([[1000] * 10, [250] * 10])
    everything = plan_memory(pixels_of, [True, False], False, 100, 100_100)
    assert (everything.resident, everything.raw, everything.n_live) == ((True, True), (False, False), 10)
    # 4 bytes for each pixel of the file fit where 8 don't: all images stay, and nothing rotates
    bytes_fit = plan_memory(pixels_of, [True, False], False, 100, 90_000)
    assert (bytes_fit.n_live, bytes_fit.rotates) == (10, False)
    for budget in range(18_200, 100_000, 777):
        plan = plan_memory(pixels_of, [True, False], False, 100, budget)
        assert plan.n_bytes <= budget
        assert plan.n_live >= 2
    with pytest.raises(DatasetError, match="budget_bytes: expected at least 18100 for a working set of 3 images"):
        plan_memory(pixels_of, [True, False], False, 100, 18_000)


# --- files that go wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, BUDGET])
def test_images_that_can_not_be_read(tmp_path: Path, budget: int | None) -> None:
    data = make_data(tmp_path)
    whole = data.images[9].read_bytes()
    for content, message in ((whole[:900], "image that opens"), (b"", "image that opens")):
        data.images[9].write_bytes(content)
        with pytest.raises(DatasetError, match=f"009.png: expected an {message}"):
            ImagePyramid.load(data, budget_bytes=budget)
    Image.new("RGB", (20, 20)).save(data.images[9])
    with pytest.raises(DatasetError, match=r"009\.png: expected an image of 64x48 as its camera, found 20x20"):
        ImagePyramid.load(data, budget_bytes=budget)


def test_an_image_that_vanishes_while_training_is_named(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    pyramid = ImagePyramid.load(data, budget_bytes=BUDGET, rays_per_swap=10)
    for path in data.images:
        path.unlink()
    with pytest.raises(DatasetError, match=r"\.png: expected an image that opens, found: .*No such file"):
        [pyramid.draw_mixed(10) for _ in range(N_IMAGES)]
    pyramid.close()


def test_budgets_that_make_no_sense(data: Any) -> None:
    for arguments in ({"budget_bytes": 0}, {"rays_per_swap": 0}):
        with pytest.raises(DatasetError, match="expected budget_bytes and rays_per_swap of at least 1"):
            ImagePyramid.load(data, **arguments)
    with pytest.raises(DatasetError, match=r"expected at least .* for a working set of 3 images .* found 1000;"):
        ImagePyramid.load(data, budget_bytes=1000)
