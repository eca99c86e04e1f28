"""Converted models on disk.

    CACHE_DIR/v1/<key>/<TensorFlow version>/{model.tflite, parity.npz, report.json}

The key is a digest of the model's content and of everything else that shapes the result. An entry appears whole, by a
rename, and never changes after; report.json holds the digests of the other two files, so that damage is noticed.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from app.errors import ModelError

log = logging.getLogger(__name__)

_FILES = ("model.tflite", "parity.npz")


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
        """The sound entry for `key`, made by TensorFlow `version`; with None, by whichever, the last made first."""
        place = self._folder / key
        try:
            folders = [place / version] if version else sorted(place.iterdir(), key=_made, reverse=True)
        except OSError:
            return None
        return next((entry for folder in folders if (entry := _read(folder)) is not None), None)

    def find_or_make(self, key: str, version: str, make: Callable[[Path], dict[str, Any]]) -> Entry:
        """Find an entry, or have `make` fill a folder and return its report.

        Raises:
            ModelError: `make` did, or the folder cannot be written.
        """
        # An entry never changes once it is there, so looking needs no lock, and a cache may be read-only.
        if (entry := self.find(key, version)) is not None:
            return entry
        place = self._folder / key
        try:
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(place / f"{version}.lock"):
                return self.find(key, version) or self._make(place / version, make)
        except OSError as error:
            raise ModelError(f"the cache {self._folder.parent} cannot be written: {error}") from error

    def _make(self, folder: Path, make: Callable[[Path], dict[str, Any]]) -> Entry:
        if folder.exists():
            log.warning("a cache entry was damaged and is made again: %s", folder)
            shutil.rmtree(folder)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as name:
            work = Path(name)
            report = make(work)
            ready = work / "entry"
            ready.mkdir()
            for file in _FILES:
                _sync(work / file)
                (work / file).rename(ready / file)
            report["sha256"] = {file: _digest(ready / file) for file in _FILES}
            (ready / "report.json").write_text(json.dumps(report, indent=1))
            _sync(ready / "report.json")
            ready.rename(folder)
        return Entry(folder, report)


def content_key(path: Path, *more: str) -> str:
    """A digest of a file or folder, names and bytes, and of what else shapes the result."""
    digest = hashlib.sha256()
    for part in more:
        digest.update(part.encode() + b"\0")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else path.suffix.lower()
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(bytes.fromhex(_digest(file)))
    return digest.hexdigest()[:40]


def _read(folder: Path) -> Entry | None:
    """The entry in a folder, or None where there is none or it is damaged."""
    try:
        report = json.loads((folder / "report.json").read_text())
        if all(_digest(folder / file) == report["sha256"][file] for file in _FILES):
            return Entry(folder, report)
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
