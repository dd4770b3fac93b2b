"""The octree's nodes as wires, hidden behind the scene's surfaces. Positions are relative to the eye."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..renderer.colormaps import level_color
from ..renderer.resolve import SHADERS
from ..renderer.scheduler import Snapshot
from .scene import LoadedScene
from .texture import SceneTexture, build_program

MAX_WIRES = (
    6000  # cubes drawn at once, the largest on the screen first: enough for an eye, cheap for a software rasteriser
)
VERTICES = 24  # two for each of a cube's edges


def choose_nodes(
    corners: NDArray[np.float64],  # [n_nodes, 3] world
    edges: NDArray[np.float64],  # [n_nodes] world units
    levels: NDArray[np.int32],  # [n_nodes]
    camera: Camera,
    level_range: tuple[int, int],  # both included
    active: NDArray[np.bool_] | None = None,  # [n_nodes], None: all
    most: int = MAX_WIRES,
) -> NDArray[np.int64]:
    """The nodes to draw: levels in range, active, in the view's pyramid; the `most` largest on the screen."""
    chosen = (levels >= level_range[0]) & (levels <= level_range[1])
    if active is not None:
        chosen &= active
    index = np.flatnonzero(chosen)
    radius = edges[index] * (0.5 * np.sqrt(3.0))
    center = corners[index] + 0.5 * edges[index, None] - camera.position
    local = center @ camera.c2w[:3, :3]  # OpenCV axes of the camera
    inside = local[:, 2] > -radius
    sides = (
        (1.0, 0.0, camera.cx / camera.fx),
        (-1.0, 0.0, (camera.width - camera.cx) / camera.fx),
        (0.0, 1.0, camera.cy / camera.fy),
        (0.0, -1.0, (camera.height - camera.cy) / camera.fy),
    )
    for x, y, z in sides:  # a plane through the eye and one side of the image, pointing inward
        normal = np.array((x, y, z)) / np.sqrt(x * x + y * y + z * z)
        inside &= local @ normal > -radius
    index, local, radius = index[inside], local[inside], radius[inside]
    if len(index) > most:
        apparent = radius / np.maximum(np.linalg.norm(local, axis=1), 1e-9)
        index = index[np.argpartition(-apparent, most)[:most]]
    return index


def clip_matrix(camera: Camera, near: float) -> NDArray[np.float32]:
    """[4, 4] from eye-relative world positions to OpenGL clip space; everything beyond `near` is kept.

    >>> clip_matrix(Camera(np.eye(4), 1, 1, 1, 1, 2, 2), 0.5)[3].tolist()
    [0.0, 0.0, 1.0, 0.0]
    """
    w, h = camera.width, camera.height
    lens = np.array(
        [
            [2 * camera.fx / w, 0, 2 * camera.cx / w - 1, 0],
            [0, -2 * camera.fy / h, 1 - 2 * camera.cy / h, 0],
            [0, 0, 1, -2 * near],
            [0, 0, 1, 0],
        ]
    )
    turn = np.eye(4)
    turn[:3, :3] = camera.c2w[:3, :3].T
    return (lens @ turn).astype(np.float32)


class Wires:
    """The GL side: one program, one buffer of cubes."""

    def __init__(self) -> None:
        from OpenGL import GL

        vertex, fragment = (
            (SHADERS / f"overlay.{kind}")
            .read_text(encoding="utf-8")
            .replace("#define COLORS 1", f"#define COLORS {len(COLORS)}")
            for kind in ("vert", "frag")
        )
        self.program = build_program(vertex, fragment, "overlay")
        self.vertices, self.buffer = GL.glGenVertexArrays(1), GL.glGenBuffers(1)
        GL.glBindVertexArray(self.vertices)
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, self.buffer)
        for slot, count, offset in ((0, 4, 0), (1, 1, 16)):
            GL.glEnableVertexAttribArray(slot)
            GL.glVertexAttribPointer(slot, count, GL.GL_FLOAT, False, 20, ctypes.c_void_p(offset))
            GL.glVertexAttribDivisor(slot, 1)
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, 0)
        GL.glBindVertexArray(0)
        names = ("clip", "viewport", "depth", "colors", "slack")
        self._locations = {name: GL.glGetUniformLocation(self.program, name) for name in names}
        self._key: tuple | None = None
        self.count = 0  # cubes drawn last

    def draw(
        self,
        texture: SceneTexture,
        scene: LoadedScene,
        snapshot: Snapshot,
        which: str,  # one of state.WIRES, not "off"
        level_range: tuple[int, int],
        viewport: tuple[int, int, int, int],  # px, as glViewport has it
    ) -> None:
        """Draws over the picture that `texture` shows, with its own camera, so that wires and pixels move together."""
        from OpenGL import GL

        camera = snapshot.view.camera
        key = (id(scene.model), which, level_range, snapshot.sequence)
        if key != self._key:
            self._key = key
            self._fill(scene, snapshot, camera, which, level_range)
        if self.count == 0:
            return
        texture.need(("depth",))
        texture.bind()
        GL.glUseProgram(self.program)
        GL.glUniformMatrix4fv(self._locations["clip"], 1, True, clip_matrix(camera, 1e-4 * scene.root_size))
        GL.glUniform4f(self._locations["viewport"], *(float(x) for x in viewport))
        GL.glUniform1i(self._locations["depth"], texture.units["depth"])
        GL.glUniform3fv(self._locations["colors"], len(COLORS), COLORS)
        GL.glUniform1f(self._locations["slack"], 2e-4 * scene.root_size)
        GL.glEnable(GL.GL_BLEND)
        GL.glBlendFunc(GL.GL_SRC_ALPHA, GL.GL_ONE_MINUS_SRC_ALPHA)
        GL.glEnable(GL.GL_LINE_SMOOTH)
        GL.glBindVertexArray(self.vertices)
        GL.glDrawArraysInstanced(GL.GL_LINES, 0, VERTICES, self.count)
        GL.glBindVertexArray(0)
        GL.glDisable(GL.GL_LINE_SMOOTH)
        GL.glDisable(GL.GL_BLEND)

    def _fill(
        self, scene: LoadedScene, snapshot: Snapshot, camera: Camera, which: str, level_range: tuple[int, int]
    ) -> None:
        from OpenGL import GL

        corners, edges = scene.boxes
        samples = snapshot.stats.node_samples
        active = np.asarray(samples) > 0 if which == "in use" and samples is not None else None
        nodes = choose_nodes(corners, edges, scene.levels, camera, level_range, active)
        nodes = nodes[np.argsort(scene.levels[nodes], kind="stable")]  # fine levels last: they stay visible
        cubes = np.empty((len(nodes), 5), np.float32)
        cubes[:, :3] = corners[nodes] - camera.position
        cubes[:, 3], cubes[:, 4] = edges[nodes], scene.levels[nodes]
        self.count = len(nodes)
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, self.buffer)
        GL.glBufferData(GL.GL_ARRAY_BUFFER, cubes.nbytes, cubes, GL.GL_DYNAMIC_DRAW)
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, 0)

    def close(self) -> None:
        from OpenGL import GL

        GL.glDeleteVertexArrays(1, [self.vertices])
        GL.glDeleteBuffers(1, [self.buffer])
        GL.glDeleteProgram(self.program)


#: sRGB 0..1 of levels 0 to 31: the palette of the level view, its dark end lifted so that a thin line is seen.
COLORS = np.array([level_color(level) for level in range(32)], np.float32) / 255 * 0.8 + 0.2
