"""Checks of plain data that came from a file: each refuses with one sentence that names the key, expected and found."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

LARGEST = 1e30  # of a scene's numbers: float32 can hold it


class Refusal(ValueError):
    """One sentence about a key; those who know it put the file's name before it."""


def mapping(value: Any, key: str) -> dict[str, Any]:
    """The value, if it is a dict with strings as keys."""
    if type(value) is not dict or not all(type(name) is str for name in value):
        raise Refusal(f"{key} must be a dict with strings as keys, got {found(value)}")
    return value


def keys(value: dict[str, Any], key: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Refuses a dict that lacks a required key or has one that is neither required nor optional."""
    if missing := [name for name in required if name not in value]:
        raise Refusal(f"{key} lacks {', '.join(missing)}")
    if unknown := sorted(set(value) - set(required) - set(optional)):
        raise Refusal(f"{key} has unknown keys: {short(', '.join(unknown))}")


def numbers(value: Any, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Nested lists of finite numbers, of exactly this shape. Returns float64."""
    expected = f"a list of {' x '.join(map(str, shape))} finite numbers" if shape else "a finite number"
    flat = [value]
    for length in shape:
        if not all(isinstance(row, (list, tuple)) and len(row) == length for row in flat):
            raise Refusal(f"{key} must be {expected}, got {found(value)}")
        flat = [item for row in flat for item in row]
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) <= LARGEST for x in flat):
        raise Refusal(f"{key} must be {expected}, got {found(value)}")
    return np.array(flat, np.float64).reshape(shape)


def plain(value: Any, key: str) -> None:
    """Refuses all but dicts, lists, tuples, numbers, strings, None and tensors. Shared parts are looked at once."""
    stack, seen = [value], set()
    while stack:
        item = stack.pop()
        if item is None or type(item) in (bool, int, float, str):
            continue
        if type(item) not in (dict, list, tuple, Tensor):
            raise Refusal(f"{key} must hold plain data and tensors only, got {found(item)}")
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            if not all(type(name) in (str, int) for name in item):
                raise Refusal(f"{key} must have strings or whole numbers as keys, got {found(item)}")
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)


def found(value: Any) -> str:
    """What was found, in a few words, however large or strange it is."""
    if value is None:
        return "nothing"
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype)[6:]} {list(value.shape)}"
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return short(repr(value))


def short(text: object) -> str:
    """One line of at most 160 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= 160 else f"{line[:157]}..."
