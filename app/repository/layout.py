"""What lies in the models folder, read without opening a model.

    MODELS_DIR/<name>/<version>/<one model>     MODELS_DIR/<name>/<one model file>     MODELS_DIR/<name>.<suffix>

The last two are version 1. A model is a `.keras`, `.h5`, `.hdf5` or `.tflite` file, or a SavedModel folder.
"""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from app.errors import ModelError

_LONGEST_NAME = 128
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_LONGEST_NAME - 1}}}")
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
    """Something in the models folder that was meant as a model and is none, and why. All of it is printable."""

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
    places: dict[str, list[str]] = {}
    for entry in entries:
        item = _entry(entry)
        if item is None:
            continue
        same = places.setdefault(item.name, [])
        same.append(_printable(entry.name))
        if len(same) > 1:
            item = Misplaced(item.name, 1, f"{' and '.join(same)} have the same name, {item.name!r}: keep one of them")
        found[item.name] = item
    return list(found.values())


def _entry(entry: Path) -> Source | Misplaced | None:
    if entry.name.startswith("."):
        return None
    kind = SUFFIXES.get(entry.suffix.lower())
    name = entry.name
    try:
        if entry.is_dir():
            return _folder(entry) if _NAME.fullmatch(name) else _bad_name(name)
        if kind is None:
            return None
        name = entry.stem
        if not _NAME.fullmatch(name):
            return _bad_name(name)
        if not entry.is_file():
            # Opening a pipe would wait for ever, and a link may lead nowhere.
            return Misplaced(name, 1, f"{entry.name} is no file, nor a link to one")
        return Source(name, 1, kind, entry, None)
    except OSError as error:
        reason = f"{_printable(entry.name)} cannot be read: {error.strerror}"
        return Misplaced(_printable(name)[:_LONGEST_NAME], 1, reason)


def _bad_name(name: str) -> Misplaced:
    reason = f"{name!r} is no model name: expected letters, digits, '.', '_' and '-', of these at most {_LONGEST_NAME}"
    return Misplaced(_printable(name)[:_LONGEST_NAME], 1, reason)


def _printable(name: str) -> str:
    """A file's name, escaped where it holds what a terminal obeys or, being no UTF-8, no JSON could hold."""
    return name if name.isprintable() else repr(name)[1:-1]


def _folder(folder: Path) -> Source | Misplaced:
    name = _printable(folder.name)
    versions: dict[int, Path] = {}
    for entry in sorted(folder.iterdir()):
        if not (entry.is_dir() and _VERSION.fullmatch(entry.name) and int(entry.name)):
            continue
        version = int(entry.name)
        if version in versions:
            reason = f"{versions[version].name}/ and {entry.name}/ in {name}/ are the same version: keep one"
            return Misplaced(name, version, reason)
        versions[version] = entry
    if not versions:
        return _one_model(name, 1, folder, folder)
    newest = max(versions)
    return _one_model(name, newest, versions[newest], folder)


def _one_model(name: str, version: int, place: Path, folder: Path) -> Source | Misplaced:
    models = [(Kind.SAVED_MODEL, place)] if _is_saved_model(place) else []
    for entry in sorted(place.iterdir()):
        if entry.name.startswith("."):
            continue
        if _is_saved_model(entry):
            models.append((Kind.SAVED_MODEL, entry))
        elif entry.is_file() and entry.suffix.lower() in SUFFIXES:
            models.append((SUFFIXES[entry.suffix.lower()], entry))
    names = ["saved_model.pb" if path == place else path.name for _, path in models]
    shown = f"{name}/{place.name}" if place != folder else name
    if len(models) != 1:
        found = f"{len(models)} ({', '.join(map(_printable, names))})" if models else "none"
        reason = f"expected one model in {shown}/ (.keras, .h5, .tflite or a SavedModel), found {found}"
        return Misplaced(name, version, reason)
    if _printable(names[0]) != names[0]:
        return Misplaced(name, version, f"the name of {names[0]!r} in {shown}/ is not printable: give it another")
    return Source(name, version, models[0][0], models[0][1], folder)


def _is_saved_model(place: Path) -> bool:
    return any((place / file).is_file() for file in _SAVED_MODEL_FILES)


def source_of(path: Path) -> Source:
    """The model at a path given by hand: a model file, a SavedModel, or a folder of `scan`'s layout.

    Raises:
        ModelError: there is no model.
    """
    try:
        if path.is_dir():
            found = _folder(path.resolve())
            if names := _models_in(path.resolve(), found):
                raise ModelError(f"{path} is a folder of models: name one of those in it, {', '.join(names)}")
            if isinstance(found, Misplaced):
                raise ModelError(found.reason)
            return found
        if not path.exists():
            raise ModelError(f"there is nothing at {path}")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None or not path.is_file():
        raise ModelError(f"{path} is no model: expected .keras, .h5, .tflite or a SavedModel folder")
    folder = path.parent if (path.parent / "model.toml").is_file() else None
    return Source(_printable(path.stem), 1, kind, path, folder)


def _models_in(folder: Path, found: Source | Misplaced) -> list[str]:
    """The names of the models, if it is a folder of models: has folders with a model, that are not `found` itself."""
    if (folder / "model.toml").is_file() or (isinstance(found, Source) and found.path == folder):
        return []
    models = [item for item in scan(folder) if isinstance(item, Source) and not _VERSION.fullmatch(item.name)]
    own = found.path if isinstance(found, Source) else None
    return [item.name for item in models] if any(item.folder and item.path != own for item in models) else []
