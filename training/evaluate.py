"""Measures a checkpoint against images: per scale, per view, per level, and how much of the model each frame needed.

What `infnerf eval` computes. The data may be another folder than the one trained on, in the same world coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.dataset import Dataset, DatasetError, load_dataset
from ..data.masks import box_all, coverage
from ..data.pinhole import pinhole_truth
from ..data.pyramid import box_average, box_camera, check_scales, read_image
from ..models.backends import Model, model_of
from ..models.camera import Camera
from ..models.checkpoint import load_checkpoint
from ..models.similarity import place_of
from ..renderer.accumulate import render_accumulated
from ..renderer.bench import commit
from ..renderer.executors import make_executor
from ..renderer.frame import MAX_LEVEL, Executor, FrameBuffers, RenderRequest, RenderStats
from .eval_pictures import check_folder, save_comparison
from .losses import encoded
from .metrics import Comparison, LevelErrors, Lpips, compare, mean_of, open_lpips

EVAL_SCALES = (1, 2, 4, 8)
SPLITS = ("test", "val", "all")
METRICS = ("psnr", "ssim", "lpips")
COSTS = ("parameters_used", "frame_ms")


@dataclass(frozen=True)
class View:
    """One image that is measured."""

    name: str
    images: list[NDArray[np.float32]]  # a scale each: [H, W, 4] premultiplied, in the model's colour space
    cameras: list[Camera]  # a scale each
    counts: list[NDArray[np.bool_] | None]  # a scale each: [H, W] pixels that count, None for all


@dataclass
class _Run:
    """What stays the same from frame to frame, and what adds up."""

    executor: Executor
    scene: dict[str, Any]
    node_parameters: NDArray[np.int64]  # [n_nodes]
    samples: int
    lpips: Lpips | None
    pictures: Path | None
    levels: LevelErrors = field(default_factory=LevelErrors)
    pictures_written: int = 0


def evaluate(
    checkpoint: Path | str,
    data: Path | str,
    scales: tuple[int, ...] = EVAL_SCALES,
    samples: int = 4,  # accumulated frames a view; 1: the exact view without jitter
    report: Callable[[float, str], None] = lambda fraction, text: None,
    *,
    split: str = "test",  # one of SPLITS
    downscale: int = 1,  # the images are shrunk by this factor first
    executor: str = "auto",
    pictures: Path | None = None,  # a folder for truth, render and error side by side
) -> dict[str, Any]:
    """Renders every view of a split at every scale, and compares display values.

    Returns plain data: `per_scale` {scale: means over views}; `psnr` (dB), `ssim`, `lpips`, `parameters_used` and
    `frame_ms` (of one of the `samples` frames), the means over scales; `per_image` [a dict a view, with its own
    `per_scale`]; `per_level` {level: `pixels`, `share`, `psnr`, `ssim` of the pixels that the render took from it}; and
    what was measured how. None stands for a metric that is not at hand (`lpips_why`) or needs a larger image.
    `parameters_used` is the share of the parameters whose nodes answered a sample of the frame. Raises `DatasetError`,
    `CheckpointError`, `ExecutorUnavailable`.
    """
    read = load_checkpoint(checkpoint)
    model = model_of(read)
    chosen, reason = make_executor(executor, model)
    dataset, warnings = open_split(data, split, model.scene)
    check_scales(dataset, scales, downscale)
    if pictures is not None:
        check_folder(pictures)
    lpips, why = open_lpips()
    run = _Run(chosen, model.scene, node_parameters(model), samples, lpips, pictures)
    n_views = len(dataset)
    rows = []
    try:
        for view in views_of(dataset, scales, downscale, model.scene["color_space"]):
            report(len(rows) / n_views, f"view {len(rows) + 1}/{n_views}")
            rows.append(_measure(run, view, scales, len(rows)))
        report(1.0, f"{n_views} views")
    finally:
        chosen.close()
    per_level = run.levels.rows()
    no_level = per_level.pop("none", None)
    per_scale = {str(s): _means([row["per_scale"][str(s)] for row in rows]) | {"views": len(rows)} for s in scales}
    return {
        **_means(list(per_scale.values())),
        "parameters_used_max": max(row["parameters_used_max"] for row in rows),
        "lpips_why": why if lpips is None else None,
        "views": len(rows),
        "per_scale": per_scale,
        "per_level": per_level,
        "no_level": no_level,  # pixels where the render shows the background alone
        "per_image": rows,
        "checkpoint": str(checkpoint),
        "backend": read.backend,
        "nodes": model.octree.n_nodes,
        "parameters": model.n_parameters,
        "data": str(data),
        "split": split,
        "downscale": downscale,
        "samples": samples,
        "executor": chosen.name,
        "executor_why": reason,
        "commit": commit(),
        "pictures": run.pictures_written,
        "warnings": warnings,
    }


def node_parameters(model: Model) -> NDArray[np.int64]:
    """Parameters of each node: [n_nodes]."""
    return np.array(model.level_parameters, np.int64)[model.octree.level.numpy()]


def open_split(data: Path | str, split: str, scene: dict[str, Any]) -> tuple[Dataset, list[str]]:
    """A split of a data set in the coordinates of a checkpoint's `scene`, and what a person should know of it."""
    if split not in SPLITS:
        raise ValueError(f"evaluate: split must be one of {', '.join(SPLITS)}, got {split!r}")
    # A format without coordinates of its own is placed by its own points: the checkpoint says where it was put.
    try:
        dataset = load_dataset(data, split, place_of(scene))
        if not len(dataset):
            raise DatasetError(f"{data}: the {split} split has no images")
    except DatasetError as error:
        hint = " (that is the test split; --split all measures every image)" if split == "test" else ""
        raise DatasetError(f"{error}{hint}") from None
    lenses = sum(not camera.is_pinhole for camera in dataset.cameras)
    note = [f"{lenses} images have lens distortion: measured on their undistorted pixels"] if lenses else []
    return dataset, [*dataset.warnings, *note]


def views_of(dataset: Dataset, scales: Sequence[int], downscale: int, color_space: str) -> Iterator[View]:
    """One image after the other, since a capture may be larger than memory; as `check_scales` lets them through."""
    views = zip(dataset.names, dataset.images, dataset.cameras, dataset.masks, strict=True)
    for name, path, camera, mask in views:
        counts = coverage(camera, mask)
        image, camera = box_average(read_image(path, color_space), downscale), box_camera(camera, downscale)
        view = View(name, [], [], [])
        for before, scale in pairwise((1, *scales)):
            image, camera = box_average(image, scale // before), box_camera(camera, scale // before)
            view.images.append(image)
            view.cameras.append(camera)
            view.counts.append(None if counts is None else box_all(counts, downscale * scale))
        yield view


def _measure(run: _Run, view: View, scales: tuple[int, ...], index: int) -> dict[str, Any]:
    """One view at every scale: its row of `per_image`."""
    per_scale = {}
    for i, (scale, camera) in enumerate(zip(scales, view.cameras, strict=True)):
        pair, buffers, stats = compare_view(run.executor, run.scene, view, i, run.samples)
        run.levels.add(pair, buffers.level, buffers.color[..., 3])
        assert stats.node_samples is not None  # every executor counts
        used = float(run.node_parameters[stats.node_samples > 0].sum() / run.node_parameters.sum())
        scores = pair.scores(run.lpips).to_dict()
        costs = {"parameters_used": used, "frame_ms": 1e3 * stats.seconds / run.samples}
        per_scale[str(scale)] = {**scores, **costs, "width": camera.width, "height": camera.height}
        if run.pictures is not None:
            save_comparison(run.pictures, index, view.name, scale, pair, per_scale[str(scale)])
            run.pictures_written += 1
    rows = list(per_scale.values())
    most = max(row["parameters_used"] for row in rows)
    return {"name": view.name, **_means(rows), "parameters_used_max": most, "per_scale": per_scale}


def compare_view(
    executor: Executor,
    scene: dict[str, Any],  # the model's
    view: View,
    index: int,  # of the scale
    samples: int,  # accumulated frames
    max_level: int = MAX_LEVEL,
) -> tuple[Comparison, FrameBuffers, RenderStats]:
    """Renders a view at one of its scales and holds it to its truth. Raises `DatasetError` if masks leave no pixel."""
    camera = view.cameras[index]
    image, valid = pinhole_truth(view.images[index], camera, view.counts[index])
    if not valid.any():
        size = f"{camera.width}x{camera.height}"
        raise DatasetError(f"{view.name}: expected pixels to measure at {size}, found all of them masked")
    request = RenderRequest(camera.pinhole(), max_level=max_level)
    buffers, stats = render_accumulated(executor, request, samples)
    return compare(shown(image, scene), shown(buffers.color, scene), valid), buffers, stats


def _means(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Metric -> its mean over rows that have it."""
    return {key: mean_of(row[key] for row in rows) for key in (*METRICS, *COSTS)}


def shown(rgba: NDArray[np.float32], scene: dict[str, Any]) -> NDArray[np.float32]:
    """What a person sees of premultiplied pixels [H, W, 4] over the scene's background: display values [H, W, 3]."""
    flat = encoded(torch.from_numpy(rgba.reshape(-1, 4)), torch.tensor(scene["background"]), scene["color_space"])
    return flat.clamp(0, 1).reshape(*rgba.shape[:2], 3).numpy()
