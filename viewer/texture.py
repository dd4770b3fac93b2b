"""The scene's pixels on the GPU: the channels that a view mode reads, drawn through `shaders/resolve.frag`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..renderer import colormaps
from ..renderer.frame import CHANNELS, FrameBuffers
from ..renderer.resolve import TEXTURES, ResolveSettings, shader_sources, uniforms
from .window import read_framebuffer


class ShaderError(RuntimeError):
    """A shader that this driver does not take; the message has the driver's log."""


def build_program(vertex: str, fragment: str, name: str) -> int:
    """Compiles and links. Raises `ShaderError` with the driver's log."""
    from OpenGL import GL

    program: Any = GL.glCreateProgram()
    for kind, source in ((GL.GL_VERTEX_SHADER, vertex), (GL.GL_FRAGMENT_SHADER, fragment)):
        shader = GL.glCreateShader(kind)
        GL.glShaderSource(shader, source)
        GL.glCompileShader(shader)
        if not GL.glGetShaderiv(shader, GL.GL_COMPILE_STATUS):
            log = GL.glGetShaderInfoLog(shader)
            raise ShaderError(f"shader {name} does not compile on this driver: {_text(log)}")
        GL.glAttachShader(program, shader)
        GL.glDeleteShader(shader)
    GL.glLinkProgram(program)
    if not GL.glGetProgramiv(program, GL.GL_LINK_STATUS):
        raise ShaderError(f"shader {name} does not link on this driver: {_text(GL.glGetProgramInfoLog(program))}")
    return program


def set_uniform(location: int, value: Any) -> None:
    """A bool, a number or a tuple of floats to the program in use; -1, what the compiler dropped, is left out."""
    from OpenGL import GL

    if location < 0:
        return
    if isinstance(value, (bool, int)):
        GL.glUniform1i(location, int(value))
    elif isinstance(value, float):
        GL.glUniform1f(location, value)
    else:
        (GL.glUniform2f, GL.glUniform3f, GL.glUniform4f)[len(value) - 2](location, *value)


class SceneTexture:
    """Textures of one picture and the program that draws them. Needs a current context, as everything here does."""

    def __init__(self) -> None:
        from OpenGL import GL

        self.program = build_program(*shader_sources(), "resolve")
        self.vertices = GL.glGenVertexArrays(1)  # a core profile draws nothing without one, even without attributes
        names = (*CHANNELS, "lut")
        self.units = {name: unit for unit, name in enumerate(names)}
        self.textures = {name: int(texture) for name, texture in zip(names, GL.glGenTextures(len(names)), strict=True)}
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._fresh: set[str] = set()  # channels of `buffers` that are uploaded
        self.buffers: FrameBuffers | None = None
        GL.glUseProgram(self.program)
        for name, unit in self.units.items():
            set_uniform(GL.glGetUniformLocation(self.program, name), unit)
        self._locations = {name: GL.glGetUniformLocation(self.program, name) for name in uniforms(ResolveSettings())}
        self._upload("lut", colormaps.texture())

    def show(self, buffers: FrameBuffers) -> None:
        """Takes another picture; its channels are uploaded when a view mode needs them."""
        if buffers is not self.buffers:
            self.buffers = buffers
            self._fresh.clear()

    def clear(self) -> None:
        """Shows nothing."""
        self.buffers = None

    def need(self, channels: tuple[str, ...]) -> None:
        """Uploads channels of the present picture that are not there yet."""
        if self.buffers is None:
            return
        for name in channels:
            if name not in self._fresh:
                self._upload(name, getattr(self.buffers, name))
                self._fresh.add(name)

    def draw(self, settings: ResolveSettings) -> None:
        """Fills the viewport of the bound framebuffer."""
        from OpenGL import GL

        if self.buffers is None:
            return
        self.need(TEXTURES[settings.mode])
        GL.glDisable(GL.GL_BLEND)
        GL.glUseProgram(self.program)
        for name, value in uniforms(settings).items():
            set_uniform(self._locations[name], value)
        self.bind()
        GL.glBindVertexArray(self.vertices)
        GL.glDrawArrays(GL.GL_TRIANGLES, 0, 3)

    def bind(self) -> None:
        """Every texture to its own unit: samplers of two kinds on one unit are an error."""
        from OpenGL import GL

        for name, unit in self.units.items():
            GL.glActiveTexture(int(GL.GL_TEXTURE0) + unit)
            GL.glBindTexture(GL.GL_TEXTURE_2D, self.textures[name] if name in self._sizes else 0)
        GL.glActiveTexture(GL.GL_TEXTURE0)

    def read(self, settings: ResolveSettings) -> NDArray[np.uint8]:
        """The present picture [H, W, 3] at its own size, by the same shader into a hidden framebuffer."""
        from OpenGL import GL

        if self.buffers is None:
            raise ValueError("SceneTexture.read: there is no picture yet")
        width, height = self.buffers.width, self.buffers.height
        target, color = GL.glGenFramebuffers(1), GL.glGenRenderbuffers(1)
        try:
            GL.glBindRenderbuffer(GL.GL_RENDERBUFFER, color)
            GL.glRenderbufferStorage(GL.GL_RENDERBUFFER, GL.GL_RGBA8, width, height)
            GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, target)
            GL.glFramebufferRenderbuffer(GL.GL_FRAMEBUFFER, GL.GL_COLOR_ATTACHMENT0, GL.GL_RENDERBUFFER, color)
            GL.glViewport(0, 0, width, height)
            GL.glDisable(GL.GL_SCISSOR_TEST)
            self.draw(settings)
            return read_framebuffer(width, height)
        finally:
            GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, 0)
            GL.glDeleteFramebuffers(1, [target])
            GL.glDeleteRenderbuffers(1, [color])

    def _upload(self, name: str, image: NDArray) -> None:
        from OpenGL import GL

        if image.dtype == np.int32:
            internal, layout, kind = GL.GL_R32I, GL.GL_RED_INTEGER, GL.GL_INT
        else:
            internal, layout = _FORMATS[1 if image.ndim == 2 else image.shape[2]]
            internal, layout, kind = getattr(GL, internal), getattr(GL, layout), GL.GL_FLOAT
        image = np.ascontiguousarray(image)
        height, width = image.shape[:2]
        GL.glActiveTexture(int(GL.GL_TEXTURE0) + self.units[name])
        GL.glBindTexture(GL.GL_TEXTURE_2D, self.textures[name])
        GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, 0)
        GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 4)
        data = image.ctypes.data_as(ctypes.c_void_p)
        if self._sizes.get(name) == image.shape:
            GL.glTexSubImage2D(GL.GL_TEXTURE_2D, 0, 0, 0, width, height, layout, kind, data)
        else:
            GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, internal, width, height, 0, layout, kind, data)
            for parameter in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
                GL.glTexParameteri(GL.GL_TEXTURE_2D, parameter, GL.GL_NEAREST)
            for parameter in (GL.GL_TEXTURE_WRAP_S, GL.GL_TEXTURE_WRAP_T):
                GL.glTexParameteri(GL.GL_TEXTURE_2D, parameter, GL.GL_CLAMP_TO_EDGE)
            self._sizes[name] = image.shape
        GL.glActiveTexture(GL.GL_TEXTURE0)

    def close(self) -> None:
        from OpenGL import GL

        GL.glDeleteTextures(list(self.textures.values()))
        GL.glDeleteVertexArrays(1, [self.vertices])
        GL.glDeleteProgram(self.program)


_FORMATS = {1: ("GL_R32F", "GL_RED"), 3: ("GL_RGB32F", "GL_RGB"), 4: ("GL_RGBA32F", "GL_RGBA")}


def _text(log: bytes | str) -> str:
    return " ".join((log.decode(errors="replace") if isinstance(log, bytes) else str(log)).split())
