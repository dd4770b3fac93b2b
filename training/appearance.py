"""What differs from image to image without the scene being different: exposure, white balance, weather.

A vector per training image joins the colour MLP's inputs and is learnt with it (generative latent optimisation, as NeRF
in the Wild, Martin-Brualla et al. 2021, section 4.1, does). The vectors are kept at a mean of zero, so that no
appearance is the mean one: growth, losses that look at the field, and renders of the model as it trains need not know.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .team import Team

RATE = 3e-2  # of Adam; they start at zero and have far to go


class Appearance:
    """The vectors of `n_images` images, [n_images, dim] float32; `dim` 0: there are none."""

    def __init__(self, n_images: int, dim: int, device: torch.device | None = None) -> None:
        self.vectors = torch.zeros(n_images, dim, requires_grad=dim > 0, device=device)
        self.adam = torch.optim.Adam([self.vectors], lr=RATE) if dim else None

    def of(self, image: Tensor) -> Tensor | None:
        """The vectors [n, dim] of rays from `image` [n]; None if there are none."""
        return None if self.adam is None else self.vectors[image]

    @property
    def mean(self) -> Tensor:
        """What is shown to viewers [dim]."""
        return self.vectors.detach().mean(0)

    def step(self, factor: float = 1.0, team: Team | None = None) -> None:
        """One step with the gradients that the vectors have on all ranks, the learning rate times `factor`."""
        if self.adam is None:
            return
        if team is not None and team.size > 1:
            own = torch.zeros_like(self.vectors) if self.vectors.grad is None else self.vectors.grad
            self.vectors.grad = team.sum(own.detach()).div_(team.size)
        self.adam.param_groups[0]["lr"] = RATE * factor
        self.adam.step()
        self.adam.zero_grad()
        with torch.no_grad():
            self.vectors -= self.vectors.mean(0)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes up again bit for bit."""
        return {"vectors": self.vectors.detach(), "adam": self.adam.state_dict() if self.adam else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ValueError` for a state of other images or another length."""
        given = state["vectors"]
        if given.shape != self.vectors.shape:
            raise ValueError(f"appearance: expected {list(self.vectors.shape)}, found {list(given.shape)}")
        with torch.no_grad():
            self.vectors.copy_(given)
        if self.adam is not None:
            self.adam.load_state_dict(state["adam"])
