"""When two executors have rendered the same picture."""

from __future__ import annotations

import numpy as np

from infnerf.renderer.frame import CHANNELS, FrameBuffers


def assert_same_pictures(a: FrameBuffers, b: FrameBuffers) -> None:
    """Median below 1e-5 and 99.9 % of pixels within 2e-3: the rest are samples that rounding put across a border."""
    difference = np.abs(a.color - b.color).max(-1)
    assert np.median(difference) < 1e-5
    assert np.quantile(difference, 0.999) < 2e-3, np.sort(difference.ravel())[-10:]
    for name in CHANNELS[1:]:
        x, y = getattr(a, name).astype(np.float64), getattr(b, name).astype(np.float64)
        error = np.abs(x - y) if x.ndim == 2 else np.abs(x - y).max(-1)
        assert np.quantile(error, 0.99) < (0.05 if name == "normal" else 2e-3), name
