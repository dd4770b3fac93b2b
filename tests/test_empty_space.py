"""Passing over empty space changes no sample, and passes over most of it."""

from __future__ import annotations

import pytest
import torch
from random_models import random_model, view_camera

from infnerf.models import marching
from infnerf.models.infnerf import InfNeRF
from infnerf.models.marching import MarchSettings
from infnerf.models.occupancy import pack_bits, unpack_bits


def sparse_model(seed: int, share: float) -> InfNeRF:
    """Every node occupied in one random corner, `share` of its edge wide, or nowhere."""
    model = random_model(seed, patches=False)
    resolution, n = model.config.occupancy_resolution, model.octree.n_nodes
    generator = torch.Generator().manual_seed(seed)
    edge = max(1, int(share * resolution))
    cells = torch.zeros(n, resolution, resolution, resolution, dtype=torch.bool)
    for node, low in enumerate(torch.randint(resolution - edge + 1, (n, 3), generator=generator).tolist()):
        if node % 3 != 2:
            x, y, z = low
            cells[node, z : z + edge, y : y + edge, x : x + edge] = True
    model.occupancy.copy_(pack_bits(cells.view(n, -1)))
    return model


def one_cell() -> InfNeRF:
    """Only the root's middle cell is occupied."""
    model = random_model(1, patches=False)
    r = model.config.occupancy_resolution
    cells = torch.zeros(1, r**3, dtype=torch.bool)
    cells[0, ((r // 2) * r + r // 2) * r + r // 2] = True
    model.occupancy.zero_()
    model.occupancy[:1] = pack_bits(cells)
    return model


def rays(model: InfNeRF, distance: float) -> tuple[torch.Tensor, ...]:
    camera = view_camera(48, 32, distance)
    x, y = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(32) + 0.5, indexing="xy")
    origins, directions, cones = camera.pixel_rays(x.flatten().numpy(), y.flatten().numpy())
    n = len(cones)
    local = model.to_local(torch.tensor(origins).expand(n, 3))
    return local, torch.from_numpy(directions), torch.from_numpy(cones), torch.arange(n)


@pytest.mark.parametrize("frame", [0, 3])
@pytest.mark.parametrize("distance", [9.0, 5.0])
@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_samples_with_and_without_it(seed: int, share: float, distance: float, frame: int) -> None:
    model = sparse_model(seed, share)
    settings = MarchSettings(frame=frame, lod_bias=float(seed - 1))
    everything = model.march(*rays(model, distance), settings)
    assert len(everything) > 0
    passed_over = model.march(*rays(model, distance), settings, model.empty_space())
    for name, values in vars(everything).items():
        other = getattr(passed_over, name)
        assert values.shape == other.shape, name
        torch.testing.assert_close(other, values, rtol=1e-12, atol=1e-12)  # vector code rounds by where a value stands


def test_it_passes_over_most_of_an_empty_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    model = one_cell()
    looked_at = []
    plain = marching.steps_near_matter
    monkeypatch.setattr(marching, "steps_near_matter", lambda *a: looked_at.append(plain(*a)) or looked_at[-1])
    settings = MarchSettings(lod_bias=2.0)
    model.march(*rays(model, 9.0), settings, model.empty_space())
    model.occupancy.fill_(-1)
    model.march(*rays(model, 9.0), settings, model.empty_space())
    few, all_ = (len(k) for _, k in looked_at)
    assert 0 < few < 0.15 * all_


def test_bits_unpack_as_they_were_packed() -> None:
    cells = torch.rand(5, 96, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(unpack_bits(pack_bits(cells)), cells)


def test_distance_is_kept() -> None:
    """A single occupied cell in the middle: found from as far as asked, not from a corner far away."""
    space = one_cell().empty_space()
    middle = torch.tensor([[0.51, 0.51, 0.51]])
    for distance in (0.01, 0.05, 0.2):
        for axis in torch.cat([torch.eye(3), -torch.eye(3)]):
            assert space.matter_within(middle + distance * axis, torch.tensor([distance])).all()
        assert not space.matter_within(torch.zeros(1, 3), torch.tensor([0.5 * distance])).any()
    assert space.matter_within(torch.zeros(1, 3), torch.tensor([1e3])).all()  # wider than the scene: not known empty
