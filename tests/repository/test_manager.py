"""What is loaded, what is being loaded, and what failed."""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.errors import LitepoolError, NotFound, Unavailable
from app.repository.keeper import UNLOADED
from app.repository.layout import Source
from app.repository.loader import Loaded
from app.repository.loader import load as load_model
from app.repository.manager import Entry, Manager, Policy, State, Status, Target
from app.runtime.pool import Pool
from app.runtime.servable import Lanes
from app.tensors import Array
from tests import tflite
from tests.repository import stand_in
from tests.servables import Recorded, rows

LIMIT = 60.0
PLAIN = Policy()


class Watched:
    """A manager on a running loop, and all states that its entries have been in, as they came."""

    def __init__(self, models: Path, default_model: str | None = None, policy: Policy = PLAIN) -> None:
        loop = asyncio.get_running_loop()
        self.pool = Pool(1)
        lanes = Lanes(
            self.pool, loop.call_soon, loop.call_later, loop.call_soon_threadsafe, inline_us=300, queue_size=8
        )
        self.manager = Manager(models, stand_in.converter(models.parent), lanes, default_model, policy)
        self.manager.changed = self._changed
        self.history: list[tuple[str, State, str]] = []
        self._seen: dict[tuple[str, int], Entry] = {}
        self._moved = asyncio.Event()

    def start(self) -> None:
        self.manager.start()
        self._changed()

    def _changed(self) -> None:
        for entry in self.manager.entries():
            if self._seen.get((entry.name, entry.version)) is not entry:
                self._seen[entry.name, entry.version] = entry
                self.history.append((entry.name, entry.state, entry.reason))
        self._moved.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not happened():
                self._moved.clear()
                await self._moved.wait()

    async def settled(self) -> None:
        await self.until(self.manager.settled.is_set)

    async def order(self, do: str, name: str = "") -> LitepoolError | None:
        ended: asyncio.Future[LitepoolError | None] = asyncio.get_running_loop().create_future()
        self.manager.order(do, name, ended.set_result)
        async with asyncio.timeout(LIMIT):
            return await ended

    async def serves(self, name: str, version: int) -> Loaded:
        """Look at the folder, and wait until a version serves that the last look did not find serving."""
        before = self.loaded(name, version)
        await self.order("rescan")
        await self.until(lambda: self.loaded(name, version) not in (None, before))
        found = self.loaded(name, version)
        assert found is not None
        return found

    def loaded(self, name: str, version: int) -> Loaded | None:
        return self.manager.targets().get(Target(name, version))

    def close(self) -> None:
        self.manager.close()
        self.pool.close()


def watch(
    models: Path,
    story: Callable[[Watched], Awaitable[None]],
    default_model: str | None = None,
    policy: Policy = PLAIN,
) -> Watched:
    async def tell() -> Watched:
        watched = Watched(models, default_model, policy)
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
    assert watched.manager.find(Target("m")) is entry.loaded
    assert watched.manager.entry(Target("m", 1)) is entry


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
        "checking the converted model",
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
    assert watched.manager.find(Target("good")).servable.name == "good"
    assert "bad 1: not served: bad.tflite is no TFLite model" in caplog.text
    assert "empty 1: not served: expected one model in empty/" in caplog.text


@pytest.mark.parametrize(("others", "warned"), [([], 1), (["m"], 0)])
def test_a_folder_whose_models_are_all_called_by_numbers_is_taken_for_one_model_s_in_a_warning(
    models: Path, caplog: pytest.LogCaptureFixture, others: list[str], warned: int
) -> None:
    put(models, "1", "1700000000", *others)

    with caplog.at_level(logging.WARNING):
        watch(models, load_all)

    assert caplog.text.count("are numbers: if they are a model's versions, serve its parent") == warned


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
            watched.manager.find(Target("m"))
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
    assert manager.find(Target("m")).servable.name == "m"


def test_an_empty_folder_is_settled_and_says_what_to_do(models: Path) -> None:
    watched = watch(models, load_all)

    sentence = f"no model in {models}: put one there, for example {models}/my_model.keras"
    assert watched.manager.status() == (Status.FAILED, sentence)
    assert watched.manager.settled.is_set()
    for name in ("m", None):
        with pytest.raises(Unavailable) as caught:
            watched.manager.find(Target(name))
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
            look(Target("c"))
    with pytest.raises(NotFound) as caught:
        manager.find(Target("x" * 10_000))
    assert len(caught.value.message) < 200


def test_a_failed_model_is_answered_with_its_reason_and_no_hope(models: Path) -> None:
    put_bad(models, "m")

    with pytest.raises(Unavailable, match=r"^version 1 of model 'm' is not served: m\.tflite is no TFL") as caught:
        watch(models, load_all).manager.find(Target("m"))

    assert caught.value.retry_after is None


def test_a_loading_model_is_answered_with_its_stage_and_when_to_come_again(models: Path) -> None:
    async def story(watched: Watched) -> None:
        watched.start()
        with pytest.raises(Unavailable, match=r"^version 1 of model 'm' is still loading: waiting to be ") as caught:
            watched.manager.find(Target("m"))
        assert caught.value.retry_after == 2
        await watched.settled()
        watched.manager.find(Target("m"))

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
        assert manager.find(Target()).servable.name == default


def test_without_a_default_model_the_cure_is_named(models: Path) -> None:
    put(models, "b", "a")

    with pytest.raises(NotFound) as caught:
        watch(models, load_all).manager.find(Target())

    assert caught.value.message == (
        "/predict has no default model among a, b: name one in the path, or set default_model"
    )


def test_a_default_model_that_is_not_there_is_named(models: Path) -> None:
    put(models, "a")

    with pytest.raises(NotFound) as caught:
        watch(models, load_all, "digits").manager.find(Target())

    assert caught.value.message == "the default model 'digits' is not among the models, which are a"


def test_a_default_model_that_failed_is_answered_with_its_reason(models: Path) -> None:
    put_bad(models, "m")

    with pytest.raises(Unavailable, match="version 1 of model 'm' is not served"):
        watch(models, load_all).manager.find(Target())


# Closing


def test_close_while_converting_ends_the_child_and_loads_nothing_more(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path, "say(stage=f'pid {os.getpid()}')\nsignal.pause()")
    stand_in.model(models, "a")
    stand_in.model(models, "b", b"another")

    async def story(watched: Watched) -> None:
        watched.start()
        await watched.until(lambda: "pid" in watched.manager.entry(Target("a", 1)).reason)

    watched = watch(models, story)

    (pid,) = [int(reason.removeprefix("pid ")) for _, _, reason in watched.history if reason.startswith("pid ")]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert watched.manager.entry(Target("b", 1)).state is State.START
    assert not watched.manager.settled.is_set()


def test_a_manager_that_was_never_started_closes(models: Path) -> None:
    async def nothing(watched: Watched) -> None:
        pass

    assert watch(models, nothing).manager.entries() == []


# Versions


def put_version(models: Path, version: int, content: bytes, toml: str = "") -> None:
    """A version of `m`, put there as those who replace one should do."""
    folder = models / "m" / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".next").write_bytes(content)
    (folder / ".next").replace(folder / "m.tflite")
    if toml:
        (models / "m" / "model.toml").write_text(toml)


def scaled(scale: float) -> bytes:
    """`y = scale * x`."""
    return tflite.affine(scale, 0.0)


class Awaited(Recorded):
    """A job whose end a test awaits."""

    def __init__(self, *inputs: Array) -> None:
        super().__init__(*inputs)
        self.ended = asyncio.Event()

    def finish(self, error: Exception | None) -> None:
        super().finish(error)
        self.ended.set()


async def scale_of(loaded: Loaded) -> object:
    """What a version makes of a record of ones."""
    job = Awaited(rows(1.0))
    loaded.servable.submit(job)
    async with asyncio.timeout(LIMIT):
        await job.ended.wait()
    ((first, *_),) = job.outputs[0].tolist()
    return first


def test_a_new_version_takes_the_place_of_the_old_one_which_leaves_the_memory(models: Path) -> None:
    async def story(watched: Watched) -> None:
        freed = asyncio.Event()
        watched.manager.freed = freed.set
        await load_all(watched)
        old = watched.manager.find(Target("m"))
        gone: list[weakref.ref[Any]] = [weakref.ref(old.servable), weakref.ref(old.servable._inline)]
        put_version(models, 2, scaled(2.0))

        new = await watched.serves("m", 2)

        assert watched.manager.find(Target("m")) is new
        await watched.until(lambda: watched.manager.entries()[0].state is State.UNLOADING)
        assert watched.manager.status() == (Status.OK, "")
        assert await scale_of(old) == 1.0, "what has leased the old version is answered by it"
        assert await scale_of(new) == 2.0
        del old
        async with asyncio.timeout(LIMIT):
            await freed.wait()
        assert [one() for one in gone] == [None, None]
        assert [(entry.version, entry.state) for entry in watched.manager.entries()] == [(2, State.AVAILABLE)]

    put_version(models, 1, scaled(1.0))
    watched = watch(models, story)

    assert [(state, reason) for _, state, reason in watched.history if state is not State.LOADING] == [
        (State.START, "waiting to be loaded"),
        (State.AVAILABLE, ""),
        (State.START, "waiting to be loaded"),
        (State.AVAILABLE, ""),
        (State.UNLOADING, "requests under way are finished"),
    ]


def test_a_file_replaced_in_place_is_served_and_the_old_one_leaves_the_memory(models: Path) -> None:
    async def story(watched: Watched) -> None:
        freed = asyncio.Event()
        watched.manager.freed = freed.set
        await load_all(watched)
        gone = weakref.ref(watched.manager.find(Target("m")).servable)
        put_version(models, 1, scaled(3.0))

        new = await watched.serves("m", 1)

        async with asyncio.timeout(LIMIT):
            await freed.wait()
        assert gone() is None
        assert await scale_of(new) == 3.0
        assert watched.manager.entry(Target("m", 1)).state is State.AVAILABLE

    put_version(models, 1, scaled(1.0))
    watch(models, story)


def test_a_version_that_fails_leaves_the_old_one_serving_and_the_server_says_so(models: Path) -> None:
    async def story(watched: Watched) -> None:
        await load_all(watched)
        old = watched.manager.find(Target("m"))
        put_version(models, 2, tflite.never_runs())

        assert await watched.order("load", "m") is not None

        entry = watched.manager.entry(Target("m", 2))
        assert entry.state is State.FAILED
        assert entry.reason.startswith("it does not run: ")
        assert watched.manager.find(Target("m")) is old
        assert watched.manager.status() == (Status.DEGRADED, "")
        with pytest.raises(Unavailable, match=r"^version 2 of model 'm' is not served: it does not run: "):
            watched.manager.find(Target("m", 2))

    put_version(models, 1, scaled(1.0))
    watch(models, story)


def test_what_serves_is_stale_while_what_lies_on_disk_now_cannot_be_loaded(models: Path) -> None:
    async def story(watched: Watched) -> None:
        await load_all(watched)
        old = watched.manager.find(Target("m"))
        put_version(models, 1, b"none")

        error = await watched.order("load", "m")

        assert error is not None
        assert error.message.startswith("version 1: m.tflite is no TFLite model")
        entry = watched.manager.entry(Target("m", 1))
        assert (entry.state, entry.stale) == (State.AVAILABLE, True)
        assert entry.reason.startswith("what lies on disk now is not served: m.tflite is no TFLite model")
        assert watched.manager.find(Target("m")) is old
        assert watched.manager.status()[0] is Status.DEGRADED
        put_version(models, 1, scaled(2.0))
        await watched.serves("m", 1)
        assert watched.manager.status() == (Status.OK, "")

    put_version(models, 1, scaled(1.0))
    watch(models, story)


def test_a_model_toml_that_was_wrong_for_a_while_leaves_no_trace(models: Path) -> None:
    async def story(watched: Watched) -> None:
        await load_all(watched)
        (models / "m" / "model.toml").write_text("=")
        await watched.order("rescan")
        assert watched.manager.status()[0] is Status.DEGRADED
        (models / "m" / "model.toml").unlink()
        await watched.order("rescan")
        assert watched.manager.status() == (Status.OK, "")
        entry = watched.manager.entry(Target("m", 1))
        assert (entry.reason, entry.stale) == ("", False)

    put_version(models, 1, scaled(1.0))
    watch(models, story)


def test_all_versions_wanted_can_be_asked_for_by_number_and_by_label(models: Path) -> None:
    put_version(models, 1, scaled(1.0))
    put_version(models, 2, scaled(2.0), "versions.all = true\nlabels = {stable = 1, canary = 2}")

    manager = watch(models, load_all).manager

    by_version = {number: manager.find(Target("m", number)) for number in (1, 2)}
    assert manager.find(Target("m", label="stable")) is by_version[1]
    assert manager.find(Target("m", label="canary")) is manager.find(Target("m")) is by_version[2]
    assert manager.labels("m") == {"stable": 1, "canary": 2}
    assert manager.targets() == {
        Target(): by_version[2],
        Target("m"): by_version[2],
        Target("m", 1): by_version[1],
        Target("m", 2): by_version[2],
        Target("m", label="stable"): by_version[1],
        Target("m", label="canary"): by_version[2],
    }
    for target, sentence in {
        Target("m", 3): "model 'm' has no version 3; its versions are 1, 2",
        Target("m", label="none"): "model 'm' has no label 'none'; its labels are canary, stable",
    }.items():
        with pytest.raises(NotFound) as caught:
            manager.find(target)
        assert caught.value.message == sentence


def test_a_label_moves_once_its_new_version_serves(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def load(source: Source, *rest: Any) -> Loaded:
        if source.version == 2:
            assert release.wait(LIMIT)
        return load_model(source, *rest)

    monkeypatch.setattr("app.repository.manager.load", load)

    async def story(watched: Watched) -> None:
        await load_all(watched)
        old = watched.manager.find(Target("m", label="stable"))
        put_version(models, 2, scaled(2.0), "labels = {stable = 2}")
        await watched.order("rescan")
        await watched.until(lambda: len(watched.manager.entries()) == 2)
        assert watched.manager.find(Target("m", label="stable")) is old
        assert watched.manager.targets()[Target("m", label="stable")] is old
        release.set()
        await watched.until(lambda: watched.manager.find(Target("m", label="stable")) is not old)
        assert watched.manager.find(Target("m", label="stable")) is watched.loaded("m", 2)

    put_version(models, 1, scaled(1.0), "labels = {stable = 1}")
    try:
        watch(models, story)
    finally:
        release.set()


# Orders


def test_a_model_is_unloaded_by_request_and_ends_when_its_last_request_is_answered(models: Path) -> None:
    async def story(watched: Watched) -> None:
        await load_all(watched)
        old = watched.manager.find(Target("m"))

        assert await watched.order("unload", "m") is None

        assert watched.manager.entry(Target("m", 1)).state is State.UNLOADING
        await watched.order("rescan")
        assert watched.manager.entry(Target("m", 1)).state is State.UNLOADING, "a request still holds it"
        with pytest.raises(Unavailable, match=r"^version 1 of model 'm' is not served: unloaded by request: a "):
            watched.manager.find(Target("m"))
        assert await scale_of(old) == 1.0
        del old
        await watched.until(lambda: watched.manager.entry(Target("m", 1)).state is State.END)
        assert watched.manager.entry(Target("m", 1)).reason == UNLOADED
        assert watched.manager.status() == (Status.FAILED, "all models were unloaded by request")

        assert await watched.order("load", "m") is None
        assert await scale_of(watched.manager.find(Target("m"))) == 1.0
        assert watched.manager.status() == (Status.OK, "")

    put_version(models, 1, scaled(1.0))
    watch(models, story)


def test_what_is_not_there_is_neither_loaded_nor_unloaded(models: Path) -> None:
    async def story(watched: Watched) -> None:
        await load_all(watched)
        wanted = {"load": "there is no model 'x' in the folder", "unload": "no model 'x'; the models are m"}
        for do, words in wanted.items():
            error = await watched.order(do, "x")
            assert isinstance(error, NotFound)
            assert error.message == words

    put_version(models, 1, scaled(1.0))
    watch(models, story)


def test_models_unloaded_before_the_start_are_listed_and_not_loaded(models: Path) -> None:
    async def story(watched: Watched) -> None:
        watched.manager.start({"m"})
        await watched.settled()
        assert watched.manager.entry(Target("m", 1)).state is State.END
        assert watched.manager.find(Target("n")).servable.name == "n"

    put_version(models, 1, scaled(1.0))
    put(models, "n")
    watch(models, story)


def test_loading_and_unloading_again_and_again_leaves_nothing_behind(models: Path) -> None:
    async def story(watched: Watched) -> None:
        await load_all(watched)
        alive: list[weakref.ref[object]] = []
        for _ in range(20):
            alive.append(weakref.ref(watched.manager.find(Target("m")).servable))
            assert await watched.order("unload", "m") is None
            await watched.until(lambda: watched.manager.entry(Target("m", 1)).state is State.END)
            assert await watched.order("load", "m") is None
        assert [one() for one in alive] == [None] * 20
        assert sum(thread.name == "load-m" for thread in threading.enumerate()) <= 1

    put_version(models, 1, scaled(1.0))
    watch(models, story)


# What people and others drop into a folder


def test_whatever_is_dropped_into_the_folder_the_server_serves_on(models: Path) -> None:
    async def story(watched: Watched) -> None:
        await load_all(watched)
        sound = tflite.affine()
        (models / "empty.tflite").touch()
        (models / "half.tflite").write_bytes(tflite.truncated(sound))
        (models / "sparse.tflite").touch()
        os.truncate(models / "sparse.tflite", 1 << 31)
        (models / "large.tflite").write_bytes(sound)
        os.truncate(models / "large.tflite", 1 << 31)
        (models / "bomb.tflite").write_bytes(tflite.bomb(300))
        os.mkfifo(models / "pipe.tflite")
        (models / "circle.tflite").symlink_to("circle.tflite")
        (models / "round" / "1").mkdir(parents=True)
        (models / "round" / "1" / "again").symlink_to("..")

        await watched.order("rescan")
        ends = {State.AVAILABLE, State.FAILED}
        await watched.until(lambda: {entry.state for entry in watched.manager.entries()} <= ends)

        entries = watched.manager.entries()
        states = {entry.name: entry.state for entry in entries}
        assert states.pop("good") is State.AVAILABLE
        assert set(states) == {"empty", "half", "sparse", "large", "bomb", "pipe", "circle", "round"}
        assert set(states.values()) == {State.FAILED}
        assert all(entry.reason and "\n" not in entry.reason for entry in entries if entry.state is State.FAILED)
        assert await scale_of(watched.manager.find(Target("good"))) == 3.0
        assert watched.manager.status() == (Status.DEGRADED, "")

    put(models, "good")
    watch(models, story)
