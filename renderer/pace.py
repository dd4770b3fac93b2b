"""How large a picture or a slice of one may be: sizes that hold a time, learnt from the times measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..models.camera import Camera
from .accumulate import add_stats
from .frame import MAX_STEP_SCALE, Executor, FrameBuffers, RenderRequest, RenderStats
from .view import Snapshot

FIRST_SCALE = 1 / 8  # of the window's edge: the first picture of an unknown scene must not take long
MIN_SCALE = 1 / 16
HYSTERESIS = (0.8, 1.2)  # wanted over present area; inside, the size stays, so that the picture does not flicker
SLICE_MS = 8.0  # measured work between two looks at what the window wants
MIN_SLICE_AREA = 1024  # px


@dataclass(frozen=True)
class Pace:
    """How pictures are cut for an executor; one that is slow by nature has an attribute `pace` of its own."""

    first_scale: float = FIRST_SCALE
    least_scale: float = MIN_SCALE
    least_slice: int = MIN_SLICE_AREA  # px
    hurry: float = 1.0  # factor on `step_scale` while the view moves
    ladder: bool = False  # a resting view sharpens by doublings, each outward from where the person looks


def pace_of(executor: Executor | None) -> Pace:
    """The executor's own `pace`, or that of those that are fast."""
    return getattr(executor, "pace", Pace())


def hurried(request: RenderRequest, executor: Executor) -> RenderRequest:
    """A request of a moving view, with as few samples as the executor's pace asks for."""
    return replace(request, step_scale=min(request.step_scale * pace_of(executor).hurry, MAX_STEP_SCALE))


def rungs(executor: Executor, shown: Snapshot | None, full_scale: float) -> list[float]:
    """Scales below the full one at which a slow executor's resting picture is drawn first, each twice the last."""
    scales: list[float] = []
    if pace_of(executor).ladder and shown is not None:
        scale = 2 * shown.width / shown.view.camera.width
        while scale <= full_scale / 2:
            scales.append(scale)
            scale *= 2
    return scales


def in_pixels(focus: tuple[float, float] | None, camera: Camera) -> tuple[float, float]:
    """A place of the window, 0 to 1, as pixels of an image of it; None: the middle.

    >>> import numpy as np
    >>> in_pixels((0.25, 0.5), Camera.from_fov(np.eye(4), 60, 320, 192))
    (80.0, 96.0)
    """
    x, y = focus or (0.5, 0.5)
    return x * camera.width, y * camera.height


class ScaleController:
    """Keeps the time of a frame at a target by its size: frame time is taken as proportional to the pixel count."""

    def __init__(self, first: float = FIRST_SCALE, least: float = MIN_SCALE) -> None:
        self.scale, self.least = first, least
        self.ms_per_pixel: float | None = None

    def measured(self, pixels: int, ms: float, window_pixels: int, target_ms: float, max_scale: float) -> None:
        """Takes in one frame's time and sets `scale` for the next; inside the hysteresis it stays."""
        cost = max(ms, 1e-3) / pixels
        self.ms_per_pixel = cost if self.ms_per_pixel is None else 0.5 * (self.ms_per_pixel + cost)
        wanted = target_ms / self.ms_per_pixel / window_pixels
        if not HYSTERESIS[0] <= wanted / self.scale**2 <= HYSTERESIS[1]:
            self.scale = wanted**0.5
        self.scale = min(max(self.scale, self.least), max_scale)


class SliceBudget:
    """How many pixels a slice may have to take about `SLICE_MS`, or twice a call's fixed cost where that is more."""

    def __init__(self, least: int = MIN_SLICE_AREA) -> None:
        self.overhead_ms: float | None = None  # of a call with next to no pixels
        self._least = least
        self._pixels_per_ms = 128.0 * least / MIN_SLICE_AREA

    @property
    def area(self) -> float:
        overhead = self.overhead_ms or 0.0
        return max(self._least, self._pixels_per_ms * max(SLICE_MS - overhead, overhead))

    def measured(self, pixels: int, ms: float) -> None:
        """Takes in one slice's time. Empty sky is quick, so sizes grow slowly: the next slice may be a facade."""
        self.overhead_ms = min(ms, self.overhead_ms or 0.0)
        rate = pixels / max(ms - self.overhead_ms, 0.05)
        self._pixels_per_ms *= min(max(rate / self._pixels_per_ms, 0.5), 1.25)


def render_in_slices(
    executor: Executor,
    request: RenderRequest,
    out: FrameBuffers,
    budget: SliceBudget,
    cancelled: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
    after_slice: Callable[[RenderStats], None] = lambda stats: None,
    focus: Callable[[], tuple[float, float]] | None = None,  # px of the image; None: the region's middle
) -> RenderStats:
    """Renders `request.region` piece by piece, from the middle outward, and calls `after_slice` with the sum so far.

    With a `focus`, which may move meanwhile, the next piece is always the one nearest to it. Returns the sum;
    `stats.cancelled`: part of the region was not written.
    """
    total = RenderStats()

    def render(region: tuple[int, int, int, int]) -> float:
        start = clock()
        add_stats(total, executor.render(replace(request, region=region), out, cancelled))
        return (clock() - start) * 1000

    pending = [request.bounds]
    x0, y0, x1, y1 = request.bounds
    if budget.overhead_ms is None and x0 < x1 and y0 < y1 and not cancelled():
        budget.overhead_ms = render((x0, y0, x0 + 1, y0 + 1))
    while pending and not (total.cancelled or cancelled()):
        center = ((x0 + x1) / 2, (y0 + y1) / 2) if focus is None else focus()
        if focus is not None:
            pending.sort(key=lambda region: -distance(region, center))
        region = pending.pop()
        area = (region[2] - region[0]) * (region[3] - region[1])
        if area > 1.5 * budget.area:
            pending.extend(halves(region, center))
            continue
        ms = render(region)
        if not total.cancelled:
            budget.measured(area, ms)
            after_slice(total)
    total.cancelled |= bool(pending) or cancelled()
    if not total.cancelled:
        executor.fill_normals(request.camera, out, request.bounds)
    return total


def distance(region: tuple[int, int, int, int], point: tuple[float, float]) -> float:
    """From a point to the nearest of a region, px.

    >>> distance((0, 0, 8, 8), (3, 12)), distance((0, 0, 8, 8), (4, 4))
    (4.0, 0.0)
    """
    x0, y0, x1, y1 = region
    dx, dy = max(x0 - point[0], point[0] - x1, 0.0), max(y0 - point[1], point[1] - y1, 0.0)
    return float(dx * dx + dy * dy) ** 0.5


def halves(region: tuple[int, int, int, int], center: tuple[float, float]) -> list[tuple[int, int, int, int]]:
    """A region cut across its longer side, the half nearer to `center` last.

    >>> halves((0, 0, 64, 32), (10, 16))
    [(32, 0, 64, 32), (0, 0, 32, 32)]
    """
    x0, y0, x1, y1 = region
    if x1 - x0 >= y1 - y0:
        x = _middle(x0, x1)
        parts = [(x0, y0, x, y1), (x, y0, x1, y1)]
        near_first = center[0] < x
    else:
        y = _middle(y0, y1)
        parts = [(x0, y0, x1, y), (x0, y, x1, y1)]
        near_first = center[1] < y
    return parts[::-1] if near_first else parts


def _middle(low: int, high: int) -> int:
    """Between two edges, a multiple of 8 from the lower one where there is room: kernels take packets of pixels."""
    half = (high - low) // 2
    return low + (half // 8 * 8 if half >= 8 else half)
