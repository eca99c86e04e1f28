"""Whether a version on disk is still as it was."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.repository import cache, fingerprint
from app.repository.fingerprint import Fingerprint
from app.repository.layout import scan

OLD = 1_000_000_000_000_000_000


def put(path: Path, content: bytes | str = b"model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, ns=(OLD, OLD))
    return path


def version(models: Path) -> Fingerprint:
    """Of the first version of the only model."""
    (folder,) = scan(models)
    return fingerprint.of_version(folder.versions[0], folder)


def policy(models: Path) -> Fingerprint:
    (folder,) = scan(models)
    return fingerprint.of_folder(folder)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of one model, a SavedModel with all that may lie beside it."""
    folder = tmp_path / "models"
    for name in ("saved_model.pb", "variables/variables.index", "assets/words.txt"):
        put(folder / "m" / "1" / name)
    put(folder / "m" / "model.toml", "calibration = 'real.npz'")
    put(folder / "m" / "real.npz")
    put(folder / "m" / "samples.json")
    return folder


CHANGES: dict[str, Callable[[Path], object]] = {
    "size": lambda m: put(m / "1" / "variables" / "variables.index", b"models"),
    "time": lambda m: os.utime(m / "1" / "saved_model.pb", ns=(OLD, OLD + 1)),
    "file": lambda m: put(m / "1" / "assets" / "more.txt"),
    "name": lambda m: (m / "1" / "assets" / "words.txt").rename(m / "1" / "assets" / "word.txt"),
    "gone": lambda m: (m / "1" / "assets" / "words.txt").unlink(),
    "another of the same size and time": lambda m: put(m / "1" / "x.part").rename(m / "1" / "saved_model.pb"),
    "samples": lambda m: put(m / "samples.json", b"[]"),
    "samples gone": lambda m: (m / "samples.json").unlink(),
    "calibration": lambda m: put(m / "real.npz", b"[]"),
    "settings": lambda m: put(m / "model.toml", "calibration = 'real.npz'\nlane.threads = 2"),
    "wrong settings": lambda m: put(m / "model.toml", "nonsense = 2"),
    "no model": lambda m: (m / "1" / "saved_model.pb").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_version_is_loaded_from_is_in_its_fingerprint(models: Path, change: str) -> None:
    before = version(models)

    CHANGES[change](models / "m")

    assert version(models) != before


SAME: dict[str, Callable[[Path], object]] = {
    "nothing": lambda m: None,
    "another version": lambda m: put(m / "2" / "saved_model.pb"),
    "policy": lambda m: put(m / "model.toml", "calibration = 'real.npz'\ndescription = 'x'\nlabels.a=1"),
    "other files": lambda m: put(m / "notes.txt"),
    "times of folders": lambda m: os.utime(m / "1" / "variables"),
}


@pytest.mark.parametrize("change", SAME)
def test_what_a_version_is_not_loaded_from_is_not_in_its_fingerprint(models: Path, change: str) -> None:
    before = version(models)

    SAME[change](models / "m")

    assert version(models) == before


def test_a_file_is_told_by_the_same(tmp_path: Path) -> None:
    file = put(tmp_path / "models" / "m.tflite")
    before = version(file.parent)
    assert version(file.parent) == before

    put(file, b"longer than it was")

    assert version(file.parent) != before


def test_a_link_that_is_swapped_is_a_change_and_a_copy_that_it_does_not_lead_to_is_none(models: Path) -> None:
    real = models.parent / "store"
    (models / "m" / "1").rename(real)
    (models / "m" / "1").symlink_to(real)
    before = version(models)
    shutil.copytree(real, models.parent / "other")
    assert version(models) == before

    (models / "m" / "x.tmp").symlink_to(models.parent / "other")
    (models / "m" / "x.tmp").rename(models / "m" / "1")

    assert version(models) != before


def test_a_folder_linked_into_itself_ends(models: Path) -> None:
    (models / "m" / "1" / "assets" / "round").symlink_to("..")

    assert version(models) == version(models)


def test_a_folder_of_too_many_files_has_a_fingerprint_so_that_the_load_can_refuse_it(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = version(models)
    monkeypatch.setattr(cache, "_MOST_FILES", 2)

    assert version(models) == version(models) != before


def test_a_model_that_vanishes_meanwhile_has_one_as_well(models: Path) -> None:
    (folder,) = scan(models)
    before = fingerprint.of_version(folder.versions[0], folder)
    shutil.rmtree(models)

    assert fingerprint.of_version(folder.versions[0], folder) != before


def test_settings_that_become_wrong_are_a_change_though_they_count_as_none(tmp_path: Path) -> None:
    put(tmp_path / "m" / "model.keras")
    before = version(tmp_path)

    put(tmp_path / "m" / "model.toml", "nonsense = 2")

    assert version(tmp_path) != before


def test_the_age_is_that_of_the_last_change_whatever_time_the_file_was_given(tmp_path: Path) -> None:
    put(tmp_path / "m.keras")

    assert version(tmp_path).age < 3600 < time.time() - OLD / 1e9


def test_what_else_is_put_into_the_folder_of_a_file_does_not_make_it_younger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "m.keras")
    now = time.time() + 1000
    monkeypatch.setattr(time, "time", lambda: now)
    os.utime(tmp_path, (now, now))

    assert version(tmp_path).age > 900


@pytest.mark.parametrize(
    ("place", "seconds"), [("saved_model.pb", 5.0), ("variables", 2.0), ("assets", 1.0), ("../samples.json", 3.0)]
)
def test_files_and_the_folders_that_hold_them_tell_the_age(
    models: Path, monkeypatch: pytest.MonkeyPatch, place: str, seconds: float
) -> None:
    now = time.time() + 1000
    os.utime(models / "m" / "1" / place, (now - seconds, now - seconds))
    monkeypatch.setattr(time, "time", lambda: now)

    assert version(models).age == pytest.approx(seconds, abs=1e-3)


def test_two_that_differ_in_age_only_are_the_same() -> None:
    assert Fingerprint("a", 1.0) == Fingerprint("a", 2.0) != Fingerprint("b", 2.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: put(m / "2" / "model.keras"),
        lambda m: shutil.rmtree(m / "1"),
        lambda m: put(m / "model.toml", ""),
        lambda m: put(m / "model.toml", "calibration = 'real.npz'\nversions.all = true"),
        lambda m: put(m / "model.toml", "nonsense = 1"),
        lambda m: put(m / "model.toml", "calibration = 'real.npz'\n"),
        lambda m: (m / "1" / "saved_model.pb").unlink(),
    ],
)
def test_versions_and_policy_are_in_the_fingerprint_of_the_folder(
    models: Path, change: Callable[[Path], object]
) -> None:
    before = policy(models)
    assert policy(models) == before

    change(models / "m")

    assert policy(models) != before


def test_what_lies_in_a_version_is_not_in_the_fingerprint_of_the_folder(models: Path) -> None:
    before = policy(models)

    put(models / "m" / "1" / "saved_model.pb", b"another")

    assert policy(models) == before


def test_a_model_in_the_short_form_has_a_fingerprint_of_the_folder_too(tmp_path: Path) -> None:
    put(tmp_path / "m.keras")

    assert policy(tmp_path) == policy(tmp_path)
