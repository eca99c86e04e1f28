"""What lies in the models folder, read without opening a model.

    MODELS_DIR/<name>/<version>/<one model>     MODELS_DIR/<name>/<one model file>     MODELS_DIR/<name>.<suffix>

The last two are version 1. A model is a `.keras`, `.h5`, `.hdf5` or `.tflite` file, or a SavedModel folder.
"""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from app.errors import ModelError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[0-9]{1,18}")


class Kind(Enum):
    """The format of a model on disk."""

    KERAS = "keras"
    H5 = "h5"
    TFLITE = "tflite"
    SAVED_MODEL = "saved_model"


SUFFIXES = {".keras": Kind.KERAS, ".h5": Kind.H5, ".hdf5": Kind.H5, ".tflite": Kind.TFLITE}

_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")


@dataclass(frozen=True, slots=True)
class Source:
    """One version of a model on disk. `folder` holds model.toml and samples.json; None for the short form."""

    name: str
    version: int
    kind: Kind
    path: Path
    folder: Path | None


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Something in the models folder that was meant as a model and is none, and why."""

    name: str
    version: int
    reason: str


def scan(models_dir: Path) -> list[Source | Misplaced]:
    """List the models of a folder, by name: of each the highest version.

    Hidden entries, and plain files that are no models, are not looked at.

    Raises:
        ModelError: the folder cannot be read.
    """
    try:
        entries = sorted(models_dir.iterdir())
    except OSError as error:
        raise ModelError(f"the models folder {models_dir} cannot be read: {error.strerror}") from error
    found: dict[str, Source | Misplaced] = {}
    for entry in entries:
        item = _entry(entry)
        if item is None:
            continue
        if item.name in found:
            reason = f"two models have the name {item.name!r}: keep one of the file and the folder"
            found[item.name] = Misplaced(item.name, 1, reason)
        else:
            found[item.name] = item
    return list(found.values())


def _entry(entry: Path) -> Source | Misplaced | None:
    if entry.name.startswith("."):
        return None
    if entry.is_dir():
        return _folder(entry) if _NAME.fullmatch(entry.name) else _bad_name(entry.name)
    kind = SUFFIXES.get(entry.suffix.lower())
    if kind is None:
        return None
    if not _NAME.fullmatch(entry.stem):
        return _bad_name(entry.stem)
    return Source(entry.stem, 1, kind, entry, None)


def _bad_name(name: str) -> Misplaced:
    return Misplaced(name[:128], 1, f"{name!r} is no model name: expected letters, digits, '.', '_' and '-'")


def _folder(folder: Path) -> Source | Misplaced:
    versions = sorted(
        int(entry.name) for entry in folder.iterdir() if entry.is_dir() and _VERSION.fullmatch(entry.name)
    )
    versions = [version for version in versions if version > 0]
    if not versions:
        return _one_model(folder.name, 1, folder, folder)
    named = {int(entry.name): entry for entry in folder.iterdir() if _VERSION.fullmatch(entry.name)}
    return _one_model(folder.name, versions[-1], named[versions[-1]], folder)


def _one_model(name: str, version: int, place: Path, folder: Path) -> Source | Misplaced:
    if any((place / file).is_file() for file in _SAVED_MODEL_FILES):
        return Source(name, version, Kind.SAVED_MODEL, place, folder)
    models: list[tuple[Kind, Path]] = []
    for entry in sorted(place.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and any((entry / file).is_file() for file in _SAVED_MODEL_FILES):
            models.append((Kind.SAVED_MODEL, entry))
        elif entry.is_file() and entry.suffix.lower() in SUFFIXES:
            models.append((SUFFIXES[entry.suffix.lower()], entry))
    if len(models) == 1:
        return Source(name, version, models[0][0], models[0][1], folder)
    found = f"{len(models)} ({', '.join(path.name for _, path in models)})" if models else "none"
    shown = f"{folder.name}/{place.name}" if place != folder else folder.name
    return Misplaced(
        name, version, f"expected one model in {shown}/ (.keras, .h5, .tflite or a SavedModel), found {found}"
    )


def source_of(path: Path) -> Source:
    """The model at a path given by hand: a model file, a SavedModel, or a folder of `scan`'s layout.

    Raises:
        ModelError: there is no model.
    """
    if not path.exists():
        raise ModelError(f"there is nothing at {path}")
    if path.is_file():
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise ModelError(f"{path} is no model: expected .keras, .h5, .tflite or a SavedModel folder")
        folder = path.parent if (path.parent / "model.toml").is_file() else None
        return Source(path.stem, 1, kind, path, folder)
    found = _folder(path.resolve())
    if isinstance(found, Misplaced):
        raise ModelError(found.reason)
    return found
