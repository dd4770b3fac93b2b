"""`infnerf eval`: the command line, the table and the lines that it prints. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..renderer.cliutil import CommandError, ExecutorName, UsageError, check_output, check_range, progress_bar, say
from .cli_common import check_file, check_folder, write_json


@dataclass
class Eval:
    """Measure checkpoints against images: PSNR, SSIM, LPIPS per scale, level and view; the parameters each frame used.

    Several checkpoints, of any backend, are measured one after the other and shown beside each other. LPIPS only where
    its weights are on this machine.
    """

    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="CHECKPOINT... DATA")]
    """One or several .pth files, then the data set's folder, which may be another than the one trained on, in the same
    world coordinates."""
    split: Literal["test", "all"] = "test"
    """The views that were kept out of training, or all of them."""
    downscale: Annotated[int, arg(metavar="K")] = 1
    """Shrink the images by this factor first."""
    samples: Annotated[int, arg(metavar="N")] = 4
    """Frames averaged; 1 is exact: pixel centres, no jitter."""
    executor: ExecutorName = "auto"
    """What computes the pixels."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the numbers there too, and those of every view; of several checkpoints a list."""
    pictures: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Write truth, render and error side by side there, a PNG a view and scale; of several checkpoints into folders
    of their names."""

    def run(self) -> int:
        check_range("--downscale", self.downscale, 1, 64)
        check_range("--samples", self.samples, 1, 65_536)
        if len(self.paths) < 2:
            raise UsageError("eval takes one or several checkpoints and then a data set's folder")
        *checkpoints, data = self.paths
        for checkpoint in checkpoints:
            check_file(checkpoint)
        check_folder(data)
        check_output(self.json)
        if self.pictures is not None and not self.pictures.parent.is_dir():
            raise CommandError(f"{self.pictures}: the folder {self.pictures.parent} does not exist")
        titles = _titles(checkpoints)
        results = []
        for checkpoint, title in zip(checkpoints, titles, strict=True):
            result = self._measure(checkpoint, data, title if len(checkpoints) > 1 else "")
            for line in result["warnings"]:
                say(f"note: {line}")
            results.append(result)
            if len(checkpoints) > 1:
                print(f"{title}: {checkpoint}")
            print_result(result)
        if len(results) > 1:
            print_comparison(titles, results)
        if results[0]["lpips_why"]:
            say(f"no LPIPS: {results[0]['lpips_why']}")
        if self.pictures is not None:
            say(f"wrote {sum(result['pictures'] for result in results)} pictures to {self.pictures}")
        write_json(self.json, results if len(results) > 1 else results[0])
        return 0

    def _measure(self, checkpoint: Path, data: Path, title: str) -> dict[str, Any]:
        from .evaluate import evaluate

        pictures = self.pictures
        if pictures is not None and title:
            pictures.mkdir(exist_ok=True)
            pictures = pictures / title
        with progress_bar(f"eval {title}".strip(), 1.0) as advance:
            return evaluate(
                checkpoint,
                data,
                samples=self.samples,
                report=advance,
                split=self.split,
                downscale=self.downscale,
                executor=self.executor,
                pictures=pictures,
            )


def _titles(checkpoints: list[Path]) -> list[str]:
    """A short name of its own for each: the file's, numbered where two are alike."""
    stems = [path.stem for path in checkpoints]
    return [stem if stems.count(stem) == 1 else f"{stem}-{i}" for i, stem in enumerate(stems, 1)]


def print_comparison(titles: list[str], results: list[dict[str, Any]]) -> None:
    """What several checkpoints of one scene reach and cost, a column each."""
    from ..models.backends import TITLES

    rows = []
    for scale in results[0]["per_scale"]:
        per_scale = [result["per_scale"][scale] for result in results]
        for name, key in (("PSNR dB", "psnr"), ("SSIM", "ssim"), ("LPIPS", "lpips")):
            rows.append([f"1/{scale} {name}", *(_numbers(row, (key,))[0] for row in per_scale)])
        rows.append([f"1/{scale} ms a frame", *(f"{row['frame_ms']:.1f}" for row in per_scale)])
    rows.append(["mean PSNR dB", *(_numbers(result, ("psnr",))[0] for result in results)])
    rows.append(["mean SSIM", *(_numbers(result, ("ssim",))[0] for result in results)])
    rows.append(["parameters", *(f"{result['parameters']:,}" for result in results)])
    rows.append(["used by a frame", *(f"{100 * result['parameters_used']:.1f} %" for result in results)])
    rows.append(["backend", *(TITLES[result["backend"]] for result in results)])
    rows.append(["executor", *(result["executor"] for result in results)])
    _table("beside each other", ("", *titles), rows)


def print_result(result: dict[str, Any]) -> None:
    """The tables and a line a scale, on stdout."""
    scores = ("PSNR dB", "SSIM", "LPIPS", "parameters used", "ms a frame")
    per_image = sorted(result["per_image"], key=lambda row: row["psnr"])
    worst = per_image if len(per_image) <= 12 else per_image[:10]
    title = (
        "views, worst first" if len(worst) == len(per_image) else f"the {len(worst)} worst of {len(per_image)} views"
    )
    _table(title, ("view", *scores), [[row["name"], *_scores(row)] for row in worst])
    levels = list(result["per_level"].items())
    if result["no_level"]:
        levels.append(("none", result["no_level"]))
    rows = [[key, f"{100 * row['share']:.1f} %", *_numbers(row, ("psnr", "ssim"))] for key, row in levels]
    _table("pixels by level", ("level", "pixels", *scores[:2]), rows)
    rows = [[f"1/{scale}", *_scores(row)] for scale, row in result["per_scale"].items()]
    _table("scales", ("scale", *scores), [*rows, ["mean", *_scores(result)]])
    for scale, row in result["per_scale"].items():
        print(f"scale 1/{scale}: PSNR {row['psnr']:.2f} dB over {row['views']} views")


def _table(title: str, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        shown.add_column(column, justify="right" if i else "left", overflow="ellipsis" if not i else "fold")
    for row in rows:
        shown.add_row(*row)
    Console(markup=False, emoji=False, highlight=False).print(shown)  # an image's name is no markup


def _scores(row: dict[str, Any]) -> list[str]:
    used, taken = f"{100 * row['parameters_used']:.1f} %", f"{row['frame_ms']:.1f}"
    return [*_numbers(row, ("psnr", "ssim", "lpips")), used, taken]


def _numbers(row: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    """PSNR with two digits behind the point, the others with four; a dash for none."""
    return ["-" if row[key] is None else f"{row[key]:.{2 if key == 'psnr' else 4}f}" for key in keys]
