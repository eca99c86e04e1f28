"""Converted models on disk.

    CACHE_DIR/v1/<key>/<versions that made it>/{model.tflite, parity.npz, report.json, sha256.json}

The key is a digest of the model's content and of everything else that shapes the result. An entry appears whole, by a
rename, and never changes after; sha256.json holds the digests of the other files, so that damage is noticed.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.errors import ModelError

log = logging.getLogger(__name__)

_MADE = ("model.tflite", "parity.npz")
_FILES = (*_MADE, "report.json")

_MOST_FILES = 100_000
"""No SavedModel has so many; a folder with a link to the root of the disk does."""

_LOCK_SECONDS = 0.5
"""How often one who waits for another process' entry hears of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One converted model."""

    folder: Path
    report: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.folder / "model.tflite"

    @property
    def parity(self) -> Path:
        return self.folder / "parity.npz"


class Cache:
    """Finds and makes entries; processes that want the same one make it once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "v1"

    def find(self, key: str, version: str | None) -> Entry | None:
        """The sound entry for `key` that `version` made; with None, that any did, the last made first."""
        place = self._folder / key
        try:
            folders = [place / version] if version else sorted(place.iterdir(), key=_made, reverse=True)
        except OSError:
            return None
        return next((entry for folder in folders if (entry := _read(folder)) is not None), None)

    def find_or_make(
        self,
        key: str,
        version: str,
        make: Callable[[Path], dict[str, Any]],
        waiting: Callable[[], None] = lambda: None,
    ) -> Entry:
        """Find an entry, or have `make` fill a folder and return its report.

        Args:
            waiting: called now and then while another process makes the entry; it may raise to wait no longer.

        Raises:
            ModelError: `make` did, or the folder cannot be written.
        """
        # An entry never changes once it is there, so looking needs no lock, and a cache may be read-only.
        if (entry := self.find(key, version)) is not None:
            return entry
        place = self._folder / key
        try:
            place.mkdir(parents=True, exist_ok=True)
            with _locked(place / f"{version}.lock", waiting):
                return self.find(key, version) or self._make(place / version, make)
        except OSError as error:
            raise ModelError(
                f"the cache {self._folder.parent} cannot be written ({error.strerror or error}): set "
                "--cache-dir or LITEPOOL_CACHE_DIR to another folder"
            ) from error

    def _make(self, folder: Path, make: Callable[[Path], dict[str, Any]]) -> Entry:
        if folder.exists():
            log.warning("a cache entry was damaged and is made again: %s", folder)
            shutil.rmtree(folder)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as name:
            work = Path(name)
            report = make(work)
            ready = work / "entry"
            ready.mkdir()
            for file in _MADE:
                (work / file).rename(ready / file)
            (ready / "report.json").write_text(json.dumps(report, indent=1))
            (ready / "sha256.json").write_text(json.dumps({file: _digest(ready / file) for file in _FILES}, indent=1))
            for path in ready.iterdir():
                _sync(path)
            ready.rename(folder)
        return Entry(folder, report)


def content_key(path: Path, *more: str) -> str:
    """A digest of a file or folder, names and bytes, and of what else shapes the result.

    Raises:
        ModelError: the folder holds more files than a model has.
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for part in more:
        digest.update(part.encode() + b"\0")
    for file in sorted(_files_under(path)) if path.is_dir() else [path]:
        name = file.relative_to(path).as_posix() if path.is_dir() else path.suffix.lower()
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(bytes.fromhex(_digest(file)))
    return digest.hexdigest()[:40]


def _files_under(folder: Path) -> Iterator[Path]:
    """All files of a folder; those in linked folders too, which TensorFlow follows, but each folder's only once."""
    visited: set[tuple[int, int]] = set()
    count = 0
    for place, folders, names in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # The first way to a folder is the one that names its files: it has to be the same each time.
        folders.sort()
        count += len(names)
        if count > _MOST_FILES:
            raise ModelError(f"{folder.name} holds more than {_MOST_FILES:,} files, links followed: no model does")
        yield from (file for name in names if (file := Path(place, name)).is_file())


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
            break
        except Timeout:
            waiting()
    try:
        yield
    finally:
        lock.release()


def _read(folder: Path) -> Entry | None:
    """The entry in a folder, or None where there is none or it is damaged."""
    try:
        digests = json.loads((folder / "sha256.json").read_text())
        if all(_digest(folder / file) == digests[file] for file in _FILES):
            return Entry(folder, json.loads((folder / "report.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _made(folder: Path) -> float:
    return folder.stat().st_mtime if folder.is_dir() else 0.0
