"""The scene's pixels on the GPU: the channels that a view mode reads, drawn through `shaders/resolve.frag`."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..renderer import colormaps
from ..renderer.frame import CHANNELS, FrameBuffers
from ..renderer.interop import DevicePaths, Layout, PathStatus
from ..renderer.interop_cuda import gl_formats
from ..renderer.resolve import TEXTURES, ResolveSettings, shader_sources, uniforms
from .window import read_framebuffer

Box = tuple[int, int, int, int]  # x, y, width, height in px, y up as OpenGL has it


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


@dataclass(frozen=True)
class _Program:
    """The resolve shader for one view mode, drawing a picture at its own size."""

    number: int
    locations: dict[str, int]  # of the uniforms that are left

    @classmethod
    def build(cls, mode: int, srgb_input: bool, units: dict[str, int]) -> _Program:
        from OpenGL import GL

        vertex, fragment = shader_sources()
        number = build_program(vertex, specialised(fragment, mode, srgb_input), "resolve")
        GL.glUseProgram(number)
        for name, unit in units.items():
            set_uniform(GL.glGetUniformLocation(number, name), unit)
        return cls(number, {name: GL.glGetUniformLocation(number, name) for name in uniforms(ResolveSettings())})


def specialised(fragment: str, mode: int, srgb_input: bool) -> str:
    """`shaders/resolve.frag` with its mode fixed and without its scaling.

    A software rasteriser takes every branch for every pixel, so that one shader for all modes costs the sum of them:
    for 1280x720 on Mesa's llvmpipe 195 ms of processor time, against 17 ms like this. Raises `ShaderError` when the
    source has changed so that this can't be done.
    """
    constants = {"uniform int mode;": f"const int mode = {mode};"}
    constants["uniform bool srgb_input;"] = f"const bool srgb_input = {str(srgb_input).lower()};"
    for line, replacement in constants.items():
        if line not in fragment:
            raise ShaderError(f"shader resolve lacks the line {line!r}")
        fragment = fragment.replace(line, replacement)
    functions, entry, _ = fragment.partition("void main()")
    if not entry:
        raise ShaderError("shader resolve lacks its main function")
    return functions + NATIVE_MAIN


#: Row 0 of the textures is the top of the picture, row 0 of a framebuffer its bottom.
NATIVE_MAIN = """void main() {
    ivec2 p = ivec2(gl_FragCoord.xy);
    pixel = vec4(encode(shade(ivec2(p.x, textureSize(color, 0).y - 1 - p.y))), 1.0);
}
"""


class SceneTexture:
    """Textures of one picture and the programs that draw them. Needs a current context, as everything here does.

    Owns `paths`, by which pictures in a device's memory get here; without them everything comes over the host.
    """

    def __init__(self, paths: DevicePaths | None = None) -> None:
        from OpenGL import GL

        self.paths = paths or DevicePaths(None, "CUDA was not asked for")
        self.vertices = GL.glGenVertexArrays(1)  # a core profile draws nothing without one, even without attributes
        names = (*CHANNELS, "lut")
        self.units = {name: unit for unit, name in enumerate(names)}
        self.textures = {name: int(texture) for name, texture in zip(names, GL.glGenTextures(len(names)), strict=True)}
        self._programs: dict[tuple[int, bool], _Program] = {}
        self._layouts: dict[str, Layout] = {}  # of the textures' storage
        self._fresh: set[str] = set()  # channels of `buffers` that are uploaded
        self.buffers: FrameBuffers | None = None
        self._target, self._target_size = GL.glGenFramebuffers(1), (0, 0)
        self.resolved = int(GL.glGenTextures(1))  # what `resolve` drew: sRGB bytes, row 0 at the bottom
        self._resolved: tuple[int, dict] | None = None  # buffers and uniforms that the target shows
        self._upload("lut", colormaps.texture())

    def show(self, buffers: FrameBuffers) -> None:
        """Takes another picture; its channels are uploaded when a view mode needs them."""
        if buffers is not self.buffers:
            self.buffers = buffers
            self._fresh.clear()
            self._resolved = None

    def clear(self) -> None:
        """Shows nothing."""
        self.buffers, self._resolved = None, None

    def need(self, channels: tuple[str, ...]) -> None:
        """Uploads channels of the present picture that are not there yet."""
        if self.buffers is None:
            return
        for name in channels:
            if name not in self._fresh:
                self._fill(name, self.buffers)
                self._fresh.add(name)

    @property
    def path(self) -> PathStatus:
        """How the present picture came here, and why not faster."""
        return self.paths.status(self.buffers.device if self.buffers is not None else None)

    def _fill(self, name: str, buffers: FrameBuffers) -> None:
        """One channel into its texture, from the device if there is a path."""
        if buffers.device is not None and self.paths.possible:
            self._allocate(name, Layout.of_channel(name, buffers.device))
            if self.paths.write(self.textures[name], name, buffers.device):
                return
        self._upload(name, getattr(buffers, name))

    def resolve(self, settings: ResolveSettings) -> int:
        """Draws the present picture at its own size into a texture, if that does not hold it yet.

        Returns its framebuffer. The window then only copies: a coarse picture is shaded once a pixel of its own and
        not once a pixel of the screen, and a frame in which only the panels change shades nothing.
        """
        from OpenGL import GL

        if self.buffers is None:
            raise ValueError("SceneTexture.resolve: there is no picture yet")
        values = uniforms(settings)
        if self._resolved == (id(self.buffers), values):
            return self._target
        self._resolved = (id(self.buffers), values)
        self.need(TEXTURES[settings.mode])
        self._resize_target(self.buffers.width, self.buffers.height)
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, self._target)
        GL.glViewport(0, 0, self.buffers.width, self.buffers.height)
        GL.glDisable(GL.GL_SCISSOR_TEST)
        GL.glDisable(GL.GL_BLEND)
        self._use(values)
        self.bind()
        GL.glBindVertexArray(self.vertices)
        GL.glDrawArrays(GL.GL_TRIANGLES, 0, 3)
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, 0)
        return self._target

    def draw(
        self,
        settings: ResolveSettings,
        viewport: Box,  # px, as glViewport has it
        clip: Box | None = None,  # px, nothing is drawn outside
        framebuffer: int = 0,  # the window's
    ) -> None:
        """Copies the present picture into `viewport` of a framebuffer, scaled."""
        from OpenGL import GL

        if self.buffers is None:
            return
        source = self.resolve(settings)
        x, y, width, height = viewport
        same = (width, height) == (self.buffers.width, self.buffers.height)
        smooth = not same and settings.mode != "node"  # between two nodes lies no third one's colour
        GL.glBindFramebuffer(GL.GL_READ_FRAMEBUFFER, source)
        GL.glBindFramebuffer(GL.GL_DRAW_FRAMEBUFFER, framebuffer)
        corners = (0, 0, self.buffers.width, self.buffers.height, x, y, x + width, y + height)
        with clipped(clip):
            GL.glBlitFramebuffer(*corners, GL.GL_COLOR_BUFFER_BIT, GL.GL_LINEAR if smooth else GL.GL_NEAREST)
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, framebuffer)

    def bind(self) -> None:
        """Every texture to its own unit: samplers of two kinds on one unit are an error."""
        from OpenGL import GL

        for name, unit in self.units.items():
            GL.glActiveTexture(int(GL.GL_TEXTURE0) + unit)
            GL.glBindTexture(GL.GL_TEXTURE_2D, self.textures[name] if name in self._layouts else 0)
        GL.glActiveTexture(GL.GL_TEXTURE0)

    def read(self, settings: ResolveSettings) -> NDArray[np.uint8]:
        """The present picture [H, W, 3] at its own size: the very pixels that the window copies."""
        from OpenGL import GL

        source = self.resolve(settings)
        assert self.buffers is not None
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, source)
        try:
            return read_framebuffer(self.buffers.width, self.buffers.height)
        finally:
            GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, 0)

    def _use(self, values: dict[str, Any]) -> None:
        """Makes the program for a mode current, with its uniforms."""
        from OpenGL import GL

        key = (values["mode"], values["srgb_input"])
        if key not in self._programs:
            self._programs[key] = _Program.build(*key, self.units)
        program = self._programs[key]
        GL.glUseProgram(program.number)
        for name, value in values.items():
            if name in program.locations:
                set_uniform(program.locations[name], value)

    def _resize_target(self, width: int, height: int) -> None:

        if self._target_size == (width, height):
            return
        self._target_size = (width, height)
        color_target(self._target, self.resolved, width, height)

    def _allocate(self, name: str, layout: Layout) -> None:
        """Storage for a texture and its unit bound, unless the one it has is right."""
        from OpenGL import GL

        GL.glActiveTexture(int(GL.GL_TEXTURE0) + self.units[name])
        GL.glBindTexture(GL.GL_TEXTURE_2D, self.textures[name])
        if self._layouts.get(name) == layout:
            return
        self.paths.forget(self.textures[name])
        internal, outside, kind = gl_formats(layout)
        GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, 0)
        GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, internal, layout.width, layout.height, 0, outside, kind, None)
        for parameter in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
            GL.glTexParameteri(GL.GL_TEXTURE_2D, parameter, GL.GL_NEAREST)
        for parameter in (GL.GL_TEXTURE_WRAP_S, GL.GL_TEXTURE_WRAP_T):
            GL.glTexParameteri(GL.GL_TEXTURE_2D, parameter, GL.GL_CLAMP_TO_EDGE)
        GL.glTexParameteri(GL.GL_TEXTURE_2D, GL.GL_TEXTURE_MAX_LEVEL, 0)  # whole without mipmaps, for CUDA too
        self._layouts[name] = layout

    def _upload(self, name: str, image: NDArray) -> None:
        """From host memory."""
        from OpenGL import GL

        image = np.ascontiguousarray(image)
        layout = Layout.of(image)
        self._allocate(name, layout)
        _, outside, kind = gl_formats(layout)
        GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, 0)
        GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 4)
        data = image.ctypes.data_as(ctypes.c_void_p)
        GL.glTexSubImage2D(GL.GL_TEXTURE_2D, 0, 0, 0, layout.width, layout.height, outside, kind, data)
        GL.glActiveTexture(GL.GL_TEXTURE0)

    def close(self) -> None:
        from OpenGL import GL

        self.paths.close()
        GL.glDeleteTextures(list(self.textures.values()))
        GL.glDeleteFramebuffers(1, [self._target])
        GL.glDeleteTextures([self.resolved])
        GL.glDeleteVertexArrays(1, [self.vertices])
        for program in self._programs.values():
            GL.glDeleteProgram(program.number)


def color_target(framebuffer: int, texture: int, width: int, height: int) -> None:
    """Gives a framebuffer a texture of sRGB bytes to draw into, of a size in px; reads of it are smooth."""
    from OpenGL import GL

    GL.glBindTexture(GL.GL_TEXTURE_2D, texture)
    GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, 0)
    size = (width, height, 0, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, None)
    GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, GL.GL_RGBA8, *size)
    for parameter in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
        GL.glTexParameteri(GL.GL_TEXTURE_2D, parameter, GL.GL_LINEAR)
    for parameter in (GL.GL_TEXTURE_WRAP_S, GL.GL_TEXTURE_WRAP_T):
        GL.glTexParameteri(GL.GL_TEXTURE_2D, parameter, GL.GL_CLAMP_TO_EDGE)
    GL.glTexParameteri(GL.GL_TEXTURE_2D, GL.GL_TEXTURE_MAX_LEVEL, 0)
    GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, framebuffer)
    GL.glFramebufferTexture2D(GL.GL_FRAMEBUFFER, GL.GL_COLOR_ATTACHMENT0, GL.GL_TEXTURE_2D, texture, 0)


@contextlib.contextmanager
def clipped(box: Box | None) -> Iterator[None]:
    """Draws inside `box` only (px from the framebuffer's lower left); None: everywhere."""
    from OpenGL import GL

    if box is None:
        GL.glDisable(GL.GL_SCISSOR_TEST)
        yield
        return
    GL.glEnable(GL.GL_SCISSOR_TEST)
    GL.glScissor(*box)
    try:
        yield
    finally:
        GL.glDisable(GL.GL_SCISSOR_TEST)


def _text(log: bytes | str) -> str:
    return " ".join((log.decode(errors="replace") if isinstance(log, bytes) else str(log)).split())
