"""What the window shows is what `resolve` computes, and wires lie where the camera sees them. No display needed."""

from __future__ import annotations

import numpy as np
import pytest
from fake_interop import GLFakeDriver, make_picture
from gui_harness import QUICK, Harness, changed

from infnerf.models.camera import Camera
from infnerf.renderer.device_picture import PictureBuffers
from infnerf.renderer.interop import HOST, PIXEL_BUFFER, SURFACE, DevicePaths
from infnerf.renderer.resolve import VIEW_MODES, resolve
from infnerf.viewer.texture import SceneTexture
from infnerf.viewer.wires import choose_nodes, clip_matrix

pytestmark = pytest.mark.needs("gl")


def test_the_windows_pixels_are_those_of_resolve_in_every_mode(viewer: Harness) -> None:
    app = viewer.app
    for mode in VIEW_MODES:
        for tint in ("none", "level") if mode == "rgb" else ("none",):
            app.state.view_mode, app.state.tint = mode, tint
            pixels = viewer.pixels()
            assert app.picture.snapshot is not None
            expected = resolve(app.picture.snapshot.buffers, app.picture.settings(app.state))
            assert pixels.shape == expected.shape
            assert np.abs(pixels.astype(int) - expected).max() <= 1, mode
            assert pixels.std() > 1


@pytest.mark.parametrize("failing", [None, "create_surface", "unmap", "gl_devices"])
def test_a_picture_on_a_device_is_drawn_as_one_on_the_host(viewer: Harness, failing: str | None) -> None:
    """In every mode, at two sizes, by each of the paths: a fake device writes the real textures."""
    driver = GLFakeDriver()
    if failing is not None:
        driver.failing = {failing: 1 if failing == "unmap" else 0}
    there, here = SceneTexture(DevicePaths(driver)), SceneTexture()
    settings = viewer.app.picture.settings(viewer.app.state)
    try:
        for seed, size in enumerate(((33, 20), (33, 20), (48, 31))):
            picture, host = make_picture(driver, seed, size=size)
            there.show(PictureBuffers(picture))
            here.show(host)
            for mode in VIEW_MODES:
                settings.mode = mode
                np.testing.assert_array_equal(there.read(settings), here.read(settings), err_msg=mode)
            there.show(host)  # then one that was averaged, into the same storage
            np.testing.assert_array_equal(there.read(settings), here.read(settings))
        path = {None: SURFACE, "create_surface": PIXEL_BUFFER}.get(failing, HOST)
        assert (there.path.name, there.paths.status(picture).name) == (HOST, path)
        registered = sum(call.startswith("register") for call in driver.calls)
        assert registered == {SURFACE: 16, PIXEL_BUFFER: 17}.get(path, registered)  # 8 channels, 2 sizes, a failure
    finally:
        there.close()
        here.close()
    driver.assert_nothing_is_held()


@pytest.mark.parametrize("color_space", ["linear", "srgb"])
def test_both_colour_spaces_agree_with_resolve(viewer: Harness, color_space: str) -> None:
    settings = viewer.app.picture.settings(viewer.app.state)
    settings.srgb_input, settings.exposure = color_space == "srgb", 0.7
    viewer.settle()
    assert viewer.app.picture.snapshot is not None
    expected = resolve(viewer.app.picture.snapshot.buffers, settings)
    assert np.abs(viewer.app.picture.texture.read(settings).astype(int) - expected).max() <= 1


def test_the_screen_shows_the_picture_itself_at_full_resolution(viewer: Harness) -> None:
    viewer.app.state.resolution, viewer.app.state.legend = 1.0, False
    try:
        screen, picture = viewer.screen(), viewer.app.read_scene_pixels()
        x, y, width, height = (int(v) for v in viewer.app.layout.scene_rect)
        shown = screen[y : y + height, x : x + width]
        assert shown.shape == picture.shape
        np.testing.assert_array_equal(shown[60:], picture[60:])  # below the status line
    finally:
        viewer.app.state.resolution, viewer.app.state.legend = QUICK["resolution"], True


def test_wires_lie_where_the_camera_projects_the_nodes_and_behind_nothing(viewer: Harness) -> None:
    app = viewer.app
    app.state.legend = False
    bare = viewer.screen()
    app.state.wires, app.state.wire_min, app.state.wire_max = "all", 0, 0
    wired = viewer.screen()
    app.state.legend = True
    camera = app.camera()
    x0, y0 = app.layout.scene_rect[:2]
    on = off = 0
    for z in np.linspace(0.3, 7.7, 24):  # the root's edge that is nearest to the camera, and the one behind the sphere
        for corner, hidden in (((8.0, 0.0), False), ((0.0, 8.0), z < 1.0)):
            local = (np.array([*corner, z]) - camera.position) @ camera.c2w[:3, :3]
            u = int(x0 + camera.fx * local[0] / local[2] + camera.cx)
            v = int(y0 + camera.fy * local[1] / local[2] + camera.cy)
            if not (3 < u < x0 + camera.width - 3 and 60 < v < y0 + camera.height - 3):
                continue
            near = np.s_[v - 1 : v + 2, u - 2 : u + 3]
            differs = changed(bare[near], wired[near]) > 0
            if not hidden:
                on += 1
                off += not differs
    assert on > 10
    assert off <= 0.1 * on


def test_wires_behind_the_sphere_are_hidden(viewer: Harness) -> None:
    app = viewer.app
    app.state.legend = False
    app.state.wires, app.state.wire_min, app.state.wire_max = "all", 1, 1
    with_surface = viewer.screen()
    snapshot = app.picture.snapshot
    assert snapshot is not None
    depth = snapshot.buffers.depth
    kept = depth.copy()
    try:
        depth[:] = 0  # nothing there: nothing hides a wire
        app.picture.texture._fresh.clear()
        without = viewer.screen()
    finally:
        depth[:] = kept
        app.picture.texture._fresh.clear()
        app.state.legend = True
    assert changed(with_surface, without) > 0.001


def test_nodes_are_chosen_by_level_use_and_view() -> None:
    corners = np.array([[-0.5, -0.5, 4.0], [-0.5, -0.5, -6.0], [30.0, 0, 4], [0, 0, 8], [0.0, 0.0, -0.5]])
    edges, levels = np.array([1.0, 1, 1, 1, 1]), np.array([0, 1, 1, 2, 3], np.int32)
    camera = Camera(np.eye(4), 100, 100, 50, 50, 100, 100)
    assert choose_nodes(corners, edges, levels, camera, (0, 9)).tolist() == [0, 3, 4]  # behind and beside are left out
    assert choose_nodes(corners, edges, levels, camera, (1, 2)).tolist() == [3]
    active = np.array([False, True, True, True, False])
    assert choose_nodes(corners, edges, levels, camera, (0, 9), active).tolist() == [3]
    assert sorted(choose_nodes(corners, edges, levels, camera, (0, 9), most=2).tolist()) == [0, 4]  # the largest


def test_the_clip_matrix_agrees_with_the_camera() -> None:
    rng = np.random.default_rng(0)
    camera = Camera(np.eye(4), 90, 80, 70, 50, 160, 120)
    points = rng.uniform([-1, -1, 2], [1, 1, 9], (50, 3))
    clip = np.c_[points, np.ones(50)] @ clip_matrix(camera, 1e-3).T.astype(float)
    u = (clip[:, 0] / clip[:, 3] + 1) / 2 * 160
    v = (1 - clip[:, 1] / clip[:, 3]) / 2 * 120
    np.testing.assert_allclose(u, 90 * points[:, 0] / points[:, 2] + 70, atol=1e-3)
    np.testing.assert_allclose(v, 80 * points[:, 1] / points[:, 2] + 50, atol=1e-3)
    assert (np.abs(clip[:, 2] / clip[:, 3]) < 1).all()
