"""How good a run is while it goes on: a few held-out views, small, rendered from the checkpoint just made.

Measured as `infnerf eval` measures. Nothing here draws a random number, so that validating changes no run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset, DatasetError
from ..models.backends import Model, model_of
from ..models.checkpoint import Checkpoint
from ..renderer.executors import make_executor
from ..renderer.frame import Executor
from .eval_pictures import comparison
from .evaluate import View, compare_view, open_split, pinhole_truth, views_of
from .losses import psnr
from .metrics import mean_of

VIEWS = 4  # at most
SIDE = 200  # px, the longer side of a view at most


@dataclass(frozen=True)
class Score:
    """What validation found."""

    psnr: float  # dB, of the pixels of all views together: an empty view, which any model gets right, tells nothing
    ssim: float | None  # the mean over views; None: they are too small for it
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)  # name -> [H, W, 3] sRGB


def held_out(data: Path, scene: dict[str, Any], downscale: int, pixels: int | None = None) -> list[View]:
    """Views that training never sees, spread over the validation split (or the test split where there is none), of
    about `pixels` together at most.

    Raises `DatasetError` with the reason if there are none.
    """
    if importlib.util.find_spec("skimage") is None:
        raise DatasetError("validation needs scikit-image (pip install 'infnerf-view[train]')")
    dataset, _ = open_split(data, "val", scene)
    chosen = sorted({round(i) for i in np.linspace(0, len(dataset) - 1, VIEWS).tolist()})
    side = SIDE if pixels is None else min(SIDE, round((pixels / len(chosen)) ** 0.5))
    views = [_view(dataset, i, downscale, scene["color_space"], side) for i in chosen]
    views = [view for view in views if pinhole_truth(view.images[0], view.cameras[0], view.counts[0])[1].any()]
    if not views:
        raise DatasetError(f"{data}: expected held-out views with pixels to measure, found all of them masked")
    return views


def _view(dataset: Dataset, index: int, downscale: int, color_space: str, side: int) -> View:
    """One view, shrunk by the smallest multiple of `downscale` that brings it within `side` and leaves it a pixel."""
    sides = dataset.cameras[index].width, dataset.cameras[index].height
    times = min(-(-max(sides) // (side * downscale)), max(min(sides) // downscale, 1))
    return next(views_of(dataset.select([index]), (1,), downscale * times, color_space))


def validate(views: Sequence[View], checkpoint: Checkpoint, pictures: bool = False) -> Score:
    """Renders the views without jitter and compares them; `pictures`: also one of them with the tree cut at each level.

    Raises `DatasetError` if masks leave no pixel of a view.
    """
    model = model_of(checkpoint)
    executor, _ = make_executor("auto", model)
    try:
        pairs = [compare_view(executor, model.scene, view, 0, 1)[0] for view in views]
        shown = _levels(executor, model, views[len(views) // 2]) if pictures else {}
    finally:
        executor.close()
    squared = np.concatenate([pair.squared[pair.valid] for pair in pairs])
    return Score(psnr(float(squared.mean())), mean_of(pair.scores().ssim for pair in pairs), shown)


def _levels(executor: Executor, model: Model, view: View) -> dict[str, NDArray[np.uint8]]:
    """Truth, render and error side by side, a picture a level: the tree down to that level and no deeper."""
    shown = {}
    for level in range(model.octree.depth + 1):
        pair = compare_view(executor, model.scene, view, 0, 1, max_level=level)[0]
        title = f"{view.name}, level 0" if not level else f"{view.name}, levels 0 to {level}"
        shown[f"validation/level_{level}"] = comparison(pair, title, f"PSNR {pair.scores().psnr:.2f} dB")
    return shown
