"""A data set's photographs as one side, from their own cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_controls import both, covers, pick, use
from gui_harness import AnalyticExecutor, Harness, changed
from PIL import Image

from infnerf.models.camera import Camera, look_at
from infnerf.renderer.comparison import compose, psnr
from infnerf.renderer.resolve import resolve
from infnerf.viewer.sides import LEFT
from infnerf.viewer.state import PHOTO

pytestmark = pytest.mark.needs("gl")
EYES = ((7.5, 0.5, 4.0), (0.5, 7.0, 3.0), (4.0, 0.2, 5.0))
PHOTO_SIZE = (60, 45)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs of the analytic scene, by an off-centre pinhole, in the InfNeRF format."""
    from infnerf.data.dataset import write_cameras, write_json
    from infnerf.data.ply import PointCloud, write_ply
    from infnerf.renderer.frame import FrameBuffers, RenderRequest

    root = tmp_path_factory.mktemp("data") / "photos"
    (root / "images").mkdir(parents=True)
    executor = _executor()
    cameras = {}
    for number, eye in enumerate(EYES):
        pose = look_at(np.array(eye), np.array([4.0, 4.0, 1.0]), np.array([0, 0, 1.0]))
        camera = Camera(pose, 50.0, 52.0, 28.0, 24.0, *PHOTO_SIZE)
        buffers = FrameBuffers.allocate(*PHOTO_SIZE)
        executor.render(RenderRequest(camera), buffers)
        name = f"view_{number}.png"
        Image.fromarray(resolve(buffers, _settings())).save(root / "images" / name)
        cameras[name] = camera
    write_cameras(root / "cameras.json", cameras)
    write_json(root / "scene.json", {"up": [0, 0, 1], "unit": "m", "aabb": [[0, 0, 0], [8, 8, 3]]})
    points = np.random.default_rng(0).random((50, 3)) * 8
    write_ply(root / "sparse_points.ply", PointCloud(points, np.zeros((50, 3), np.uint8), np.full(50, 0.01)))
    return root


def _executor() -> AnalyticExecutor:
    from gui_harness import AnalyticOpener

    executor = AnalyticOpener()(Path("scene.pth"), "auto").executor
    assert isinstance(executor, AnalyticExecutor)
    return executor


def _settings() -> Any:
    from gui_harness import SCENE, AnalyticOpener

    from infnerf.renderer.resolve import ResolveSettings

    model = AnalyticOpener()(Path("scene.pth"), "auto").model
    assert model.scene is SCENE
    return ResolveSettings.for_model(model)


@covers("compare_data", "compare_open", "compare_image", "compare_next", "compare_previous", "compare_snap")
def test_a_photograph_is_a_side_from_its_own_camera(viewer: Harness, data: Path) -> None:
    app, state = viewer.app, viewer.app.state
    state.resolution = 1.0
    use(viewer, "Compare", lambda c: c.item_input_value("##compare_data", str(data)))  # ends with Enter
    viewer.settle()
    assert app.photographs.data is not None
    assert "3 photographs" in app.notices.current()[-1].text
    pick(viewer, "Compare", "compare_image", "2: view_1.png")
    viewer.settle()
    assert (state.compare, state.left, state.right, state.photo) == ("wipe", 0, PHOTO, 1)
    camera = app.camera()
    expected = app.photographs.data.cameras[1]
    np.testing.assert_allclose(camera.c2w, expected.c2w, atol=1e-9)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (expected.fx, expected.fy, expected.cx, expected.cy)
    assert (camera.width, camera.height) == PHOTO_SIZE  # no larger than it is
    left, right = both(viewer)
    with Image.open(data / "images" / "view_1.png") as image:
        np.testing.assert_allclose(right.astype(int), np.asarray(image), atol=1)
    assert app.stage.score.value == pytest.approx(psnr(left, right))
    assert app.stage.score.value > 25  # the model is what was photographed
    state.compare = "error"
    assert changed(viewer.pixels(), compose("error", left, right)) < 0.02
    use(viewer, "Compare", lambda c: c.item_click("###compare_next"))
    viewer.settle()
    assert state.photo == 2
    use(viewer, "Compare", lambda c: c.item_click("###compare_previous"))
    viewer.settle()
    assert state.photo == 1
    state.camera.turn(0.1, 0)  # anywhere else there is no photograph
    viewer.settle()
    assert not app.stage.at_photograph
    assert not app.comparison.active
    assert app.camera().width == int(app.layout.scene_rect[2])
    use(viewer, "Compare", lambda c: c.item_click("###compare_snap"))
    viewer.settle()
    assert app.stage.at_photograph
    np.testing.assert_array_equal(viewer.pixels().shape[:2], PHOTO_SIZE[::-1])
    use(viewer, "Compare", lambda c: c.item_click("###compare_open"))  # again: the same
    viewer.settle()
    app.photographs.data = None
    viewer.settle()
    assert (state.left, state.right) == (0, 1)


def test_keys_step_through_photographs_and_exchange_the_scene_beside_them(two: Harness, data: Path) -> None:
    app, state, key = two.app, two.app.state, two.imgui.Key
    app.actions["open_data"](data)
    two.settle()
    for pressed, photo in ((key.n, 0), (key.n, 1), (key.b, 0), (key.b, 2), (key.v, 2)):
        two.press(pressed)
        two.settle()
        assert (state.photo, app.stage.at_photograph) == (photo, True)
    two.press(key._2)
    assert (state.left, state.right) == (1, PHOTO)
    two.press(key.x)
    assert (state.left, state.right) == (PHOTO, 1)
    two.press(key._1)
    assert (state.left, state.right) == (PHOTO, 0)
    two.settle()
    assert app.scene is app.session.loaded[0].scene
    assert app.comparison.pane(LEFT).name == "view_2.png"


def test_a_folder_without_data_is_a_sentence(viewer: Harness, tmp_path: Path) -> None:
    viewer.app.actions["open_data"](tmp_path)
    viewer.settle()
    assert "expected a scene" in viewer.app.notices.current()[-1].text
    viewer.press(viewer.imgui.Key.n)
    assert "Open a data set" in viewer.app.notices.current()[-1].text


def test_a_data_set_named_at_the_start_opens_with_the_first_scene(viewer: Harness, data: Path) -> None:
    app = viewer.app
    app.first_data = data
    viewer.open("again.pth")
    assert app.photographs.data is not None
    assert len(app.photographs.data) == 3
    assert app.fields["data"] == str(data)
    app.photographs.data = None
    viewer.open()
