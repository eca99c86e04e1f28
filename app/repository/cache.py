"""Converted models on disk.

    CACHE_DIR/v2/<key>/<what made it>/{model.tflite, parity.npz, report.json, sha256.json}
    CACHE_DIR/v2/trial-<key>/<machine>/{example.npz, report.json, sha256.json}

The key is a digest of the model's content and of everything else that shapes the result. An entry appears whole, by a
rename, and never changes after; sha256.json holds the digests of the other files, so that damage is noticed.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.errors import ModelError

log = logging.getLogger(__name__)

_MADE = ("model.tflite", "parity.npz")
_REPORT, _DIGESTS = "report.json", "sha256.json"

_MOST_FILES = 100_000
"""No SavedModel has so many; a folder with a link to the root of the disk does."""

_IN_USE_SECONDS = 3600.0
"""So young an entry may be about to be opened, or made."""

_LOCK_SECONDS = 0.5
"""How often one who waits for another process' entry hears of it."""


class Unwritable(ModelError):
    """Nothing can be kept."""


class Stopped(ModelError):
    """The server ends, which says nothing of the model."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


@dataclass(frozen=True, slots=True)
class Entry:
    """What was made once: a converted model, or what was found of one."""

    folder: Path
    report: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.folder / "model.tflite"

    @property
    def parity(self) -> Path:
        return self.folder / "parity.npz"


class Cache:
    """Finds and makes entries; processes that want the same one make it once.

    Args:
        limit: bytes; of more than that, what was not used for longest is removed. 0: there is no limit.
    """

    def __init__(self, folder: Path, limit: int = 0) -> None:
        # Children run in folders of their own.
        self._folder = folder.absolute() / "v2"
        self._limit = limit

    def find(self, key: str, version: str | None) -> Entry | None:
        """The sound entry for `key` that `version` made; with None, that any did, the last made first."""
        place = self._folder / key
        try:
            folders = [place / version] if version else sorted(place.iterdir(), key=_made, reverse=True)
        except OSError:
            return None
        found = next((entry for folder in folders if (entry := _read(folder)) is not None), None)
        if found is not None and self._limit:
            # It says when the entry was last used; a cache may be read-only.
            with suppress(OSError):
                os.utime(place)
        return found

    def find_or_make(
        self,
        key: str,
        version: str,
        make: Callable[[Path], dict[str, Any]],
        waiting: Callable[[], None] = lambda: None,
        files: Sequence[str] = _MADE,
    ) -> Entry:
        """Find an entry, or have `make` fill a folder and return its report.

        Args:
            files: what to keep of what `make` leaves in the folder, files or folders, so far as it is there.
            waiting: called now and then while another process makes the entry; it may raise to wait no longer.

        Raises:
            ModelError: `make` did.
            Unwritable: the folder cannot be written.
        """
        # An entry never changes once it is there, so looking needs no lock, and a cache may be read-only.
        if (entry := self.find(key, version)) is not None:
            return entry
        place = self._folder / key
        asked = time.time()
        try:
            place.mkdir(parents=True, exist_ok=True)
            with _locked(place / f"{version}.lock", waiting):
                if (entry := self.find(key, version)) is not None:
                    return entry
                try:
                    return self._try(place / version, make, files, asked)
                finally:
                    self._prune()
        except OSError as error:
            raise Unwritable(
                f"the cache {self._folder.parent} cannot be written ({error.strerror or error}): set "
                "--cache-dir or LITEPOOL_CACHE_DIR to another folder"
            ) from error

    def _prune(self) -> None:
        """Remove what was not used for longest, and not within the hour, until the rest keeps to the limit.

        What somebody holds stays.
        """
        if not self._limit:
            return
        latest = time.time() - _IN_USE_SECONDS
        sizes = {}
        for place in self._folder.iterdir():
            # Another process may be removing it.
            with suppress(OSError):
                if place.is_dir():
                    sizes[place] = (place.stat().st_mtime, _size(place))
        left = sum(size for _, size in sizes.values())
        for place, (used, size) in sorted(sizes.items(), key=itemgetter(1)):
            if left <= self._limit or used > latest:
                return
            if _is_held(place):
                continue
            log.info("the cache holds more than %d MiB: %s goes", self._limit >> 20, place.name)
            shutil.rmtree(place, ignore_errors=True)
            left -= size

    def _try(self, folder: Path, make: Callable[[Path], dict[str, Any]], files: Sequence[str], asked: float) -> Entry:
        """Make an entry, unless somebody has tried in vain since this one asked: it would come to the same."""
        failure = folder.with_name(f"{folder.name}.failed")
        with suppress(OSError, ValueError):
            if failure.stat().st_mtime >= asked:
                raise ModelError(json.loads(failure.read_text())["reason"])
        try:
            entry = self._make(folder, make, files)
        except Stopped:
            # Another server that waits for the entry goes on, and makes it.
            raise
        except ModelError as error:
            failure.write_text(json.dumps({"reason": error.message}))
            raise
        failure.unlink(missing_ok=True)
        return entry

    def _make(self, folder: Path, make: Callable[[Path], dict[str, Any]], files: Sequence[str]) -> Entry:
        if folder.exists():
            log.warning("a cache entry was damaged and is made again: %s", folder)
            shutil.rmtree(folder)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as name:
            work = Path(name)
            report = make(work)
            ready = work / "entry"
            ready.mkdir()
            for file in files:
                if (work / file).exists():
                    (work / file).rename(ready / file)
            (ready / _REPORT).write_text(json.dumps(report, indent=1))
            digests = {str(file.relative_to(ready)): _digest(file) for file in ready.rglob("*") if file.is_file()}
            (ready / _DIGESTS).write_text(json.dumps(digests, indent=1))
            for path in ready.rglob("*"):
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
    for file in sorted(files_under(path)) if path.is_dir() else [path]:
        name = file.relative_to(path).as_posix() if path.is_dir() else path.suffix.lower()
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(bytes.fromhex(_digest(file)))
    return digest.hexdigest()[:40]


def files_under(folder: Path) -> Iterator[Path]:
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
        digests = json.loads((folder / _DIGESTS).read_text())
        if _REPORT in digests and all(_digest(folder / file) == digest for file, digest in digests.items()):
            return Entry(folder, json.loads((folder / _REPORT).read_text()))
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


def hold(folder: Path) -> int | None:
    """Keep an entry from being removed for as long as the descriptor is open; None for what is no entry."""
    try:
        descriptor = os.open(folder / _DIGESTS, os.O_RDONLY)
    except OSError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _is_held(place: Path) -> bool:
    for digests in place.glob(f"*/{_DIGESTS}"):
        with digests.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _made(folder: Path) -> float:
    return folder.stat().st_mtime if folder.is_dir() else 0.0
