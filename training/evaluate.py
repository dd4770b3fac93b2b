"""Measures a checkpoint on a data set's test split: PSNR per image scale. `infnerf eval`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..data.dataset import DatasetError, load_dataset
from ..data.pyramid import ImagePyramid
from ..models.infnerf import InfNeRF
from ..renderer.accumulate import render_accumulated
from ..renderer.executors import make_executor
from ..renderer.frame import RenderRequest
from .losses import encoded, psnr
from .trainer import SCALES


def evaluate(
    checkpoint: Path | str,
    data: Path | str,
    scales: tuple[int, ...] = SCALES,
    samples: int = 4,  # accumulated frames a view; 1: the exact view without jitter
    report: Callable[[float, str], None] = lambda fraction, text: None,
) -> dict[str, Any]:
    """Renders every test view at every scale. Returns {"psnr": {scale: dB, the mean over views}, "views": n}."""
    dataset = load_dataset(data, "test")
    if not len(dataset):
        raise DatasetError(f"{data}: the test split has no images")
    model = InfNeRF.load(str(checkpoint))
    executor, _ = make_executor("auto", model)
    color_space = model.scene["color_space"]
    pyramid = ImagePyramid.load(dataset, scales, color_space=color_space)
    background = torch.tensor(model.scene["background"])
    totals = dict.fromkeys(scales, 0.0)
    for i in range(pyramid.n_images):
        for s, scale in enumerate(scales):
            camera = pyramid.cameras[s][i]
            buffers, _ = render_accumulated(executor, RenderRequest(camera), samples)
            images = [torch.from_numpy(image).reshape(-1, 4) for image in (buffers.color, pyramid.image(s, i))]
            shown = [encoded(image, background, color_space).clamp(0, 1) for image in images]
            totals[scale] += psnr(float((shown[0] - shown[1]).square().mean()))
        report((i + 1) / pyramid.n_images, f"view {i + 1}/{pyramid.n_images}")
    return {"psnr": {str(s): totals[s] / pyramid.n_images for s in scales}, "views": pyramid.n_images}
