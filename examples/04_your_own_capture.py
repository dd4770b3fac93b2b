"""Your own capture, in any format: what is read and skipped, a tree that grows without points, what it is worth.

python examples/04_your_own_capture.py [DATA] [--folder OUT] [--downscale 4] [--steps 2000]

DATA is a folder of nerfstudio, COLMAP, Blender, LLFF, Multicam or InfNeRF (docs/data.md). Without one a small capture
is made that has what real ones have: a photograph that is damaged, and no sparse points.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from infnerf.data import load_dataset, make_city
from infnerf.data.convert import convert
from infnerf.models import InfNeRF, InfNeRFConfig
from infnerf.training import StepRecord, Trainer, TrainerConfig
from infnerf.training.evaluate import evaluate


@dataclass
class Arguments:
    data: tyro.conf.Positional[Path | None] = None
    folder: Path | None = None  # for all that is written; a temporary one by default
    downscale: int = 1  # train on images smaller by this factor
    steps: int = 400
    megabytes: float = 4.0  # of the checkpoint: bounds the tree


def make_capture(folder: Path) -> Path:
    """A city as nerfstudio would have it, with one damaged image and without points."""
    make_city(folder / "city", blocks=1, views=32, size=(120, 90), test_views=4, workers=1, supersample=2)
    capture = folder / "capture"
    convert(folder / "city", capture, to="nerfstudio")
    damaged = sorted((capture / "images").iterdir())[0]
    damaged.unlink()
    damaged.write_bytes(b"not a photograph")
    (capture / "sparse_pc.ply").unlink()
    return capture


def main(arguments: Arguments) -> None:
    folder = arguments.folder or Path(tempfile.mkdtemp())
    data = arguments.data or make_capture(folder)

    train_set = load_dataset(data)
    print(f"{len(train_set)} images, first {train_set.names[0]}, {'no' if train_set.points is None else 'with'} points")
    for warning in train_set.warnings:
        print(f"note: {warning}")
    box = train_set.scene["aabb"]
    print(f"scene from {[round(x, 1) for x in box[0]]} to {[round(x, 1) for x in box[1]]} {train_set.scene['unit']}")

    config = TrainerConfig(
        steps=arguments.steps, downscale=arguments.downscale, max_bytes=round(arguments.megabytes * 1e6),
        samples_per_step=1 << 15,
    )  # fmt: skip
    trainer = Trainer(InfNeRF(InfNeRFConfig(table_size=1024, resolution=64)), train_set, config)
    nodes = 0

    def watch(record: StepRecord) -> None:
        """A line whenever the tree has grown."""
        nonlocal nodes
        octree = trainer.model.octree
        if octree.n_nodes != nodes or record.step == arguments.steps:
            nodes = octree.n_nodes
            print(f"step {record.step}: {nodes} nodes on levels {octree.level_counts()}, PSNR {record.psnr:.1f} dB")

    print(trainer.prior)
    trainer.train(watch)
    trainer.save(folder / "capture.pth")

    result = evaluate(folder / "capture.pth", data, samples=1, downscale=arguments.downscale, pictures=folder / "eval")
    for scale, scores in result["per_scale"].items():
        used = 100 * scores["parameters_used"]
        print(f"test images at 1/{scale}: {scores['psnr']:.1f} dB with {used:.0f} % of the nodes")
    print(f"truth, render and error side by side: {folder / 'eval'}; fly it: infnerf-view {folder / 'capture.pth'}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
