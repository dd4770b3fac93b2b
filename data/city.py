"""Makes the synthetic city: a scene with exact ground truth in the InfNeRF data format (see `data.dataset`).

Everything is a function of the number of blocks, the size and the seed: the same arguments give the same files,
however many processes work on them.
"""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models.camera import Camera
from .city_cameras import make_cameras
from .city_layout import make_world
from .city_render import render_view
from .city_trace import SunGrid, trace_view
from .city_world import MAX_HEIGHT, PITCH, SLAB, World
from .dataset import write_cameras, write_json
from .ply import DatasetError, PointCloud, atomic_write, write_ply
from .pyramid import linear_to_srgb

_OURS = ("images", "test", "cameras.json", "sparse_points.ply", "scene.json")
_ROOT_MARGIN = (
    16 / 15
)  # root cube over the city's edge: 256 m for six blocks, so that level 3 is 32 m, more than a building's height
_ROOT_BOTTOM = -2.0  # m


@dataclass(frozen=True)
class CitySummary:
    """What `make_city` wrote."""

    out: Path
    images: int
    test_views: int
    points: int


@dataclass(frozen=True, eq=False)
class _Job:
    """One image to make; `index` seeds the choice of its points."""

    split: str
    name: str
    index: int
    camera: Camera
    blocks: int
    seed: int
    supersample: int
    points: int
    folder: Path


def make_city(
    out: Path | str,
    blocks: int = 6,
    views: int = 160,
    size: tuple[int, int] = (400, 300),
    seed: int = 0,
    test_views: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    supersample: int = 3,
    points_per_view: int = 600,
    overwrite: bool = False,
) -> CitySummary:
    """Writes a city of `blocks` x `blocks` blocks, `views` training images and `test_views` (default: an eighth, at
    least 8) others.

    `size` is width and height in pixels, `supersample`^2 the samples of a pixel, `workers` the processes (default: all
    cores), `progress(done, total)` is called after every image. Ctrl-C leaves a sound scene of the images that were
    finished. Raises `DatasetError` for arguments out of range and for a folder that holds something, unless
    `overwrite` is set.
    """
    out = Path(out)
    test_views = max(8, views // 8) if test_views is None else test_views
    _check_arguments(blocks, views, size, seed, test_views, supersample, points_per_view)
    _prepare(out, overwrite)
    world = make_world(blocks, seed)
    jobs = []
    for stream, (split, count) in enumerate((("train", views), ("test", test_views))):
        folder = out if split == "train" else out / "test"
        cameras = make_cameras(world, count, size, seed, stream)
        for index, (name, camera) in enumerate(cameras.items()):
            wanted = points_per_view if split == "train" else 0
            jobs.append(_Job(split, f"{name}.png", index, camera, blocks, seed, supersample, wanted, folder / "images"))
    results: dict[int, NDArray[np.float64]] = {}
    try:
        for done, (position, found) in enumerate(_run(jobs, workers or os.cpu_count() or 1), start=1):
            results[position] = found
            if progress is not None:
                progress(done, len(jobs))
    except OSError as error:
        raise DatasetError(f"{out}: expected to write the city here, found: {error.strerror or error}") from error
    finally:
        points = _write_metadata(out, world, jobs, results)
    return CitySummary(out, views, test_views, points)


def _check_arguments(
    blocks: int, views: int, size: tuple[int, int], seed: int, test_views: int, supersample: int, points: int
) -> None:
    for name, value, low, high in (
        ("blocks", blocks, 1, 64), ("views", views, 1, 100000), ("test views", test_views, 1, 100000),
        ("seed", seed, 0, 2**31 - 1), ("width", size[0], 8, 8192), ("height", size[1], 8, 8192),
        ("supersample", supersample, 1, 8), ("points per view", points, 1, 1000000),
    ):  # fmt: skip
        if isinstance(value, bool) or int(value) != value or not low <= value <= high:
            raise DatasetError(f"city: {name}: expected a whole number from {low} to {high}, found {value}")


def _prepare(out: Path, overwrite: bool) -> None:
    """Makes the folders; what an older city left is removed only when that was asked for."""
    try:
        if out.exists() and not out.is_dir():
            raise DatasetError(f"{out}: expected a folder to write to, found a file")
        if out.is_dir() and any(out.iterdir()):
            if not overwrite:
                raise DatasetError(
                    f"{out}: expected an empty or new folder, found files in it: give another, or --overwrite"
                )
            for name in _OURS:
                if (out / name).is_dir():
                    shutil.rmtree(out / name)
                else:
                    (out / name).unlink(missing_ok=True)
        (out / "images").mkdir(parents=True)
        (out / "test" / "images").mkdir(parents=True)
    except OSError as error:
        raise DatasetError(
            f"{out}: expected a folder that can be written to, found: {error.strerror or error}"
        ) from error


def _run(jobs: list[_Job], workers: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(position, points) of each job, as they finish."""
    if workers <= 1 or len(jobs) == 1:
        for position, job in enumerate(jobs):
            yield position, _make_view(job)
        return
    # spawned, not forked: the caller may have threads; Ctrl-C is the parent's to handle
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        futures = {pool.submit(_make_view, job): position for position, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@lru_cache(maxsize=1)
def _sun(blocks: int, seed: int) -> SunGrid:
    return SunGrid(make_world(blocks, seed))


def _make_view(job: _Job) -> NDArray[np.float64]:
    """Writes one image and returns its sparse points [n, 7]: x, y, z, red, green, blue, footprint."""
    world = make_world(job.blocks, job.seed)
    image, hits = render_view(world, _sun(job.blocks, job.seed), job.camera, job.supersample)
    pixels = encode(image)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    atomic_write(job.folder / job.name, file.getvalue())
    if not job.points:
        return np.empty((0, 7))
    n = job.supersample
    if n % 2:  # the middle sample is the pixel's centre
        depth = hits.depth[n // 2 :: n, n // 2 :: n]
    else:
        depth = trace_view(world, job.camera).depth
    rng = np.random.default_rng([job.seed, 4, job.index])
    return _points_of_view(job.camera, depth, pixels, rng, job.points)


def _points_of_view(
    camera: Camera, depth: NDArray, pixels: NDArray, rng: np.random.Generator, n: int
) -> NDArray[np.float64]:
    """Points that the centre rays of random whole pixels hit."""
    whole = np.flatnonzero(np.isfinite(depth.ravel()) & (pixels[..., 3].ravel() == 255))
    picked = rng.choice(whole, min(n, len(whole)), replace=False)
    y, x = np.divmod(picked, camera.width)
    rays_o, rays_d, cones = camera.pixel_rays(x + 0.5, y + 0.5)
    t = depth.ravel()[picked] / (rays_d @ camera.c2w[:3, 2])  # from depth to distance along the ray
    colors = pixels.reshape(-1, 4)[picked, :3]
    return np.concatenate([rays_o + t[:, None] * rays_d, colors, (t * cones)[:, None]], axis=1)


def encode(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Linear premultiplied [H, W, 4] to 8-bit sRGB with straight alpha; transparent pixels are black."""
    alpha = image[..., 3:]
    straight = np.where(alpha > 0, image[..., :3] / np.maximum(alpha, 1e-6), 0.0)
    out = np.concatenate([linear_to_srgb(np.clip(straight, 0.0, 1.0)), alpha], axis=-1)
    return (out * 255.0 + 0.5).astype(np.uint8)


def _write_metadata(out: Path, world: World, jobs: list[_Job], results: dict[int, NDArray[np.float64]]) -> int:
    """Cameras, points and the scene of the images that exist; returns the number of points."""
    done = [job for position, job in enumerate(jobs) if position in results]
    for split, folder in (("train", out), ("test", out / "test")):
        write_cameras(folder / "cameras.json", {job.name: job.camera for job in done if job.split == split})
    rows = [results[position] for position in sorted(results)]
    table = np.concatenate(rows) if rows else np.empty((0, 7))
    write_ply(
        out / "sparse_points.ply", PointCloud(table[:, :3].copy(), table[:, 3:6].astype(np.uint8), table[:, 6].copy())
    )
    extent, edge = world.extent, math.floor(world.blocks * PITCH * _ROOT_MARGIN * 1e6 + 0.5) / 1e6
    scene = {
        "up": [0, 0, 1],
        "unit": "metre",
        "aabb": [[-extent, -extent, -SLAB], [extent, extent, MAX_HEIGHT]],
        "root_corner": [-edge / 2, -edge / 2, _ROOT_BOTTOM],
        "root_size": edge,
    }
    write_json(out / "scene.json", scene)
    return len(table)
