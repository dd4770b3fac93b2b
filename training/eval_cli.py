"""`infnerf eval`: the command line, the table and the lines that it prints. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..renderer.cliutil import CommandError, ExecutorName, check_output, check_range, progress_bar, say
from .cli_common import check_file, check_folder, write_json


@dataclass
class Eval:
    """Measure a checkpoint against images: PSNR, SSIM, LPIPS per scale, level and view; the parameters each frame used.

    LPIPS only where its weights are on this machine.
    """

    checkpoint: Positional[Path]
    """A .pth file."""
    data: Positional[Path]
    """The data set's folder; may be another than the one trained on, in the same world coordinates."""
    split: Literal["test", "all"] = "test"
    """The views that were kept out of training, or all of them."""
    downscale: Annotated[int, arg(metavar="K")] = 1
    """Shrink the images by this factor first."""
    samples: Annotated[int, arg(metavar="N")] = 4
    """Frames averaged; 1 is exact: pixel centres, no jitter."""
    executor: ExecutorName = "auto"
    """What computes the pixels."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the numbers there too, and those of every view."""
    pictures: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Write truth, render and error side by side there, a PNG a view and scale."""

    def run(self) -> int:
        check_range("--downscale", self.downscale, 1, 64)
        check_range("--samples", self.samples, 1, 65_536)
        check_file(self.checkpoint)
        check_folder(self.data)
        check_output(self.json)
        if self.pictures is not None and not self.pictures.parent.is_dir():
            raise CommandError(f"{self.pictures}: the folder {self.pictures.parent} does not exist")
        from .evaluate import evaluate

        with progress_bar("eval", 1.0) as advance:
            result = evaluate(
                self.checkpoint,
                self.data,
                samples=self.samples,
                report=advance,
                split=self.split,
                downscale=self.downscale,
                executor=self.executor,
                pictures=self.pictures,
            )
        for line in result["warnings"]:
            say(f"note: {line}")
        print_result(result)
        if result["lpips_why"]:
            say(f"no LPIPS: {result['lpips_why']}")
        if self.pictures is not None:
            say(f"wrote {result['pictures']} pictures to {self.pictures}")
        write_json(self.json, result)
        return 0


def print_result(result: dict[str, Any]) -> None:
    """The tables and a line a scale, on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, highlight=False)  # an image's name is no markup

    def table(title: str, columns: tuple[str, ...], rows: list[list[str]]) -> None:
        shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for i, column in enumerate(columns):
            shown.add_column(column, justify="right" if i else "left", overflow="ellipsis" if not i else "fold")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)

    scores = ("PSNR dB", "SSIM", "LPIPS", "parameters used")
    per_image = sorted(result["per_image"], key=lambda row: row["psnr"])
    worst = per_image if len(per_image) <= 12 else per_image[:10]
    title = (
        "views, worst first" if len(worst) == len(per_image) else f"the {len(worst)} worst of {len(per_image)} views"
    )
    table(title, ("view", *scores), [[row["name"], *_scores(row)] for row in worst])
    levels = list(result["per_level"].items())
    if result["no_level"]:
        levels.append(("none", result["no_level"]))
    rows = [[key, f"{100 * row['share']:.1f} %", *_numbers(row, ("psnr", "ssim"))] for key, row in levels]
    table("pixels by level", ("level", "pixels", *scores[:2]), rows)
    rows = [[f"1/{scale}", *_scores(row)] for scale, row in result["per_scale"].items()]
    table("scales", ("scale", *scores), [*rows, ["mean", *_scores(result)]])
    for scale, row in result["per_scale"].items():
        print(f"scale 1/{scale}: PSNR {row['psnr']:.2f} dB over {row['views']} views")


def _scores(row: dict[str, Any]) -> list[str]:
    return [*_numbers(row, ("psnr", "ssim", "lpips")), f"{100 * row['parameters_used']:.1f} %"]


def _numbers(row: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    """PSNR with two digits behind the point, the others with four; a dash for none."""
    return ["-" if row[key] is None else f"{row[key]:.{2 if key == 'psnr' else 4}f}" for key in keys]
