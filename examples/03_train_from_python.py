"""From images to pictures in Python: a city, a model, its octree, a training run, a checkpoint, a renderer.

python examples/03_train_from_python.py [--folder OUT] [--steps 400] [--views 40] [--width 160]
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from infnerf.data import load_dataset, make_city
from infnerf.models import InfNeRF, InfNeRFConfig
from infnerf.renderer import Renderer
from infnerf.training import StepRecord, Trainer, TrainerConfig


@dataclass
class Arguments:
    folder: Path | None = None  # where the city and everything else goes; a temporary one by default
    steps: int = 400
    views: int = 40
    width: int = 160  # px of an image


def main(arguments: Arguments) -> None:
    folder = arguments.folder or Path(tempfile.mkdtemp())
    width = arguments.width
    make_city(folder / "city", blocks=1, views=arguments.views, size=(width, width * 3 // 4), test_views=2, workers=1)
    train_set = load_dataset(folder / "city")
    assert train_set.points is not None  # a city has some

    model = InfNeRF(InfNeRFConfig(table_size=2048, resolution=64))
    model.build_octree(train_set.points, max_nodes=64)
    print(f"{len(train_set)} images, {model.octree.n_nodes} nodes on levels {model.octree.level_counts()}")

    def watch(record: StepRecord) -> None:
        if record.step % 100 == 0 or record.step == arguments.steps:
            print(f"step {record.step}: loss {record.loss:.4f}, PSNR {record.psnr:.1f} dB, {record.rays} rays")

    trainer = Trainer(model, train_set, TrainerConfig(steps=arguments.steps, samples_per_step=1 << 15))
    trainer.train(watch)
    trainer.save(folder / "city.pth")

    truth = load_dataset(folder / "city", "test")
    with Renderer.from_checkpoint(folder / "city.pth") as renderer:
        for name, camera in zip(truth.names, truth.cameras, strict=True):
            image = renderer.render_image(camera, samples=4)
            for view in ("rgb", "level", "depth"):
                image.save_png(folder / f"{Path(name).stem}-{view}.png", view)
            nearest = image.depth[image.depth > 0].min()
            print(f"{name}: levels up to {image.level.max():.1f}, the nearest surface at {nearest:.0f} m")
    print(f"{folder / 'city.pth'}: open it with infnerf-view")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
