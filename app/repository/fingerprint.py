"""What a version on disk looks like from outside: whether it is still as it was, told without reading a model."""

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import ModelError
from app.repository.cache import files_under
from app.repository.layout import Folder, Misplaced, Source
from app.repository.model_config import CONFIG
from app.repository.samples import SAMPLES


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Two are equal when nothing has changed between them. `age` is that of the youngest change, in seconds; it may be
    wrong, and below 0, where the disk's clock is another's."""

    digest: str
    age: float = field(compare=False)


def of_version(item: Source | Misplaced, folder: Folder) -> Fingerprint:
    """Of all that a version is loaded from: its model, the samples, the calibration data, and what model.toml says of
    loading. Links count as what they lead to.

    What cannot be read has a fingerprint too: the load will meet the same, and say it.
    """
    if isinstance(item, Misplaced):
        return _fingerprint([item.reason])
    beside = [item.folder / name for name in (SAMPLES, folder.config.calibration) if name] if item.folder else []
    try:
        is_folder = item.path.is_dir()
        model = sorted(files_under(item.path)) if is_folder else [item.path]
    except (OSError, ModelError) as error:
        return _fingerprint([str(error)])
    folders = {file.parent for file in model} if is_folder else ()
    return _fingerprint([folder.fault or folder.config.load_key()], [*model, *beside], folders)


def of_folder(folder: Folder) -> Fingerprint:
    """Of what decides which versions are wanted: those on disk, and all of model.toml.

    A version that is gone, or a policy that has changed, is to be believed only once this has settled: a file that is
    written anew is empty for a moment, and an empty model.toml is a good one.
    """
    versions = [f"{item.version} {isinstance(item, Source)}" for item in folder.versions]
    config = folder.fault or folder.config.model_dump_json()
    return _fingerprint([config, *versions], [folder.path / CONFIG] if folder.path else [])


def _fingerprint(words: Iterable[str], files: Iterable[Path] = (), folders: Iterable[Path] = ()) -> Fingerprint:
    digest = hashlib.sha256()
    for word in words:
        digest.update(word.encode(errors="surrogateescape") + b"\0")
    times = [0.0]
    for file in files:
        digest.update(os.fsencode(file) + b"\0")
        if (status := _status(file)) is not None:
            # The size, for where a mount has no times; the number of the file, for where all times are set to one, as
            # in images, and retrained models have one size. A needless reload is better than a missed change.
            digest.update(f"{status.st_size} {status.st_mtime_ns} {status.st_ino}".encode())
            # Who copies with times sets the old one last, but cannot set when that was.
            times += [status.st_mtime, status.st_ctime]
    for folder in folders:
        # Of folders many mounts make up the times.
        if (status := _status(folder)) is not None:
            times += [status.st_mtime, status.st_ctime]
    return Fingerprint(digest.hexdigest(), time.time() - max(times))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
