"""What the configs of all backends share: going to a checkpoint and back, and checks of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Self

from .checks import short


class StoredConfig:
    """Base of a frozen dataclass of numbers, flags, words and lists of numbers, as a checkpoint's `config` holds it."""

    LATER_FIELDS: ClassVar[frozenset[str]] = frozenset()  # that the first files lacked; absence means the default

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The config of a checkpoint: every key but LATER_FIELDS must be there, none unknown (`ValueError`)."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if missing := sorted(known - cls.LATER_FIELDS - set(values)):
            raise ValueError(f"config lacks {', '.join(missing)}")
        if unknown := sorted(map(str, set(values) - known)):
            raise ValueError(f"config has unknown keys: {short(', '.join(unknown))}")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain data. LATER_FIELDS only where they are not the default: a file without them is as old versions wrote
        it."""
        defaults = {f.name: f.default for f in fields(self)}  # type: ignore[arg-type]
        kept = {n: v for n, v in asdict(self).items() if n not in self.LATER_FIELDS or v != defaults[n]}  # type: ignore[call-overload]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    def check_whole_numbers(self, ranges: Mapping[str, tuple[int, int]]) -> None:
        """Field -> least and greatest. Raises `ValueError`."""
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"config.{name} must be a whole number from {low} to {high}, got {short(repr(value))}")

    def check_flags(self, *names: str) -> None:
        """Raises `ValueError`."""
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"config.{name} must be true or false, got {short(repr(getattr(self, name)))}")


def geometric(first: int, last: int, n: int) -> list[int]:
    """`n` whole numbers from `first` to `last`, growing by a factor; one is the last.

    >>> geometric(8, 128, 5), geometric(8, 128, 1)
    ([8, 16, 32, 64, 128], [128])
    """
    growth = (last / first) ** (1 / max(n - 1, 1))
    return [round(first * growth**i) for i in range(n)] if n > 1 else [last]
