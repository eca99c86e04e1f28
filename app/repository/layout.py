"""What lies in the models folder, read without opening a model.

    MODELS_DIR/<name>/<version>/<one model>     MODELS_DIR/<name>/<one model file>     MODELS_DIR/<name>.<suffix>

The last two are version 1. A model is a `.keras`, `.h5`, `.hdf5` or `.tflite` file, or a SavedModel folder. Links are
followed, and kept as links in what is found: whoever swaps one swaps the model.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from app.errors import ModelError
from app.repository.model_config import CONFIG, ModelConfig, read_config
from app.repository.samples import SAMPLES
from app.repository.version import version_of

_LONGEST_NAME = 128
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_LONGEST_NAME - 1}}}")
_PASSING = (".tmp", ".part", "~")
"""How the names end of what is being copied, or was edited."""


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
    unreadable: bool = False
    """The disk would not say what is there, as a network drive may for a while: nothing served should end for it."""


@dataclass(frozen=True, slots=True)
class Folder:
    """All that lies under the name of one model: its versions, at least one, in ascending order, and its model.toml."""

    name: str
    versions: tuple[Source | Misplaced, ...]
    path: Path | None = None
    """None for the short form, and for what is no model's folder."""
    config: ModelConfig = field(default_factory=ModelConfig)
    fault: str = ""
    """What is wrong with model.toml, in one sentence; `config` is then the default."""


def scan(models_dir: Path) -> list[Folder]:
    """List the models of a folder, by name.

    Hidden entries, those whose names end in `.tmp`, `.part` or `~`, and plain files that are no models, are not looked
    at. What cannot be read harms nothing else: it is `Misplaced`.

    Raises:
        ModelError: the folder cannot be read.
    """
    try:
        entries = sorted(models_dir.iterdir())
    except OSError as error:
        raise ModelError(f"the models folder {models_dir} cannot be read: {error.strerror}") from error
    found: dict[str, Folder] = {}
    places: dict[str, list[str]] = {}
    for entry in entries:
        folder = None if _is_passed_over(entry) else _entry(entry)
        if folder is None:
            continue
        same = places.setdefault(folder.name, [])
        same.append(_printable(entry.name))
        if len(same) > 1:
            reason = f"{' and '.join(same)} have the same name, {folder.name!r}: keep one of them"
            folder = _misplaced(folder.name, reason)
        found[folder.name] = folder
    return list(found.values())


def _entry(entry: Path) -> Folder | None:
    kind = SUFFIXES.get(entry.suffix.lower())
    name = entry.name
    try:
        if entry.is_dir():
            return _folder(entry) if _NAME.fullmatch(name) else _bad_name(name)
        if kind is None:
            lost = _NAME.fullmatch(name) and _leads_nowhere(entry)
            return _misplaced(name, f"{name} is a link that leads nowhere") if lost else None
        name = entry.stem
        if not _NAME.fullmatch(name):
            return _bad_name(name)
        if not entry.is_file():
            # Opening a pipe would wait for ever, and a link may lead nowhere.
            return _misplaced(name, f"{entry.name} is no file, nor a link to one")
        return Folder(name, (Source(name, 1, kind, entry, None),))
    except OSError as error:
        reason = f"{_printable(entry.name)} cannot be read: {error.strerror}"
        return _misplaced(_printable(name)[:_LONGEST_NAME], reason, unreadable=True)


def _misplaced(name: str, reason: str, unreadable: bool = False) -> Folder:
    return Folder(name, (Misplaced(name, 1, reason, unreadable),))


def _bad_name(name: str) -> Folder:
    reason = f"{name!r} is no model name: expected letters, digits, '.', '_' and '-', of these at most {_LONGEST_NAME}"
    return _misplaced(_printable(name)[:_LONGEST_NAME], reason)


def _printable(name: str) -> str:
    """A file's name, escaped where it holds what a terminal obeys or, being no UTF-8, no JSON could hold."""
    return name if name.isprintable() else repr(name)[1:-1]


def _is_passed_over(entry: Path) -> bool:
    # Kubernetes keeps what its links lead to in hidden folders, `..2026_11_22_10_00_00.123` and the link `..data`.
    return entry.name.startswith(".") or entry.name.endswith(_PASSING)


def _leads_nowhere(entry: Path) -> bool:
    return entry.is_symlink() and not entry.exists()


def _folder(folder: Path) -> Folder:
    name = _printable(folder.name)
    versions = _versions(name, folder)
    try:
        return Folder(name, versions, folder, read_config(folder))
    except ModelError as error:
        return Folder(name, versions, folder, fault=error.message)


def _versions(name: str, folder: Path) -> tuple[Source | Misplaced, ...]:
    places: dict[int, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if _is_version(entry):
            places.setdefault(int(entry.name), []).append(entry)
    if not places:
        return (_one_model(name, 1, folder, folder),)
    return tuple(_version(name, version, places[version], folder) for version in sorted(places))


def _is_version(entry: Path) -> bool:
    if not version_of(entry.name):
        return False
    try:
        return entry.is_dir() or _leads_nowhere(entry)
    except OSError:
        # Reading the version will meet it again, and say it of this version only.
        return True


def _version(name: str, version: int, places: list[Path], folder: Path) -> Source | Misplaced:
    place = places[0]
    try:
        if len(places) > 1:
            same = " and ".join(f"{place.name}/" for place in places)
            return Misplaced(name, version, f"{same} in {name}/ are the same version: keep one")
        if _leads_nowhere(place):
            return Misplaced(name, version, f"{name}/{place.name} is a link that leads nowhere")
        return _one_model(name, version, place, folder)
    except OSError as error:
        return Misplaced(name, version, f"{name}/{place.name} cannot be read: {error.strerror}", unreadable=True)


def _one_model(name: str, version: int, place: Path, folder: Path) -> Source | Misplaced:
    models = [(Kind.SAVED_MODEL, place)] if _is_saved_model(place) else []
    lost = []
    for entry in sorted(place.iterdir()):
        if _is_passed_over(entry):
            continue
        if _is_saved_model(entry):
            models.append((Kind.SAVED_MODEL, entry))
        elif entry.suffix.lower() in SUFFIXES:
            if entry.is_file():
                models.append((SUFFIXES[entry.suffix.lower()], entry))
            elif _leads_nowhere(entry):
                lost.append(f"a link that leads nowhere ({_printable(entry.name)})")
    names = ["saved_model.pb" if path == place else path.name for _, path in models]
    shown = f"{name}/{place.name}" if place != folder else name
    if len(models) != 1:
        found = f"{len(models)} ({', '.join(map(_printable, names))})" if models else " and ".join(lost) or "none"
        reason = f"expected one model in {shown}/ (.keras, .h5, .tflite or a SavedModel), found {found}"
        return Misplaced(name, version, reason)
    if _printable(names[0]) != names[0]:
        return Misplaced(name, version, f"the name of {names[0]!r} in {shown}/ is not printable: give it another")
    return Source(name, version, models[0][0], models[0][1], folder)


def _is_saved_model(place: Path) -> bool:
    return any((place / file).is_file() for file in _SAVED_MODEL_FILES)


def source_of(path: Path) -> Source:
    """The model at a path given by hand: a model file, a SavedModel, or a folder of `scan`'s layout.

    Of a folder with versions it is the highest; of a version's folder that one, with what lies beside all versions.

    Raises:
        ModelError: there is no model.
    """
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.exists():
            raise ModelError(f"there is nothing at {path}")
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None or not path.is_file():
            raise ModelError(f"{path} is no model: expected .keras, .h5, .tflite or a SavedModel folder")
        place = path.parent.absolute()
        folder = next((place for place in (place, *_model_folder(place)) if _has_settings(place)), None)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if folder is None or folder == place:
        return Source(_printable(path.stem), 1, kind, path, folder and path.parent)
    return Source(_printable(folder.name), int(place.name), kind, path, folder)


def _in_folder(path: Path) -> Source:
    # A version is a version by the name of the link to it; any other folder goes by its own.
    place = path.absolute() if version_of(path.name) is not None else path.resolve()
    found: Source | Misplaced
    if parents := _model_folder(place):
        found = _version(_printable(parents[0].name), int(place.name), [place], parents[0])
    else:
        found = _versions(_printable(place.name), place)[-1]
        if names := _models_in(place, found):
            raise ModelError(f"{path} is a folder of models: name one of those in it, {', '.join(names)}")
    if isinstance(found, Misplaced):
        raise ModelError(found.reason)
    return found


def _model_folder(place: Path) -> list[Path]:
    """The folder of the model that a folder is a version of; none if it is no version, but a model's own folder."""
    if not version_of(place.name) or _has_settings(place):
        return []
    is_version = not any(map(_is_version, place.iterdir())) and _NAME.fullmatch(place.parent.name)
    return [place.parent] if is_version else []


def _has_settings(folder: Path) -> bool:
    return any((folder / file).is_file() for file in (CONFIG, SAMPLES))


def _models_in(folder: Path, found: Source | Misplaced) -> list[str]:
    """The names of the models, if it is a folder of models: has folders with a model, that are not `found` itself."""
    if (folder / CONFIG).is_file() or (isinstance(found, Source) and found.path == folder):
        return []
    own = found.path if isinstance(found, Source) else None
    models = [(item.name, item.path, item.versions[-1]) for item in scan(folder) if version_of(item.name) is None]
    names = [name for name, _, newest in models if isinstance(newest, Source)]
    others = [path for _, path, newest in models if path and isinstance(newest, Source) and newest.path != own]
    return names if others else []
