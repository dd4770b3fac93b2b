"""Two renderers on one machine: turns, and the sleep of one that nobody looks at."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from test_scheduler import PatternExecutor, latest, same, settled, view

from infnerf.renderer.scheduler import ProgressiveRenderer
from infnerf.renderer.turns import Place, Turns


@pytest.fixture
def executor() -> PatternExecutor:
    return PatternExecutor()


@pytest.fixture
def renderer(executor: PatternExecutor) -> Iterator[ProgressiveRenderer]:
    with ProgressiveRenderer(executor, max_frames=4, settle_after_s=0.0, clock=executor.clock) as renderer:
        yield renderer


def test_turns_are_taken_one_at_a_time_and_in_the_order_of_asking() -> None:
    turns, order, inside, most = Turns(), [], [0], [0]

    def work(name: int) -> None:
        for _ in range(20):
            with turns.taken():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                order.append(name)
                inside[0] -= 1

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    with turns.taken():
        for thread in threads:
            thread.start()
        while turns.waiting < 3:
            pass
        assert order == []
    for thread in threads:
        thread.join()
    assert most == [1]
    assert sorted(order[:3]) == [0, 1, 2]  # nobody twice before everybody once
    assert len(order) == 60


def test_a_turn_is_given_back_by_work_that_fails() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.taken():
        raise KeyError
    with turns.taken():
        pass


def test_a_renderer_that_rests_gives_up_its_work_and_goes_on_where_it_is_asked(
    executor: PatternExecutor, renderer: ProgressiveRenderer
) -> None:
    settled(renderer, view(1.0))
    finished, calls = latest(renderer), len(executor.calls)
    renderer.rest()  # nothing to give up: the picture stays, and the view
    renderer.set_view(view(1.0))
    assert renderer.wait_idle(60)
    assert (latest(renderer), len(executor.calls)) == (finished, calls)
    gate, begun = threading.Event(), threading.Event()
    executor.before = lambda request: (begun.set(), gate.wait(60))[0]
    renderer.set_view(view(2.0))
    assert begun.wait(60)
    renderer.rest()
    gate.set()
    assert renderer.wait_idle(60)
    executor.before = lambda request: None
    assert latest(renderer).accumulated == 0 or latest(renderer) is finished
    assert settled(renderer, view(2.0)).accumulated == 4


def test_two_renderers_take_turns_and_a_turn_in_vain_costs_nothing() -> None:
    turns, first, second = Turns(), PatternExecutor(), PatternExecutor()
    inside: list[str] = []

    def enter(name: str) -> None:
        inside.append(name)
        assert inside == [name]
        time.sleep(0.0005)
        inside.remove(name)

    first.before, second.before = lambda request: enter("first"), lambda request: enter("second")
    with (
        ProgressiveRenderer(first, max_frames=3, settle_after_s=0.0, clock=first.clock, turns=turns) as a,
        ProgressiveRenderer(second, max_frames=3, settle_after_s=0.0, clock=second.clock, turns=turns) as b,
    ):
        a.set_view(view(1.0))
        b.set_view(view(1.0))
        assert a.wait_idle(60)
        assert b.wait_idle(60)
        assert (a.error, b.error) == (None, None)
        assert same(latest(a).buffers, latest(b).buffers)
    with turns.taken():
        pass  # nobody kept a turn


def test_a_renderer_that_waits_for_a_slow_one_does_not_blame_itself() -> None:
    now, turns = [0.0], Turns()
    place = Place(turns, lambda: now[0])
    start, entered = place.clock(), threading.Event()

    def slow() -> None:
        with turns.taken():
            entered.set()
            while not turns.waiting:
                time.sleep(0.001)
            now[0] += 5.0  # s of the neighbour's work

    neighbour = threading.Thread(target=slow)
    neighbour.start()
    assert entered.wait(30)
    with place.taken():
        now[0] += 0.25
    neighbour.join()
    assert place.clock() - start == pytest.approx(0.25)
