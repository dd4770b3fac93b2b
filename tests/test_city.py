"""The synthetic city: its geometry against brute force in float64, its textures against supersampling, its files
against each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infnerf.data.city import encode, make_city
from infnerf.data.city_cameras import SHARES, clearance, make_cameras
from infnerf.data.city_facade import facade_wall
from infnerf.data.city_filter import interval, noise2, pulse
from infnerf.data.city_layout import make_world
from infnerf.data.city_render import render_view
from infnerf.data.city_trace import SUN, SunGrid, sample_offsets, trace_view
from infnerf.data.city_world import MAX_HEIGHT, Builder, Material, Shape, World
from infnerf.data.dataset import DatasetError, load_dataset
from infnerf.models.camera import Camera, look_at

UP = np.array([0.0, 0.0, 1.0])
GREY = np.full(3, 0.5)


def camera(eye: tuple, target: tuple, width: int = 40, height: int = 30) -> Camera:
    return Camera.from_fov(look_at(np.array(eye, float), np.array(target, float), UP), 46.0, width, height)


def world_of(build: Builder) -> World:
    return World(
        1,
        np.array(build.centre, np.float32),
        np.array(build.half, np.float32),
        np.array(build.shape, np.uint8),
        np.array(build.material, np.uint8),
        np.array(build.params, np.float32),
        np.full((1, 1, 4, 4), 1e4, np.float32),
        np.zeros((1, 1), np.uint8),
    )


def one(shape: Shape, ridge: float = 0.0) -> World:
    build = Builder()
    build.add(shape, Material.PLAIN, (-1, -1, -1), (1, 1, 1), GREY)[15] = ridge
    return world_of(build)


def brute_force(world: World, origin: np.ndarray, direction: np.ndarray) -> tuple[float, int]:
    """The nearest hit of one ray, every primitive written as half spaces or a quadric, in float64."""
    best, which = np.inf, -1
    for k in range(len(world)):
        c, h = world.centre[k].astype(float), world.half[k].astype(float)
        if world.shape[k] == Shape.ELLIPSOID:
            q, e = (origin - c) / h, direction / h
            roots = np.roots([e @ e, 2 * q @ e, q @ q - 1])
            t = roots.real.min() if np.abs(roots.imag).max() == 0 else np.inf
        else:
            normals = [*np.eye(3), *-np.eye(3)]
            offsets = [*(c + h), *(h - c)]
            if world.shape[k] == Shape.GABLE:
                cross = 1 - int(world.params[k, 15])
                for sign in (-1, 1):
                    n = np.zeros(3)
                    n[cross], n[2] = sign / h[cross], 1 / (2 * h[2])
                    normals.append(n)
                    offsets.append(1 + n[cross] * c[cross] + n[2] * (c[2] - h[2]))
            near, far = -np.inf, np.inf
            for n, offset in zip(normals, offsets, strict=True):
                slope, value = n @ direction, offset - n @ origin
                if slope < 0:
                    near = max(near, value / slope)
                elif slope > 0:
                    far = min(far, value / slope)
                elif value < 0:
                    near = np.inf
            t = near if near <= far else np.inf
        if 0 < t < best:
            best, which = t, k
    return best, which


# --- geometry --------------------------------------------------------------------------------------------------------


def test_known_distances() -> None:
    straight = camera((0, -10, 0), (0, 0, 0), 41, 31)
    assert trace_view(one(Shape.BOX), straight).depth[15, 20] == pytest.approx(9, abs=1e-5)
    assert trace_view(one(Shape.ELLIPSOID), straight).depth[15, 20] == pytest.approx(9, abs=1e-5)
    # a gable of height 2 and half width 1: half way down the slope at half a metre from the ridge
    above = camera((0, 0.5, 10), (0, 0.5, 0), 41, 31)
    assert trace_view(one(Shape.GABLE, ridge=0.0), above).depth[15, 20] == pytest.approx(10, abs=1e-4)
    beside = camera((0.5, 0, 10), (0.5, 0, 0), 41, 31)
    assert trace_view(one(Shape.GABLE, ridge=0.0), beside).depth[15, 20] == pytest.approx(9, abs=1e-4)
    assert np.isinf(trace_view(one(Shape.BOX), camera((0, -10, 0), (0, -20, 0))).depth).all()


@pytest.mark.parametrize(
    ("eye", "target"), [((40, -70, 60), (0, 0, 0)), ((1.5, -25, 2), (-4, 10, 4)), ((-8, 30, 35), (0, 0, 3))]
)
def test_views_agree_with_brute_force(eye: tuple, target: tuple) -> None:
    world, view = make_world(2, 5), camera(eye, target)
    hits = trace_view(world, view)
    rng = np.random.default_rng(1)
    for y, x in zip(rng.integers(0, 30, 60), rng.integers(0, 40, 60), strict=True):
        direction = np.array([hits.directions[i][y, x] for i in range(3)], float)
        t, which = brute_force(world, view.position, direction)
        if np.isinf(t):
            assert hits.prim[y, x] == -1
        else:
            assert hits.depth[y, x] == pytest.approx(t, abs=2e-3)
            # two faces may touch: the same distance is what counts, the name must match or tie
            assert hits.prim[y, x] == which or abs(hits.depth[y, x] - t) < 2e-3


def test_shadows_agree_with_brute_force() -> None:
    world = make_world(2, 3)
    grid = SunGrid(world)
    rng = np.random.default_rng(2)
    points = np.stack([rng.uniform(-40, 40, 150), rng.uniform(-40, 40, 150), rng.uniform(0.3, 12, 150)])
    gap = np.array([clearance(world, p) for p in points.T])
    points = points[:, gap > 0.05].astype(np.float32)
    lit = grid.lit(*points)
    expected = [np.isinf(brute_force(world, p.astype(float), SUN)[0]) for p in points.T]
    assert lit.tolist() == expected
    assert 0.2 < np.mean(expected) < 0.95  # both answers were tried


def test_sample_positions_are_stratified_and_centred() -> None:
    for n in (1, 2, 3, 4):
        x, y = sample_offsets(n)
        for values in (x, y):
            assert sorted((values.ravel() * n * n).astype(int)) == list(range(n * n))
            assert values.mean() == pytest.approx(0.5)
    assert sample_offsets(3)[0][1, 1] == 0.5


def test_the_city_keeps_its_limits() -> None:
    for seed in range(3):
        world = make_world(4, seed)
        top = world.centre[:, 2] + world.half[:, 2]
        assert top.max() <= MAX_HEIGHT
        reach = np.abs(world.centre[:, :2]) + world.half[:, :2]
        assert reach.max() <= world.extent + 1e-3  # nothing hangs over the slab's edge
        houses = (world.walls[..., 0] < 1e3).sum(axis=-1)
        assert houses.min() >= 1
        assert houses.max() <= 4
        facade = world.material == Material.FACADE
        assert 3 <= top[facade].max() <= 26


# --- textures --------------------------------------------------------------------------------------------------------


def test_pulse_and_interval_are_exact_means() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.uniform(-3, 3, 300), rng.uniform(0.01, 4, 300)
    lo = rng.uniform(0, 0.5, 300)
    hi = lo + rng.uniform(0, 0.5, 300)
    points = x[:, None] + w[:, None] * ((np.arange(4000) + 0.5) / 4000 - 0.5)
    phase = points - np.floor(points)
    stripes = ((phase >= lo[:, None]) & (phase < hi[:, None])).mean(axis=1)
    np.testing.assert_allclose(pulse(x, w, lo, hi), stripes, atol=2.5e-3)
    once = ((points >= lo[:, None]) & (points < hi[:, None])).mean(axis=1)
    np.testing.assert_allclose(interval(x, w, lo, hi), once, atol=2.5e-3)


@pytest.mark.parametrize("size", [0.05, 0.4, 3.0])
def test_filtered_facades_match_supersampled_ones(size: float) -> None:
    """The mean of a facade over squares of `size` metres, by the filter and by 40 x 40 sharp samples."""
    world = make_world(3, 1)
    bias = []
    for k in np.flatnonzero(world.material == Material.FACADE)[:8]:
        rng = np.random.default_rng(int(k))
        width, height = 2 * world.half[k, 1], 2 * world.half[k, 2]
        u = rng.uniform(size, max(size * 1.01, width - size), 40).astype(np.float32)
        v = rng.uniform(size, max(size * 1.01, height - size), 40).astype(np.float32)
        offset = ((np.arange(40, dtype=np.float32) + 0.5) / 40 - 0.5) * size
        du, dv = (a.ravel() for a in np.meshgrid(offset, offset))

        def colors(u: np.ndarray, v: np.ndarray, w: float, k: int = k, width: float = width) -> np.ndarray:
            n = len(u)
            full = np.full(n, w, np.float32)
            params = np.broadcast_to(world.params[k], (n, 16))
            return facade_wall(u, v, full, full, np.full(n, width, np.float32), params, np.zeros(n, np.int32))

        many = colors((u[:, None] + du).ravel(), (v[:, None] + dv).ravel(), size / 40)
        truth = many.reshape(40, -1, 3).mean(axis=1)
        error = colors(u, v, size) - truth
        sharp = np.abs(colors(u, v, 1e-4) - truth).mean()
        assert np.abs(error).mean() < 0.03
        assert np.abs(error).mean() < 0.6 * sharp or sharp < 0.01
        bias.append(error.mean(axis=0))
    assert np.abs(np.mean(bias, axis=0)).max() < 0.006


def test_noise_has_mean_zero_and_fades() -> None:
    x, y = (a.ravel().astype(np.float32) for a in np.meshgrid(np.arange(0, 256, 0.5), np.arange(0, 256, 0.5)))
    sharp = noise2(x, y, 1.0, np.zeros_like(x))
    assert abs(sharp.mean()) < 0.02
    assert np.abs(noise2(x, y, 1.0, np.full_like(x, 0.7))).max() < np.abs(sharp).max()
    assert not noise2(x, y, 1.0, np.full_like(x, 2.0)).any()


def test_a_coarse_view_is_the_average_of_a_fine_one() -> None:
    """36 samples of a pixel and 4 agree in the mean over an aerial view, because each is filtered to its share."""
    world = make_world(2, 0)
    view, grid = camera((60, -80, 90), (0, 0, 0), 80, 60), SunGrid(world)
    few, many = (render_view(world, grid, view, n)[0] for n in (2, 6))
    inside = many[..., 3] == 1
    assert np.abs(few[inside].mean(axis=0) - many[inside].mean(axis=0)).max() < 0.004
    assert np.median(np.abs(few[inside] - many[inside])[:, :3]) < 0.01


# --- images ----------------------------------------------------------------------------------------------------------


def test_alpha_is_whole_away_from_edges() -> None:
    world = make_world(1, 0)
    image, hits = render_view(world, SunGrid(world), camera((0, -1, 90), (0, 0, 0)), 3)
    alpha = image[..., 3]
    assert alpha[15, 20] == 1
    assert alpha[0, 0] == alpha[-1, -1] == 0
    assert (image[alpha == 0] == 0).all()
    np.testing.assert_allclose(alpha * 9, np.round(alpha * 9), atol=1e-5)
    hit = (hits.prim >= 0).reshape(30, 3, 40, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(alpha, hit, atol=1e-6)
    assert ((alpha > 0) & (alpha < 1)).any()
    encoded = encode(image)
    assert (encoded[alpha == 0] == 0).all()
    assert (encoded[alpha == 1][:, 3] == 255).all()


def test_light_does_not_depend_on_the_viewer() -> None:
    """One spot of ground from two places, so close that filtering plays no part, has one colour."""
    build = Builder()
    build.box(Material.GROUND, (-20, -20, -1), (20, 20, 0), GREY, 1, 0)
    build.box(Material.PLAIN, (4, 4, 0), (8, 8, 9), GREY)
    world = world_of(build)
    grid = SunGrid(world)
    for spot in ((9.0, 7.0, 0.0), (-3.0, -5.0, 0.0)):
        a = render_view(world, grid, camera((spot[0] + 0.5, spot[1], 1.0), spot, 9, 9), 1)[0][4, 4]
        b = render_view(world, grid, camera((spot[0] - 0.2, spot[1] - 0.7, 0.8), spot, 9, 9), 1)[0][4, 4]
        np.testing.assert_allclose(a, b, rtol=0.15)  # the asphalt's grain differs by its filter
    shade = render_view(world, grid, camera((9.5, 7, 1.0), (9, 7, 0), 9, 9), 1)[0][4, 4, :3]
    sunny = render_view(world, grid, camera((-2.5, -5, 1.0), (-3, -5, 0), 9, 9), 1)[0][4, 4, :3]
    assert (shade < 0.7 * sunny).all()


# --- cameras ---------------------------------------------------------------------------------------------------------


def test_cameras_are_a_mixture_that_stands_clear() -> None:
    world = make_world(4, 7)
    cameras = make_cameras(world, 80, (40, 30), 7, 0)
    kinds = [name.split("_")[0] for name in cameras]
    for kind, share in SHARES.items():
        assert kinds.count(kind) == pytest.approx(80 * share, abs=1)
    heights = {"aerial": (90, 170), "drone": (25, 60), "street": (1.7, 6)}
    for name, view in cameras.items():
        kind = name.split("_")[0]
        x, y, z = view.position
        assert heights[kind][0] <= z <= heights[kind][1]
        assert clearance(world, view.position) >= 2
        assert max(abs(x), abs(y)) <= world.extent or kind == "aerial"
        down = np.degrees(np.arcsin(-view.c2w[2, 2]))
        assert 30 <= down <= 90 or kind != "aerial"
        assert 2 * np.degrees(np.arctan(view.width / 2 / view.fx)) == pytest.approx(60)
    others = make_cameras(world, 8, (40, 30), 7, 1)
    assert {n.split("_")[0] for n in others} == set(SHARES)
    assert not any(np.array_equal(a.c2w, b.c2w) for a in others.values() for b in cameras.values())


# --- files -----------------------------------------------------------------------------------------------------------

SMALL = {"blocks": 2, "views": 4, "size": (32, 24), "test_views": 2, "supersample": 2, "points_per_view": 50}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("city") / "scene"
    summary = make_city(out, seed=3, workers=1, **SMALL)
    assert (summary.images, summary.test_views) == (4, 2)
    return out


def test_the_same_files_from_any_number_of_processes(city: Path, tmp_path: Path) -> None:
    make_city(tmp_path / "two", seed=3, workers=2, **SMALL)
    assert files(tmp_path / "two") == files(city)
    make_city(tmp_path / "other", seed=4, workers=1, **SMALL)
    assert files(tmp_path / "other")["sparse_points.ply"] != files(city)["sparse_points.ply"]


def test_the_city_loads_as_a_dataset(city: Path) -> None:
    train, test = load_dataset(city), load_dataset(city, "test")
    assert (len(train), len(test), train.warnings, test.warnings) == (4, 2, [], [])
    assert train.scene["unit"] == "metre"
    assert train.scene["root_size"] == pytest.approx(80 * 16 / 15)
    lo, hi = np.array(train.scene["aabb"])
    corner = np.array(train.scene["root_corner"])
    assert (corner <= lo).all()
    assert (corner + train.scene["root_size"] >= hi).all()
    assert train.points is not None
    assert ((train.points.xyz >= lo - 1e-3) & (train.points.xyz <= hi + 1e-3)).all()
    with Image.open(train.images[0]) as image:
        assert (image.mode, image.size) == ("RGBA", (32, 24))


def test_six_blocks_fit_the_root_cube_of_256_metres() -> None:
    assert 6 * 40 * 16 / 15 == 256


def test_points_project_to_their_pixels(city: Path) -> None:
    """By the numbers in cameras.json alone: K (R x + t), the colour of the pixel there, the footprint of its cone."""
    train = load_dataset(city)
    entries = json.loads((city / "cameras.json").read_text())
    assert train.points is not None
    start = 0
    for name, image in zip(train.names, train.images, strict=True):
        k, w2c = (np.array(entries[name][key]) for key in ("intrinsic", "extrinsic"))
        rows = slice(start, start + 50)  # a view's points lie together, in the order of the views
        start += 50
        local = train.points.xyz[rows] @ w2c[:3, :3].T + w2c[:3, 3]
        assert (local[:, 2] > 0).all()
        pixel = local @ k.T
        xy = pixel[:, :2] / pixel[:, 2:]
        np.testing.assert_allclose(xy - np.floor(xy), 0.5, atol=0.02)
        pixels = np.asarray(Image.open(image))
        x, y = np.floor(xy).astype(int).T
        assert (pixels[y, x, :3] == train.points.rgb[rows]).all()
        t = np.linalg.norm(local, axis=1)
        area = (local[:, 2] / t) ** 3 / (k[0, 0] * k[1, 1])
        np.testing.assert_allclose(train.points.footprint[rows], t * np.sqrt(area / np.pi), rtol=1e-4)


def test_a_folder_with_files_is_left_alone(city: Path) -> None:
    before = files(city)
    with pytest.raises(DatasetError, match=r"scene: expected an empty or new folder, found files in it"):
        make_city(city, seed=9, workers=1, **SMALL)
    assert files(city) == before


def test_overwriting_removes_the_old_images(tmp_path: Path) -> None:
    make_city(tmp_path, seed=0, workers=1, **SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    make_city(tmp_path, seed=0, workers=1, overwrite=True, **{**SMALL, "views": 2})
    assert len(list((tmp_path / "images").iterdir())) == len(load_dataset(tmp_path)) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_interrupted_city_is_a_smaller_one(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 6
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_city(tmp_path / "c", seed=0, workers=1, progress=stop, **SMALL)
    scene = load_dataset(tmp_path / "c")
    assert (len(scene), scene.warnings) == (2, [])
    assert scene.points is not None
    assert len(scene.points) == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": 0}, "blocks: expected a whole number from 1 to 64, found 0"),
        ({"views": 0}, "views: expected"),
        ({"size": (32, 100000)}, "height: expected a whole number from 8 to 8192, found 100000"),
        ({"supersample": 9}, "supersample: expected"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make_city(tmp_path / "c", **{**SMALL, **change})
    assert not (tmp_path / "c").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    with pytest.raises(DatasetError, match="expected a folder to write to, found a file"):
        make_city(tmp_path / "c", **SMALL)
