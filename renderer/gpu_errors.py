"""What can go wrong with a GPU, by what helps: nothing to be had, too little memory, gone, or called wrongly."""

from __future__ import annotations

from . import frame


class GpuError(RuntimeError):
    """The GPU refused something; the message is one sentence."""


class GpuUnavailable(GpuError):
    """No GPU that this program can use; the message says what is missing and what mends it."""


class GpuMemoryError(GpuError):
    """Too little memory on the GPU, even for the smallest buffers. Another executor can go on."""


class DeviceLost(GpuError, frame.DeviceLost):
    """The GPU no longer answers this process. Nothing on it can be used again: go on with another executor."""


class LaunchError(TypeError):
    """A kernel was called with arguments that are not its own; names kernel, argument, expected and got."""
