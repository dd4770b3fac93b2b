"""A CUDA device that is none: tensors remember where they would lie, and mixing the two places fails as on a GPU.

Values are the host's. `.device`, `.to`, `device=` and generators behave as with one GPU. What autograd hands to Python
code has no place, and goes with both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fake_cupy import host_launcher
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from infnerf.renderer.cuda_samples import CudaSampleKernels
from infnerf.renderer.torch_launch import TorchLauncher
from infnerf.training import sampling, trainer

HOST, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def placed(device: Any) -> torch.device:
    return CUDA if torch.device(device).type == "cuda" else HOST


class PlacedGenerator(torch.Generator):
    """`torch.Generator(device)`."""

    place = HOST

    def __new__(cls, device: Any = HOST) -> PlacedGenerator:
        made = super().__new__(cls)
        made.place = placed(device)
        return made


def place_of(tensor: Tensor) -> torch.device | None:
    return getattr(tensor, "pretended", None)


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def put(values: Any, place: torch.device | None) -> Any:
    """Marks all tensors among the values."""
    for tensor in tensors(values) if place is not None else ():
        tensor.pretended = place  # type: ignore[attr-defined]
    return values


class PretendCuda(TorchFunctionMode):
    """While entered. `waits`: how often the host asked for values on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func is Tensor.backward:
            with self:  # while autograd calls back, which the public functions would do outside of it
                one = torch.ones_like(args[0])
                return _engine_run_backward((args[0],), (one,), False, False, (), accumulate_grad=True)
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, *args)
        if name in ("to", "cpu", "pin_memory"):
            return self._moved(func, name, args, kwargs)
        if name in ("numpy", "__array__") and place_of(args[0]) == CUDA:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name in ("item", "tolist", "__int__", "__float__", "__bool__", "__index__", "nonzero", "unique"):
            self.waits += any(place_of(tensor) == CUDA for tensor in tensors(args))
        asked = kwargs.pop("device", None)
        place = placed(asked) if asked is not None else self._common(name, args, kwargs)
        generator = kwargs.get("generator")
        if isinstance(generator, PlacedGenerator) and place is not None and generator.place.type != place.type:
            raise RuntimeError(f"{name}: expected a {place.type} generator, found {generator.place}")
        return put(func(*args, **kwargs), place)

    def _attribute(self, func: Any, name: str, *args: Any) -> Any:
        attribute = getattr(func.__self__, "__name__", "")
        place = place_of(args[0])
        if name == "__get__" and attribute == "device":
            return place or HOST
        if name == "__get__" and attribute == "is_cuda":
            return place == CUDA
        result = func(*args)
        if name == "__set__":
            put(args[0], place_of(args[1]) if isinstance(args[1], Tensor) else None)
        elif isinstance(result, Tensor):
            put(result, place)
        return result

    def _moved(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensor, *rest = args
        here, place = place_of(tensor), HOST if name == "cpu" else place_of(tensor)
        if name == "pin_memory":
            assert here != CUDA, "only memory of the host can be page-locked"
            return tensor
        kwargs.pop("non_blocking", None)
        for value in (*rest, kwargs.pop("device", None)):
            if isinstance(value, (str, torch.device)):
                place = placed(value)
            elif isinstance(value, Tensor):
                place = place_of(value)
        left = [value.dtype if isinstance(value, Tensor) else value for value in rest]
        left = [value for value in left if isinstance(value, torch.dtype)]
        result = tensor.to(*left, **kwargs) if (left or kwargs) and name == "to" else tensor
        if place is None or place == here:
            return put(result, here)
        self.waits += here == CUDA
        return put(result.clone() if result is tensor else result, place)

    def _common(self, name: str, args: Any, kwargs: Any) -> torch.device | None:
        """Where the result of a call lies. Raises `RuntimeError` where arguments lie in both places."""
        given = tensors((args, kwargs))
        if name == "__getitem__" or name == "__setitem__":
            return self._indexed(name, *args)
        if name in ("copy_", "_has_compatible_shallow_copy_type"):
            return place_of(args[0])
        places = {place_of(tensor) for tensor in given if tensor.dim() or place_of(tensor) == CUDA} - {None}
        if len(places) > 1:
            raise RuntimeError(f"{name}: expected all tensors on one device, found cpu and cuda:0")
        if places:
            return places.pop()
        return HOST if not given or any(place_of(tensor) == HOST for tensor in given) else None

    def _indexed(self, name: str, tensor: Tensor, index: Any, *value: Any) -> torch.device | None:
        own, by = place_of(tensor), tensors(index)
        if own == HOST and any(place_of(one) == CUDA for one in by):
            raise RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
        self.waits += any(place_of(one) == CUDA and one.dtype == torch.bool for one in by)
        for one in tensors(value) if by else ():
            if one.dim() and place_of(one) not in (None, own) and own is not None:
                raise RuntimeError(f"{name}: expected values on {own}, found {place_of(one)}")
        return own


@contextmanager
def pretended_cuda() -> Iterator[PretendCuda]:
    """A machine with the one GPU."""
    make = torch.nn.Parameter.__new__

    def parameter(cls: Any, data: Any = None, requires_grad: bool = True) -> Any:
        return put(make(cls, data, requires_grad), None if data is None else place_of(data))

    with pytest.MonkeyPatch.context() as patch, PretendCuda() as mode:
        patch.setattr(torch, "Generator", PlacedGenerator)
        patch.setattr(torch.nn.Parameter, "__new__", parameter)
        yield mode


@contextmanager
def pretended(kernels: Any = None) -> Iterator[PretendCuda]:
    """`pretended_cuda` where runs that are told "cuda" train; `kernels` makes a model's there, None: the stand-in's."""
    launcher, packed = host_launcher(device="cuda:0"), TorchLauncher._packed

    def lenient(self: TorchLauncher, name: str, value: Any) -> Any:
        """Takes what autograd hands over, which has no place, for the device's."""
        return packed(self, name, value if not isinstance(value, Tensor) or place_of(value) else put(value, CUDA))

    with pytest.MonkeyPatch.context() as patch, pretended_cuda() as mode:
        make = kernels or (lambda model: CudaSampleKernels(model, launcher))
        patch.setattr(sampling, "gpu_kernels", lambda model: make(model) if model.tables.is_cuda else None)
        patch.setattr(TorchLauncher, "_packed", lenient)
        patch.setattr(trainer, "training_device", lambda name: CUDA if name == "cuda" else torch.device("cpu"))
        yield mode
