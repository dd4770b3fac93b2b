"""Terms of a PyNeRF's loss that look at its levels: each is a function `(LossInputs) -> Tensor`, as in
`training/loss_terms.py`, whose other terms serve both kinds of model."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.occupancy import unpack_bits
from ..models.pynerf import PyNeRF
from ..models.volume import segment_rgba
from .loss_terms import TERMS
from .losses import LossFunction, LossInputs
from .pyramid_sampling import samples_between
from .sampling import random_directions

PLACES = 1024  # for consistency; each costs nine samples
POINTS = 4096  # for transparency


def _places(inputs: LossInputs, n: int) -> tuple[PyNeRF, Tensor]:
    """The model, and `n` random grid positions in occupied cells, anywhere if there are none."""
    model = inputs.model
    assert isinstance(model, PyNeRF)
    resolution, generator = model.config.occupancy_resolution, inputs.generator
    occupied = unpack_bits(model.occupancy)[0].nonzero()[:, 0]
    if not len(occupied):
        return model, torch.rand(n, 3, generator=generator)
    cell = occupied[torch.randint(len(occupied), (n,), generator=generator)]
    corner = torch.stack([cell % resolution, cell // resolution % resolution, cell // resolution**2], -1)
    return model, (corner + torch.rand(n, 3, generator=generator)) / resolution


def _field(inputs: LossInputs, level: Tensor, local: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    return inputs.sampling.field(samples_between(level, local), directions)


def transparency(inputs: LossInputs) -> Tensor:
    """Mean opacity of one cell at random places and levels: what no image asks for becomes empty, not fog."""
    model, local = _places(inputs, POINTS)
    level = torch.rand(POINTS, generator=inputs.generator) * (model.config.num_levels - 1)
    sigmas, _ = _field(inputs, level, local, random_directions(POINTS, inputs.generator))
    return (1 - torch.exp(-sigmas * model.gsd(level).to(sigmas))).mean()


def consistency(inputs: LossInputs) -> Tensor:
    """Mean squared difference between what a level shows over one of its cells and the mean of what the next finer one
    shows there, at one place in each octant of the cell: premultiplied colour and opacity over the coarser GSD.

    A pyramid's levels are each other's mip maps. Both sides learn.
    """
    model, center = _places(inputs, PLACES)
    if model.config.num_levels < 2:
        return inputs.prediction.new_zeros(())
    generator = inputs.generator
    level = torch.randint(model.config.num_levels - 1, (PLACES,), generator=generator)
    resolution = torch.tensor(model.config.level_resolutions)
    cell = (1 / resolution[level])[:, None]
    center = torch.maximum(torch.minimum(center, 1 - cell / 2), cell / 2)
    octant = torch.cartesian_prod(*[torch.arange(2)] * 3)
    inside = (octant + torch.rand(PLACES, 8, 3, generator=generator)) / 2 - 0.5
    around = (center[:, None] + cell[:, None] * inside).reshape(-1, 3)
    directions = random_directions(PLACES, generator)
    levels = torch.cat([level, (level + 1).repeat_interleave(8)]).float()
    sigmas, rgb = _field(
        inputs, levels, torch.cat([center, around]), torch.cat([directions, directions.repeat_interleave(8, 0)])
    )
    gsd = model.gsd(level).to(sigmas)
    seen = segment_rgba(sigmas, rgb, torch.cat([gsd, gsd.repeat_interleave(8)]))
    return (seen[:PLACES] - seen[PLACES:].view(-1, 8, 4).mean(1)).square().mean()


PYRAMID_TERMS: dict[str, LossFunction] = {**TERMS, "consistency": consistency, "transparency": transparency}
