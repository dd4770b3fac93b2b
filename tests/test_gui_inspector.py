"""The pixel inspector: figures under the cursor, a clicked pixel's ray, its file, its mark, what has no ray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gui_controls import covers, use
from gui_harness import Harness, changed

from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.probe import Prober
from infnerf.renderer.torch_executor import TorchExecutor
from infnerf.viewer.inspector import mark_of

pytestmark = pytest.mark.needs("gl")


@pytest.fixture
def real(on_checkpoint: Harness) -> Harness:
    """The viewer on a checkpoint, with the inspector on."""
    on_checkpoint.app.state.inspect = True
    return on_checkpoint


def click(viewer: Harness) -> None:
    viewer.over_scene(lambda c: c.mouse_click(0))
    viewer.settle()


def test_the_figures_are_the_pictures(real: Harness) -> None:
    inspector, snapshot = real.app.inspector, real.app.picture.snapshot
    real.over_scene(lambda c: c.mouse_move_to_pos(real.middle()))
    what = inspector.readout
    assert what is not None
    assert snapshot is not None
    column, row = what.pixel
    assert abs(column - snapshot.width / 2) <= 1
    assert abs(row - snapshot.height / 2) <= 1
    buffers = snapshot.buffers
    np.testing.assert_array_equal(what.color, buffers.color[row, column, :3])
    assert (what.depth, what.level, what.node) == (
        buffers.depth[row, column], buffers.level[row, column], buffers.node[row, column],
    )  # fmt: skip
    assert what.position is not None
    camera = snapshot.view.camera.resized(snapshot.width, snapshot.height)
    x, y, z = np.linalg.inv(camera.c2w)[:3] @ [*what.position, 1]
    np.testing.assert_allclose([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy],
                               [column + 0.5, row + 0.5], atol=1e-6)  # fmt: skip
    scene = real.app.scene
    assert scene is not None
    assert what.gsd == scene.level_gsd[scene.levels[what.node]]
    real.app.state.inspect = False
    before = inspector.readout
    real.run(lambda c: c.mouse_move_to_pos((real.middle()[0] + 40, real.middle()[1] + 30)))
    assert inspector.readout is before  # off: nothing follows


def test_a_click_traces_the_ray_that_the_executors_render(real: Harness) -> None:
    click(real)
    inspector, scene = real.app.inspector, real.app.scene
    ray = inspector.ray
    assert ray is not None
    assert inspector.readout is not None
    assert scene is not None
    assert (ray.pixel, inspector.pending) == (inspector.readout.pixel, False)
    out = FrameBuffers.allocate(ray.camera.width, ray.camera.height)
    assert isinstance(scene.model, InfNeRF)
    TorchExecutor(scene.model).render(RenderRequest(ray.camera), out)
    np.testing.assert_allclose(ray.color, out.color[ray.pixel[1], ray.pixel[0]], atol=1e-5)


def test_a_drag_is_no_click(real: Harness) -> None:
    def drag(context) -> None:
        context.mouse_down(0)
        context.mouse_move_to_pos((real.middle()[0] + 60, real.middle()[1] + 10))
        context.mouse_up(0)

    real.over_scene(drag)
    real.settle()
    assert real.app.inspector.ray is None


@covers("inspect_on", "inspect_export", "inspect_clear")
def test_the_panel_switches_saves_and_forgets(real: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    real.app.state.inspect = False
    use(real, "Inspector", lambda c: c.item_click("##inspect_on"))
    assert real.app.state.inspect
    click(real)
    ray = real.app.inspector.ray
    assert ray is not None
    marked = real.screen()
    use(real, "Inspector", lambda c: c.item_click("###inspect_export"))
    real.settle()
    stored = json.loads((tmp_path / "ray-0001.json").read_text())
    assert stored["pixel"] == list(ray.pixel)
    assert len(stored["samples"]["t"]) == len(ray.samples) > 0
    assert any("Saved ray-0001.json" in notice.text for notice in real.app.notices.current())
    use(real, "Inspector", lambda c: c.item_click("###inspect_clear"))
    assert real.app.inspector.ray is None
    x, y = (round(at) for at in real.middle())
    around = np.s_[y - 20 : y + 20, x - 20 : x + 20]
    assert changed(marked[around], real.screen()[around]) > 0.01  # the mark went


def test_the_mark_stays_on_what_was_hit(real: Harness) -> None:
    click(real)
    ray, camera = real.app.inspector.ray, real.app.camera()
    assert ray is not None
    at = mark_of(ray, camera)
    assert at is not None
    np.testing.assert_allclose(at, [(ray.pixel[0] + 0.5) * camera.width / ray.camera.width,
                                    (ray.pixel[1] + 0.5) * camera.height / ray.camera.height], atol=1)  # fmt: skip
    behind = camera.c2w.copy()
    behind[:3, :3] = behind[:3, :3] @ np.diag([-1.0, 1, -1])
    assert mark_of(ray, camera.moved(behind)) is None
    assert mark_of(None, camera) is None


def test_a_model_without_rays_is_said_and_the_key_switches(viewer: Harness) -> None:
    viewer.press(viewer.imgui.Key.i)
    assert viewer.app.state.inspect
    click(viewer)
    assert any(
        "No ray: rays are inspected in octrees and pyramids only" in n.text for n in viewer.app.notices.current()
    )
    assert viewer.app.inspector.ray is None
    assert viewer.app.inspector.readout is not None  # the picture's own figures are there all the same
    viewer.press(viewer.imgui.Key.i)
    assert not viewer.app.state.inspect


def test_another_scene_forgets_the_ray(real: Harness, tiny_checkpoint: Path) -> None:
    click(real)
    assert real.app.inspector.ray is not None
    real.app.open(tiny_checkpoint)
    real.settle()
    assert real.app.inspector.ray is None
    with pytest.raises(ValueError, match="octrees and pyramids only"):
        Prober(object())
