"""When what lies on disk is taken for copied to its end."""

from app.repository.fingerprint import Fingerprint
from app.repository.watch import Settling


def young(digest: str) -> Fingerprint:
    return Fingerprint(digest, 0.5)


def old(digest: str) -> Fingerprint:
    return Fingerprint(digest, 1000.0)


def test_at_the_first_look_what_nobody_has_touched_for_the_time_is_settled() -> None:
    settling = Settling[str](2.0)

    found = {"old": old("a"), "just": Fingerprint("b", 2.0), "young": young("c"), "future": Fingerprint("d", -50.0)}

    assert settling.look(100.0, found) == {"old", "just"}


def test_what_is_young_at_the_first_look_is_settled_once_it_has_looked_the_same_for_the_time() -> None:
    settling = Settling[str](2.0)

    assert settling.look(100.0, {"m": young("a")}) == set()
    assert settling.look(101.9, {"m": young("a")}) == set()
    assert settling.look(102.0, {"m": young("a")}) == {"m"}
    assert settling.look(103.0, {"m": young("a")}) == {"m"}


def test_what_appears_later_is_looked_at_twice_however_old_its_files_say_they_are() -> None:
    settling = Settling[str](2.0)
    settling.look(100.0, {})

    assert settling.look(110.0, {"m": old("a")}) == set()
    assert settling.look(112.0, {"m": old("a")}) == {"m"}


def test_a_change_begins_the_time_anew() -> None:
    settling = Settling[str](2.0)

    assert settling.look(100.0, {"m": old("a")}) == {"m"}
    assert settling.look(101.0, {"m": old("b")}) == set()
    assert settling.look(102.5, {"m": old("c")}) == set()
    assert settling.look(104.0, {"m": old("c")}) == set()
    assert settling.look(104.5, {"m": old("c")}) == {"m"}


def test_going_back_to_what_was_settled_is_a_change_too() -> None:
    settling = Settling[str](2.0)
    settling.look(100.0, {"m": old("a")})
    settling.look(101.0, {"m": old("b")})

    assert settling.look(102.0, {"m": old("a")}) == set()


def test_what_is_gone_is_forgotten() -> None:
    settling = Settling[str](2.0)
    settling.look(100.0, {"m": old("a")})

    assert settling.look(101.0, {}) == set()
    assert settling.look(110.0, {"m": old("a")}) == set()


def test_each_key_settles_by_itself() -> None:
    settling = Settling[tuple[str, int]](2.0)
    settling.look(100.0, {("m", 1): old("a"), ("m", 2): young("b")})

    assert settling.look(102.0, {("m", 1): old("a2"), ("m", 2): young("b"), ("n", 1): old("c")}) == {("m", 2)}


def test_without_a_time_everything_is_settled_at_first_sight() -> None:
    settling = Settling[str](0.0)

    assert settling.look(100.0, {"m": Fingerprint("a", -5.0)}) == {"m"}
    assert settling.look(100.0, {"m": young("b")}) == {"m"}


def test_the_next_look_is_worth_while_when_the_first_that_waits_may_be_settled() -> None:
    settling = Settling[str](2.0)
    assert settling.waiting(100.0) is None

    settling.look(100.0, {"a": old("a"), "b": young("b")})
    settling.look(101.0, {"a": old("a2"), "b": young("b")})

    assert settling.waiting(101.5) == 0.5
    assert settling.look(102.0, {"a": old("a2"), "b": young("b")}) == {"b"}
    assert settling.waiting(102.0) == 1.0
    settling.look(103.0, {"a": old("a2")})
    assert settling.waiting(103.0) is None
