"""Every number an InfNeRF needs, validated. The checkpoint stores it as a plain dict."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .stored_config import StoredConfig, geometric

MAX_LEVELS = 32  # of an octree, the root counted: `models.octree.MAX_DEPTH` + 1
#: Weights of one node's MLPs, in the order of their storage: each matrix input-major [in][out], then its bias.
MLP_LAYERS = ("density_hidden", "density_out", "color_hidden", "color_out")


@dataclass(frozen=True)
class InfNeRFConfig(StoredConfig):
    """Capacity of one octree node: a multiresolution hash grid (Mueller et al. 2022) and two small MLPs.

    Raises `ValueError` for a number out of range.

    >>> InfNeRFConfig().mlp_size
    1811
    """

    LATER_FIELDS = frozenset({"background", "appearance_dim", "level_table_sizes", "level_hidden_dims"})

    n_grid_levels: int = 8  # levels of the hash grid
    features_per_level: int = 2  # 2 or 4
    table_size: int = 4096  # entries per grid level, a power of two; of the largest nodes
    base_resolution: int = 8  # cells along the node's edge on the coarsest grid level
    resolution: int = 128  # R: cells on the finest grid level; gsd(level) = size(level) / R
    hidden_dim: int = 32  # width of both MLPs' hidden layer: 16, 32 or 64
    geo_dim: int = 15  # features handed from the density MLP to the colour MLP
    sh_degree: int = 2  # spherical-harmonic bands of the view direction, 1 to 4 (degree**2 coefficients)
    occupancy_resolution: int = 32  # cells along the edge of a node's occupancy grid, a multiple of 8
    density_shift: float = -5.0  # sigma = exp(x + density_shift) / gsd(level)
    background: bool = False  # the root also holds all that lies around its cube, contracted (models/contraction.py)
    level_table_sizes: tuple[int, ...] = ()  # on octree level 0, 1, ..., the last one on all below; (): table_size
    level_hidden_dims: tuple[int, ...] = ()  # likewise; (): hidden_dim
    appearance_dim: int = 0  # numbers of each training image that join the colour MLP's inputs; folded when saved

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[int, int]] = {
            "n_grid_levels": (1, 16),
            "table_size": (64, 1 << 22),
            "base_resolution": (2, 1024),
            "resolution": (2, 65536),
            "geo_dim": (1, 31),
            "sh_degree": (1, 4),
            "occupancy_resolution": (8, 128),
            "appearance_dim": (0, 16),
        }
        self.check_whole_numbers(ranges)
        for name, allowed in (("features_per_level", (2, 4)), ("hidden_dim", (16, 32, 64))):
            value = getattr(self, name)
            if isinstance(value, bool) or value not in allowed:
                raise ValueError(f"config.{name} must be one of {allowed}, got {value!r}")
        self.check_flags("background")
        if self.table_size & (self.table_size - 1):
            raise ValueError(f"config.table_size must be a power of two, got {self.table_size}")
        if self.resolution < self.base_resolution:
            raise ValueError(
                f"config.resolution must be at least base_resolution {self.base_resolution}, got {self.resolution}"
            )
        if self.occupancy_resolution % 8:
            raise ValueError(f"config.occupancy_resolution must be a multiple of 8, got {self.occupancy_resolution}")
        if self.n_features > 32:
            raise ValueError(f"config: n_grid_levels * features_per_level must be at most 32, got {self.n_features}")
        if isinstance(self.density_shift, bool) or not isinstance(self.density_shift, (int, float)):
            raise ValueError(f"config.density_shift must be a number, got {self.density_shift!r}")
        if not -20 <= self.density_shift <= 20:
            raise ValueError(f"config.density_shift must be -20 to 20, got {self.density_shift}")
        sizes = tuple(1 << i for i in range(6, self.table_size.bit_length()))
        widths = tuple(width for width in (16, 32, 64) if width <= self.hidden_dim)
        for name, allowed in (("level_table_sizes", sizes), ("level_hidden_dims", widths)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) > MAX_LEVELS:
                raise ValueError(f"config.{name} must be a list of at most {MAX_LEVELS} numbers, got {values!r:.80}")
            for value in values:
                if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
                    raise ValueError(f"config.{name} must hold {', '.join(map(str, allowed))} only, got {value!r:.40}")

    def at_level(self, level: int) -> InfNeRFConfig:
        """What a node on an octree level has by itself: a config that is the same on every level.

        >>> config = InfNeRFConfig(level_table_sizes=(4096, 1024), level_hidden_dims=(32, 32, 16))
        >>> [(own.table_size, own.hidden_dim) for own in map(config.at_level, range(4))]
        [(4096, 32), (1024, 32), (1024, 16), (1024, 16)]
        """
        return replace(
            self, table_size=_of_level(self.level_table_sizes, level, self.table_size), level_table_sizes=(),
            hidden_dim=_of_level(self.level_hidden_dims, level, self.hidden_dim), level_hidden_dims=(),
        )  # fmt: skip

    def level_bytes(self, level: int) -> int:
        """Bytes of a node on an octree level in a checkpoint: half-precision tables and MLPs, occupancy bits."""
        return self.at_level(level).node_bytes

    def node_cost(self, level: int) -> int:
        """Bytes by which a checkpoint grows with a node on an octree level: `level_bytes` and its place in the tree."""
        return self.level_bytes(level) + 60

    @property
    def n_features(self) -> int:
        """Length of the encoding: grid levels times features."""
        return self.n_grid_levels * self.features_per_level

    @property
    def n_sh(self) -> int:
        return self.sh_degree**2

    @property
    def layer_shapes(self) -> dict[str, tuple[int, int]]:
        """Layer name -> (inputs, outputs), in storage order."""
        shapes = (
            (self.n_features, self.hidden_dim),
            (self.hidden_dim, self.geo_dim + 1),
            (self.geo_dim + self.n_sh + self.appearance_dim, self.hidden_dim),
            (self.hidden_dim, 3),
        )
        return dict(zip(MLP_LAYERS, shapes, strict=True))

    @property
    def mlp_size(self) -> int:
        """P: numbers in one node's row of `field.mlp`."""
        return sum(i * o + o for i, o in self.layer_shapes.values())

    @property
    def occupancy_words(self) -> int:
        """W: int32 words in one node's row of `field.occupancy`, one bit a cell, x fastest."""
        return self.occupancy_resolution**3 // 32

    @property
    def node_bytes(self) -> int:
        """`level_bytes` of a node of full capacity."""
        return 2 * (self.n_features * self.table_size + self.mlp_size) + 4 * self.occupancy_words

    @property
    def grid_resolutions(self) -> list[int]:
        """Cells along the edge per grid level, growing geometrically from base_resolution to resolution."""
        return geometric(self.base_resolution, self.resolution, self.n_grid_levels)


def _of_level(values: tuple[int, ...], level: int, otherwise: int) -> int:
    return values[min(level, len(values) - 1)] if values else otherwise
