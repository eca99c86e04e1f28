"""Which operations a SavedModel may hold, for to load it is to run some of them, and to serve it is to run others."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from child_reasons import Refused

_NEVER = re.compile(
    r"ReadFile|WriteFile|TextFileDataset|MatchingFiles|PyFunc|Dataset|Iterator|Reader|Debug|Rpc|RemoteCall|Configur"
    r"|^Print|^Dump|^ImmutableConst$|^RecordInput$|^Copy(Host)?$|TRT|^(De|En)codeProto"
    r"|SummaryWriter|Summary(File|Db)Writer|^Write\w*Summary$|^ImportEvent$|StatsAggregator"
)
"""What reaches beyond tensors: files, connections, Python. Summaries are only strings, and what writes them is not."""

_NOT_RUN = re.compile(
    r"^(Save|SaveV2|SaveSlices|DistributedSave|MergeV2Checkpoints|Restore|RestoreV2|RestoreSlice)$"
    r"|^(LoadAndRemapMatrix|GenerateVocabRemapping|FixedUnigramCandidateSampler)$"
)
"""What reaches for files, and lies in sound SavedModels beside what is served: savers, and what serves training."""

_FILLS_FROM_FILE = {"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"}
_PASSES_ON = {"Identity"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}

_RESTORES = "RestoreV2"
_ASSETS = "saved_model_assets"
_INIT_OPS = ("saved_model_main_op", "legacy_init_op")
"""Collections that name what a SavedModel of TensorFlow 1 runs when it is loaded."""


def check_graph(meta: Any) -> None:
    """Refuse a graph that would touch files other than its own, or run Python.

    Args:
        meta: a `MetaGraphDef`.
    """
    graph = _Graph(meta)
    unsafe = {node.op for _, node in graph.nodes() if _NEVER.search(node.op)}
    unsafe |= {node.op for node in graph.run() if _NOT_RUN.search(node.op)}
    unsafe |= {node.op for node in graph.restoring() if _NEVER.search(node.op) or _NOT_RUN.search(node.op)}
    if unsafe:
        names = ", ".join(sorted(unsafe))
        raise Refused(f"the SavedModel is not loaded: its graph holds {names}, which reach beyond tensors")
    for place, node in graph.nodes():
        if node.op in _FILLS_FROM_FILE and not graph.is_asset(place, node.input[1]):
            raise Refused(
                f"the SavedModel is not loaded: its {node.name!r} fills a table from a file that is none of its "
                "assets: save it with the file as one"
            )
    for asset in assets_of(meta):
        path = PurePosixPath(asset.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in asset.filename:
            raise Refused(f"the SavedModel is not loaded: its asset {asset.filename!r} lies elsewhere")


def check_starts(meta: Any, names: list[str]) -> None:
    """Refuse to run nodes that reach for files, as a restored variable's initialiser may, which then nobody runs."""
    unsafe = {node.op for node in _Graph(meta).above(names) if _NOT_RUN.search(node.op)}
    if unsafe:
        raise Refused(f"its variables cannot be initialised: that takes {', '.join(sorted(unsafe))}, which need files")


def assets_of(meta: Any) -> list[Any]:
    """The `AssetFileDef`s of a graph; TensorFlow 1 keeps them in a collection."""
    found = list(meta.asset_file_def)
    if not found and _ASSETS in meta.collection_def:
        from tensorflow.core.protobuf import meta_graph_pb2

        for packed in meta.collection_def[_ASSETS].any_list.value:
            found.append(meta_graph_pb2.AssetFileDef())
            packed.Unpack(found[-1])
    return found


class _Graph:
    """The nodes of a graph by the function that they are in; "" is the graph itself."""

    def __init__(self, meta: Any) -> None:
        self._meta = meta
        self._functions = {each.signature.name: each for each in meta.graph_def.library.function}
        self._nodes = {"": {node.name: node for node in meta.graph_def.node}}
        for name, function in self._functions.items():
            self._nodes[name] = {node.name: node for node in function.node_def}
        self._has_objects = meta.HasField("object_graph_def")
        self._assets = {_node(each.tensor_info.name) for each in assets_of(meta)}

    def nodes(self) -> Iterator[tuple[str, Any]]:
        for place, nodes in self._nodes.items():
            for node in nodes.values():
                yield place, node

    def run(self) -> Iterator[Any]:
        """The nodes that are run when the model is loaded or served, and those of all functions that objects hold."""
        meta = self._meta
        starts = [info.name for each in meta.signature_def.values() for info in each.outputs.values()]
        for key in _INIT_OPS:
            if key in meta.collection_def:
                starts += meta.collection_def[key].node_list.value
        if self._has_objects:
            yield from self._within(list(meta.object_graph_def.concrete_functions))
        yield from self.above(starts)

    def restoring(self) -> Iterator[Any]:
        """The nodes that are run to restore a checkpoint, but for those that read the model's own."""
        saver = self._meta.saver_def
        if self._has_objects or not saver.restore_op_name:
            return
        own = _node(saver.filename_tensor_name)
        for node in self.above([saver.restore_op_name]):
            if node.op != _RESTORES or _node(node.input[0]) != own:
                yield node

    def is_asset(self, place: str, name: str) -> bool:
        """Whether a tensor can be nothing but the path of an asset, as the loader sets it."""
        waiting, seen = [(place, name)], set[tuple[str, str]]()
        while waiting:
            place, name = step = waiting.pop()
            if step in seen:
                continue
            seen.add(step)
            node = self._nodes[place].get(_node(name))
            if node is not None and node.op in _PASSES_ON:
                waiting.append((place, node.input[0]))
            elif place:
                sources = self._given(place, name)
                if node is not None or sources is None:
                    return False
                waiting += sources
            elif node is None or node.name not in self._assets:
                return False
        return True

    def _given(self, function: str, argument: str) -> list[tuple[str, str]] | None:
        """What a function's callers give it for an argument, but for assets; None where that cannot be told."""
        arguments = [each.name for each in self._functions[function].signature.input_arg]
        if argument not in arguments:
            return None
        index = arguments.index(argument)
        objects = self._meta.object_graph_def
        if function in objects.concrete_functions:
            bound = objects.concrete_functions[function].bound_inputs
            captured = index - (len(arguments) - len(bound))
            if captured < 0 or objects.nodes[bound[captured]].WhichOneof("kind") != "asset":
                return None
        found = []
        for place, node in self.nodes():
            # The graph around the functions is for other loaders than Python's, if there are objects.
            if function in _called(node) and (place or not self._has_objects):
                if node.op not in _CALLS:
                    return None
                found.append((place, node.input[index]))
        return found

    def above(self, starts: list[str]) -> Iterator[Any]:
        """The graph's nodes that these need, and the nodes of the functions that they call."""
        nodes, seen, waiting = self._nodes[""], set[str](), [_node(name) for name in starts]
        called: list[str] = []
        while waiting:
            name = waiting.pop()
            if name in seen or name not in nodes:
                continue
            seen.add(name)
            yield nodes[name]
            waiting += [_node(each) for each in nodes[name].input]
            called += _called(nodes[name])
        yield from self._within(called)

    def _within(self, functions: list[str]) -> Iterator[Any]:
        seen, waiting = set[str](), list(functions)
        while waiting:
            function = waiting.pop()
            if function in seen:
                continue
            seen.add(function)
            for node in self._nodes.get(function, {}).values():
                yield node
                waiting += _called(node)


def _node(tensor: str) -> str:
    """`name` of `name:0`, of `name:output:0` and of `^name`."""
    return tensor.removeprefix("^").partition(":")[0]


def _called(node: Any) -> list[str]:
    """The functions that a node names. Operations may also be functions' names."""
    attrs = node.attr.values()
    names = [node.op, *(each.func.name for each in attrs), *(each.name for attr in attrs for each in attr.list.func)]
    return [name for name in names if name]
