"""How `cuda/shade_mma.cu`, the field on tensor cores, is compiled for one model: with room for its layers, no more."""

from __future__ import annotations

from ..models.config import InfNeRFConfig

STEP = 16  # inputs of one mma


def shade_shape(config: InfNeRFConfig) -> tuple[int, int, int]:
    """Features, hidden units and outputs of the density MLP, each padded to whole mma steps.

    >>> shade_shape(InfNeRFConfig(n_grid_levels=5, geo_dim=15))
    (16, 32, 16)
    """
    return _padded(config.n_features), _padded(config.hidden_dim), _padded(config.geo_dim + 1)


def shade_options(config: InfNeRFConfig) -> tuple[str, ...]:
    """Compiler options for `shade_mma.cu`; without them it has room for every model, and needs it.

    >>> shade_options(InfNeRFConfig())
    ('-DSHADE_FEATURES=16', '-DSHADE_HIDDEN=32', '-DSHADE_OUTPUTS=16')
    """
    names = "FEATURES", "HIDDEN", "OUTPUTS"
    return tuple(f"-DSHADE_{name}={size}" for name, size in zip(names, shade_shape(config), strict=True))


def _padded(n: int) -> int:
    return -(-n // STEP) * STEP
