"""What is loaded, what is being loaded, and what failed."""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.errors import NotFound, Unavailable
from app.repository.layout import Source
from app.repository.loader import Loaded
from app.repository.loader import load as load_model
from app.repository.manager import Entry, Manager, State, Status
from app.runtime.pool import Pool
from app.runtime.servable import Lanes
from tests import tflite
from tests.repository import stand_in

LIMIT = 60.0


class Watched:
    """A manager on a running loop, and all states that its entries have been in, as they came."""

    def __init__(self, models: Path, default_model: str | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.pool = Pool(1)
        lanes = Lanes(
            self.pool, loop.call_soon, loop.call_later, loop.call_soon_threadsafe, inline_us=300, queue_size=8
        )
        self.manager = Manager(models, stand_in.converter(models.parent), lanes, default_model)
        self.manager.changed = self._changed
        self.history: list[tuple[str, State, str]] = []
        self._seen: dict[str, Entry] = {}
        self._moved = asyncio.Event()

    def start(self) -> None:
        self.manager.start()
        self._changed()

    def _changed(self) -> None:
        for entry in self.manager.entries():
            if self._seen.get(entry.name) is not entry:
                self._seen[entry.name] = entry
                self.history.append((entry.name, entry.state, entry.reason))
        self._moved.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not happened():
                self._moved.clear()
                await self._moved.wait()

    async def settled(self) -> None:
        await self.until(self.manager.settled.is_set)

    def close(self) -> None:
        self.manager.close()
        self.pool.close()


def watch(models: Path, story: Callable[[Watched], Awaitable[None]], default_model: str | None = None) -> Watched:
    async def tell() -> Watched:
        watched = Watched(models, default_model)
        try:
            await story(watched)
        finally:
            watched.close()
        return watched

    return asyncio.run(tell())


async def load_all(watched: Watched) -> None:
    watched.start()
    await watched.settled()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def put(models: Path, *names: str) -> None:
    for name in names:
        (models / f"{name}.tflite").write_bytes(tflite.affine())


def put_bad(models: Path, name: str) -> None:
    (models / f"{name}.tflite").write_bytes(b"none")


# States


def test_a_model_goes_from_start_over_loading_to_available(models: Path) -> None:
    put(models, "m")

    watched = watch(models, load_all)

    assert watched.history == [
        ("m", State.START, "waiting to be loaded"),
        ("m", State.LOADING, "loading"),
        ("m", State.LOADING, "loading m.tflite"),
        ("m", State.AVAILABLE, ""),
    ]
    (entry,) = watched.manager.entries()
    assert entry.version == 1
    assert entry.loaded is not None
    assert watched.manager.find("m") is entry.loaded.servable
    assert watched.manager.entry("m") is entry


def test_the_stages_of_a_conversion_are_reasons_of_loading(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path, "for stage in ('importing', 'converting'): say(stage=stage)")
    stand_in.model(models)

    watched = watch(models, load_all)

    assert [reason for _, state, reason in watched.history if state is State.LOADING] == [
        "loading",
        "importing",
        "converting",
        "comparing with TensorFlow",
    ]
    assert watched.history[-1] == ("m", State.AVAILABLE, "")


def test_models_that_are_converted_already_are_loaded_first(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    stand_in.model(models, "a")
    put(models, "b", "c")

    watched = watch(models, load_all)

    assert [name for name, state, _ in watched.history if state is State.AVAILABLE] == ["b", "c", "a"]


def test_a_failing_model_leaves_the_others_serving(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_bad(models, "bad")
    put(models, "good")
    (models / "empty").mkdir()

    with caplog.at_level(logging.ERROR):
        watched = watch(models, load_all)

    states = {entry.name: entry.state for entry in watched.manager.entries()}
    assert states == {"bad": State.FAILED, "empty": State.FAILED, "good": State.AVAILABLE}
    assert watched.manager.status() == (Status.DEGRADED, "")
    assert watched.manager.find("good").name == "good"
    assert "bad 1: not served: LiteRT does not load it" in caplog.text
    assert "empty: expected one model in empty/" in caplog.text


def test_a_failure_that_nobody_foresaw_is_a_state_like_any_other(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("oops")

    put(models, "m")
    monkeypatch.setattr("app.repository.manager.load", fail)

    watched = watch(models, load_all)

    assert watched.history[-1] == ("m", State.FAILED, "ZeroDivisionError: oops")
    assert "in a way that nobody foresaw" in caplog.text


def test_a_fault_in_looking_into_the_cache_stops_no_other_model(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    (models / "a").mkdir()
    stand_in.model(models / "a")
    (models / "a" / "model.toml").write_bytes(b"a = " + b"[" * 5000)
    put(models, "b")

    watched = watch(models, load_all)

    assert {entry.name: entry.state for entry in watched.manager.entries()} == {
        "a": State.FAILED,
        "b": State.AVAILABLE,
    }


# Status


def test_before_the_folder_is_listed_the_server_is_starting(models: Path) -> None:
    async def story(watched: Watched) -> None:
        assert watched.manager.status() == (Status.STARTING, "listing the models")
        with pytest.raises(Unavailable, match=r"^the server is starting$") as caught:
            watched.manager.find("m")
        assert caught.value.retry_after == 1
        put(models, "m")
        await load_all(watched)

    watch(models, story)


def test_while_models_load_the_server_says_what_it_waits_for(models: Path) -> None:
    async def story(watched: Watched) -> None:
        watched.start()
        # Nothing that the loader tells has come through: this turn of the loop has not ended.
        assert watched.manager.status() == (Status.STARTING, "a: waiting to be loaded; b: waiting to be loaded")
        assert not watched.manager.settled.is_set()
        await watched.settled()
        assert watched.manager.status() == (Status.OK, "")

    put(models, "a", "b")
    watch(models, story)


def test_when_no_model_serves_the_server_has_failed(models: Path) -> None:
    put_bad(models, "m")

    assert watch(models, load_all).manager.status() == (Status.FAILED, "no model could be loaded")


def test_a_draining_server_says_so_whatever_else_holds(models: Path) -> None:
    put(models, "m")
    manager = watch(models, load_all).manager

    manager.drain()

    assert manager.status() == (Status.DRAINING, "shutting down")
    assert manager.find("m").name == "m"


def test_an_empty_folder_is_settled_and_says_what_to_do(models: Path) -> None:
    watched = watch(models, load_all)

    sentence = f"no model in {models}: put one there, for example {models}/my_model.keras, and start again"
    assert watched.manager.status() == (Status.FAILED, sentence)
    assert watched.manager.settled.is_set()
    for name in ("m", None):
        with pytest.raises(Unavailable) as caught:
            watched.manager.find(name)
        assert caught.value.message == sentence


def test_a_missing_folder_is_settled_and_named(tmp_path: Path) -> None:
    watched = watch(tmp_path / "nowhere", load_all)

    status, reason = watched.manager.status()
    assert status is Status.FAILED
    assert reason == f"the models folder {tmp_path / 'nowhere'} cannot be read: No such file or directory"


# Finding


def test_an_unknown_model_is_answered_with_those_that_exist(models: Path) -> None:
    put(models, "b", "a")
    manager = watch(models, load_all).manager

    for look in (manager.find, manager.entry):
        with pytest.raises(NotFound, match=r"^no model 'c'; the models are a, b$"):
            look("c")
    with pytest.raises(NotFound) as caught:
        manager.find("x" * 10_000)
    assert len(caught.value.message) < 200


def test_a_failed_model_is_answered_with_its_reason_and_no_hope(models: Path) -> None:
    put_bad(models, "m")

    with pytest.raises(Unavailable, match=r"^model 'm' is not served: LiteRT does not load it: ") as caught:
        watch(models, load_all).manager.find("m")

    assert caught.value.retry_after is None


def test_a_loading_model_is_answered_with_its_stage_and_when_to_come_again(models: Path) -> None:
    async def story(watched: Watched) -> None:
        watched.start()
        with pytest.raises(Unavailable, match=r"^model 'm' is still loading: waiting to be loaded$") as caught:
            watched.manager.find("m")
        assert caught.value.retry_after == 2
        await watched.settled()
        watched.manager.find("m")

    put(models, "m")
    watch(models, story)


@pytest.mark.parametrize(
    ("names", "setting", "default"),
    [
        (["only"], None, "only"),
        (["a", "default"], None, "default"),
        (["a", "b"], "b", "b"),
        (["a", "default"], "a", "a"),
        (["a", "b"], None, None),
        (["only"], "other", None),
    ],
)
def test_the_default_model_is_the_one_set_or_the_only_one_or_the_one_called_default(
    models: Path, names: list[str], setting: str | None, default: str | None
) -> None:
    put(models, *names)

    manager = watch(models, load_all, setting).manager

    assert manager.default_name() == default
    if default is not None:
        assert manager.find(None).name == default


def test_without_a_default_model_the_cure_is_named(models: Path) -> None:
    put(models, "b", "a")

    with pytest.raises(NotFound) as caught:
        watch(models, load_all).manager.find(None)

    assert caught.value.message == (
        "/predict has no default model among a, b: name one in the path, or set default_model"
    )


def test_a_default_model_that_is_not_there_is_named(models: Path) -> None:
    put(models, "a")

    with pytest.raises(NotFound) as caught:
        watch(models, load_all, "digits").manager.find(None)

    assert caught.value.message == "the default model 'digits' is not among the models, which are a"


def test_a_default_model_that_failed_is_answered_with_its_reason(models: Path) -> None:
    put_bad(models, "m")

    with pytest.raises(Unavailable, match="model 'm' is not served"):
        watch(models, load_all).manager.find(None)


# Closing


def test_close_while_converting_ends_the_child_and_loads_nothing_more(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path, "say(stage=f'pid {os.getpid()}')\nsignal.pause()")
    stand_in.model(models, "a")
    stand_in.model(models, "b", b"another")

    async def story(watched: Watched) -> None:
        watched.start()
        await watched.until(lambda: "pid" in watched.manager.entry("a").reason)

    watched = watch(models, story)

    (pid,) = [int(reason.removeprefix("pid ")) for _, _, reason in watched.history if reason.startswith("pid ")]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert watched.manager.entry("b").state is State.START
    assert not watched.manager.settled.is_set()


def test_a_manager_that_was_never_started_closes(models: Path) -> None:
    async def nothing(watched: Watched) -> None:
        pass

    assert watch(models, nothing).manager.entries() == []


def test_a_model_whose_loading_never_ends_is_given_up_and_the_others_are_loaded(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "a-stuck.tflite").write_bytes(tflite.affine())
    (models / "good.tflite").write_bytes(tflite.affine())
    release = threading.Event()

    def load(source: Source, *rest: Any) -> Loaded:
        if source.name == "a-stuck":
            release.wait(LIMIT)
        return load_model(source, *rest)

    monkeypatch.setattr("app.repository.manager.load", load)

    async def story(watched: Watched) -> None:
        watched.manager._load_seconds = 0.2
        await load_all(watched)
        assert watched.manager.status()[0] is Status.DEGRADED
        stuck = watched.manager.entry("a-stuck")
        assert stuck.state is State.FAILED
        assert stuck.reason == "loading it takes longer than the 0.2 s it may"
        assert watched.manager.find("good").name == "good"
        release.set()

    watched = watch(models, story)
    assert watched.manager.entry("a-stuck").state is State.FAILED, "what comes too late is not served"
