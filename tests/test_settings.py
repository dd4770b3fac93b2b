"""Settings, bindings, messages and the worker: what of the viewer needs no window."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from infnerf.renderer.resolve import VIEW_MODES
from infnerf.viewer import bindings
from infnerf.viewer.actions import make_actions
from infnerf.viewer.notices import KINDS, Notices
from infnerf.viewer.picture import write_screenshot
from infnerf.viewer.settings import LAYOUT, SETTINGS, config_folder, load_layout, load_settings, save_settings
from infnerf.viewer.state import PERSISTENT, ViewerState, checked, limits
from infnerf.viewer.worker import Worker

DOCS = Path(__file__).resolve().parents[1] / "docs" / "viewer.md"


def test_settings_survive_a_restart(tmp_path: Path) -> None:
    state = ViewerState(max_frames=7, speed=2.5, legend=False, ui_scale=1.25, exposure=3.0)
    state.bookmarks = {"/a/scene.pth": {"1": [1.0, 2, 3, 0.1, 0.2, 0.0, 50.0]}}
    save_settings(state, tmp_path / "new", "[Docking][Data]\n")
    other = ViewerState()
    assert load_settings(other, tmp_path / "new") == []
    assert [getattr(other, name) for name in PERSISTENT] == [getattr(state, name) for name in PERSISTENT]
    assert other.exposure == 0.0  # belongs to the session
    assert load_layout(tmp_path / "new") == ("[Docking][Data]\n", [])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [LAYOUT, SETTINGS]  # no temporary left


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00\xff", "[" * 100_000, '{"speed": 1e999'])
def test_a_damaged_settings_file_is_reported_set_aside_and_reset(tmp_path: Path, text: str) -> None:
    (tmp_path / SETTINGS).write_bytes(text.encode("latin-1"))
    state = ViewerState()
    (problem,) = load_settings(state, tmp_path)
    assert "was reset" in problem
    assert vars(state).keys() == vars(ViewerState()).keys()
    assert state.speed == 1.0
    assert (tmp_path / f"{SETTINGS}.bad").read_bytes() == text.encode("latin-1")
    assert load_settings(state, tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_frames", 0),
        ("max_frames", 2.5),
        ("max_frames", True),
        ("speed", "fast"),
        ("speed", float("nan")),
        ("legend", 1),
        ("ui_scale", 1e9),
        ("bookmarks", []),
        ("bookmarks", {"a": {"1": [1, 2]}}),
        ("bookmarks", {"a": {"1": [0, 0, 0, 0, 0, 0, "x"]}}),
        ("bookmarks", {"a": 3}),
    ],
)
def test_a_wrong_setting_is_named_and_the_others_are_kept(tmp_path: Path, name: str, value: object) -> None:
    (tmp_path / SETTINGS).write_text(json.dumps({name: value, "tint_strength": 0.25, "unknown": 1}))
    state = ViewerState()
    (problem,) = load_settings(state, tmp_path)
    assert name in problem
    assert getattr(state, name) == getattr(ViewerState(), name)
    assert state.tint_strength == 0.25


@pytest.mark.parametrize("text", ["nonsense", "[Docking][Data]\0", "[Docking][Data]" + "x" * (1 << 20)])
def test_a_damaged_layout_is_reported_and_reset(tmp_path: Path, text: str) -> None:
    (tmp_path / LAYOUT).write_text(text)
    layout, problems = load_layout(tmp_path)
    assert layout == ""
    assert len(problems) == 1


def test_settings_that_cannot_be_saved_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="could not be saved"):
        save_settings(ViewerState(), tmp_path / "file" / "folder")


def test_the_environment_names_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFNERF_VIEW_CONFIG", str(tmp_path))
    assert config_folder() == tmp_path
    monkeypatch.delenv("INFNERF_VIEW_CONFIG")
    assert config_folder().name == "infnerf-view"


def test_every_number_of_the_state_starts_inside_its_range() -> None:
    state = ViewerState()
    for field in fields(ViewerState):
        if "range" in field.metadata:
            low, high = limits(field.name)
            assert low <= getattr(state, field.name) <= high
            assert checked(field.name, getattr(state, field.name)) == getattr(state, field.name)


def test_no_key_is_bound_twice() -> None:
    keys = [key for binding in bindings.BINDINGS if not binding.mouse for key in binding.keys]
    assert len(keys) == len(set(keys))


def test_no_shortcut_with_ctrl_uses_a_flying_key_but_quit() -> None:
    """Ctrl flies slowly: a shortcut on the same keys would move the camera as well."""
    flying = {key for b in bindings.BINDINGS if b.hold for key in b.keys}
    chords = {key.removeprefix("ctrl+") for b in bindings.BINDINGS if not b.hold for key in b.keys if "ctrl+" in key}
    assert chords & flying == {"q"}  # handled in App._gui: it does not quit in flight


def test_every_binding_has_an_action_and_every_view_mode_a_key() -> None:
    class App:
        """`make_actions` only looks these up."""

        state = ViewerState()
        open = add = screenshot = reset_layout = quit = staticmethod(lambda *_: None)

    actions = make_actions(App())  # type: ignore[arg-type]
    wanted = {b.action for b in bindings.BINDINGS if not (b.hold or b.mouse)}
    assert wanted <= set(actions)
    assert {f"view_{mode}" for mode in VIEW_MODES} <= wanted


def test_the_list_of_keys_has_a_row_for_every_binding() -> None:
    rows = [row for group in bindings.help_rows().values() for row in group]
    printed = " ".join(keys for keys, _ in rows)
    families = ("store", "recall", "show", "view")
    for binding in bindings.BINDINGS:
        if binding.action.partition("_")[0] not in families:
            assert (", ".join(dict.fromkeys(map(bindings.printed, binding.keys))), binding.name) in rows
    for binding in (bindings.BINDINGS[0], *(b for b in bindings.BINDINGS if b.action in ("store_1", "view_node"))):
        assert bindings.printed(binding.keys[0]) in printed


def test_the_manual_lists_every_key() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for group, rows in bindings.help_rows().items():
        for keys, name in rows:
            assert f"| {keys} | {name} |" in text, f"docs/viewer.md lacks the row of {group}: {keys}, {name}"


def test_messages_fade_and_only_the_last_few_stay() -> None:
    now = [0.0]
    notices = Notices(clock=lambda: now[0])
    assert notices.next_change() is None
    notices.add("saved")
    notices.error("broken")
    assert [notices.opacity(notice) for notice in notices.current()] == [1, 1]
    change = notices.next_change()
    assert change is not None
    now[0] = change + 0.1
    assert 0 < notices.opacity(notices.current()[0]) < 1
    now[0] = KINDS["info"] + 0.1
    assert [notice.text for notice in notices.current()] == ["broken"]
    for number in range(9):
        notices.add(str(number))
    assert len(notices.current()) < 9
    now[0] = 1e6
    assert notices.current() == []


def test_the_worker_reports_values_and_errors_in_order_and_wakes_the_window() -> None:
    woken: list[int] = []
    worker = Worker(lambda: woken.append(1))
    first, second = worker.submit("a", lambda: 5), worker.submit("b", lambda: 1 / 0)
    assert worker.drain(10)
    assert worker.pending("a") == 1
    good, bad = worker.poll()
    assert (good.serial, good.kind, good.value, good.error) == (first, "a", 5, None)
    assert (bad.serial, bad.kind) == (second, "b")
    assert isinstance(bad.error, ZeroDivisionError)
    assert worker.pending("a") == 0
    assert worker.poll() == []
    assert len(woken) == 2
    worker.submit("late", lambda: 6)
    worker.close()  # jobs in the queue are finished first
    assert [done.value for done in worker.poll()] == [6]


def test_a_screenshot_takes_the_next_free_number_and_a_full_disk_is_said(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    assert "infnerf-0001.png (3 x 2, 1 sample)" in write_screenshot(tmp_path, pixels, {}, 1)
    assert "infnerf-0002.png (3 x 2, 4 samples)" in write_screenshot(tmp_path, pixels, {}, 4)
    with pytest.raises(RuntimeError, match="could not be saved"):
        write_screenshot(tmp_path / "missing", pixels, {}, 1)
