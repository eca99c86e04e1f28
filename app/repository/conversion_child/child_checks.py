"""What is refused before TensorFlow loads it: files that are no model, are damaged, or reach beyond themselves."""

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from child_ops import check_graph
from child_reasons import Refused

_CODE_LAYERS = {
    "Lambda": "arbitrary Python code",
    "__lambda__": "arbitrary Python code",
    "JaxLayer": "arbitrary Python code",
    "FlaxLayer": "arbitrary Python code",
    "TorchModuleWrapper": "a pickled PyTorch module",
    "TFSMLayer": "a SavedModel elsewhere on the disk",
}
"""Keras classes that load what is no part of the file, or run it. Keras' safe mode refuses them too, but in HDF5 files
only lately, and its texts advise to turn it off."""

_FUNCTIONS = re.compile(r"keras\.(src\.)?(activations|constraints|initializers|ops|regularizers)\b.*")
"""Modules of Keras whose functions a layer may be given; in others are some that download, and some that write."""

_UNPACKED_FREE, _UNPACKED_TIMES = 64 << 20, 20
"""A .keras file may unpack to so many bytes, or to so many times its size; Keras itself does not compress."""


def check_file(source: Path, kind: str) -> None:
    """Refuse what is no model, or is not safe to load, before TensorFlow, whose errors are long, sees it."""
    if kind == "keras":
        check_config(keras_config(source), "config.json")
    elif kind == "h5":
        check_config(h5_config(source), "its model_config")


def keras_config(source: Path) -> str | bytes:
    """The text of config.json in a .keras file whose archive is sound."""
    if not zipfile.is_zipfile(source):
        if head(source).startswith("PK"):
            raise Refused(f"{source.name} is cut short: it begins as a .keras file, a zip archive, and has no end")
        raise Refused(f"{source.name} is not a .keras file: expected a zip archive, found {show_head(source)}")
    try:
        with zipfile.ZipFile(source) as archive:
            check_members(archive.infolist(), source)
            if "config.json" not in archive.namelist():
                raise Refused(f"{source.name} is not a .keras file: it is a zip archive without config.json")
            if broken := archive.testzip():
                raise Refused(f"{source.name} is damaged: its member {broken} has another checksum")
            if "model.weights.h5" in archive.namelist():
                with archive.open("model.weights.h5") as weights:
                    h5_attributes(weights)
            return archive.read("config.json")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise Refused(f"{source.name} is damaged: its archive cannot be read ({error})") from error


def check_members(members: list[zipfile.ZipInfo], source: Path) -> None:
    """Refuse an archive that would unpack beside its folder, or to more than it can rightly hold."""
    for member in members:
        parts = member.filename.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or ":" in parts[0]:
            raise Refused(f"{source.name} is not loaded: its member {member.filename!r} would be unpacked elsewhere")
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_UNPACKED_FREE, _UNPACKED_TIMES * source.stat().st_size):
        raise Refused(f"{source.name} is not loaded: it would unpack to {unpacked >> 20} MiB, as no Keras file does")


def h5_config(source: Path) -> str | bytes:
    """The text of the model in an HDF5 file that refers to no other file."""
    if head(source) != "\x89HDF\r\n\x1a\n":
        raise Refused(f"{source.name} is not an HDF5 file: found {show_head(source)}")
    try:
        config = h5_attributes(source).get("model_config")
    except OSError as error:
        raise Refused(f"{source.name} is damaged or cut short: {error}") from error
    if not isinstance(config, str | bytes):
        raise Refused(f"{source.name} holds weights without a model: save the whole model with model.save()")
    return config


def h5_attributes(file: Any) -> dict[str, Any]:
    """The attributes of an HDF5 file without links, which may lead to other files, and without data kept in such."""
    import h5py

    def link(name: str, found: Any) -> str | None:
        return None if isinstance(found, h5py.HardLink) else name

    def data(name: str, found: Any) -> str | None:
        return name if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual) else None

    with h5py.File(file, "r") as opened:
        if elsewhere := opened.visititems_links(link) or opened.visititems(data):
            raise Refused(f"it is not loaded: its HDF5 member {elsewhere!r} refers to data elsewhere")
        return dict(opened.attrs)


def check_config(text: str | bytes, where: str) -> None:
    """Refuse a Keras model that needs code, or files, beyond its own."""
    try:
        waiting = [json.loads(text)]
    except (ValueError, RecursionError) as error:
        raise Refused(f"the file is damaged: {where} is not JSON") from error
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            name, module = str(item.get("class_name")), str(item.get("module"))
            if name in _CODE_LAYERS:
                raise Refused(
                    f"it holds a {name.strip('_')} layer, which is {_CODE_LAYERS[name]} and is not loaded: "
                    "replace it by one of Keras' own layers"
                )
            if name == "function" and module.startswith("keras") and not _FUNCTIONS.fullmatch(module):
                raise Refused(f"it names the function {module}.{item.get('config')}, which is none for a layer")


def head(source: Path) -> str:
    """The first bytes of a file."""
    with source.open("rb") as stream:
        return stream.read(8).decode("latin-1")


def show_head(source: Path) -> str:
    """The same for a message."""
    size = source.stat().st_size
    return f"{size} bytes that begin with {head(source)!r}" if size else "an empty file"


def check_ops(source: Path) -> Any:
    """The content of `saved_model.pb`. Refuse a SavedModel whose graph would touch files or run Python."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    binary = source / "saved_model.pb"
    if not binary.is_file():
        raise Refused("the SavedModel is in text form (saved_model.pbtxt): save it in binary form")
    try:
        proto.ParseFromString(binary.read_bytes())
    except Exception as error:
        raise Refused("saved_model.pb is damaged: it is no SavedModel protocol buffer") from error
    for meta in proto.meta_graphs:
        check_graph(meta)
    return proto
