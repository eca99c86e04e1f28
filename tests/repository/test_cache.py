"""Converted models on disk."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from app.errors import ModelError
from app.repository import cache as cache_module
from app.repository.cache import Cache, Stopped, content_key

KEY = "0123abcd"
FILES = {"model.tflite", "parity.npz", "report.json", "sha256.json"}

Make = Callable[[Path], dict[str, Any]]


def make(folder: Path) -> dict[str, Any]:
    (folder / "model.tflite").write_bytes(b"the model")
    (folder / "parity.npz").write_bytes(b"the answers")
    return {"bytes": 9}


def never(folder: Path) -> dict[str, Any]:
    raise AssertionError("it was there already")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def entry_folder(tmp_path: Path, version: str = "2.21") -> Path:
    return tmp_path / "cache" / "v2" / KEY / version


def test_an_empty_cache_finds_nothing(cache: Cache) -> None:
    assert cache.find(KEY, "2.21") is None
    assert cache.find(KEY, None) is None


def test_an_entry_is_made_once_and_then_found(tmp_path: Path, cache: Cache) -> None:
    made = cache.find_or_make(KEY, "2.21", make)
    found = cache.find_or_make(KEY, "2.21", never)

    assert found == made == cache.find(KEY, "2.21")
    assert found.report == {"bytes": 9}
    assert found.model.read_bytes() == b"the model"
    assert found.parity.read_bytes() == b"the answers"
    assert {path.name for path in entry_folder(tmp_path).iterdir()} == FILES


def test_another_version_is_another_entry(cache: Cache) -> None:
    cache.find_or_make(KEY, "2.21", make)

    assert cache.find(KEY, "2.22") is None
    assert cache.find_or_make(KEY, "2.22", make).folder.name == "2.22"


def test_without_a_version_the_entry_made_last_is_found(cache: Cache) -> None:
    # Neither the alphabet nor the order of making decides: the clock of the files does.
    for age, version in enumerate(["2.3", "2.21", "2.1"]):
        folder = cache.find_or_make(KEY, version, make).folder
        os.utime(folder, (1000 - age, 1000 - age))

    found = cache.find(KEY, None)

    assert found is not None
    assert found.folder.name == "2.3"


def test_without_a_version_a_damaged_entry_is_passed_over(cache: Cache) -> None:
    cache.find_or_make(KEY, "2.20", make)
    newer = cache.find_or_make(KEY, "2.21", make)
    os.utime(newer.folder, (2**33, 2**33))
    newer.model.write_bytes(b"")

    found = cache.find(KEY, None)

    assert found is not None
    assert found.folder.name == "2.20"


def test_an_entry_appears_whole_or_not_at_all(tmp_path: Path, cache: Cache) -> None:
    seen: list[bool] = []

    def look(folder: Path) -> dict[str, Any]:
        report = make(folder)
        seen.append(entry_folder(tmp_path).exists())
        return report

    cache.find_or_make(KEY, "2.21", look)

    assert seen == [False]
    assert {path.name for path in entry_folder(tmp_path).parent.iterdir()} <= {"2.21", "2.21.lock"}


@pytest.mark.parametrize("wrong", [ModelError("it is no model"), KeyboardInterrupt()])
def test_of_a_making_that_fails_nothing_is_left(tmp_path: Path, cache: Cache, wrong: BaseException) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        make(folder)
        raise wrong

    with pytest.raises(type(wrong)) as caught:
        cache.find_or_make(KEY, "2.21", fail)

    assert caught.value is wrong
    assert not any(path.is_dir() for path in entry_folder(tmp_path).parent.iterdir())
    assert cache.find_or_make(KEY, "2.21", make).report == {"bytes": 9}


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.tflite", 4)


def remove(file: str, folder: Path) -> bool:
    (folder / file).unlink()
    return True


def flip_a_bit(file: str, folder: Path) -> None:
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the model is cut short": truncate,
    "the model is empty": lambda folder: (folder / "model.tflite").write_bytes(b""),
    **{f"{file} is gone": partial(remove, file) for file in sorted(FILES)},
    "the report is not JSON": lambda folder: (folder / "report.json").write_text("{"),
    "the report is not text": lambda folder: (folder / "report.json").write_bytes(b"\xff"),
    "the report says something else": lambda folder: (folder / "report.json").write_text('{"bytes": 8}'),
    "the digests are not JSON": lambda folder: (folder / "sha256.json").write_text("?"),
    "the digests are a list": lambda folder: (folder / "sha256.json").write_text("[]"),
    "the digests are fewer": lambda folder: (folder / "sha256.json").write_text("{}"),
    "the entry is empty": lambda folder: [remove(file, folder) for file in FILES],
    **{f"a bit of {file} is flipped": partial(flip_a_bit, file) for file in sorted(FILES)},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_noticed_and_made_again(
    cache: Cache, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    entry = cache.find_or_make(KEY, "2.21", make)
    damage(entry.folder)

    assert cache.find(KEY, "2.21") is None
    with caplog.at_level(logging.WARNING):
        assert cache.find_or_make(KEY, "2.21", make) == entry

    assert "a cache entry was damaged and is made again" in caplog.text
    assert cache.find_or_make(KEY, "2.21", never).model.read_bytes() == b"the model"


def test_an_entry_is_found_in_a_cache_without_a_lock_and_nothing_is_written(tmp_path: Path, cache: Cache) -> None:
    cache.find_or_make(KEY, "2.21", make)
    place = entry_folder(tmp_path).parent
    for lock in place.glob("*.lock"):
        lock.unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    cache.find_or_make(KEY, "2.21", never)

    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_entry_is_found_while_another_holds_its_lock(tmp_path: Path, cache: Cache) -> None:
    cache.find_or_make(KEY, "2.21", make)

    with FileLock(entry_folder(tmp_path).with_name("2.21.lock")):
        assert cache.find_or_make(KEY, "2.21", never).report == {"bytes": 9}


def test_a_cache_that_cannot_be_written_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be")

    with pytest.raises(ModelError) as caught:
        Cache(tmp_path / "cache").find_or_make(KEY, "2.21", make)

    assert caught.value.message == (
        f"the cache {tmp_path / 'cache'} cannot be written (Not a directory): "
        "set --cache-dir or LITEPOOL_CACHE_DIR to another folder"
    )


def test_who_waits_for_another_may_give_up(tmp_path: Path, cache: Cache) -> None:
    def give_up() -> None:
        raise ModelError("no longer wanted")

    place = entry_folder(tmp_path).parent
    place.mkdir(parents=True)

    with FileLock(place / "2.21.lock"), pytest.raises(ModelError, match="no longer wanted"):
        cache.find_or_make(KEY, "2.21", never, give_up)


@pytest.mark.parametrize(
    ("error", "heard"), [(ModelError("no model"), "no model"), (Stopped(), "the server is shutting down")]
)
def test_who_waits_is_told_of_a_failure_but_makes_what_another_was_stopped_at(
    cache: Cache, error: ModelError, heard: str
) -> None:
    begun, waits = threading.Event(), threading.Event()

    def fail(_: Path) -> dict[str, Any]:
        begun.set()
        assert waits.wait(30)
        raise error

    def try_in_vain() -> None:
        with pytest.raises(ModelError, match=heard):
            cache.find_or_make(KEY, "2.21", fail)

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(try_in_vain)
        assert begun.wait(30)
        if isinstance(error, Stopped):
            assert cache.find_or_make(KEY, "2.21", make, waits.set).report == {"bytes": 9}
        else:
            with pytest.raises(ModelError, match=heard):
                cache.find_or_make(KEY, "2.21", never, waits.set)
        other.result()


RIVAL = """
import sys
from pathlib import Path
from app.repository.cache import Cache

folder, told = Path(sys.argv[1]), []

def make(work):
    # Made only once the other process stands before the lock: the pipe opens when both ends do.
    with (folder / "count").open("a") as count:
        count.write("made ")
    (folder / "pipe").open("r").close()
    (work / "model.tflite").write_bytes(b"model")
    (work / "parity.npz").write_bytes(b"answers")
    return {"maker": True}

def waiting():
    if not told:
        told.append((folder / "pipe").open("w").close())

print(Cache(folder / "cache").find_or_make("key", "2.21", make, waiting).model.read_text())
"""


def test_two_processes_that_want_one_entry_make_it_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    rivals = [
        subprocess.Popen([sys.executable, "-c", RIVAL, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [rival.communicate(timeout=60)[0] for rival in rivals]

    assert answers == ["model\n", "model\n"]
    assert (tmp_path / "count").read_text() == "made "


def test_who_waited_for_one_that_failed_hears_why_and_does_not_try_again(tmp_path: Path, cache: Cache) -> None:
    place = entry_folder(tmp_path).parent
    place.mkdir(parents=True)
    rival = FileLock(place / "2.21.lock")
    rival.acquire()

    def fails_meanwhile() -> None:
        if rival.is_locked:
            (place / "2.21.failed").write_text('{"reason": "it holds a Lambda layer"}')
            rival.release()

    with pytest.raises(ModelError, match=r"^it holds a Lambda layer$"):
        cache.find_or_make(KEY, "2.21", never, fails_meanwhile)


def test_a_failure_is_remembered_for_those_who_wait_and_for_nobody_else(tmp_path: Path, cache: Cache) -> None:
    failure = entry_folder(tmp_path).with_name("2.21.failed")

    def fail(folder: Path) -> dict[str, Any]:
        raise ModelError("it crashed")

    with pytest.raises(ModelError, match=r"^it crashed$"):
        cache.find_or_make(KEY, "2.21", fail)
    assert json.loads(failure.read_text()) == {"reason": "it crashed"}

    # Who asks after it was told is one who tries anew; the clock of files may be coarser than that of the test.
    os.utime(failure, (1000, 1000))
    assert cache.find_or_make(KEY, "2.21", make).report == {"bytes": 9}
    assert not failure.exists()


# Limits

MEGABYTE = 1 << 20


def make_large(folder: Path) -> dict[str, Any]:
    (folder / "model.tflite").write_bytes(bytes(MEGABYTE))
    return {}


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "v2").iterdir())


def fill(cache: Cache, tmp_path: Path, ages: dict[str, float]) -> None:
    """Make an entry for each key, last used so many seconds ago."""
    now = time.time()
    for key, age in ages.items():
        cache.find_or_make(key, "2.21", make_large)
        os.utime(tmp_path / "v2" / key, (now - age, now - age))


def test_of_more_than_the_limit_what_was_not_used_for_longest_is_removed(tmp_path: Path) -> None:
    fill(Cache(tmp_path), tmp_path, {"a": 9000, "b": 7000, "c": 8000})

    Cache(tmp_path, 5 * MEGABYTE // 2).find_or_make("d", "2.21", make_large)

    assert kept(tmp_path) == ["b", "d"]


def test_what_was_used_within_the_hour_is_not_removed_whatever_the_limit(tmp_path: Path) -> None:
    fill(Cache(tmp_path), tmp_path, {"a": 3500, "b": 3700, "c": 10})

    Cache(tmp_path, 1).find_or_make("d", "2.21", make_large)

    assert kept(tmp_path) == ["a", "c", "d"]


@pytest.mark.parametrize("limit", [0, 5 * MEGABYTE])
def test_nothing_is_removed_below_the_limit_or_where_there_is_none(tmp_path: Path, limit: int) -> None:
    fill(Cache(tmp_path), tmp_path, {"a": 9000, "b": 8000})

    Cache(tmp_path, limit).find_or_make("c", "2.21", make_large)

    assert kept(tmp_path) == ["a", "b", "c"]


def test_to_find_an_entry_is_to_use_it(tmp_path: Path) -> None:
    fill(Cache(tmp_path), tmp_path, {"a": 9000, "b": 8000})
    cache = Cache(tmp_path, 5 * MEGABYTE // 2)

    assert cache.find("a", "2.21") is not None
    cache.find_or_make("c", "2.21", make_large)

    assert kept(tmp_path) == ["a", "c"]


def test_what_others_have_made_counts_where_the_making_fails(tmp_path: Path) -> None:
    fill(Cache(tmp_path), tmp_path, {"a": 9000, "b": 8000})

    with pytest.raises(AssertionError, match="was there already"):
        Cache(tmp_path, 3 * MEGABYTE // 2).find_or_make("c", "2.21", never)

    assert "a" not in kept(tmp_path)


# Keys


def test_a_key_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    for name in ("a.keras", "b.keras", "C.KERAS"):
        (tmp_path / name).write_bytes(b"one")
    (tmp_path / "d.keras").write_bytes(b"two")

    keys = [content_key(tmp_path / name, "1") for name in ("a.keras", "b.keras", "C.KERAS", "d.keras")]

    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_a_key_follows_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.keras").write_bytes(b"one")
    (tmp_path / "a.h5").write_bytes(b"one")

    assert content_key(tmp_path / "a.keras") != content_key(tmp_path / "a.h5")


def test_a_key_follows_the_options_and_where_one_ends(tmp_path: Path) -> None:
    (tmp_path / "a.keras").write_bytes(b"one")

    keys = {content_key(tmp_path / "a.keras", *more) for more in ((), ("1",), ("1", "none"), ("1none",), ("1", "int8"))}

    assert len(keys) == 5


def saved_model(folder: Path) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.data").write_bytes(b"weights")
    return folder


def test_a_folders_key_follows_every_file_and_its_place_and_not_the_folders_name(tmp_path: Path) -> None:
    first = saved_model(tmp_path / "first")
    key = content_key(first)

    assert content_key(saved_model(tmp_path / "second")) == key
    (tmp_path / "second" / "variables" / "variables.data").write_bytes(b"Weights")
    assert content_key(tmp_path / "second") != key
    (first / "saved_model.pb").rename(first / "variables" / "saved_model.pb")
    assert content_key(first) != key


def test_bytes_that_move_from_one_file_to_the_next_change_the_key(tmp_path: Path) -> None:
    for name, parts in {"a": (b"12", b"3"), "b": (b"1", b"23")}.items():
        (tmp_path / name).mkdir()
        for file, content in zip("xy", parts, strict=True):
            (tmp_path / name / file).write_bytes(content)

    assert content_key(tmp_path / "a") != content_key(tmp_path / "b")


def test_a_folders_key_follows_what_lies_behind_links(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    key = content_key(model)
    shutil.move(model / "variables", tmp_path / "elsewhere")
    (model / "variables").symlink_to(tmp_path / "elsewhere")

    assert content_key(model) == key
    (tmp_path / "elsewhere" / "variables.data").write_bytes(b"Weights")
    assert content_key(model) != key


@pytest.mark.parametrize("target", [".", "..", "a"])
def test_links_that_lead_in_a_circle_end(tmp_path: Path, target: str) -> None:
    model = saved_model(tmp_path / "model")
    for name in ("a", "b"):
        (model / "variables" / name).symlink_to(target)

    key = content_key(model)

    assert content_key(model) == key
    (model / "variables" / "variables.data").write_bytes(b"Weights")
    assert content_key(model) != key


def test_a_folder_with_more_files_than_a_model_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved_model(tmp_path / "model")
    content_key(model)
    monkeypatch.setattr(cache_module, "_MOST_FILES", 1)

    with pytest.raises(ModelError, match=r"^model holds more than 1 files, links followed: no model does$"):
        content_key(model)


def test_digests_are_those_of_the_files(tmp_path: Path, cache: Cache) -> None:
    entry = cache.find_or_make(KEY, "2.21", make)

    digests = json.loads((entry.folder / "sha256.json").read_text())

    assert digests.keys() == FILES - {"sha256.json"}
    assert len(set(digests.values())) == 3


def test_what_is_to_be_kept_is_kept_and_folders_whole(tmp_path: Path) -> None:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "engine" / "variables").mkdir(parents=True)
        (folder / "engine" / "variables" / "data").write_text("weights")
        (folder / "work").write_text("left over")
        return {}

    entry = Cache(tmp_path).find_or_make(KEY, "2.21", make, files=("engine", "model.tflite"))

    assert (entry.folder / "engine" / "variables" / "data").read_text() == "weights"
    assert sorted(path.name for path in entry.folder.iterdir()) == ["engine", "report.json", "sha256.json"]
    assert Cache(tmp_path).find(KEY, "2.21") == entry
    (entry.folder / "engine" / "variables" / "data").write_text("other")
    assert Cache(tmp_path).find(KEY, "2.21") is None, "damage is noticed in folders too"


def test_what_is_held_is_not_removed_until_it_is_let_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit=1)
    held = cache.find_or_make("held", "2.21", make)
    descriptor = cache_module.hold(held.folder)
    assert descriptor is not None
    os.utime(held.folder.parent, (0, 0))

    cache.find_or_make("one", "2.21", make)
    assert held.model.exists()

    os.close(descriptor)
    cache.find_or_make("another", "2.21", make)
    assert not held.folder.exists()


def test_what_is_no_entry_is_not_held(tmp_path: Path) -> None:
    assert cache_module.hold(tmp_path) is None


def test_a_relative_folder_is_the_same_one_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Cache(Path("cache")).find_or_make(KEY, "2.21", make)

    assert made.folder.is_absolute()
