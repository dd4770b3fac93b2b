"""Every number a mip-NeRF needs, validated. The checkpoint stores it as a plain dict."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .stored_config import StoredConfig

IDENTITY = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
RAY_SHAPES = ("cone", "cylinder")


@dataclass(frozen=True)
class MipNeRFConfig(StoredConfig):
    """Shape of the network and of its rays; the defaults are the published ones.

    Raises `ValueError` for a number out of range.

    >>> MipNeRFConfig().n_parameters
    612740
    """

    near: float = 2.0  # depth of the plane where rays begin, in the model's units
    far: float = 6.0  # where they end
    placement: tuple[float, ...] = IDENTITY  # [3, 4] row by row, a similarity: world -> the model's coordinates
    ray_shape: str = "cone"  # or "cylinder": of the same radius at all depths
    disparity: bool = False  # the first look's intervals are even in 1 / depth
    num_samples: int = 128  # intervals of a ray, each time it is looked at
    num_levels: int = 2  # looks: coarse, fine
    net_depth: int = 8  # hidden layers of the trunk
    net_width: int = 256
    skip_layer: int = 4  # the encoding joins again behind so many layers
    view_width: int = 128  # of the hidden layer that sees the view direction
    use_viewdirs: bool = True
    min_deg: int = 0  # of the integrated encoding: wave numbers 2**min_deg ...
    max_deg: int = 16  # ... to 2**(max_deg - 1)
    view_min_deg: int = 0  # of the view direction's encoding
    view_max_deg: int = 4
    density_bias: float = -1.0  # sigma = softplus(x + density_bias), in the model's units
    rgb_padding: float = 0.001  # colours reach so much beyond [0, 1]
    resample_padding: float = 0.01  # alpha of equation 17

    def __post_init__(self) -> None:
        whole: dict[str, tuple[int, int]] = {
            "num_samples": (2, 4096),
            "num_levels": (1, 8),
            "net_depth": (2, 64),
            "net_width": (1, 4096),
            "view_width": (1, 4096),
            "min_deg": (-16, 30),
            "max_deg": (-15, 31),
            "view_min_deg": (-16, 30),
            "view_max_deg": (-15, 31),
        }
        self.check_whole_numbers(whole)
        skip = self.skip_layer
        if isinstance(skip, bool) or not isinstance(skip, int) or not 1 <= skip < self.net_depth:
            raise ValueError(f"config.skip_layer must be a whole number from 1 to {self.net_depth - 1}, got {skip!r}")
        for first, last in (("min_deg", "max_deg"), ("view_min_deg", "view_max_deg")):
            if getattr(self, first) >= getattr(self, last):
                raise ValueError(
                    f"config.{last} must be above {first} {getattr(self, first)}, got {getattr(self, last)}"
                )
        self.check_flags("use_viewdirs", "disparity")
        numbers = {"near": 1e6, "far": 1e6, "density_bias": 100.0, "rgb_padding": 1.0, "resample_padding": 1.0}
        for name, limit in numbers.items():
            value, low = getattr(self, name), -limit if name == "density_bias" else 0.0
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= limit:
                raise ValueError(f"config.{name} must be {low:g} to {limit:g}, got {value!r}")
        if not self.near < self.far or (self.disparity and not self.near):
            raise ValueError(
                f"config.near must be below far{' and above 0' * self.disparity}, got {self.near} and {self.far}"
            )
        if self.ray_shape not in RAY_SHAPES:
            raise ValueError(f"config.ray_shape must be {' or '.join(RAY_SHAPES)}, got {self.ray_shape!r:.40}")
        self._check_placement()

    def _check_placement(self) -> None:
        values = self.placement
        numbers = isinstance(values, tuple) and all(type(x) in (int, float) and abs(x) <= 1e12 for x in values)
        if not numbers or len(values) != 12:
            raise ValueError(f"config.placement must be a list of 12 finite numbers, got {values!r:.80}")
        turned, square = self.matrix[:, :3] @ self.matrix[:, :3].T, self.scale**2
        if not self.scale > 1e-9 or np.abs(turned - np.eye(3) * square).max() > 1e-4 * square:
            raise ValueError(
                f"config.placement must turn, scale and move (a similarity), got {[round(x, 3) for x in values]}"
            )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """`placement` as [3, 4]."""
        return np.array(self.placement, np.float64).reshape(3, 4)

    @property
    def scale(self) -> float:
        """Model units per world unit."""
        return float(np.cbrt(np.linalg.det(self.matrix[:, :3])))

    @property
    def n_encoding(self) -> int:
        """Numbers that a Gaussian's encoding has."""
        return 6 * (self.max_deg - self.min_deg)

    @property
    def n_view(self) -> int:
        """Numbers that a view direction's encoding has, the direction itself included."""
        return 6 * (self.view_max_deg - self.view_min_deg) + 3

    @property
    def layer_shapes(self) -> dict[str, tuple[int, int]]:
        """Layer name -> (inputs, outputs). Without view directions the trunk gives the colour at once."""
        width, shapes = self.net_width, dict[str, tuple[int, int]]()
        for i in range(self.net_depth):
            n_in = self.n_encoding if i == 0 else width + self.n_encoding * (i == self.skip_layer)
            shapes[f"trunk{i}"] = (n_in, width)
        shapes["density"] = (width, 1)
        if self.use_viewdirs:
            shapes["bottleneck"] = (width, width)
            shapes["view"] = (width + self.n_view, self.view_width)
        shapes["color"] = (self.view_width if self.use_viewdirs else width, 3)
        return shapes

    @property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of a checkpoint's `field`: of each layer its weights [outputs, inputs], then its biases."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, (n_in, n_out) in self.layer_shapes.items():
            shapes |= {f"{name}_weight": (n_out, n_in), f"{name}_bias": (n_out,)}
        return shapes

    @property
    def n_parameters(self) -> int:
        return sum(i * o + o for i, o in self.layer_shapes.values())

    @property
    def finest(self) -> float:
        """Half a period of the finest wave that the encoding has, in the model's units: no detail is smaller."""
        return math.pi / 2.0 ** (self.max_deg - 1)
