"""Buffers to pixels: view modes, exposure, background, the one encoding to sRGB. `shaders/resolve.frag` is the twin.

Both take their numbers from `uniforms` and their tables from `colormaps`, and agree to 1/255, so a file holds what the
window shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..models.octree import Octree
from ..models.pyramid import Pyramid
from . import colormaps
from .colormaps import lookup, srgb_decode
from .frame import FrameBuffers

if TYPE_CHECKING:
    from torch import Tensor

VIEW_MODES = ("rgb", "depth", "normal", "alpha", "level", "gsd", "samples", "node")
TINTED_MODES = ("level", "gsd")  # may be blended over rgb
#: View mode -> the channels it reads: a window need upload no others.
TEXTURES = {
    "rgb": ("color",),
    "depth": ("color", "depth"),
    "normal": ("color", "normal"),
    "alpha": ("color",),
    "level": ("color", "level", "clamped"),
    "gsd": ("color", "gsd_ratio", "clamped"),
    "samples": ("color", "samples"),
    "node": ("color", "node"),
}
SHADERS = Path(__file__).resolve().parents[1] / "shaders"
_SNAP = 1 / 512  # px: texture coordinates this near to a pixel's centre are meant to be on it


class SceneModel(Protocol):
    """What the ranges and legends need of a model."""

    @property
    def octree(self) -> Octree: ...
    @property
    def scene(self) -> dict[str, Any]: ...
    def gsd(self, level: Tensor | int) -> Tensor: ...


@dataclass
class ResolveSettings:
    """How buffers become a picture; a panel edits it in place."""

    mode: str = "rgb"  # one of VIEW_MODES
    background: tuple[float, float, float] = (0.05, 0.055, 0.065)  # linear
    exposure: float = 0.0  # EV: the scene's light times 2**exposure; the background keeps its own
    tint: float = 1.0  # level and gsd: 1 shows the heat colour alone, 0 rgb alone
    depth_range: tuple[float, float] = (0.1, 100.0)  # world units, near and far, shown on a logarithmic scale
    level_range: tuple[int, int] = (0, 15)  # levels in the legend
    gsd_range: tuple[float, float] = (-3.0, 3.0)  # log2(footprint / GSD): coarser than the pixel to finer
    samples_max: float = 128.0  # samples of a ray at the upper end
    srgb_input: bool = False  # the colours are sRGB values, as the images were when trained on (scene "color_space")

    @classmethod
    def for_model(cls, model: SceneModel, mode: str = "rgb", eye: NDArray | None = None) -> ResolveSettings:
        """Settings that suit a scene: its background, its colour space, its distances from `eye` [3] (else from its
        middle)."""
        scene = model.scene
        srgb = scene["color_space"] == "srgb"
        background = np.asarray(scene["background"], np.float64)
        red, green, blue = (srgb_decode(background) if srgb else background).tolist()
        box = np.asarray(scene["aabb"], np.float64)
        return cls(
            mode=mode,
            background=(red, green, blue),
            depth_range=depth_range(box, box.mean(0) if eye is None else eye),
            level_range=(0, model.octree.depth),
            srgb_input=srgb,
        )


def depth_range(box: NDArray, eye: NDArray) -> tuple[float, float]:
    """The nearest and farthest that `box` [2, 3] can be seen from `eye` [3]; from inside it, a hundredth and all of it.

    A function of the pose alone: colours don't flicker from picture to picture, and headless they are the window's.
    """
    far = float(np.linalg.norm(np.maximum(np.abs(box[0] - eye), np.abs(box[1] - eye))))
    near = float(np.linalg.norm(np.maximum(np.maximum(box[0] - eye, eye - box[1]), 0.0)))
    return max(near, far / 100), far


def uniforms(settings: ResolveSettings) -> dict[str, bool | int | float | tuple[float, ...]]:
    """The shader's uniforms by name, samplers left out. Raises `ValueError` for an unknown mode or an empty range."""
    if settings.mode not in VIEW_MODES:
        raise ValueError(f"view mode must be one of {', '.join(VIEW_MODES)}, got {settings.mode!r}")
    return {
        "mode": VIEW_MODES.index(settings.mode),
        "background": tuple(float(c) for c in settings.background),
        "gain": 2.0**settings.exposure,
        "tint": float(settings.tint),
        "range": _range(settings),
        "clamped_color": tuple(colormaps.CLAMPED.tolist()),
        "srgb_input": bool(settings.srgb_input),
    }


def _range(settings: ResolveSettings) -> tuple[float, float]:
    """Low and high of the mode's number, depth as log2. Raises `ValueError` where they are no range."""
    low, high = 0.0, 1.0
    if settings.mode == "depth":
        low, high = settings.depth_range
        if not low > 0:
            raise ValueError(f"depth_range must begin above 0, got {low}")
        low, high = float(np.log2(low)), float(np.log2(high))
    elif settings.mode == "gsd":
        low, high = settings.gsd_range
    elif settings.mode == "samples":
        high = settings.samples_max
    if not low < high:
        raise ValueError(f"the range of {settings.mode} must be low < high, got {low} and {high}")
    return float(low), float(high)


def pack_textures(buffers: FrameBuffers, mode: str | None = None) -> dict[str, NDArray]:
    """The shader's textures by sampler name, those of one mode or all, as they are (no copy).

    [H, W, 4] float32 is RGBA32F, [H, W, 3] RGB32F, [H, W] R32F, int32 R32I; all with NEAREST filters and no mipmaps.
    The sampler `lut` takes `colormaps.texture()`, once.
    """
    channels = buffers.channels()
    return channels if mode is None else {name: channels[name] for name in TEXTURES[mode]}


def shader_sources() -> tuple[str, str]:
    """GLSL of the vertex and fragment shader, with the numbers that both sides share put in."""
    defines = {f"MODE_{mode.upper()}": index for index, mode in enumerate(VIEW_MODES)}
    defines |= {f"ROW_{row.upper()}": index for index, row in enumerate(colormaps.ROWS)}
    defines |= {"LUT_SIZE": colormaps.SIZE, "SNAP": _SNAP}
    first, _, rest = (SHADERS / "resolve.frag").read_text(encoding="utf-8").partition("\n")
    lines = "".join(f"#define {name} {value}\n" for name, value in defines.items())
    return (SHADERS / "resolve.vert").read_text(encoding="utf-8"), f"{first}\n{lines}#line 2\n{rest}"


def resolve(buffers: FrameBuffers, settings: ResolveSettings) -> NDArray[np.uint8]:
    """The picture [H, W, 3] in sRGB bytes. Raises `ValueError` for settings out of range."""
    uniforms(settings)  # its checks
    limits = _range(settings)
    alpha = np.clip(buffers.color[..., 3:], 0.0, 1.0)
    background = np.asarray(settings.background, np.float32)
    if settings.mode == "alpha":
        return colormaps.to_bytes(srgb_decode(np.repeat(alpha, 3, axis=-1)))
    if settings.mode == "samples":
        return colormaps.to_bytes(lookup("sequential", _position(buffers.samples, limits)))
    if settings.mode == "rgb":
        return colormaps.to_bytes(_radiance(buffers, alpha, settings, background))
    if settings.mode == "node":
        alpha = np.where(buffers.node[..., None] < 0, np.float32(0), alpha)
    linear = _heat(buffers, settings.mode, limits) * alpha + (1 - alpha) * background
    if settings.mode in TINTED_MODES and settings.tint != 1:
        rgb = _radiance(buffers, alpha, settings, background)
        linear = rgb + (linear - rgb) * np.float32(settings.tint)
    return colormaps.to_bytes(linear)


def _radiance(
    buffers: FrameBuffers, alpha: NDArray[np.float32], settings: ResolveSettings, background: NDArray[np.float32]
) -> NDArray:
    """What a camera sees, linear [H, W, 3]."""
    linear = buffers.color[..., :3]
    if settings.srgb_input:
        linear = srgb_decode(linear / np.maximum(alpha, np.float32(1e-6))) * alpha
    return linear * np.float32(2.0**settings.exposure) + (1 - alpha) * background


def _heat(buffers: FrameBuffers, mode: str, limits: tuple[float, float]) -> NDArray:
    """The colour that stands for a mode's number, linear [H, W, 3]."""
    if mode == "depth":
        return lookup("sequential", 1 - _position(np.log2(np.maximum(buffers.depth, np.float32(1e-6))), limits))
    if mode == "normal":
        return srgb_decode(buffers.normal * 0.5 + 0.5)
    if mode == "node":
        return colormaps.TABLES["hues"][_hash(buffers.node) % colormaps.SIZE]
    if mode == "level":
        heat = lookup("levels", colormaps.level_position(buffers.level))
    else:
        heat = lookup("diverging", _position(buffers.gsd_ratio, limits))
    return heat + (colormaps.CLAMPED - heat) * np.clip(buffers.clamped, 0.0, 1.0)[..., None]


def _position(value: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.float32]:
    """Where a number lies in its range, 0..1 inside."""
    low, high = limits
    return (value - np.float32(low)) / np.float32(high - low)


def _hash(number: NDArray[np.int32]) -> NDArray:
    """A number's place among the hues, so that neighbours differ; the shader's `hue` has the same integers."""
    mixed = number.astype(np.uint32) * np.uint32(2654435761)
    mixed = (mixed ^ (mixed >> 15)) * np.uint32(2246822519)
    return mixed ^ (mixed >> 13)


@dataclass(frozen=True)
class LegendEntry:
    """One colour and what it stands for."""

    label: str
    color: tuple[int, int, int]  # sRGB bytes


@dataclass(frozen=True, eq=False)
class Legend:
    """What the colours of a view mode mean: a continuous bar, single colours, or both; rgb has neither."""

    title: str
    entries: tuple[LegendEntry, ...] = ()
    bar: NDArray[np.uint8] | None = None  # [256, 3] sRGB, low to high
    ticks: tuple[tuple[float, str], ...] = ()  # position 0..1 on the bar, label


def legend(settings: ResolveSettings, model: SceneModel) -> Legend:
    """The legend of the mode in the scene's units. Raises `ValueError` as `uniforms` does."""
    low, high = _range(settings)
    unit = model.scene["unit"]
    pyramid = isinstance(model.octree, Pyramid)
    finer = "finer asked than trained" if pyramid else "the tree ends above the level asked for"
    clamped = LegendEntry(finer, _bytes(colormaps.CLAMPED))
    stops = np.linspace(0, 1, 5)
    ramp = np.linspace(0, 1, colormaps.SIZE)
    if settings.mode == "depth":
        ticks = [(at, format_length(2 ** (low + at * (high - low)), unit)) for at in stops.tolist()]
        return Legend("depth", (), colormaps.to_bytes(lookup("sequential", 1 - ramp)), tuple(ticks))
    if settings.mode == "level":
        first, last = settings.level_range
        levels = [
            LegendEntry(f"{level}: {format_length(float(model.gsd(level)), unit)}/px", colormaps.level_color(level))
            for level in range(first, last + 1)
        ]
        return Legend("level: ground sampling distance", (*levels, clamped))
    if settings.mode == "gsd":
        ticks = [(at, _times(low + at * (high - low))) for at in stops.tolist()]
        return Legend(
            "detail against the pixel", (clamped,), colormaps.to_bytes(lookup("diverging", ramp)), tuple(ticks)
        )
    if settings.mode == "samples":
        ticks = [(at, f"{at * high:.0f}") for at in stops.tolist()]
        return Legend("samples per ray", (), colormaps.to_bytes(lookup("sequential", ramp)), tuple(ticks))
    if settings.mode == "alpha":
        grey = np.round(ramp * 255).astype(np.uint8)[:, None].repeat(3, axis=1)
        return Legend("alpha", (), grey, ((0.0, "0"), (0.5, "0.5"), (1.0, "1")))
    if settings.mode == "normal":
        axes = [LegendEntry(f"+{axis}", _bytes(srgb_decode(np.eye(3)[i] * 0.5 + 0.5))) for i, axis in enumerate("xyz")]
        return Legend("normal, world axes", tuple(axes))
    return Legend("node, a colour each" if settings.mode == "node" else "colour")


def format_length(value: float, unit: str) -> str:
    """A length in few characters; metres go down to millimetres.

    >>> format_length(0.0039, "m"), format_length(0.25, "m"), format_length(1234.0, "m"), format_length(0.5, "units")
    ('3.9 mm', '25 cm', '1230 m', '0.5 units')
    """
    if unit == "m" and 0 < value < 1:
        value, unit = (value * 1000, "mm") if value < 0.01 else (value * 100, "cm")
    return f"{float(f'{value:.3g}'):g} {unit}"


def _times(exponent: float) -> str:
    """A log2 of footprint over GSD in words."""
    factor = f"{2 ** abs(exponent):.3g}x"
    return "as fine" if exponent == 0 else f"{factor} {'finer' if exponent > 0 else 'coarser'}"


def _bytes(linear: NDArray) -> tuple[int, int, int]:
    red, green, blue = colormaps.to_bytes(linear).tolist()
    return red, green, blue
