"""Orders to every worker, one at a time: with workers that are names, and a clock that stands still."""

from typing import Any

import pytest

from app.server.channel import Message
from app.server.dispatch import Dispatch

FAILED: Message = {"code": "FAILED_PRECONDITION", "message": "it does not open"}
UNKNOWN: Message = {"code": "NOT_FOUND", "message": "no such model"}


class Crew:
    """A dispatch, and what its workers were told."""

    def __init__(self, *workers: str) -> None:
        self.now = 0.0
        self.told: dict[str, list[Message]] = {}
        self.dispatch = Dispatch[str](self._tell, 10.0, lambda: self.now)
        for worker in workers:
            self.dispatch.join(worker)

    def _tell(self, worker: str, message: Message) -> None:
        self.told.setdefault(worker, []).append(message)

    def ask(self, worker: str, number: int, do: str, model: str = "m") -> None:
        self.dispatch.heard(worker, {"ask": number, "do": do, "model": model})

    def done(self, worker: str, number: int, error: Message | None = None) -> None:
        self.dispatch.heard(worker, {"done": number, "error": error})

    def orders(self, worker: str) -> list[tuple[int, str, str]]:
        return [(each["order"], each["do"], each["model"]) for each in self.told.get(worker, []) if "order" in each]

    def answers(self, worker: str) -> list[tuple[int, Any]]:
        return [(each["answer"], each["error"]) for each in self.told.get(worker, []) if "answer" in each]


@pytest.fixture
def crew() -> Crew:
    return Crew("a", "b")


def test_what_one_worker_asks_for_all_are_ordered_and_it_is_answered_when_all_have_done_it(crew: Crew) -> None:
    crew.ask("a", 7, "unload")
    assert crew.orders("a") == crew.orders("b") == [(1, "unload", "m")]

    crew.done("a", 1)
    assert crew.answers("a") == []
    crew.done("b", 1)

    assert crew.answers("a") == [(7, None)]
    assert crew.answers("b") == []


def test_orders_are_carried_out_one_at_a_time_in_the_order_in_which_they_came(crew: Crew) -> None:
    crew.ask("a", 1, "unload", "x")
    crew.ask("b", 1, "load", "x")
    crew.ask("a", 2, "rescan", "")
    assert crew.orders("b") == [(1, "unload", "x")]

    for number in (1, 2, 3):
        assert len(crew.orders("b")) == number
        crew.done("b", number)
        crew.done("a", number)

    assert crew.orders("a") == crew.orders("b") == [(1, "unload", "x"), (2, "load", "x"), (3, "rescan", "")]
    assert crew.answers("a") == [(1, None), (2, None)]
    assert crew.answers("b") == [(1, None)]


def test_the_error_of_any_worker_is_told_but_not_before_the_last_has_done_it(crew: Crew) -> None:
    crew.ask("a", 1, "load")
    crew.done("b", 1, FAILED)
    assert crew.answers("a") == []
    crew.done("a", 1)

    assert crew.answers("a") == [(1, FAILED)]


def test_a_worker_that_dies_meanwhile_counts_as_done(crew: Crew) -> None:
    crew.ask("a", 1, "load")
    crew.done("a", 1)
    crew.dispatch.leave("b")

    assert crew.answers("a") == [(1, None)]


def test_the_death_of_the_worker_that_asked_holds_up_nobody(crew: Crew) -> None:
    crew.ask("a", 1, "load")
    crew.ask("b", 1, "rescan", "")
    crew.dispatch.leave("a")
    crew.done("b", 1)
    crew.done("b", 2)

    assert crew.answers("b") == [(1, None)]


def test_an_order_that_finds_no_worker_is_over(crew: Crew) -> None:
    crew.ask("a", 1, "unload", "x")
    crew.ask("a", 2, "unload", "y")
    crew.dispatch.leave("a")
    crew.dispatch.leave("b")

    assert crew.dispatch.unloaded == ["x", "y"]
    assert crew.dispatch.left_seconds() is None


def test_a_worker_that_joins_later_learns_what_is_unloaded_and_is_not_waited_for(crew: Crew) -> None:
    crew.ask("a", 1, "unload", "x")
    crew.dispatch.join("c")

    assert crew.dispatch.unloaded == ["x"]
    assert crew.orders("c") == []
    crew.done("a", 1)
    crew.done("b", 1)
    assert crew.answers("a") == [(1, None)]
    crew.ask("a", 2, "load", "x")
    assert crew.orders("c") == [(2, "load", "x")]


def test_what_is_loaded_again_is_not_remembered_as_unloaded(crew: Crew) -> None:
    for number, do in enumerate(("unload", "load"), 1):
        crew.ask("a", number, do)
        for worker in "ab":
            crew.done(worker, number, FAILED if do == "load" else None)

    assert crew.dispatch.unloaded == []


def test_a_model_that_no_worker_knows_is_not_remembered(crew: Crew) -> None:
    crew.ask("a", 1, "unload", "x")
    for worker in "ab":
        crew.done(worker, 1, UNKNOWN)

    assert crew.dispatch.unloaded == []


def test_a_model_that_was_unloaded_stays_so_when_a_second_order_fails(crew: Crew) -> None:
    for number, error in enumerate((None, UNKNOWN), 1):
        crew.ask("a", number, "unload", "x")
        for worker in "ab":
            crew.done(worker, number, error)

    assert crew.dispatch.unloaded == ["x"]


def test_a_model_that_one_worker_has_unloaded_is_remembered_though_the_other_failed(crew: Crew) -> None:
    crew.ask("a", 1, "unload", "x")
    crew.done("a", 1, UNKNOWN)
    crew.done("b", 1)

    assert crew.dispatch.unloaded == ["x"]


def test_a_worker_that_hangs_keeps_the_others_from_the_next_order_only_for_a_time(crew: Crew) -> None:
    assert crew.dispatch.left_seconds() is None
    crew.ask("a", 1, "unload")
    crew.ask("a", 2, "load")
    crew.done("a", 1)
    crew.now = 9.0
    crew.dispatch.expire()
    assert crew.dispatch.left_seconds() == 1.0
    assert crew.answers("a") == []

    crew.now = 10.0
    crew.dispatch.expire()

    ((number, error),) = crew.answers("a")
    assert number == 1
    assert error["code"] == "DEADLINE_EXCEEDED"
    assert "1 of 2 workers" in error["message"]
    assert crew.orders("b") == [(1, "unload", "m"), (2, "load", "m")]
    assert crew.dispatch.left_seconds() == 10.0


def test_a_worker_that_is_late_is_not_taken_to_have_done_the_next(crew: Crew) -> None:
    crew.ask("a", 1, "unload")
    crew.ask("a", 2, "load")
    crew.done("a", 1)
    crew.now = 10.0
    crew.dispatch.expire()
    crew.done("a", 2)
    crew.done("b", 1)
    assert len(crew.answers("a")) == 1

    crew.done("b", 2)

    assert crew.answers("a")[1] == (2, None)


def test_of_very_many_orders_those_that_cannot_be_kept_are_refused_at_once(crew: Crew) -> None:
    for number in range(66):
        crew.ask("a", number, "load")

    ((number, error),) = crew.answers("a")
    assert number == 65
    assert error["code"] == "UNAVAILABLE"
    assert error["retry_after"] == 1
