"""Buffers to pixels: every view mode in numpy, against its meaning and against the shader on a real OpenGL context."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from infnerf.models.octree import Octree
from infnerf.renderer import colormaps
from infnerf.renderer.frame import FrameBuffers
from infnerf.renderer.pngmeta import read_metadata, save_png
from infnerf.renderer.resolve import (
    TEXTURES,
    VIEW_MODES,
    ResolveSettings,
    format_length,
    legend,
    pack_textures,
    resolve,
    uniforms,
)

WIDTH, HEIGHT = 64, 48


def random_buffers(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> FrameBuffers:
    """Buffers that reach past every range on both sides, with empty and opaque pixels."""
    rng = np.random.default_rng(seed)
    buffers = FrameBuffers.allocate(width, height)
    alpha = np.clip(rng.uniform(-0.3, 1.3, (height, width, 1)), 0, 1)
    buffers.color[:] = np.concatenate([rng.uniform(0, 1.5, (height, width, 3)) * alpha, alpha], -1)
    buffers.depth[:] = rng.uniform(0, 30, (height, width))
    normal = rng.normal(size=(height, width, 3))
    buffers.normal[:] = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    buffers.level[:] = rng.uniform(0, 20, (height, width))
    buffers.gsd_ratio[:] = rng.uniform(-4, 4, (height, width))
    buffers.samples[:] = rng.integers(0, 90, (height, width))
    buffers.node[:] = rng.integers(-1, 1000, (height, width))
    buffers.clamped[:] = np.clip(rng.uniform(-0.5, 1.2, (height, width)), 0, 1)
    return buffers


def one_pixel(**channels: object) -> FrameBuffers:
    """An opaque grey pixel with some channels set."""
    buffers = FrameBuffers.allocate(1, 1)
    buffers.color[:] = (0.2, 0.2, 0.2, 1)
    for name, value in channels.items():
        getattr(buffers, name)[:] = value
    return buffers


def shown(buffers: FrameBuffers, **settings: object) -> list[int]:
    return resolve(buffers, ResolveSettings(**settings))[0, 0].tolist()  # type: ignore[arg-type]


def scene_model(depth: int = 2) -> SimpleNamespace:
    n = depth + 1
    children = torch.full((n, 8), -1, dtype=torch.int32)
    children[: n - 1, 0] = torch.arange(1, n, dtype=torch.int32)
    octree = Octree(
        children,
        torch.arange(-1, n - 1, dtype=torch.int32),
        torch.arange(n, dtype=torch.int32),
        torch.zeros(n, 3),
        root_size=32.0,
    )
    scene = {
        "up": [0, 0, 1],
        "unit": "m",
        "aabb": [[0, 0, 0], [30, 40, 0.1]],
        "cameras": [],
        "color_space": "linear",
        "background": [0.1, 0.2, 0.3],
    }
    return SimpleNamespace(octree=octree, gsd=lambda level: octree.size(torch.as_tensor(level)) / 128, scene=scene)


def test_rgb_is_encoded_once_over_the_background() -> None:
    assert shown(one_pixel()) == [124, 124, 124]  # sRGB of linear 0.2
    assert shown(one_pixel(color=(0, 0, 0, 0)), background=(1, 0, 0.2)) == [255, 0, 124]
    assert shown(one_pixel(color=(0.1, 0.1, 0.1, 0.5)), background=(0.2, 0.2, 0.2)) == [124, 124, 124]


def test_exposure_lights_the_scene_and_not_the_background() -> None:
    assert shown(one_pixel(color=(0.1, 0.1, 0.1, 1)), exposure=1.0) == [124, 124, 124]
    assert shown(one_pixel(color=(0, 0, 0, 0)), exposure=5.0, background=(0.2, 0.2, 0.2)) == [124, 124, 124]


def test_colours_trained_on_encoded_images_come_back_as_they_were() -> None:
    assert shown(one_pixel(color=(0.5, 0.25, 1.0, 1)), srgb_input=True) == [128, 64, 255]


def test_alpha_and_samples_show_their_number() -> None:
    assert shown(one_pixel(color=(0, 0, 0, 0.5)), mode="alpha") == [128, 128, 128]
    full = colormaps.to_bytes(colormaps.TABLES["sequential"])
    assert shown(one_pixel(samples=128, color=(0, 0, 0, 0)), mode="samples") == full[-1].tolist()
    assert shown(one_pixel(samples=0), mode="samples") == full[0].tolist()


def test_depth_runs_over_its_range_logarithmically() -> None:
    table = colormaps.to_bytes(colormaps.TABLES["sequential"])
    for depth, entry in ((0.5, 255), (1.0, 255), (10.0, 127.5), (100.0, 0), (500.0, 0)):
        expected = 0.5 * (table[int(np.floor(entry))].astype(float) + table[int(np.ceil(entry))])
        assert np.abs(shown(one_pixel(depth=depth), mode="depth", depth_range=(1, 100)) - expected).max() <= 1


def test_level_colours_are_those_of_the_legend_and_blend_between_levels() -> None:
    for level in range(16):
        assert tuple(shown(one_pixel(level=level), mode="level")) == colormaps.level_color(level)
    between = np.array(shown(one_pixel(level=1.5), mode="level"))
    ends = np.array([colormaps.level_color(1), colormaps.level_color(2)])
    assert (between >= ends.min(0)).all()
    assert (between <= ends.max(0)).all()


def test_gsd_is_white_where_it_fits_blue_where_finer_red_where_coarser() -> None:
    fits, finer, coarser = (shown(one_pixel(gsd_ratio=ratio), mode="gsd") for ratio in (0.0, 2.5, -2.5))
    assert min(fits) > 220
    assert finer[2] > finer[0] + 60
    assert coarser[0] > coarser[2] + 60


def test_clamped_samples_are_magenta_by_share() -> None:
    for mode in ("level", "gsd"):
        assert shown(one_pixel(clamped=1.0), mode=mode) == [255, 0, 255]
        assert shown(one_pixel(clamped=0.5), mode=mode) != shown(one_pixel(clamped=0.0), mode=mode)


def test_tint_blends_heat_over_rgb() -> None:
    buffers = one_pixel(level=3.0)
    assert shown(buffers, mode="level", tint=0.0) == shown(buffers)
    half, rgb, heat = (
        np.array(c) for c in (shown(buffers, mode="level", tint=0.5), shown(buffers), shown(buffers, mode="level"))
    )
    assert ((half > np.minimum(rgb, heat)) & (half < np.maximum(rgb, heat))).all()


def test_the_background_shows_through_by_alpha_in_every_mode_of_a_surface() -> None:
    for mode in ("depth", "normal", "level", "gsd", "node"):
        assert shown(one_pixel(color=(0, 0, 0, 0), node=3), mode=mode, background=(0.2, 0.2, 0.2)) == [124, 124, 124]
    assert shown(one_pixel(node=-1), mode="node", background=(0.2, 0.2, 0.2)) == [124, 124, 124]


def test_neighbouring_nodes_differ() -> None:
    colors = resolve(replace_nodes(np.arange(64)), ResolveSettings(mode="node"))[0].astype(int)
    assert (np.abs(np.diff(colors, axis=0)).max(1) > 12).mean() > 0.9


def replace_nodes(nodes: np.ndarray) -> FrameBuffers:
    buffers = FrameBuffers.allocate(len(nodes), 1)
    buffers.color[..., 3] = 1
    buffers.node[0] = nodes
    return buffers


def test_colours_that_must_be_told_apart_are_apart() -> None:
    colors = np.array([colormaps.level_color(level) for level in range(16)] + [(255, 0, 255)], float)
    distance = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 999 * np.eye(17)
    assert distance.min() > 40
    lightness = colormaps.TABLES["sequential"] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()


def test_ranges_come_from_the_scene() -> None:
    model = scene_model()
    settings = ResolveSettings.for_model(model, "level")
    assert settings.level_range == (0, 2)
    assert settings.background == (0.1, 0.2, 0.3)
    assert not settings.srgb_input
    model.scene |= {"color_space": "srgb", "background": [0.5, 0.5, 0.5]}
    assert ResolveSettings.for_model(model).background == pytest.approx((0.2140, 0.2140, 0.2140), abs=1e-4)


def test_the_range_of_depth_follows_the_eye() -> None:
    """Outside: from the box's nearest point to its farthest corner. Inside: down to a hundredth of that."""
    outside = ResolveSettings.for_model(scene_model(), "depth", np.array([-30.0, 20.0, 0.05]))
    assert outside.depth_range == pytest.approx((30.0, np.hypot(60.0, 20.0)), rel=1e-3)
    inside = ResolveSettings.for_model(scene_model(), "depth", np.array([30.0, 40.0, 0.1]))
    assert inside.depth_range == pytest.approx((0.5, 50.0), rel=1e-3)


def test_legends_speak_in_the_scenes_units() -> None:
    model = scene_model()
    settings = ResolveSettings.for_model(model)
    labels = [entry.label for entry in legend(replace(settings, mode="level"), model).entries]
    assert labels[:3] == ["0: 25 cm/px", "1: 12.5 cm/px", "2: 6.25 cm/px"]
    assert "tree ends" in labels[3]
    depth = legend(replace(settings, mode="depth"), model)
    assert depth.ticks[-1] == (1.0, "25 m")
    assert depth.bar is not None
    assert depth.bar.shape == (256, 3)
    gsd = legend(replace(settings, mode="gsd"), model)
    assert [label for _, label in gsd.ticks][::2] == ["8x coarser", "as fine", "8x finer"]
    for mode in VIEW_MODES:
        assert legend(replace(settings, mode=mode), model).title
    assert format_length(2000.0, "m") == "2000 m"


def test_a_legend_bar_shows_the_colours_of_the_picture() -> None:
    settings, model = ResolveSettings(mode="depth", depth_range=(1, 16)), scene_model()
    bar = legend(settings, model).bar
    assert bar is not None
    for at, depth in ((0, 1.0), (-1, 16.0)):
        assert bar[at].tolist() == resolve(one_pixel(depth=depth), settings)[0, 0].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ResolveSettings(mode="thermal"), "view mode must be one of rgb, depth, .* got 'thermal'"),
        (ResolveSettings(mode="depth", depth_range=(0, 1)), "depth_range must begin above 0, got 0"),
        (ResolveSettings(mode="gsd", gsd_range=(1, 1)), "range of gsd must be low < high, got 1 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: ResolveSettings, message: str) -> None:
    for function in (uniforms, lambda s: resolve(random_buffers(), s)):
        with pytest.raises(ValueError, match=message):
            function(settings)


def test_packing_copies_nothing() -> None:
    buffers = random_buffers()
    for mode in VIEW_MODES:
        packed = pack_textures(buffers, mode)
        assert tuple(packed) == TEXTURES[mode]
        assert all(packed[name] is getattr(buffers, name) for name in packed)
    assert set(pack_textures(buffers)) == set(buffers.channels())


GL_SETTINGS = [
    *[ResolveSettings(mode=mode, background=(0.1, 0.3, 0.6), exposure=0.7) for mode in VIEW_MODES],
    ResolveSettings(srgb_input=True, exposure=-0.5),
    ResolveSettings(mode="level", tint=0.4),
    ResolveSettings(mode="gsd", tint=0.6, srgb_input=True),
]


@pytest.fixture(scope="module")
def gl_pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, np.ndarray]]:
    """The shader's pictures, from a process of its own: a GL context must not meet the other tests'."""
    out = tmp_path_factory.mktemp("gl") / "pictures.npz"
    run = subprocess.run(
        [sys.executable, __file__, str(out)], capture_output=True, text=True, timeout=120, env={**os.environ, **GL_ENV}
    )
    assert run.returncode == 0, run.stderr
    with np.load(out) as pictures:
        yield dict(pictures)


GL_ENV = {"PYOPENGL_PLATFORM": "egl", "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("index", range(len(GL_SETTINGS)), ids=lambda i: f"{GL_SETTINGS[i].mode}-{i}")
def test_the_shader_draws_what_numpy_computes(gl_pictures: dict[str, np.ndarray], index: int) -> None:
    expected = resolve(random_buffers(), GL_SETTINGS[index]).astype(int)
    difference = np.abs(gl_pictures[f"exact_{index}"].astype(int) - expected)
    assert difference.max() <= 1, f"{(difference > 1).sum()} values differ, by up to {difference.max()}"
    assert expected.std() > 10  # a blank picture would agree with anything


def test_a_coarse_picture_is_drawn_smoothly(gl_pictures: dict[str, np.ndarray]) -> None:
    from infnerf.renderer.accumulate import resampled

    expected = resolve(resampled(random_buffers(), 2 * WIDTH, 2 * HEIGHT), GL_SETTINGS[0]).astype(int)
    assert np.abs(gl_pictures["coarse"].astype(int) - expected).max() <= 1


def draw_everything(out: Path) -> None:
    """Draws `GL_SETTINGS` through the shader without a display, and a picture at twice the buffers' size."""
    from OpenGL import EGL, GL
    from OpenGL.GL import shaders

    from infnerf.renderer.resolve import shader_sources

    def attributes(*values: int) -> object:
        return (EGL.EGLint * (len(values) + 1))(*values, EGL.EGL_NONE)

    display = EGL.eglGetPlatformDisplay(0x31DD, EGL.EGL_DEFAULT_DISPLAY, None)  # EGL_PLATFORM_SURFACELESS_MESA
    EGL.eglInitialize(display, EGL.EGLint(), EGL.EGLint())
    EGL.eglBindAPI(EGL.EGL_OPENGL_API)
    config, count = (EGL.EGLConfig * 1)(), EGL.EGLint()
    kind = attributes(EGL.EGL_SURFACE_TYPE, EGL.EGL_PBUFFER_BIT, EGL.EGL_RENDERABLE_TYPE, EGL.EGL_OPENGL_BIT)
    EGL.eglChooseConfig(display, kind, config, 1, count)
    version = attributes(0x3098, 3, 0x30FB, 3, 0x30FD, 1)  # OpenGL 3.3 core
    context = EGL.eglCreateContext(display, config[0], EGL.EGL_NO_CONTEXT, version)
    EGL.eglMakeCurrent(display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, context)

    GL.glBindVertexArray(GL.glGenVertexArrays(1))
    vertex, fragment = shader_sources()
    program = shaders.compileProgram(
        shaders.compileShader(vertex, GL.GL_VERTEX_SHADER),
        shaders.compileShader(fragment, GL.GL_FRAGMENT_SHADER),
        validate=False,  # samplers of two types share unit 0 until they are set
    )
    GL.glUseProgram(program)
    textures = pack_textures(random_buffers()) | {"lut": colormaps.texture()}
    GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 1)
    for unit, (name, array) in enumerate(textures.items()):
        upload(unit, array)
        GL.glUniform1i(GL.glGetUniformLocation(program, name), unit)
    pictures = {f"exact_{i}": draw(program, settings, WIDTH, HEIGHT) for i, settings in enumerate(GL_SETTINGS)} | {
        "coarse": draw(program, GL_SETTINGS[0], 2 * WIDTH, 2 * HEIGHT)
    }
    np.savez(out, allow_pickle=False, **pictures)


def upload(unit: int, array: np.ndarray) -> None:
    from OpenGL import GL

    channels = array.shape[2] if array.ndim == 3 else 1
    inner = {1: GL.GL_R32F, 3: GL.GL_RGB32F, 4: GL.GL_RGBA32F}[channels]
    outer, kind = {1: GL.GL_RED, 3: GL.GL_RGB, 4: GL.GL_RGBA}[channels], GL.GL_FLOAT
    if array.dtype == np.int32:
        inner, outer, kind = GL.GL_R32I, GL.GL_RED_INTEGER, GL.GL_INT
    GL.glActiveTexture(int(GL.GL_TEXTURE0) + unit)
    GL.glBindTexture(GL.GL_TEXTURE_2D, GL.glGenTextures(1))
    for edge in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
        GL.glTexParameteri(GL.GL_TEXTURE_2D, edge, GL.GL_NEAREST)
    GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, inner, array.shape[1], array.shape[0], 0, outer, kind, array)


def draw(program: int, settings: ResolveSettings, width: int, height: int) -> np.ndarray:
    from OpenGL import GL

    buffer = GL.glGenRenderbuffers(1)
    GL.glBindRenderbuffer(GL.GL_RENDERBUFFER, buffer)
    GL.glRenderbufferStorage(GL.GL_RENDERBUFFER, GL.GL_RGBA8, width, height)
    GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, GL.glGenFramebuffers(1))
    GL.glFramebufferRenderbuffer(GL.GL_FRAMEBUFFER, GL.GL_COLOR_ATTACHMENT0, GL.GL_RENDERBUFFER, buffer)
    GL.glViewport(0, 0, width, height)
    for name, value in uniforms(settings).items():
        where = GL.glGetUniformLocation(program, name)
        assert where >= 0, f"the shader has no uniform {name}"
        if isinstance(value, tuple):
            (GL.glUniform2f if len(value) == 2 else GL.glUniform3f)(where, *value)
        else:
            (GL.glUniform1f if isinstance(value, float) else GL.glUniform1i)(where, value)
    GL.glDrawArrays(GL.GL_TRIANGLES, 0, 3)
    pixels = np.empty((height, width, 3), np.uint8)
    GL.glPixelStorei(GL.GL_PACK_ALIGNMENT, 1)
    GL.glReadPixels(0, 0, width, height, GL.GL_RGB, GL.GL_UNSIGNED_BYTE, pixels)
    assert GL.glGetError() == GL.GL_NO_ERROR
    return pixels[::-1]


def test_a_screenshot_keeps_its_pose(tmp_path: Path) -> None:
    picture = resolve(random_buffers(), ResolveSettings())
    path = save_png(tmp_path / "shot.png", picture, {"camera": '{"fx": 100.0}', "scene": "Straße"})
    assert read_metadata(path) == {"camera": '{"fx": 100.0}', "scene": "Straße"}
    from PIL import Image

    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), picture)


def test_a_screenshot_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    picture = resolve(random_buffers(), ResolveSettings())
    with pytest.raises(OSError, match="nowhere"):
        save_png(tmp_path / "nowhere" / "shot.png", picture, {})
    with pytest.raises(ValueError, match=r"\[H, W, 3\] uint8"):
        save_png(tmp_path / "shot.png", picture.astype(np.float32), {})
    path = save_png(tmp_path / "shot.png", picture, {})
    assert [file.name for file in tmp_path.iterdir()] == ["shot.png"]
    assert read_metadata(path) == {}


if __name__ == "__main__":
    draw_everything(Path(sys.argv[1]))
