"""`infnerf convert`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from ..renderer.cliutil import CommandError, UsageError, check_output, check_range, progress_bar, say

if TYPE_CHECKING:
    from .import_mipnerf import Placement

MODEL_SUFFIXES = (".pt", ".pth", ".ckpt")
OF_DATA = ("to", "split")
BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


@dataclass
class Convert:
    """Write a scene of any known format as InfNeRF's, or as nerfstudio's; a public mip-NeRF as a checkpoint; or a
    PyNeRF as a run of nerfstudio's plugin."""

    source: Positional[Path]
    """A scene's folder, or its file of cameras: InfNeRF, nerfstudio, instant-ngp, Blender, Multicam, LLFF, COLMAP. Or a
    model: model.pt, the state dict of a PyTorch mip-NeRF; with --to nerfstudio a checkpoint of a PyNeRF."""
    out: Positional[Path]
    """The folder to write; for a model the checkpoint, OUT.pth."""
    to: Literal["infnerf", "nerfstudio"] = "infnerf"
    """The format to write."""
    split: Literal["train", "test", "val", "all"] | None = None
    """Write one split only, or all images as one; without, the splits are kept apart."""
    overwrite: bool = False
    """Replace a converted scene or a checkpoint that is there."""
    near: float = 2.0
    """Of a model: depth of the plane where its rays begin, in its own units. Like all that follows, no state dict
    tells it; defaults are those of the published Blender scenes."""
    far: float = 6.0
    """Of a model: depth of the plane where they end."""
    ray_shape: Literal["cone", "cylinder"] = "cone"
    """Of a model: what a pixel sees of space (LLFF scenes: cylinder)."""
    disparity: bool = False
    """Of a model: its first samples are even in 1 / depth."""
    samples: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: as the layers tell)")] = None
    """Of a model: intervals along a ray, coarse and fine each."""
    background: Annotated[str, arg(metavar="white|black|R,G,B")] = "white"
    """Of a model: what it was trained over."""
    linear: bool = False
    """Of a model: trained on linear colours, not on sRGB as images hold them."""
    placement: Annotated[str | None, arg(metavar="A,B,...", help_behavior_hint="(default: the same)")] = None
    """Of a model: 12 numbers, the rows of the 3x4 matrix from the data set's coordinates to those it was trained in: a
    rotation, a scale, a translation."""
    box: Annotated[str | None, arg(metavar="X,Y,Z,X,Y,Z", help_behavior_hint="(default: from near and far)")] = None
    """Of a model: minimum and maximum of what there is to see, in the data set's coordinates."""

    def run(self) -> int:
        if not self.source.exists():
            raise CommandError(f"{self.source}: no such file or folder")
        if not is_model(self.source):
            return self._data()
        return self._export() if self.to == "nerfstudio" else self._model()

    def _changed(self) -> set[str]:
        """Options that were given."""
        return {f.name for f in fields(self) if f.name not in ("source", "out") and getattr(self, f.name) != f.default}

    def _data(self) -> int:
        if other := sorted(self._changed() - {*OF_DATA, "overwrite"}):
            raise UsageError(f"--{other[0].replace('_', '-')} is for a model (.pt, .pth, .ckpt), got {self.source}")
        from ..data.convert import convert

        with progress_bar("convert", 1.0) as advance:
            summary = convert(self.source, self.out, self.to, self.split, self.overwrite, advance)
        for warning in summary.warnings:
            say(warning)
        counts = ", ".join(f"{count} {split} images" for split, count in summary.images.items())
        points = f"{summary.points} points" if summary.points else "no points"
        say(f"wrote {self.out} ({self.to}): {counts}, {points}")
        return 0

    def _export(self) -> int:
        if other := sorted(self._changed() - {"to", "overwrite"}):
            raise UsageError(f"--{other[0].replace('_', '-')} is not for a model that goes --to nerfstudio")
        if self.out.exists() and not self.out.is_dir():
            raise CommandError(f"{self.out}: expected a folder, found a file")
        if not self.overwrite and self.out.is_dir() and any(self.out.iterdir()):
            raise CommandError(f"{self.out}: expected an empty or new folder (--overwrite replaces what is there)")
        from .export_nerfstudio import export_nerfstudio

        for note in export_nerfstudio(self.source, self.out):
            say(note)
        say(f"wrote {self.out}: a run of nerfstudio's PyNeRF plugin (docs/checkpoint.md says what it holds)")
        return 0

    def _model(self) -> int:
        if other := sorted(self._changed() & set(OF_DATA)):
            raise UsageError(f"--{other[0]} is for data sets, got the model {self.source}")
        if self.out.suffix.lower() != ".pth":
            raise UsageError(f"a model is written as OUT.pth, got {self.out}")
        told = self._told()
        check_output(self.out)
        if self.out.exists() and not self.overwrite:
            raise CommandError(f"{self.out}: there is a file already (--overwrite replaces it)")
        from ..models.checkpoint import save_checkpoint
        from .import_mipnerf import import_mipnerf

        model = import_mipnerf(self.source, told)
        save_checkpoint(model.checkpoint(), self.out)
        config = model.config
        views = f"view directions in {config.view_width}" if config.use_viewdirs else "no view directions"
        say(
            f"wrote {self.out}: mip-NeRF of {config.net_depth} layers of {config.net_width}, {views}, degrees "
            f"{config.min_deg} to {config.max_deg}, {config.num_samples} samples, near {config.near:g}, "
            f"far {config.far:g}, {config.ray_shape}s, background {self.background}"
        )
        return 0

    def _told(self) -> Placement:
        """The options as numbers. Raises `UsageError`."""
        from .import_mipnerf import Placement

        if self.samples is not None:
            check_range("--samples", self.samples, 2, 4096)
        background = BACKGROUNDS.get(self.background) or _numbers("--background", self.background, 3)
        given = {} if self.placement is None else {"placement": _numbers("--placement", self.placement, 12)}
        box = None if self.box is None else _numbers("--box", self.box, 6)
        if min(background) < 0:
            raise UsageError(f"--background must be white, black or 3 numbers of at least 0, got {self.background}")
        if box is not None and not all(low < high for low, high in zip(box[:3], box[3:], strict=True)):
            raise UsageError(f"--box must be a minimum below a maximum, got {self.box}")
        return Placement(
            self.near, self.far, self.ray_shape, self.disparity, self.samples, background,
            "linear" if self.linear else "srgb", box=box, **given,
        )  # fmt: skip


def is_model(path: Path) -> bool:
    """Whether a source is a trained model rather than a data set: by its suffix, or a zip, as torch writes it."""
    if not path.is_file():
        return False
    if path.suffix.lower() in MODEL_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def _numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(abs(x) <= 1e12 for x in numbers):
        raise UsageError(f"{option} takes {count} finite numbers with commas between them, got {text!r}")
    return numbers
