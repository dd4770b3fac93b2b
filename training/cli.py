"""`infnerf`: everything but the viewer. Light to import; each command brings what it needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg, subcommand

from ..renderer.cliutil import (
    CommandError,
    ExecutorName,
    UsageError,
    ViewMode,
    check_output,
    check_path,
    check_range,
    parse_arguments,
    parse_size,
    progress_bar,
    read_camera,
    run_command,
    say,
)
from .cli_common import check_file, load_kernel_model, write_json
from .convert_cli import Convert
from .eval_cli import Eval
from .info_cli import Info
from .mesh_cli import Mesh

if TYPE_CHECKING:
    from ..models.config import InfNeRFConfig
    from .backends import Backend
    from .config import TrainerConfig
    from .logs import LogConfig

PROGRAM = "infnerf"
DESCRIPTION = "Makes, measures and renders octree NeRFs. The viewer is infnerf-view."


@dataclass
class City:
    """Write a synthetic city with exact ground truth: images, cameras, sparse points."""

    out: Positional[Path]
    """The folder to write."""
    blocks: Annotated[int, arg(metavar="N")] = 6
    """City blocks along an edge."""
    views: Annotated[int, arg(metavar="N")] = 160
    """Training images; the test split comes on top."""
    size: Annotated[str, arg(metavar="WxH")] = "400x300"
    """Pixels of an image."""
    seed: int = 0
    """Another seed is another city."""
    overwrite: bool = False
    """Replace the city that is there."""

    def run(self) -> int:
        check_range("--blocks", self.blocks, 1, 64)
        check_range("--views", self.views, 1, 100_000)
        size = parse_size(self.size)
        from ..data.city import make_city

        with progress_bar("city", 1.0) as advance:
            summary = make_city(
                self.out,
                self.blocks,
                self.views,
                size,
                self.seed,
                progress=lambda done, total: advance(done / total, f"image {done}/{total}"),
                overwrite=self.overwrite,
            )
        say(f"wrote {self.out}: {summary.images} images, {summary.test_views} for tests, {summary.points} points")
        return 0


@dataclass
class Train:
    """Train an InfNeRF (build an octree from a data set's points), or another model. Ctrl-C keeps a checkpoint that
    loads."""

    data: Positional[Path]
    """A capture as InfNeRF, nerfstudio, Blender, Multicam, LLFF or COLMAP lay it out (docs/data.md)."""
    out: Path
    """The checkpoint to write."""
    backend: Literal["infnerf", "pynerf", "mipnerf"] = "infnerf"
    """What is trained. Options that name octrees are InfNeRF's."""
    setting: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=VALUE")] = ()
    """A number of the model or its training that has no option of its own (docs/training.md). May be repeated."""
    steps: Annotated[int | None, arg(metavar="N")] = None
    """Stop after so many steps."""
    minutes: Annotated[float | None, arg(metavar="M")] = None
    """Stop after so many minutes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: on the GPU if there is one that can be used."""
    downscale: Annotated[int, arg(metavar="K")] = 1
    """Train on images smaller by this factor."""
    seed: int = 0
    """Of the initial weights and of the order of rays."""
    resume: bool = False
    """Go on with the run that wrote --out, from the file OUT.resume beside it."""
    max_depth: Annotated[int, arg(metavar="N")] = 16
    """Levels of the octree below its root; 0 is a single hash grid."""
    table_size: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: 4096)")] = None
    """Entries of each hash table, a power of two."""
    level_table_sizes: Annotated[str | None, arg(metavar="A,B,...", help_behavior_hint="(default: all alike)")] = None
    """The same for nodes on octree level 0, 1, ...; the last number holds for all below."""
    level_hidden_dims: Annotated[str | None, arg(metavar="A,B,...", help_behavior_hint="(default: 32)")] = None
    """Width of the MLPs' hidden layers, 16, 32 or 64, on octree level 0, 1, ...; the last holds for all below."""
    grid_levels: Annotated[int, arg(metavar="N")] = 8
    """Levels of each node's hash grid."""
    resolution: Annotated[int, arg(metavar="R")] = 128
    """Cells along a node's edge on the finest grid level: a level's GSD is its nodes' size / R."""
    max_megabytes: Annotated[float, arg(metavar="MB")] = 16.0
    """The largest checkpoint: it bounds the number of nodes."""
    background: Literal["auto", "on", "off"] = "auto"
    """Whether the root also holds the world around its cube; auto: if no image has an alpha channel."""
    prune: bool = True
    """Drop nodes that turn out empty or that no image sees, twice during the run."""
    image_gigabytes: Annotated[float | None, arg(metavar="GB")] = None
    """Memory for training images; what does not fit is read again in turn. Default: all stay."""
    loss: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=WEIGHT")] = ()
    """Weight of a loss: rgb (1 unless told), consistency, transparency, distortion, depth (0). May be repeated."""
    appearance_dim: Annotated[int, arg(metavar="N")] = 0
    """Numbers learnt for each image, for light and exposure that differ; 0: none. Viewers show their mean."""
    rgb_loss: Literal["l2", "charbonnier"] = "l2"
    """How errors of colour count."""
    save_minutes: Annotated[float, arg(metavar="M")] = 5.0
    """Write the checkpoint so often, and beside it the best so far, OUT.best.pth."""
    logs: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: OUT.logs)")] = None
    """The folder for TensorBoard's curves and pictures."""
    no_logs: bool = False
    """No TensorBoard."""
    wandb: Annotated[tuple[str, ...] | None, arg(metavar="[PROJECT]")] = None
    """Log to Weights & Biases too (project infnerf by default); WANDB_MODE=offline keeps it on this machine."""
    parallel: Literal["data", "subtree"] = "data"
    """How the processes that torchrun started share the work: replicas, or subtrees of their own (docs/using.md)."""
    subtree_level: Annotated[int | None, arg(metavar="N")] = None
    """With --parallel subtree, the level of the subtrees' roots. Default: the first with a node for each process."""
    shared_fraction: Annotated[float, arg(metavar="F")] = 0.6
    """With --parallel subtree, the share of the run in which all train the levels above together."""

    def settings(self) -> tuple[Any, TrainerConfig]:
        """What a run is told. Raises `UsageError` or `CommandError` for arguments that are wrong, before anything is
        read."""
        if self.steps is None and self.minutes is None:
            raise UsageError("train needs --steps N or --minutes M, or both (the first to be reached stops it)")
        if self.steps is not None:
            check_range("--steps", self.steps, 1, 1_000_000_000)
        if self.minutes is not None:
            check_range("--minutes", self.minutes, 1e-3, 1e6)
        check_range("--downscale", self.downscale, 1, 64)
        check_range("--max-depth", self.max_depth, 0, 31)
        check_range("--max-megabytes", self.max_megabytes, 0.2, 1e6)
        check_range("--image-gigabytes", self.image_gigabytes or 1.0, 1e-3, 1e5)
        check_range("--save-minutes", self.save_minutes, 0.01, 1e6)
        if self.wandb is not None and len(self.wandb) > 1:
            raise UsageError(f"--wandb takes one PROJECT, got {' '.join(self.wandb)}")
        check_range("--subtree-level", self.subtree_level or 1, 1, 31)
        check_range("--shared-fraction", self.shared_fraction, 0.01, 0.99)
        if self.parallel == "subtree" and os.environ.get("WORLD_SIZE", "1") == "1":
            raise UsageError("--parallel subtree needs processes: torchrun --nproc-per-node K -m infnerf.training ...")
        if not self.data.exists():
            raise CommandError(f"{self.data}: no such folder")
        check_output(self.out)
        from .backends import BACKENDS
        from .losses import LossConfig

        kind = BACKENDS.get(self.backend)
        if kind is None:
            raise UsageError(f"--backend {self.backend} is not supported yet, expected {' or '.join(BACKENDS)}")
        self._check_options(kind)
        try:
            of_model, of_run = kind.parse(self.setting)
        except ValueError as error:
            raise UsageError(f"--setting: {error}") from None
        try:
            losses = LossConfig.parse(self.loss, rgb_form=self.rgb_loss)
        except ValueError as error:
            raise UsageError(f"--loss: {error}") from None
        try:
            model = kind.shape(**of_model) if self.backend != "infnerf" else self._infnerf(of_model)
            config = kind.config(
                self.steps, self.minutes, self.seed, self.downscale, max_depth=self.max_depth,
                max_bytes=round(self.max_megabytes * 1e6), losses=losses,
                octree_prune_schedule=None if self.prune else (),
                image_bytes=None if self.image_gigabytes is None else round(self.image_gigabytes * 1e9),
                device=self.device if "device" in kind.options else "cpu", **of_run,
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(f"--setting: {error}") from None
        return model, config

    def _check_options(self, kind: Backend) -> None:
        """Raises `UsageError` for an option that is not of this backend."""
        from .backends import OPTIONS

        defaults = {field.name: field.default for field in fields(self)}
        for name in OPTIONS:
            if name not in kind.options and getattr(self, name) != defaults[name]:
                raise UsageError(
                    f"--{name.replace('_', '-')} is not an option of --backend {self.backend}; --setting NAME=VALUE "
                    "sets its numbers"
                )

    def _infnerf(self, more: dict[str, Any]) -> InfNeRFConfig:
        """The model that options and settings ask for. Raises `UsageError`."""
        from ..models.config import InfNeRFConfig

        sizes = _numbers("--level-table-sizes", self.level_table_sizes)
        widths = _numbers("--level-hidden-dims", self.level_hidden_dims)
        if sizes and self.table_size is not None:
            raise UsageError("--table-size and --level-table-sizes exclude each other")
        given: dict[str, Any] = {
            "n_grid_levels": self.grid_levels, "table_size": max(sizes, default=self.table_size or 4096),
            "resolution": self.resolution, "hidden_dim": max(widths, default=32), "level_table_sizes": sizes,
            "level_hidden_dims": widths, "appearance_dim": self.appearance_dim,
        }  # fmt: skip
        try:
            return InfNeRFConfig(**given | more)
        except ValueError as error:
            raise UsageError(
                f"--table-size, --level-..., --grid-levels, --resolution, --appearance-dim: {error}"
            ) from None

    def run(self) -> int:
        model, config = self.settings()
        import torch

        from .config import StepRecord
        from .device import memory_told, training_device
        from .run import train
        from .team import open_team

        background = None if self.background == "auto" else self.background == "on"
        device = training_device(config.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # of page-locked memory and NCCL, too
        with memory_told(), open_team(device) as team, progress_bar("train", 1.0, team.leads) as advance:

            def report(now: StepRecord) -> None:
                rays = f"{now.rays_per_second / 1e3:.1f}k rays/s"
                seen = "" if now.validation is None else f", validation {now.validation:.2f} dB"
                advance(now.fraction, f"step {now.step}, PSNR {now.psnr:.2f} dB{seen}, {rays}")

            if self.parallel == "subtree":
                from .subtree_run import train_subtrees

                train_subtrees(
                    self.data, self.out, config, team, model, background, self.resume, report, say,
                    level=self.subtree_level, shared_fraction=self.shared_fraction, save_minutes=self.save_minutes,
                )  # fmt: skip
                return 0
            train(
                self.data, self.out, config, model, background, self.resume, report, say, team,
                save_minutes=self.save_minutes, logs=self._logs(), backend=self.backend,
            )  # fmt: skip
        return 0

    def _logs(self) -> LogConfig | None:
        from .logs import WANDB_PROJECT, LogConfig

        if self.no_logs and self.wandb is None:
            return None
        project = None if self.wandb is None else next(iter(self.wandb), WANDB_PROJECT)
        about = {name: str(v) if isinstance(v, Path) else v for name, v in vars(self).items() if name != "wandb"}
        return LogConfig(self.logs or self.out.with_suffix(".logs"), not self.no_logs, project, self.out.stem, about)


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Whole numbers between commas; none where the option is not given."""
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} takes whole numbers with commas between them, got {text!r}") from None


@dataclass
class Render:
    """Render one exact view, or a video of a camera path."""

    checkpoint: Positional[Path]
    """A .pth file."""
    out: Annotated[Path, arg(metavar="X.png|X.npz|X.mp4")]
    """Of a view .png, the picture, or .npz, every channel as float32 (color, depth, normal, level, ...); of a path
    .mp4, .mkv, .mov, or a folder for PNGs."""
    camera: Annotated[Path | None, arg(metavar="CAM.json")] = None
    """The view: {"c2w": 4x4 OpenCV, "fx", "fy", "cx", "cy", "width", "height"}."""
    path: Annotated[str | None, arg(metavar="NAME|FILE")] = None
    """The path: orbit, turntable, spiral, powers (of ten), cameras (along the training cameras), or a file of
    nerfstudio, instant-ngp, a transforms.json or poses as text."""
    frames: Annotated[int | None, arg(metavar="N")] = None
    """Frames of the path; by default as many as its file asks for, of the others 120."""
    fps: Annotated[float, arg(metavar="F")] = 30.0
    """Frames per second of the video."""
    size: Annotated[str, arg(metavar="WxH")] = "1280x720"
    """Pixels of the video."""
    poses: Annotated[Path | None, arg(metavar="X.json|X.txt")] = None
    """Write the path's poses too: nerfstudio's JSON, or 16 numbers a line."""
    axes: Literal["opencv", "opengl"] = "opencv"
    """Of the poses in a text."""
    samples: Annotated[int | None, arg(metavar="N")] = None
    """Frames averaged; 1, the default of a view, is exact: pixel centres, no jitter; of a video 4 by default."""
    executor: ExecutorName = "auto"
    """What computes the pixels."""
    view: ViewMode = "rgb"
    """What the pixels of a picture show."""

    def run(self) -> int:
        if (self.camera is None) == (self.path is None):
            raise UsageError("render takes --camera CAM.json for a view, or --path NAME|FILE for a video")
        check_range("--samples", self.samples or 1, 1, 65_536)
        return self._view(self.camera) if self.camera is not None else self._video(self.path or "")

    def _video(self, path: str) -> int:
        from ..renderer.recording import render_path

        check_path(path)
        check_range("--frames", self.frames or 1, 1, 1_000_000)
        check_range("--fps", self.fps, 0.01, 1000)
        check_file(self.checkpoint)
        render_path(
            self.checkpoint, path, self.out, parse_size(self.size), self.frames, self.fps, self.samples or 4,
            self.executor, self.view, self.poses, self.axes,
        )  # fmt: skip
        return 0

    def _view(self, file: Path) -> int:
        suffix, samples = self.out.suffix.lower(), self.samples or 1
        if suffix not in (".png", ".npz"):
            raise UsageError(f"--out must end in .png or .npz, got {self.out}")
        if self.frames is not None or self.poses is not None:
            raise UsageError("--frames, --poses: only with --path")
        check_output(self.out)
        check_file(self.checkpoint)
        camera = read_camera(file)
        from ..renderer.renderer import Renderer

        with Renderer.from_checkpoint(self.checkpoint, self.executor) as renderer:
            with progress_bar("render", samples) as advance:
                image = renderer.render_image(camera, samples, progress=lambda done: advance(done, ""))
            if suffix == ".png":
                image.save_png(self.out, self.view)
            else:
                image.save_npz(self.out)
        say(f"wrote {self.out} ({image.stats.samples / 1e6:.1f} M samples, executor {renderer.executor.name})")
        return 0


@dataclass
class Bench:
    """Time the executors on a checkpoint, in one run."""

    checkpoint: Positional[Path]
    """A .pth file."""
    size: Annotated[str, arg(metavar="WxH")] = "640x360"
    """Pixels of the frame."""
    executors: Annotated[str, arg(metavar="A,B")] = "cpu,torch"
    """Which, separated by commas."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the numbers there too."""

    def run(self) -> int:
        size, names = parse_size(self.size), [name.strip() for name in self.executors.split(",")]
        if unknown := sorted(set(names) - {"cpu", "torch", "cuda"}):
            raise UsageError(f"--executors must name cpu, torch or cuda, got {', '.join(map(repr, unknown))}")
        check_file(self.checkpoint)
        check_output(self.json)
        from ..renderer.bench import run_bench

        model = load_kernel_model(
            self.checkpoint, "bench times InfNeRFs and PyNeRFs (infnerf eval says what a frame takes)"
        )
        write_json(self.json, run_bench(model, size, names))
        return 0


COMMANDS = (City, Train, Eval, Render, Mesh, Info, Bench, Convert)
Command = (
    Annotated[City, subcommand("city")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Render, subcommand("render")]
    | Annotated[Mesh, subcommand("mesh")]
    | Annotated[Info, subcommand("info")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Convert, subcommand("convert")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0, 1 (it failed, one sentence on stderr), 2 (bad arguments), 130 (Ctrl-C)."""
    command = parse_arguments(PROGRAM, Command, argv, DESCRIPTION)
    return run_command(PROGRAM, command.run)
