"""Public names of a package that cost nothing until they are used (PEP 562): `infnerf --help` must not wait for torch.

No geometry, but what every room's `__init__` needs; so `data/` may import it, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def lazy_names(package: str, **modules: tuple[str, ...]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose public names live in `modules`: module -> its names.

    A name must not be a module's, too: the package would then show one or the other, as imports went before.

    >>> getattribute, listing = lazy_names("infnerf.models", octree=("Octree", "MAX_DEPTH"))
    >>> listing(), getattribute("MAX_DEPTH")
    (['MAX_DEPTH', 'Octree'], 31)
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return find, lambda: sorted(homes)
