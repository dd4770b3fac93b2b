"""From images to pictures in Python: a city, a model, its octree, a training run, a checkpoint, a renderer.

python examples/03_train_from_python.py [--folder OUT] [--steps 600] [--views 60] [--width 160]
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from infnerf.data import load_dataset, make_city
from infnerf.models import InfNeRF, InfNeRFConfig
from infnerf.renderer import Renderer, orbit
from infnerf.training import StepRecord, Trainer, TrainerConfig


@dataclass
class Arguments:
    folder: Path | None = None  # where the city and everything else goes; a temporary one by default
    steps: int = 600
    views: int = 60
    width: int = 160  # px of an image
    nodes: int = 64  # at most so many in the octree


def main(arguments: Arguments) -> None:
    folder = arguments.folder or Path(tempfile.mkdtemp())
    size = arguments.width, arguments.width * 3 // 4
    make_city(folder / "city", blocks=2, views=arguments.views, size=size, workers=1)
    train_set = load_dataset(folder / "city")
    assert train_set.points is not None  # a city has some

    model = InfNeRF(InfNeRFConfig(table_size=2048, resolution=64))
    model.build_octree(train_set.points, max_nodes=arguments.nodes)
    print(f"{len(train_set)} images; {model.octree.n_nodes} nodes on levels {model.octree.level_counts()}")

    def watch(record: StepRecord) -> None:
        if record.step % 100 == 0 or record.step == arguments.steps:
            print(f"step {record.step}: loss {record.loss:.4f}, PSNR {record.psnr:.1f} dB, {record.rays} rays")

    trainer = Trainer(model, train_set, TrainerConfig(steps=arguments.steps, samples_per_step=1 << 15))
    trainer.train(watch)
    trainer.save(folder / "city.pth")

    with Renderer.from_checkpoint(folder / "city.pth") as renderer:
        image = renderer.render_image(renderer.home_camera(*size), samples=4)
        for view in ("rgb", "level", "normal"):
            image.save_png(folder / f"{view}.png", view)
        print(f"seen from {image.depth.max():.0f} m, level {image.level.max():.1f}, {image.stats.samples} samples")
        renderer.render_video(folder / "orbit.mp4", orbit(model.scene, 24, *size), samples=2)
    print(f"{folder / 'city.pth'}: open it with infnerf-view")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
