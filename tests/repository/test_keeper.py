"""What is loaded and let go of as the models folder changes; what loads is a stand-in."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import pytest

from app.errors import LitepoolError, ModelError, NotFound, Unavailable
from app.repository.keeper import UNLOADED, Keeper, Key
from app.repository.layout import Source
from app.repository.loader import Loaded, Progress
from tests.loops import PATIENCE

Event = tuple[str, object, str]


class Told:
    """All that a keeper tells, in order; a test waits for what it wants to hear."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._heard = 0
        self._condition = threading.Condition()

    def _tell(self, word: str, about: object, reason: str = "") -> None:
        with self._condition:
            self.events.append((word, about, reason))
            self._condition.notify_all()

    def waits(self, key: Key, reason: str) -> None:
        self._tell("waits", key, reason)

    def loads(self, key: Key, stage: str) -> None:
        self._tell("loads", key, stage)

    def serves(self, key: Key, source: Source, loaded: Loaded) -> None:
        assert source.version == key[1]
        self._tell("serves", key, str(loaded))

    def fails(self, key: Key, reason: str) -> None:
        self._tell("fails", key, reason)

    def is_current(self, key: Key) -> None:
        self._tell("is current", key)

    def lets_go(self, key: Key, reason: str) -> None:
        self._tell("lets go", key, reason)

    def labels_are(self, name: str, labels: dict[str, int]) -> None:
        self._tell("labels", name, str(labels))

    def folder(self, reason: str) -> None:
        self._tell("folder", "", reason)

    def reads(self, key: Key) -> None:
        """Not the keeper tells this, but what loads: it has read the file."""
        self._tell("reads", key)

    def hear(self, word: str, about: object) -> str:
        """Wait until something is told that was not yet heard of; its reason."""

        def found() -> int | None:
            places = range(self._heard, len(self.events))
            return next((place for place in places if self.events[place][:2] == (word, about)), None)

        with self._condition:
            assert self._condition.wait_for(lambda: found() is not None, PATIENCE), (word, about, self.events)
            place = cast("int", found())
            self._heard = place + 1
            return self.events[place][2]

    def skip(self) -> None:
        """From now on only what is new."""
        with self._condition:
            self._heard = len(self.events)

    def new(self, *words: str) -> list[tuple[str, object]]:
        """What was told, of these words, and not heard yet."""
        with self._condition:
            return [(word, about) for word, about, _ in self.events[self._heard :] if word in words]


class Kept:
    """A keeper of a folder, whose loads take what is in the file: `bad` fails; those that are held wait."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.told = Told()
        self.clock = 1000.0
        self.loaded: list[tuple[str, int]] = []
        self.held: dict[tuple[str, int], threading.Event] = {}
        self.slow: set[str] = set()
        self.look: Callable[[Source], None] = lambda source: None
        self.keeper: Keeper | None = None

    def start(self, settle: float = 0.0, poll: float = 0.0, load: float = 60.0, off: set[str] | None = None) -> None:
        now: dict[str, Any] = {} if poll else {"now": lambda: self.clock}
        self.keeper = Keeper(self.models, self._load, self._is_quick, self.told, load, 60.0, poll, settle, **now)
        self.keeper.look_first(off or set())
        self.keeper.start()

    def _load(self, source: Source, progress: Progress) -> Loaded:
        key = (source.name, source.version)
        self.loaded.append(key)
        content = source.path.read_text()
        self.told.reads(key)
        if key in self.held:
            assert self.held[key].wait(PATIENCE)
        progress("measuring")
        if content == "bad":
            raise ModelError("it is bad")
        if content == "odd":
            raise ZeroDivisionError("oops")
        return cast("Loaded", content)

    def _is_quick(self, source: Source) -> bool:
        self.look(source)
        return source.name not in self.slow

    def put(self, name: str, version: int, content: str = "good") -> None:
        folder = self.models / name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        # Another file, as those who replace one should do; and so of another number.
        (folder / ".next").write_text(content)
        (folder / ".next").replace(folder / "m.tflite")

    def toml(self, name: str, text: str) -> None:
        (self.models / name).mkdir(exist_ok=True)
        (self.models / name / "model.toml").write_text(text)

    def remove(self, name: str, version: int | None = None) -> None:
        place = self.models / name if version is None else self.models / name / str(version)
        place.rename(self.models / f".away-{name}-{version}")

    def bring_back(self, name: str) -> None:
        (self.models / f".away-{name}-None").rename(self.models / name)

    def hold(self, name: str, version: int) -> threading.Event:
        self.held[name, version] = threading.Event()
        return self.held[name, version]

    def order(self, do: str, name: str = "") -> LitepoolError | None:
        """Give an order and wait for its end."""
        ended: SimpleQueue[LitepoolError | None] = SimpleQueue()
        assert self.keeper is not None
        self.keeper.ask(do, name, ended.put)
        return ended.get(timeout=PATIENCE)

    def rescan(self) -> None:
        assert self.order("rescan") is None


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path / "models")
    made.models.mkdir()
    yield made
    for event in made.held.values():
        event.set()
    if made.keeper is not None:
        assert made.keeper.close(PATIENCE)


# New versions


def test_a_new_version_is_loaded_beside_the_old_one_which_is_let_go_once_it_serves(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start()
    kept.told.hear("serves", ("m", 1))
    held = kept.hold("m", 2)
    kept.put("m", 2)

    kept.rescan()
    kept.told.hear("loads", ("m", 2))
    assert kept.told.new("lets go") == []
    held.set()

    kept.told.hear("serves", ("m", 2))
    assert kept.told.hear("lets go", ("m", 1)) == ""


def test_a_version_that_fails_leaves_the_old_one_serving_until_it_is_mended(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.put("m", 1)
    kept.start()
    kept.told.hear("serves", ("m", 1))
    kept.put("m", 2, "bad")

    kept.rescan()
    assert kept.told.hear("fails", ("m", 2)) == "it is bad"
    assert "m 2: not served: it is bad" in caplog.text
    kept.rescan()
    kept.rescan()
    assert kept.told.new("lets go", "loads", "serves", "fails") == []
    kept.put("m", 2)
    kept.rescan()

    kept.told.hear("serves", ("m", 2))
    kept.told.hear("lets go", ("m", 1))


def test_where_the_newest_cannot_be_loaded_the_one_before_serves_until_it_can(kept: Kept) -> None:
    kept.put("m", 1)
    kept.put("m", 2, "bad")
    kept.start()

    kept.told.hear("fails", ("m", 2))
    kept.told.hear("serves", ("m", 1))
    kept.put("m", 2)
    kept.rescan()

    kept.told.hear("serves", ("m", 2))
    kept.told.hear("lets go", ("m", 1))


def test_a_failure_is_told_again_where_the_next_attempt_fails_for_the_same_reason(kept: Kept) -> None:
    kept.put("m", 1, "bad")
    kept.start()
    kept.told.hear("fails", ("m", 1))
    kept.put("m", 1, "bad")

    kept.rescan()

    kept.told.hear("waits", ("m", 1))
    assert kept.told.hear("fails", ("m", 1)) == "it is bad", "else it would be loading for ever"


def test_a_file_replaced_in_place_is_loaded_beside_the_one_that_serves(kept: Kept) -> None:
    kept.put("m", 1, "old")
    kept.start()
    assert kept.told.hear("serves", ("m", 1)) == "old"
    kept.put("m", 1, "new")

    kept.rescan()

    assert kept.told.hear("serves", ("m", 1)) == "new"
    assert not any(word == "lets go" for word, _, _ in kept.told.events)


def test_what_is_the_same_at_every_look_is_loaded_once(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start()
    kept.told.hear("serves", ("m", 1))

    kept.rescan()
    kept.rescan()

    assert kept.loaded == [("m", 1)]
    assert kept.told.new("waits", "loads", "serves", "is current") == []


def test_what_changes_while_it_is_loaded_is_loaded_again_without_another_look_being_asked_for(kept: Kept) -> None:
    held = kept.hold("m", 1)
    kept.put("m", 1, "first")
    kept.start()
    kept.told.hear("reads", ("m", 1))
    kept.put("m", 1, "second")

    assert kept.keeper is not None
    # The thread that looks is the one that loads: look in its place, as it would while the other one converts.
    kept.keeper._look()
    held.set()

    assert kept.told.hear("serves", ("m", 1)) == "first"
    assert kept.told.hear("serves", ("m", 1)) == "second"


def test_a_change_is_noticed_by_looking_now_and_then(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start(poll=0.02)
    kept.told.hear("serves", ("m", 1))

    kept.put("m", 2)

    kept.told.hear("serves", ("m", 2))
    kept.told.hear("lets go", ("m", 1))


# Which versions


@pytest.mark.parametrize(
    ("toml", "served"),
    [
        ("", {3}),
        ("versions.latest = 2", {2, 3}),
        ("versions.all = true", {1, 2, 3}),
        ("versions.specific = [1, 3]", {1, 3}),
    ],
)
def test_the_versions_wanted_are_served(kept: Kept, toml: str, served: set[int]) -> None:
    for version in (1, 2, 3):
        kept.put("m", version)
    kept.toml("m", toml)

    kept.start()

    for version in sorted(served):
        kept.told.hear("serves", ("m", version))
    kept.rescan()
    assert set(kept.loaded) == {("m", version) for version in served}


def test_another_policy_loads_what_is_missing_and_lets_go_of_the_rest(kept: Kept) -> None:
    for version in (1, 2):
        kept.put("m", version)
    kept.start()
    kept.told.hear("serves", ("m", 2))

    kept.toml("m", "versions.specific = [1]\nlabels = {stable = 1}")
    kept.rescan()

    kept.told.hear("serves", ("m", 1))
    kept.told.hear("lets go", ("m", 2))
    assert ("labels", "m", "{'stable': 1}") in kept.told.events


def test_a_version_that_is_named_and_not_there_fails_and_the_others_serve(kept: Kept) -> None:
    kept.put("m", 1)
    kept.toml("m", "versions.specific = [1, 7]")

    kept.start()

    assert kept.told.hear("fails", ("m", 7)) == "model.toml names version 7, and on disk is 1"
    kept.told.hear("serves", ("m", 1))


def test_going_back_a_version_is_removing_the_newer_one(kept: Kept) -> None:
    kept.put("m", 1)
    kept.put("m", 2)
    kept.start()
    kept.told.hear("serves", ("m", 2))

    kept.remove("m", 2)
    kept.rescan()

    kept.told.hear("serves", ("m", 1))
    kept.told.hear("lets go", ("m", 2))


def test_a_model_toml_that_becomes_wrong_stops_nothing_and_is_forgotten_when_it_is_mended(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start()
    kept.told.hear("serves", ("m", 1))

    kept.toml("m", "versions = 7")
    kept.rescan()
    assert kept.told.hear("fails", ("m", 1)).startswith("model.toml: versions = 7: ")
    assert kept.told.new("lets go") == []
    kept.toml("m", "")
    kept.rescan()

    kept.told.hear("is current", ("m", 1))
    assert kept.loaded == [("m", 1)]
    kept.rescan()
    assert kept.told.new("is current") == []


def test_a_file_that_is_changed_back_serves_on(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start(settle=10)
    kept.clock += 11
    kept.rescan()
    kept.told.hear("serves", ("m", 1))
    path = kept.models / "m" / "1" / "m.tflite"
    path.rename(kept.models / "m" / ".m")
    kept.put("m", 1, "bad")
    kept.rescan()
    assert kept.told.hear("waits", ("m", 1)) == "its files were changed within the last 10 s"

    (kept.models / "m" / ".m").rename(path)
    kept.rescan()

    kept.told.hear("is current", ("m", 1))
    assert kept.loaded == [("m", 1)]


# What is still copied, what vanishes


def test_what_is_still_copied_waits(kept: Kept) -> None:
    kept.start(settle=10)
    kept.put("m", 1, "half")
    kept.rescan()
    assert kept.told.hear("waits", ("m", 1)) == "its files were changed within the last 10 s"
    kept.clock += 9
    kept.put("m", 1, "nearly all")
    kept.rescan()
    kept.clock += 9
    kept.rescan()
    assert kept.loaded == []

    kept.clock += 2
    kept.rescan()

    assert kept.told.hear("serves", ("m", 1)) == "nearly all"


def test_a_folder_that_is_still_empty_is_no_failure_before_it_has_settled(kept: Kept) -> None:
    kept.start(settle=10)
    (kept.models / "m" / "1").mkdir(parents=True)
    kept.rescan()
    kept.told.hear("waits", ("m", 1))
    assert kept.told.new("fails") == []

    kept.clock += 11
    kept.rescan()

    assert kept.told.hear("fails", ("m", 1)).startswith("expected one model in m/1/ ")


def test_what_somebody_asks_for_need_not_settle(kept: Kept) -> None:
    kept.start(settle=10)
    kept.put("m", 1)

    assert kept.order("load", "m") is None

    kept.told.hear("serves", ("m", 1))


def test_a_folder_that_vanishes_for_a_moment_is_served_throughout(kept: Kept) -> None:
    kept.put("m", 1)
    kept.put("other", 1)
    kept.start(settle=10)
    kept.clock += 11
    kept.rescan()
    kept.told.hear("serves", ("other", 1))

    kept.remove("m")
    kept.rescan()
    kept.clock += 9
    kept.rescan()
    kept.bring_back("m")
    kept.clock += 9
    kept.rescan()
    assert kept.told.new("lets go") == []

    kept.remove("m")
    kept.rescan()
    kept.clock += 11
    kept.rescan()
    assert kept.told.new("lets go") == [("lets go", ("m", 1))]


def test_that_a_folder_has_vanished_is_looked_at_again_without_being_asked(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start(settle=10)
    kept.clock += 11
    kept.rescan()
    kept.told.hear("serves", ("m", 1))
    kept.remove("m")
    kept.rescan()

    assert kept.keeper is not None
    assert kept.keeper._due() == kept.clock + 10


def test_a_models_folder_that_cannot_be_read_stops_nothing(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start()
    kept.told.hear("serves", ("m", 1))
    away = kept.models.rename(kept.models.with_name("away"))

    kept.rescan()
    assert kept.told.hear("folder", "").endswith("cannot be read: No such file or directory")
    away.rename(kept.models)
    kept.rescan()

    assert kept.told.hear("folder", "") == ""
    assert kept.told.new("lets go") == []
    assert kept.loaded == [("m", 1)]


# Orders


def test_a_model_is_unloaded_until_it_is_loaded_again(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start()
    kept.told.hear("serves", ("m", 1))

    assert kept.order("unload", "m") is None
    assert kept.told.hear("lets go", ("m", 1)) == UNLOADED
    kept.put("m", 2)
    kept.rescan()
    assert kept.told.hear("lets go", ("m", 2)) == UNLOADED
    assert kept.loaded == [("m", 1)]

    assert kept.order("load", "m") is None
    kept.told.hear("serves", ("m", 2))


def test_a_model_that_was_unloaded_before_is_not_loaded_at_the_start(kept: Kept) -> None:
    kept.put("m", 1)
    kept.put("n", 1)

    kept.start(off={"m"})

    assert kept.told.hear("lets go", ("m", 1)) == UNLOADED
    kept.told.hear("serves", ("n", 1))
    assert kept.loaded == [("n", 1)]


def test_a_model_is_unloaded_also_where_its_folder_cannot_be_read(kept: Kept) -> None:
    kept.put("m", 1)
    kept.start()
    kept.told.hear("serves", ("m", 1))
    kept.models.rename(kept.models.with_name("away"))

    assert kept.order("unload", "m") is None

    assert kept.told.hear("lets go", ("m", 1)) == UNLOADED


def test_unloading_what_is_loaded_just_now_waits_for_nothing_and_serves_nothing(kept: Kept) -> None:
    kept.slow.add("m")
    held = kept.hold("m", 1)
    kept.put("m", 1)
    kept.start()
    kept.told.hear("loads", ("m", 1))

    assert kept.order("unload", "m") is None
    assert kept.told.hear("lets go", ("m", 1)) == UNLOADED
    held.set()
    kept.put("n", 1)
    kept.slow.add("n")
    kept.rescan()
    kept.told.hear("serves", ("n", 1))

    assert not any(word == "serves" and about == ("m", 1) for word, about, _ in kept.told.events)
    assert kept.told.events[-1][:2] != ("lets go", ("m", 1))


def test_what_is_unloaded_before_its_turn_is_not_converted_at_all(kept: Kept) -> None:
    kept.slow |= {"a", "b", "c"}
    held = kept.hold("a", 1)
    for name in "abc":
        kept.put(name, 1)
    kept.start()
    kept.told.hear("loads", ("a", 1))

    assert kept.order("unload", "b") is None
    held.set()

    kept.told.hear("serves", ("c", 1))
    assert ("b", 1) not in kept.loaded


def test_an_order_to_load_is_answered_when_it_serves(kept: Kept) -> None:
    held = kept.hold("m", 1)
    kept.start()
    kept.put("m", 1)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(kept.order, "load", "m")
        kept.told.hear("loads", ("m", 1))
        assert not answer.done()
        held.set()
        assert answer.result() is None


@pytest.mark.parametrize("slow", [False, True])
def test_an_order_to_load_what_fails_is_answered_with_the_reason_and_tries_it_again(kept: Kept, slow: bool) -> None:
    kept.slow |= {"m"} if slow else set()
    kept.put("m", 1, "bad")
    kept.start()
    kept.told.hear("fails", ("m", 1))

    error = kept.order("load", "m")

    assert isinstance(error, Unavailable)
    assert error.message == "version 1: it is bad"
    assert kept.loaded == [("m", 1), ("m", 1)]


def test_an_order_to_load_what_is_not_there_is_answered_so(kept: Kept) -> None:
    kept.start()

    error = kept.order("load", "x" * 1000)

    assert isinstance(error, NotFound)
    assert len(error.message) < 200


# Loads


def test_a_load_that_never_ends_is_given_up_and_the_next_model_is_loaded(kept: Kept) -> None:
    held = kept.hold("a", 1)
    kept.put("a", 1)

    kept.start(load=0.1)

    assert kept.told.hear("fails", ("a", 1)) == "loading it takes longer than the 0.1 s it may"
    # What ends has time to do so on a busy machine.
    assert kept.keeper is not None
    kept.keeper._load_seconds = PATIENCE
    kept.put("b", 1)
    kept.rescan()
    kept.told.hear("serves", ("b", 1))
    held.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == "load-a"]:
        thread.join(PATIENCE)
    assert kept.told.new("serves", "loads") == [], "what comes too late is not served"


def test_a_conversion_holds_up_no_other_models_new_version(kept: Kept) -> None:
    kept.slow.add("slow")
    held = kept.hold("slow", 1)
    kept.put("slow", 1)
    kept.put("m", 1)
    kept.start()
    kept.told.hear("serves", ("m", 1))

    kept.put("m", 2)
    kept.rescan()
    kept.told.hear("serves", ("m", 2))
    kept.told.hear("lets go", ("m", 1))
    held.set()

    kept.told.hear("serves", ("slow", 1))


def test_what_is_converted_already_is_loaded_first(kept: Kept) -> None:
    kept.slow |= {"a", "b"}
    held = kept.hold("a", 1)
    for name in "abcd":
        kept.put(name, 1)

    kept.start()

    kept.told.hear("serves", ("c", 1))
    kept.told.hear("serves", ("d", 1))
    held.set()
    kept.told.hear("serves", ("a", 1))
    kept.told.hear("serves", ("b", 1))


def test_who_asks_does_not_wait_while_a_model_is_looked_for_in_the_cache(kept: Kept) -> None:
    looking, go_on = threading.Event(), threading.Event()

    def look(source: Source) -> None:
        looking.set()
        assert go_on.wait(PATIENCE)

    kept.look = look
    kept.put("m", 1)
    kept.start()
    assert looking.wait(PATIENCE)
    assert kept.keeper is not None
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(kept.keeper.ask, "rescan", "", lambda _: None)
        try:
            asked.result(PATIENCE)
        finally:
            go_on.set()


def test_a_fault_that_nobody_foresaw_is_a_reason_and_in_the_log(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    kept.put("m", 1, "odd")

    with caplog.at_level(logging.ERROR):
        kept.start()
        assert kept.told.hear("fails", ("m", 1)) == "ZeroDivisionError: oops"

    assert "in a way that nobody foresaw" in caplog.text


def test_close_does_not_wait_for_a_load_for_longer_than_it_may_and_hears_no_more_of_it(kept: Kept) -> None:
    held = kept.hold("m", 1)
    kept.put("m", 1)
    kept.start()
    kept.told.hear("loads", ("m", 1))
    assert kept.keeper is not None

    assert not kept.keeper.close(0.01)
    held.set()

    assert kept.keeper.close(PATIENCE)
    assert kept.told.new("serves", "fails") == []
    assert not {thread.name for thread in threading.enumerate()} & {"keeper", "converter"}


def test_a_keeper_that_was_never_started_closes(kept: Kept) -> None:
    Keeper(kept.models, kept._load, kept._is_quick, kept.told, 1.0, 1.0).close(0)
