"""Several scenes behind the window: who leads, who sleeps, which executor renders whom. No window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_harness import AnalyticExecutor, AnalyticOpener

from infnerf.models.camera import Camera, look_at
from infnerf.renderer import executors
from infnerf.renderer.pace import Pace, pace_of
from infnerf.renderer.scheduler import View
from infnerf.viewer.loaded import Loaded
from infnerf.viewer.notices import Notices
from infnerf.viewer.scene import BackgroundExecutor
from infnerf.viewer.session import Session


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(AnalyticOpener(depth=2), Notices(), lambda: None, "auto")
    yield session
    session.close()


def take_in(session: Session) -> list[tuple[str, str]]:
    """Waits for the worker and polls once; (name, how) of what was adopted."""
    assert session.worker.drain(30)
    adopted: list[tuple[str, str]] = []

    def adopt(loaded: Loaded, how: str) -> None:
        adopted.append((loaded.name, how))
        session.show((session.loaded[0],))

    session.poll(adopt)
    return adopted


def view() -> View:
    pose = look_at(np.array([7.0, 1.0, 4.0]), np.array([4.0, 4.0, 1.0]), np.array([0, 0, 1.0]))
    return View(Camera.from_fov(pose, 50, 40, 30))


def open_all(session: Session, *names: str) -> None:
    session.open(names[0])
    for name in names[1:]:
        session.open(name, add=True)
    take_in(session)


def test_one_file_takes_the_leading_place_and_others_are_added(session: Session) -> None:
    session.open("a.pth")
    session.open("b.pth", add=True)
    assert (session.loading, session.count) == ("a.pth", 2)
    assert take_in(session) == [("a.pth", "opened"), ("b.pth", "added")]
    session.open("c.pth")
    assert take_in(session) == [("c.pth", "opened")]
    assert [loaded.name for loaded in session.loaded] == ["c.pth", "b.pth"]
    assert (session.loading, session.count) == ("", 2)


def test_a_file_that_does_not_open_leaves_all_others(session: Session) -> None:
    open_all(session, "a.pth", "bad.pth", "b.pth")
    assert [loaded.name for loaded in session.loaded] == ["a.pth", "b.pth"]
    assert len(session.errors) == 1
    assert "bad.pth" in session.notices.current()[0].text


def test_the_newest_of_two_files_for_one_place_wins_and_the_other_is_closed(session: Session) -> None:
    made: list[Any] = []
    opener = session.opener
    session.opener = lambda path, executor: (made.append(opener(path, executor)), made[-1])[1]
    open_all(session, "a.pth", "b.pth")
    session.open("c.pth")
    session.open("d.pth")
    assert take_in(session) == [("d.pth", "opened")]
    assert [loaded.name for loaded in session.loaded] == ["d.pth", "b.pth"]
    assert [scene.executor.closed for scene in made if scene.path.name == "c.pth"] == [True]


def test_a_file_that_is_followed_keeps_its_place_whichever_leads(session: Session) -> None:
    open_all(session, "a.pth", "b.pth")
    session.open("b.pth", again=True)
    assert take_in(session) == [("b.pth", "reloaded")]
    assert [loaded.name for loaded in session.loaded] == ["a.pth", "b.pth"]


def test_only_what_is_shown_is_rendered(session: Session) -> None:
    open_all(session, "a.pth", "b.pth")
    first, second = session.loaded
    for loaded in (first, second):
        session.show((loaded,))
        loaded.render(view(), 40.0, 2, 1.0)
        assert loaded.renderer.wait_idle(60)
    assert session.state == "idle"
    finished = first.sequence
    for loaded in (first, second):  # a view that changes while nobody looks
        loaded.render(view(), 40.0, 2, 1.0)
    session.show((second,))
    assert session.wait_idle(60)
    session.show((first,))
    first.render(View(view().camera), 40.0, 2, 1.0)
    assert session.wait_idle(60)
    latest = first.renderer.latest()
    assert latest is not None
    assert latest.accumulated == 2
    assert latest.sequence >= finished


def test_a_closed_scene_gives_back_its_executor_and_the_next_one_leads(session: Session) -> None:
    open_all(session, "a.pth", "b.pth")
    executor = session.loaded[0].scene.executor
    assert session.scene is session.loaded[0].scene
    session.remove(0)
    assert session.worker.drain(30)
    assert isinstance(executor, AnalyticExecutor)
    assert executor.closed
    assert session.scene is session.loaded[0].scene
    assert session.loaded[0].name == "b.pth"


@pytest.mark.parametrize("refusing", [0, 1])
def test_an_executor_is_taken_by_every_scene_that_can(
    session: Session, monkeypatch: pytest.MonkeyPatch, refusing: int
) -> None:
    open_all(session, "a.pth", "b.pth")
    refused = session.loaded[refusing].scene.model

    def make(name: str, model: Any) -> tuple[AnalyticExecutor, str]:
        if model is refused:
            raise executors.ExecutorUnavailable(f"not {name}")
        made = AnalyticExecutor(model)
        made.name = name
        return made, f"{name}: made for tests"

    monkeypatch.setattr(executors, "make_executor", make)
    session.switch("torch")
    take_in(session)
    names = [loaded.scene.executor.name for loaded in session.loaded]
    assert names[refusing] == "analytic"
    assert names[1 - refusing] == "torch"
    said = session.notices.current()[-1].text
    assert said == ("not torch" if refusing == 0 else "b.pth: not torch")
    assert session.executor == ("auto" if refusing == 0 else "torch")  # what the panel shows is the leading scene's
    assert Path(session.loaded[0].scene.path).name == "a.pth"


def test_an_executor_that_is_slow_by_nature_keeps_its_pace_behind_the_window() -> None:
    slow = AnalyticExecutor(AnalyticOpener(depth=1)(Path("a.pth"), "auto").model)
    slow.pace = Pace(ladder=True)  # type: ignore[attr-defined]
    assert pace_of(BackgroundExecutor(slow)).ladder
