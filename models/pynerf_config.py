"""Every number a PyNeRF needs, validated. The checkpoint stores it as a plain dict."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from .checks import short
from .stored_config import StoredConfig, geometric

MAX_PYRAMID_LEVELS = 16  # `MAX_HEADS` in cuda/scene.cuh
INTERPOLATIONS = ("embedding", "color")
WIDTHS = (16, 32, 64, 128)


@dataclass(frozen=True)
class PyNeRFConfig(StoredConfig):
    """A pyramid of heads (Turki et al. 2023), each a multiresolution hash grid up to its own resolution and a density
    MLP; the colour MLP is one for all where embeddings are interpolated, else each head has its own.

    Head i's resolution is `max_resolution / scale_factor**(num_levels - 1 - i)` along the root's edge (twice that edge
    with a background), or `resolutions[i]`. The hash grids' resolutions grow geometrically from `base_resolution` to
    `max_resolution`; a head has those up to its own, and at least the first.

    Raises `ValueError` for a number out of range.

    >>> config = PyNeRFConfig()
    >>> config.level_resolutions[0], config.grid_counts
    (16.0, [1, 2, 3, 4, 5, 6, 7, 8])
    >>> PyNeRFConfig(num_levels=1).grid_counts
    [8]
    """

    num_levels: int = 8  # heads
    base_resolution: int = 16  # cells along the edge on the coarsest hash grid
    max_resolution: int = 2048  # cells on the finest one
    scale_factor: float = 2.0  # between the resolutions of neighbouring heads
    resolutions: tuple[int, ...] = ()  # of the heads, rising; (): by scale_factor
    n_grid_levels: int = 8  # hash grids of the finest head
    features_per_level: int = 4  # 2 or 4, of a hash grid
    hash_table_size: int = 1 << 20  # entries of a hash grid at most, a power of two
    hidden_dim: int = 128  # width of the colour MLP: 16, 32, 64 or 128
    num_layers: int = 3  # of the colour MLP, the last one counted
    density_hidden_dim: int = 64  # width of the density MLPs
    density_layers: int = 2  # of the density MLPs, the last one counted
    geo_dim: int = 15  # features handed from a density MLP to the colour MLP
    sh_degree: int = 4  # spherical-harmonic bands of the view direction, 1 to 4
    interpolation: str = "embedding"  # between heads, of the density MLPs' outputs; "color": of density and colour
    share_grid: bool = False  # all heads look into the same hash grids, each up to its own resolution
    occupancy_resolution: int = 64  # cells along the edge of the occupancy grid, which all heads share; a multiple of 8
    trained_resolution: int = 32  # cells of the grid that knows which levels were trained where
    density_shift: float = -1.0  # sigma = exp(x + density_shift) / unit, the unit being half the root's edge
    background: bool = False  # the grids also hold what lies around the root, contracted (models/contraction.py)

    def __post_init__(self) -> None:
        self._check_whole_numbers()
        for name, allowed in (
            ("features_per_level", (2, 4)), ("hidden_dim", WIDTHS), ("density_hidden_dim", WIDTHS),
            ("interpolation", INTERPOLATIONS),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or value not in allowed:
                raise ValueError(f"config.{name} must be one of {', '.join(map(str, allowed))}, got {short(value)}")
        self.check_flags("share_grid", "background")
        for name, (low, high) in {"scale_factor": (1.1, 16.0), "density_shift": (-20.0, 20.0)}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(f"config.{name} must be a number from {low:g} to {high:g}, got {short(value)}")
        self._check_together()

    def _check_whole_numbers(self) -> None:
        ranges: dict[str, tuple[int, int]] = {
            "num_levels": (1, MAX_PYRAMID_LEVELS), "base_resolution": (2, 1024), "max_resolution": (2, 65536),
            "n_grid_levels": (1, 16), "hash_table_size": (64, 1 << 22), "num_layers": (1, 8), "density_layers": (1, 8),
            "geo_dim": (1, 31), "sh_degree": (1, 4), "occupancy_resolution": (8, 128), "trained_resolution": (1, 128),
        }  # fmt: skip
        self.check_whole_numbers(ranges)

    def _check_together(self) -> None:
        if self.hash_table_size & (self.hash_table_size - 1):
            raise ValueError(f"config.hash_table_size must be a power of two, got {self.hash_table_size}")
        if self.max_resolution < self.base_resolution:
            raise ValueError(
                f"config.max_resolution must be at least base_resolution {self.base_resolution}, "
                f"got {self.max_resolution}"
            )
        if self.occupancy_resolution % 8:
            raise ValueError(f"config.occupancy_resolution must be a multiple of 8, got {self.occupancy_resolution}")
        if self.n_features > 32:
            raise ValueError(f"config: n_grid_levels * features_per_level must be at most 32, got {self.n_features}")
        own = self.resolutions
        if not isinstance(own, tuple) or (own and len(own) != self.num_levels):
            raise ValueError(
                f"config.resolutions must be empty or a list of num_levels {self.num_levels}, got {short(own)}"
            )
        if not all(isinstance(r, int) and not isinstance(r, bool) and 1 <= r <= 65536 for r in own):
            raise ValueError(f"config.resolutions must be whole numbers from 1 to 65536, got {short(own)}")
        if any(after <= before for before, after in pairwise(own)):
            raise ValueError(f"config.resolutions must rise, got {short(own)}")
        if own and own[-1] != self.max_resolution:
            raise ValueError(f"config.resolutions must end at max_resolution {self.max_resolution}, got {short(own)}")

    @property
    def n_features(self) -> int:
        """Length of the finest head's encoding."""
        return self.n_grid_levels * self.features_per_level

    @property
    def n_sh(self) -> int:
        return self.sh_degree**2

    @property
    def level_resolutions(self) -> list[float]:
        """Cells along the grids' edge that each head is for."""
        if self.resolutions:
            return [float(r) for r in self.resolutions]
        return [self.max_resolution / self.scale_factor**i for i in reversed(range(self.num_levels))]

    @property
    def grid_resolutions(self) -> list[int]:
        """Cells along the edge of each hash grid, coarse to fine."""
        return geometric(self.base_resolution, self.max_resolution, self.n_grid_levels)

    @property
    def grid_counts(self) -> list[int]:
        """Hash grids that each head looks into: those no finer than itself, and at least one."""
        finest = [resolution + 0.5 for resolution in self.level_resolutions]
        return [max(1, sum(grid <= own for grid in self.grid_resolutions)) for own in finest]

    @property
    def grid_entries(self) -> list[int]:
        """Entries of each hash grid: one a corner where these fit the table."""
        return [min((resolution + 1) ** 3, self.hash_table_size) for resolution in self.grid_resolutions]

    @property
    def occupancy_words(self) -> int:
        """int32 words of the occupancy grid, a bit a cell, x fastest."""
        return self.occupancy_resolution**3 // 32

    def density_shapes(self, level: int) -> list[tuple[int, int]]:
        """(inputs, outputs) of the layers of a head's density MLP."""
        n_in = self.grid_counts[level] * self.features_per_level
        return _chain(n_in, self.density_hidden_dim, self.density_layers, self.geo_dim + 1)

    @property
    def color_shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the layers of a colour MLP: geometry features, then harmonics of the direction."""
        return _chain(self.geo_dim + self.n_sh, self.hidden_dim, self.num_layers, 3)


def _chain(n_in: int, hidden: int, layers: int, n_out: int) -> list[tuple[int, int]]:
    sizes = [n_in, *[hidden] * (layers - 1), n_out]
    return list(pairwise(sizes))


def weights_in(shapes: list[tuple[int, int]]) -> int:
    """Numbers of an MLP: each layer's matrix, then its bias."""
    return sum(n_in * n_out + n_out for n_in, n_out in shapes)
