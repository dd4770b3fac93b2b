"""Your own capture, in any format: what is read and skipped, a tree that grows without points, what it is worth.

python examples/04_your_own_capture.py [DATA] [--folder OUT] [--downscale 4] [--steps 2000]

DATA is a folder of nerfstudio, COLMAP, Blender, LLFF, Multicam or InfNeRF (docs/data.md). Without one a small capture
is made that has what real ones have: a photograph that is damaged, and no sparse points.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from infnerf.data import load_dataset
from infnerf.models import InfNeRF, InfNeRFConfig
from infnerf.renderer import DEMO, Renderer, orbit
from infnerf.training import StepRecord, Trainer, TrainerConfig
from infnerf.training.evaluate import evaluate
from infnerf.training.run import wants_background


@dataclass
class Arguments:
    data: tyro.conf.Positional[Path | None] = None
    folder: Path | None = None  # for all that is written; a temporary one by default
    downscale: int = 1  # train on images smaller by this factor
    steps: int = 300
    megabytes: float = 2.0  # of the checkpoint: bounds the tree
    growth: tuple[float, ...] = (0.1, 0.25, 0.4)  # fractions of the run at which the tree grows
    views: int = 40  # of the small capture, px wide:
    width: int = 120


def make_capture(folder: Path, views: int, width: int) -> Path:
    """Photographs of the demo from two heights, with poses as nerfstudio writes them (OpenGL axes); one is damaged."""
    images = folder / "images"
    images.mkdir(parents=True)
    frames = []
    with Renderer.from_checkpoint(DEMO) as renderer:
        low, high = (
            orbit(renderer.model.scene, views // 2, width, width * 3 // 4, elevation=angle) for angle in (25.0, 55.0)
        )
        for i, camera in enumerate([*low, *high]):
            image = renderer.render_image(camera, samples=2)
            alpha = np.rint(255 * image.color[..., 3]).astype(np.uint8)
            Image.fromarray(np.dstack([image.picture(), alpha])).save(images / f"{i:03d}.png")
            pose = camera.c2w @ np.diag([1, -1, -1, 1])
            frames.append({"file_path": f"images/{i:03d}.png", "transform_matrix": pose.tolist()})
    (images / "003.png").write_bytes(b"not a photograph")
    lens = {"fl_x": camera.fx, "fl_y": camera.fy, "cx": camera.cx, "cy": camera.cy}
    (folder / "transforms.json").write_text(json.dumps(lens | {"frames": frames}))
    return folder


def main(arguments: Arguments) -> None:
    folder = arguments.folder or Path(tempfile.mkdtemp())
    data = arguments.data or make_capture(folder / "capture", arguments.views, arguments.width)

    train_set = load_dataset(data)
    print(f"{len(train_set)} images, first {train_set.names[0]}, {'no' if train_set.points is None else 'with'} points")
    for warning in train_set.warnings:
        print(f"note: {warning}")
    box = train_set.scene["aabb"]
    print(f"scene from {[round(x, 1) for x in box[0]]} to {[round(x, 1) for x in box[1]]} {train_set.scene['unit']}")

    # Photographs show what is far behind the scene, too; cut-out images (with alpha) have nothing there.
    model = InfNeRF(InfNeRFConfig(table_size=1024, resolution=32, background=wants_background(train_set)))
    config = TrainerConfig(
        steps=arguments.steps, downscale=arguments.downscale, max_bytes=round(arguments.megabytes * 1e6),
        samples_per_step=1 << 14, octree_growth_schedule=arguments.growth,
    )  # fmt: skip
    trainer = Trainer(model, train_set, config)
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
