"""Appearance of images: what it is for, that it is saved as its mean, and that it goes with a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_models import random_model, view_camera

from infnerf.data.city import make_city
from infnerf.data.dataset import Dataset, load_dataset
from infnerf.models.appearance import fold_appearance
from infnerf.models.checkpoint import load_checkpoint, save_checkpoint
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.torch_executor import TorchExecutor
from infnerf.training.appearance import Appearance
from infnerf.training.config import TrainerConfig
from infnerf.training.optimizer import AdamConfig
from infnerf.training.resume import restore_state, save_state
from infnerf.training.trainer import Trainer

SMALL = InfNeRFConfig(
    n_grid_levels=3, table_size=256, base_resolution=4, resolution=16, hidden_dim=16, occupancy_resolution=8
)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every view twice, at random exposures, which no scene explains."""
    out = tmp_path_factory.mktemp("city") / "city"
    make_city(out, blocks=1, views=6, size=(48, 32), seed=4, test_views=2, workers=1, supersample=1)
    rng = np.random.default_rng(0)
    for path in sorted((out / "images").glob("*.png")):
        pixels = np.asarray(Image.open(path)).astype(np.float64)
        for name, gain in ((path.name, rng.uniform(0.8, 1.0)), (f"dim_{path.name}", rng.uniform(0.2, 0.4))):
            dimmed = np.concatenate([pixels[..., :3] * gain, pixels[..., 3:]], -1)
            Image.fromarray(dimmed.astype(np.uint8)).save(path.with_name(name))
    return out


def captured(city: Path) -> Dataset:
    one = load_dataset(city)
    dim = [path.with_name(f"dim_{path.name}") for path in one.images]
    names = [*one.names, *(f"dim_{name}" for name in one.names)]
    both = {"cameras": one.cameras * 2, "masks": one.masks * 2, "weights": one.weights * 2}
    return replace(one, images=[*one.images, *dim], names=names, **both)


def trainer_of(city: Path, dim: int, **changes: object) -> Trainer:
    base: dict[str, object] = {
        "samples_per_step": 1 << 12, "max_bytes": 400_000, "steps": 40, "octree_growth_schedule": (), "max_depth": 1,
        "adam": AdamConfig(table_rate=3e-2, mlp_rate=1e-2),
    }  # fmt: skip
    return Trainer(
        InfNeRF(replace(SMALL, appearance_dim=dim)), captured(city), TrainerConfig(**(base | changes))  # type: ignore[arg-type]
    )  # fmt: skip


def steps(trainer: Trainer, first: int, last: int) -> float:
    """The mean loss of the last third."""
    losses = [trainer.step(i / 200).loss for i in range(first, last)]
    return float(np.mean(losses[-(last - first) // 3 :]))


def test_images_of_different_gains_are_learnt_better_with_it(city: Path) -> None:
    plain, own = (steps(trainer_of(city, dim), 0, 200) for dim in (0, 4))
    assert own < 0.85 * plain, (own, plain)


def test_vectors_keep_a_mean_of_zero_and_tell_images_apart(city: Path) -> None:
    trainer = trainer_of(city, 3)
    steps(trainer, 0, 5)
    vectors = trainer.appearance.vectors.detach()
    assert vectors.shape == (len(trainer.data), 3)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    assert (torch.pdist(vectors) > 1e-6).all()


def test_a_folded_model_is_the_model_under_that_appearance() -> None:
    model = random_model(3, half=False, appearance_dim=6)
    rng = torch.Generator().manual_seed(0)
    appearance, n = torch.randn(6, generator=rng), 300
    node = torch.randint(model.octree.n_nodes, (n,), generator=rng)
    local = torch.rand(n, 3, generator=rng)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=rng), dim=-1)
    config, mlp = fold_appearance(model.config, model.mlp.data, appearance)
    folded = InfNeRF(config, model.octree, model.tables.data, mlp, model.occupancy, model.scene)
    expected = model.field(node, local, directions, appearance.expand(n, 6))
    for a, b in zip(folded.field(node, local, directions), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert (expected[1] - model.field(node, local, directions)[1]).abs().max() > 0.05  # it does matter
    with pytest.raises(ValueError, match=r"appearance must be \[6\], got \[5\]"):
        fold_appearance(model.config, model.mlp.data, appearance[:5])


@pytest.mark.parametrize("executor", [CpuExecutor, TorchExecutor])
def test_a_picture_of_no_appearance_is_the_folded_models(executor: type) -> None:
    model = random_model(3, appearance_dim=4)
    config, mlp = fold_appearance(model.config, model.mlp.data, torch.zeros(4))
    pictures = []
    for one in (model, InfNeRF(config, model.octree, model.tables.data, mlp, model.occupancy, model.scene)):
        out = FrameBuffers.allocate(24, 16)
        executor(one).render(RenderRequest(view_camera(24, 16)), out)
        pictures.append(out.color)
    assert pictures[0][..., 3].max() > 0.3
    np.testing.assert_allclose(pictures[0], pictures[1], atol=1e-5)


def test_a_checkpoint_has_the_mean_appearance_and_none_of_its_own(city: Path, tmp_path: Path) -> None:
    trainer = trainer_of(city, 4)
    steps(trainer, 0, 4)
    with torch.no_grad():
        trainer.appearance.vectors += 0.5  # so that the mean is not nothing
    save_checkpoint(trainer.checkpoint(), tmp_path / "m.pth")
    checkpoint = load_checkpoint(tmp_path / "m.pth")
    assert checkpoint.config == SMALL
    config, mlp = fold_appearance(trainer.model.config, trainer.model.mlp.data, trainer.appearance.mean)
    assert config == SMALL
    assert torch.equal(checkpoint.field["mlp"], mlp.half())


def test_growth_and_resuming_keep_it(city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infnerf.training import inherit

    monkeypatch.setattr(inherit, "DISTILL_STEPS", 2)
    monkeypatch.setattr(inherit, "CANDIDATES", 1 << 10)
    monkeypatch.setattr(inherit, "PLACES", 1 << 8)
    changes: dict[str, object] = {"octree_growth_schedule": (0.01, 0.06), "max_depth": 2}
    whole = trainer_of(city, 4, **changes)
    before = whole.model.octree.n_nodes
    steps(whole, 0, 8)
    assert whole.model.octree.n_nodes > before
    save_state(whole, tmp_path / "m.resume")
    resumed = trainer_of(city, 4, **changes)
    restore_state(resumed, tmp_path / "m.resume")
    for trainer in (whole, resumed):
        steps(trainer, 8, 16)
    assert torch.equal(whole.appearance.vectors, resumed.appearance.vectors)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_other_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"appearance: expected \[3, 2\], found \[4, 2\]"):
        Appearance(3, 2).load_state_dict(Appearance(4, 2).state_dict())


def test_configs_of_before_have_no_appearance() -> None:
    values = InfNeRFConfig().to_dict()
    assert "appearance_dim" not in values
    assert InfNeRFConfig.from_dict(values).appearance_dim == 0
    with pytest.raises(ValueError, match="appearance_dim must be a whole number from 0 to 16, got 17"):
        InfNeRFConfig(appearance_dim=17)
