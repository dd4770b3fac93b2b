"""A loss of your own beside those there are, and every step of the run watched: as curves in the terminal and a PNG.

python examples/05_custom_loss_and_watch.py [--folder OUT] [--steps 400] [--near 1] [--weight 0.1]

The loss is about haze: what a few images can explain by fog right before their cameras must not be explained so.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw
from torch import Tensor

from infnerf.data import load_dataset, make_city
from infnerf.models import InfNeRF, InfNeRFConfig
from infnerf.training import LossConfig, LossInputs, StepRecord, Trainer, TrainerConfig


@dataclass
class Arguments:
    folder: Path | None = None  # for all that is written; a temporary one by default
    steps: int = 400
    views: int = 40  # of the city
    width: int = 120  # px of an image
    max_depth: int = 2  # octree levels below the root
    near: float = 1.0  # m before a camera that should be clear
    weight: float = 0.1  # of the loss that says so


def haze(near: float) -> Callable[[LossInputs], Tensor]:
    """The mean opacity that rays gather in their first `near` metres. Any function of `LossInputs` will do."""

    def loss(inputs: LossInputs) -> Tensor:
        first = inputs.samples.t < near
        return inputs.weights[first].sum() / len(inputs.prediction)

    return loss


def spark(values: np.ndarray, n: int = 60) -> str:
    """A curve in a line of text: n means, from low to high."""
    means = np.array([part.mean() for part in np.array_split(values, min(n, len(values)))])
    place = (means - means.min()) / max(np.ptp(means), 1e-12)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * p)] for p in place)


def plot(path: Path, curves: dict[str, np.ndarray], size: tuple[int, int] = (640, 160)) -> None:
    """A panel a curve, one below the other."""
    width, height = size
    sheet = Image.new("RGB", (width, height * len(curves)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, values) in enumerate(curves.items()):
        low, extent = values.min(), max(np.ptp(values), 1e-12)
        x = np.linspace(20, width - 20, len(values))
        y = height * (row + 1) - 15 - (values - low) / extent * (height - 45)
        draw.line([*zip(x.tolist(), y.tolist(), strict=True)], "black", 1)
        draw.text((20, height * row + 8), f"{name}: {values[0]:.4g} to {values[-1]:.4g}", "black")
    sheet.save(path)


def main(arguments: Arguments) -> None:
    folder = arguments.folder or Path(tempfile.mkdtemp())
    size = arguments.width, arguments.width * 3 // 4
    make_city(folder / "city", blocks=2, views=arguments.views, size=size, workers=1)

    losses = LossConfig(distortion=0.01, custom=(("haze", haze(arguments.near), arguments.weight),))
    config = TrainerConfig(
        steps=arguments.steps, samples_per_step=1 << 15, max_depth=arguments.max_depth, losses=losses
    )
    model = InfNeRF(InfNeRFConfig(table_size=1024, resolution=32))
    trainer = Trainer(model, load_dataset(folder / "city"), config)
    records: list[StepRecord] = []
    trainer.train(records.append)
    trainer.save(folder / "city.pth")

    curves = {"PSNR (dB)": np.array([record.psnr for record in records])}
    curves |= {f"loss, {name}": np.array([record.parts[name] for record in records]) for name in losses.weights()}
    curves["nodes touched"] = np.array([float(record.nodes) for record in records])
    for name, values in curves.items():
        print(f"{name:>18} {spark(values)} {values[-1]:.4g}")
    plot(folder / "curves.png", curves)
    print(f"{len(records)} steps, {records[-1].rays_per_second:.0f} rays/s; curves in {folder / 'curves.png'}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
