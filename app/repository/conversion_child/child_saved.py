"""A SavedModel as it lies on disk: which of its graphs is served, and copies that hold it alone."""

import shutil
from pathlib import Path
from typing import Any

from child_ops import assets_of
from child_reasons import Refused

_PARTS = ("saved_model.pb", "variables", "assets")
TAG = "serve"


class SavedFolder:
    """A SavedModel with one graph, tagged `serve`, which is what loaders look for.

    Args:
        proto: the content of its `saved_model.pb`.
        work: a folder for a copy, made if the model has several graphs, or other tags, or what is not to be loaded.
    """

    def __init__(self, source: Path, proto: Any, work: Path) -> None:
        self.path = source
        self.meta = _served(proto)
        self.tags = list(self.meta.meta_info_def.tags)
        # All, for each of them changes the graph that is kept.
        changed = [_forget_slots(self.meta), _forget_paths(self.meta)]
        if any(changed) or len(proto.meta_graphs) > 1 or self.tags != [TAG]:
            self.path = work / "served"
            self._keep_one(source, type(proto)())

    @property
    def is_v1(self) -> bool:
        """Whether TensorFlow 1 wrote it: there are no objects in it, only a graph."""
        return not self.meta.HasField("object_graph_def")

    @property
    def has_local_variables(self) -> bool:
        """Whether it has variables beside those in its checkpoint. TensorFlow 2 leaves them as memory was before."""
        return "local_variables" in self.meta.collection_def

    def _keep_one(self, source: Path, proto: Any) -> None:
        self.path.mkdir()
        kept = proto.meta_graphs.add()
        kept.CopyFrom(self.meta)
        kept.meta_info_def.tags[:] = [TAG]
        proto.saved_model_schema_version = 1
        (self.path / "saved_model.pb").write_bytes(proto.SerializeToString())
        for part in _PARTS[1:]:
            if (source / part).is_dir():
                (self.path / part).symlink_to(source / part)


def _served(proto: Any) -> Any:
    """The graph to serve: one with signatures, and of those one that is tagged so."""
    if not proto.meta_graphs:
        raise Refused("saved_model.pb is damaged: it holds no graph")
    return max(proto.meta_graphs, key=lambda meta: (any(meta.signature_def), TAG in meta.meta_info_def.tags))


def _forget_slots(meta: Any) -> bool:
    """Take out an optimizer's variables, without whose class the loader fails on them; whether there were any."""
    holders = [node for node in meta.object_graph_def.nodes if node.slot_variables]
    for node in holders:
        del node.slot_variables[:]
    return bool(holders)


def _forget_paths(meta: Any) -> bool:
    """Empty the paths that assets once had, which a table might be read from where the loader does not set them."""
    names = {each.tensor_info.name.partition(":")[0] for each in assets_of(meta)}
    constants = [node for node in meta.graph_def.node if node.name in names and node.op == "Const"]
    for node in constants:
        node.attr["value"].tensor.string_val[:] = [b""]
    return bool(constants)


def copy_alone(saved: Path, place: Path) -> None:
    """Copy what loading a SavedModel takes, links followed, and nothing else that lies in its folder."""
    place.mkdir()
    for part in _PARTS:
        if (saved / part).is_dir():
            shutil.copytree(saved / part, place / part)
        elif (saved / part).is_file():
            shutil.copyfile(saved / part, place / part)
