"""Which graphs a SavedModel may have. These are stand-ins for TensorFlow's protocol buffers, which take seconds."""

from types import SimpleNamespace
from typing import Any

import pytest

from child_ops import _NEVER, _NOT_RUN, check_graph, check_starts
from child_reasons import Refused

FILL = "InitializeTableFromTextFileV2"


def node(op: str, name: str = "", inputs: tuple[str, ...] = (), calls: str = "") -> Any:
    attr = {"f": SimpleNamespace(func=SimpleNamespace(name=calls), list=SimpleNamespace(func=[]))}
    attr["T"] = SimpleNamespace(func=SimpleNamespace(name=""), list=SimpleNamespace(func=[]))
    return SimpleNamespace(op=op, name=name or op, input=list(inputs), attr=attr)


def function(name: str, arguments: tuple[str, ...], *nodes: Any) -> Any:
    signature = SimpleNamespace(name=name, input_arg=[SimpleNamespace(name=each) for each in arguments])
    return SimpleNamespace(signature=signature, node_def=list(nodes))


def graph(*nodes: Any, functions: tuple[Any, ...] = (), objects: dict[str, Any] | None = None, **rest: Any) -> Any:
    """A `MetaGraphDef` whose signature answers with the node `y`.

    Args:
        objects: what each object's function is bound to, by the function's name.
        rest: `assets` by the name of the tensor that holds their paths, `main` and `restore`, the names of nodes.
    """
    kinds = [kind for bound in (objects or {}).values() for kind in bound]
    places = iter(range(len(kinds)))
    bound = {name: SimpleNamespace(bound_inputs=[next(places) for _ in each]) for name, each in (objects or {}).items()}
    main = SimpleNamespace(node_list=SimpleNamespace(value=[rest.get("main", "")]))
    return SimpleNamespace(
        graph_def=SimpleNamespace(node=list(nodes), library=SimpleNamespace(function=functions)),
        asset_file_def=[
            SimpleNamespace(tensor_info=SimpleNamespace(name=f"{name}:0"), filename=file)
            for name, file in rest.get("assets", {}).items()
        ],
        signature_def={"serving_default": SimpleNamespace(outputs={"y": SimpleNamespace(name="y:0")})},
        collection_def={"saved_model_main_op": main},
        saver_def=SimpleNamespace(restore_op_name=rest.get("restore", ""), filename_tensor_name="save/Const:0"),
        object_graph_def=SimpleNamespace(
            concrete_functions=bound, nodes=[SimpleNamespace(WhichOneof=lambda _, kind=kind: kind) for kind in kinds]
        ),
        HasField=lambda name: objects is not None,
    )


def refusal(meta: Any) -> str:
    with pytest.raises(Refused) as caught:
        check_graph(meta)
    return str(caught.value)


# Operations


@pytest.mark.parametrize(
    "op",
    [
        *("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "EagerPyFunc", "PyFuncStateless", "TFRecordDatasetV2"),
        *("OneShotIterator", "TextLineReaderV2", "WholeFileReader", "DebugIdentityV3", "Copy", "CopyHost", "PrintV2"),
        *("RpcCall", "RemoteCall", "FileSystemSetConfiguration", "ImmutableConst", "RecordInput", "DecodeProtoV2"),
        *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "SummaryWriter", "WriteScalarSummary", "WriteSummary"),
        *("WriteRawProtoSummary", "CloseSummaryWriter", "ImportEvent", "EncodeProto", "InitializeTableFromDataset"),
    ],
)
def test_what_reaches_beyond_tensors_may_be_nowhere(op: str) -> None:
    inside = function("f", ("x",), node(op))

    for meta in (graph(node(op)), graph(functions=(inside,)), graph(functions=(inside,), objects={})):
        assert f"its graph holds {op}, which" in refusal(meta)


@pytest.mark.parametrize(
    "op",
    [
        *("ScalarSummary", "HistogramSummary", "ImageSummary", "AudioSummaryV2", "TensorSummaryV2", "MergeSummary"),
        *("LookupTableFindV2", "ReadVariableOp", "DecodeJpeg", "DecodeBase64", "StringSplit", "Assert", "TopKV2"),
    ],
)
def test_what_only_makes_tensors_may_be_anywhere(op: str) -> None:
    assert not _NEVER.search(op)
    assert not _NOT_RUN.search(op)
    check_graph(graph(node(op, "y")))


@pytest.mark.parametrize("op", ["SaveV2", "RestoreV2", "MergeV2Checkpoints", "FixedUnigramCandidateSampler"])
def test_what_saves_or_trains_may_be_where_nothing_runs_it(op: str) -> None:
    aside = node(op, "aside", ("save/Const",))
    saver = function("saver", ("file",), node(op, "aside"))

    check_graph(graph(node("Identity", "y", ("x",)), aside))
    check_graph(graph(node("PartitionedCall", "saved", ("x",), calls="saver"), functions=(saver,), objects={}))


@pytest.mark.parametrize(
    "meta",
    [
        graph(node("Identity", "y", ("aside:0",)), node("SaveV2", "aside")),
        graph(node("Identity", "y", ("x", "^aside")), node("SaveV2", "aside")),
        graph(node("NoOp", "start", ("^aside",)), node("SaveV2", "aside"), main="start"),
        graph(node("NoOp", "restore", ("^aside",)), node("SaveV2", "aside"), restore="restore"),
        graph(
            node("StatefulPartitionedCall", "y", ("x",), calls="outer"),
            functions=(
                function("outer", ("x",), node("If", "if", ("x",), calls="inner")),
                function("inner", ("x",), node("SaveV2")),
            ),
        ),
        graph(functions=(function("call", ("x",), node("SaveV2")),), objects={"call": ()}),
    ],
    ids=["output", "control", "start", "restoring", "within a call", "object"],
)
def test_what_saves_may_not_be_where_loading_or_serving_runs_it(meta: Any) -> None:
    assert "its graph holds SaveV2, which" in refusal(meta)


def test_a_checkpoint_is_restored_from_the_models_own_files_only() -> None:
    def restoring(file: str) -> Any:
        return graph(node("NoOp", "all", ("^one",)), node("RestoreV2", "one", (file, "names", "slices")), restore="all")

    check_graph(restoring("save/Const"))
    assert "RestoreV2" in refusal(restoring("elsewhere"))


def test_an_initialiser_that_needs_a_file_is_not_run() -> None:
    meta = graph(node("Assign", "init", ("variable", "value")), node("RestoreV2", "value", ("elsewhere",)))

    check_graph(meta)
    check_starts(meta, ["variable"])
    with pytest.raises(Refused, match="cannot be initialised: that takes RestoreV2, which need files"):
        check_starts(meta, ["init"])


# Files that fill tables

PATH = node("Const", "path")


def filled(name: str, file: str) -> Any:
    return function(name, ("table", "file"), node(FILL, "fill", ("table", file)))


@pytest.mark.parametrize(
    "meta",
    [
        graph(PATH, node(FILL, "fill", ("table", "path:0")), assets={"path": "v.txt"}),
        graph(PATH, node("Identity", "i", ("path",)), node(FILL, "fill", ("table", "i")), assets={"path": "v.txt"}),
        graph(functions=(filled("init", "file"),), objects={"init": ("resource", "asset")}, assets={"path": "v.txt"}),
        graph(
            functions=(
                filled("inner", "file"),
                function("outer", ("a", "b"), node("PartitionedCall", "c", ("a", "b"), calls="inner")),
            ),
            objects={"outer": ("resource", "asset")},
        ),
    ],
    ids=["graph", "identity", "object", "call"],
)
def test_a_table_is_filled_from_an_asset(meta: Any) -> None:
    check_graph(meta)


@pytest.mark.parametrize(
    "meta",
    [
        graph(PATH, node(FILL, "fill", ("table", "path"))),
        graph(PATH, node("StringJoin", "i", ("path",)), node(FILL, "fill", ("table", "i")), assets={"path": "v.txt"}),
        graph(functions=(filled("init", "other"),), objects={}),
        graph(functions=(filled("init", "file"),), objects={"init": ("resource", "constant")}),
        graph(functions=(filled("init", "file"),), objects={"init": ("resource",)}),
        graph(functions=(function("init", (), PATH, node(FILL, "fill", ("table", "path"))),), objects={"init": ()}),
        graph(
            functions=(
                filled("inner", "file"),
                function("outer", ("a", "b"), PATH, node("PartitionedCall", "c", ("a", "path"), calls="inner")),
            ),
            objects={"outer": ("resource", "asset")},
        ),
        graph(
            functions=(
                filled("inner", "file"),
                function("outer", ("a", "b"), node("If", "c", ("condition", "a", "b"), calls="inner")),
            ),
            objects={"outer": ("resource", "asset")},
        ),
    ],
    ids=["constant", "made", "nothing", "bound", "argument", "inside", "given", "branch"],
)
def test_a_table_is_filled_from_nothing_else(meta: Any) -> None:
    assert "fills a table from a file that is none of its assets" in refusal(meta)


@pytest.mark.parametrize("file", ["/etc/passwd", "../../secret", "a/../../secret", "..\\secret"])
def test_an_asset_lies_among_the_assets(file: str) -> None:
    assert refusal(graph(assets={"path": file})).endswith("lies elsewhere")
