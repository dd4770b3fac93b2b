"""What is between two pictures, drawn through `shaders/compare.frag`."""

from __future__ import annotations

from ..renderer.comparison import MAPS, compare_shader
from ..renderer.resolve import shader_sources
from .picture import Picture
from .state import ViewerState
from .texture import Box, build_program, set_uniform

SAMPLERS = ("left", "right", "known", "lut")


class ComparisonMap:
    """One program. Needs a current context."""

    def __init__(self) -> None:
        from OpenGL import GL

        self.program = build_program(shader_sources()[0], compare_shader(), "compare")
        GL.glUseProgram(self.program)
        names = (*SAMPLERS, "mode", "masked", "limit", "viewport")
        self._locations = {name: GL.glGetUniformLocation(self.program, name) for name in names}
        for unit, name in enumerate(SAMPLERS):
            set_uniform(self._locations[name], unit)

    def draw(
        self,
        mode: str,  # one of MAPS
        limit: float,  # of 255, at the end of the colours
        left: Picture,
        right: Picture,
        state: ViewerState,
        viewport: Box,  # px, as glViewport has it
        framebuffer: int = 0,
    ) -> None:
        """Draws the map of two pictures' rgb; pixels that a photograph lacks count nowhere."""
        from OpenGL import GL

        photograph = next((picture for picture in (left, right) if picture.photograph), None)
        for picture in (left, right):
            picture.texture.resolve(picture.settings(state, plain=True))
        if photograph is not None:
            photograph.texture.need(("samples",))
        known = photograph.texture.textures["samples"] if photograph is not None else 0
        textures = (left.texture.resolved, right.texture.resolved, known, left.texture.textures["lut"])
        for unit, texture in enumerate(textures):
            GL.glActiveTexture(int(GL.GL_TEXTURE0) + unit)
            GL.glBindTexture(GL.GL_TEXTURE_2D, texture)
        GL.glActiveTexture(GL.GL_TEXTURE0)
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, framebuffer)
        GL.glViewport(*viewport)
        GL.glDisable(GL.GL_SCISSOR_TEST)
        GL.glDisable(GL.GL_BLEND)
        GL.glUseProgram(self.program)
        values = {"mode": MAPS.index(mode), "masked": photograph is not None, "limit": limit / 255}
        for name, value in values.items():
            set_uniform(self._locations[name], value)
        set_uniform(self._locations["viewport"], tuple(float(x) for x in viewport))
        GL.glBindVertexArray(left.texture.vertices)
        GL.glDrawArrays(GL.GL_TRIANGLES, 0, 3)
        GL.glBindVertexArray(0)

    def close(self) -> None:
        from OpenGL import GL

        GL.glDeleteProgram(self.program)
