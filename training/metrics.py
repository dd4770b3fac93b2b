"""How alike two images are, as display values in [0, 1]: PSNR, SSIM, LPIPS, and sums of both errors per octree level.

SSIM: Wang, Bovik, Sheikh, Simoncelli 2004, as their code has it (Gaussian window of 11 pixels, sigma 1.5), by
scikit-image. LPIPS: Zhang et al. 2018 with AlexNet, by torchmetrics, where everything it needs lies on this machine.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .losses import psnr

SSIM_WINDOW = 11  # px; a smaller image has no SSIM
LPIPS_SIDE = 32  # px; AlexNet's three strides leave nothing of a smaller image
EMPTY_ALPHA = 0.5 / 255  # a pixel whose alpha is below shows no node, and so has no level

Lpips = Callable[[NDArray[np.float32], NDArray[np.float32]], float | None]


@dataclass(frozen=True)
class Scores:
    """One image against its truth. None: the image is too small for that metric, or the metric is not at hand."""

    psnr: float  # dB
    ssim: float | None
    lpips: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Name -> value."""
        return dict(vars(self))


def squared_error(
    truth: NDArray[np.float32],  # [H, W, 3] display values
    render: NDArray[np.float32],  # [H, W, 3]
) -> NDArray[np.float64]:
    """The mean over channels of the squared difference, [H, W]. Raises `ValueError` for unequal shapes."""
    if truth.shape != render.shape or truth.ndim != 3:
        raise ValueError(f"metrics: images must be [H, W, 3] and equal, got {list(truth.shape)}, {list(render.shape)}")
    return np.square(truth.astype(np.float64) - render).mean(-1)


def ssim_map(truth: NDArray[np.float32], render: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """SSIM of the window around every pixel, the mean over channels, [H, W]; NaN where the window leaves the image.

    None if the image is smaller than the window. Raises `ValueError` for unequal shapes.
    """
    from skimage.metrics import structural_similarity

    squared_error(truth, render)  # its check of the shapes
    if min(truth.shape[:2]) < SSIM_WINDOW:
        return None
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    result: Any = structural_similarity(
        truth.astype(np.float64), render.astype(np.float64), data_range=1.0, channel_axis=-1, full=True, **options
    )
    values = result[1]
    margin = SSIM_WINDOW // 2
    inside = np.full(truth.shape[:2], np.nan)
    inside[margin:-margin, margin:-margin] = values.mean(-1)[margin:-margin, margin:-margin]
    return inside


def ssim(truth: NDArray[np.float32], render: NDArray[np.float32]) -> float | None:
    """The mean of `ssim_map`: 1 for equal images. None if the image is smaller than the window.

    >>> image = np.linspace(0, 1, 20 * 16 * 3, dtype=np.float32).reshape(20, 16, 3)
    >>> ssim(image, image), ssim(image[:8], image[:8])
    (1.0, None)
    """
    return _mean(ssim_map(truth, render))


def open_lpips() -> tuple[Lpips | None, str | None]:
    """LPIPS as a function of (truth, render), or None and one sentence that says what is missing.

    Downloads nothing: AlexNet's weights must already lie in torch's folder of checkpoints.
    """
    if importlib.util.find_spec("torchvision") is None or importlib.util.find_spec("torchmetrics") is None:
        return None, "LPIPS needs torchvision and torchmetrics, and AlexNet's weights; they are not all installed"
    import torch

    weights = Path(torch.hub.get_dir()) / "checkpoints"
    try:  # a torchvision made for another torch, or a damaged file, fails with any class of exception
        alexnet = importlib.import_module("torchvision.models").AlexNet_Weights.DEFAULT
        weights = weights / alexnet.url.rpartition("/")[2]
        if not weights.is_file():
            return None, f"LPIPS needs AlexNet's weights at {weights}; nothing is downloaded"
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).eval()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return None, f"LPIPS can't be opened: torchvision does not import, or {weights} is damaged ({reason})"

    @torch.no_grad()
    def lpips(truth: NDArray[np.float32], render: NDArray[np.float32]) -> float | None:
        if min(truth.shape[:2]) < LPIPS_SIDE:
            return None
        images = [torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1)))[None].float() for i in (truth, render)]
        return float(network.forward(*images))

    return lpips, None


@dataclass(frozen=True, eq=False)
class Comparison:
    """One image beside its truth, both [H, W, 3] display values, with the error of every pixel. Use `compare`."""

    truth: NDArray[np.float32]
    render: NDArray[np.float32]
    squared: NDArray[np.float64]  # [H, W], the mean over channels
    structure: NDArray[np.float64] | None  # [H, W] SSIM of the window around the pixel, NaN at the margin
    valid: NDArray[np.bool_]  # [H, W] pixels that count

    def scores(self, lpips: Lpips | None = None) -> Scores:
        """All metrics. LPIPS takes pixels that don't count as without error. Raises `ValueError` if none counts."""
        if not self.valid.any():
            raise ValueError("metrics: no pixel of the image counts")
        structure = None if self.structure is None else self.structure[self.valid]
        shown = self.render if self.valid.all() else np.where(self.valid[..., None], self.render, self.truth)
        return Scores(
            psnr(float(self.squared[self.valid].mean())), _mean(structure), lpips(self.truth, shown) if lpips else None
        )


def compare(
    truth: NDArray[np.float32],  # [H, W, 3] display values in [0, 1]
    render: NDArray[np.float32],  # [H, W, 3]
    valid: NDArray[np.bool_] | None = None,  # [H, W] pixels that count; None: all
) -> Comparison:
    """Looks at every pixel once. Raises `ValueError` for unequal shapes."""
    squared = squared_error(truth, render)
    return Comparison(
        truth, render, squared, ssim_map(truth, render), np.ones_like(squared, bool) if valid is None else valid
    )


class LevelErrors:
    """Errors of pixels, grouped by the octree level that the render took them from."""

    def __init__(self) -> None:
        # row 0: pixels that show no node; row l + 1: level l. Pixels, squared error, pixels with SSIM, SSIM.
        self._sums = np.zeros((1, 4))

    def add(
        self,
        pair: Comparison,
        level: NDArray[np.float32],  # [H, W] the frame's channel, rounded here
        alpha: NDArray[np.float32],  # [H, W] the frame's
    ) -> None:
        """Takes in one image."""
        group = np.where(alpha < EMPTY_ALPHA, 0, np.rint(level).astype(np.int64) + 1)
        size = max(len(self._sums), int(group.max()) + 1)
        columns = [(pair.valid, np.ones_like(pair.squared)), (pair.valid, pair.squared)]
        if pair.structure is not None:
            windows = pair.valid & np.isfinite(pair.structure)
            columns += [(windows, np.ones_like(pair.squared)), (windows, pair.structure)]
        sums = np.zeros((size, 4))
        sums[: len(self._sums)] = self._sums
        for i, (counts, values) in enumerate(columns):
            sums[:, i] += np.bincount(group[counts], values[counts], minlength=size)
        self._sums = sums

    def rows(self) -> dict[str, dict[str, Any]]:
        """Level -> pixels, their share of all, psnr, ssim; "none" for those without a node. No empty rows."""
        total = self._sums[:, 0].sum()
        table = {}
        for i in [*range(1, len(self._sums)), 0]:
            pixels, squared, windows, structure = self._sums[i].tolist()
            if pixels:
                table[str(i - 1) if i else "none"] = {
                    "pixels": int(pixels),
                    "share": pixels / total,
                    "psnr": psnr(squared / pixels),
                    "ssim": structure / windows if windows else None,
                }
        return table


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there; None if none is.

    >>> mean_of([1.0, None, 2.0])
    1.5
    """
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _mean(values: NDArray[np.float64] | None) -> float | None:
    """The mean of the finite values, None if there is none."""
    finite = np.empty(0) if values is None else values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None
