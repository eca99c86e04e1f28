"""SavedModels of TensorFlow 1 that its successor does not load, or not convert: frozen in a session, saved anew."""

from pathlib import Path
from typing import Any

from child_ops import assets_of, check_starts
from child_reasons import Refused, explain
from child_saved import TAG, SavedFolder

_FILLS_FROM_FILE = {"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"}
_FILLS = {"InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2", *_FILLS_FROM_FILE}


def save_again(tf: Any, folder: SavedFolder, place: Path) -> Path:
    """The same signatures in a SavedModel whose variables are constants.

    Its outputs are nodes of their own: a loop's, which they were, the converter replaces, and then looks for in vain.

    Raises:
        Refused: none of its signatures can be had so.
    """
    v1 = tf.compat.v1
    definitions = {name: each for name, each in sorted(folder.meta.signature_def.items()) if not name.startswith("__")}
    with v1.Session(graph=tf.Graph()) as session:
        v1.saved_model.load(session, [TAG], str(folder.path))
        _initialise_the_rest(tf, session, folder)
        graph, served = _freeze(tf, session, definitions)
    assets = _set_paths(graph, folder)
    with v1.Session(graph=tf.Graph()) as session:
        tf.graph_util.import_graph_def(graph, name="")
        signatures = {name: _signature(tf, session.graph, definitions[name], name) for name in served}
        fills = [operation for operation in session.graph.get_operations() if operation.type in _FILLS]
        builder = v1.saved_model.Builder(str(place))
        builder.add_meta_graph_and_variables(
            session,
            [TAG],
            signature_def_map=signatures,
            assets_collection=[session.graph.get_tensor_by_name(f"{name}:0") for name in assets],
            main_op=tf.group(*fills) if fills else None,
        )
        builder.save()
    return place


def _set_paths(graph: Any, folder: SavedFolder) -> list[str]:
    """Write where the assets are into the graph, from where they are taken when it is saved; the nodes' names."""
    paths = {each.tensor_info.name.partition(":")[0]: each.filename for each in assets_of(folder.meta)}
    nodes = [node for node in graph.node if node.name in paths and node.op == "Const"]
    for node in nodes:
        node.attr["value"].tensor.string_val[:] = [str(folder.path / "assets" / paths[node.name]).encode()]
    return [node.name for node in nodes]


def _initialise_the_rest(tf: Any, session: Any, folder: SavedFolder) -> None:
    """Give their first values to variables that the checkpoint does not hold, as local ones."""
    v1 = tf.compat.v1
    with session.graph.as_default():
        variables = [*v1.global_variables(), *v1.local_variables()]
        unset = [each for each in variables if not session.run(v1.is_variable_initialized(each))]
        check_starts(folder.meta, [each.initializer.name for each in unset])
        session.run(v1.variables_initializer(unset))


def _freeze(tf: Any, session: Any, definitions: dict[str, Any]) -> tuple[Any, list[str]]:
    """The graph of all signatures that can be frozen, and their names."""
    v1 = tf.compat.v1
    whole = session.graph.as_graph_def()
    fills = [node.name for node in whole.node if node.op in _FILLS]
    nodes, served = list(fills), []
    failure: Exception | None = None
    for name, definition in definitions.items():
        fetched = [info.name.partition(":")[0] for info in definition.outputs.values()]
        fetched += [info.name.partition(":")[0] for info in definition.inputs.values()]
        try:
            v1.graph_util.convert_variables_to_constants(session, whole, [*fills, *fetched])
        except Exception as error:
            failure = failure or error
        else:
            nodes += fetched
            served.append(name)
    if not served:
        raise Refused(f"its graph cannot be frozen: {explain(failure)}" if failure else "it has no signature")
    return v1.graph_util.convert_variables_to_constants(session, whole, nodes), served


def _signature(tf: Any, graph: Any, definition: Any, name: str) -> Any:
    tensors = {key: graph.get_tensor_by_name(info.name) for key, info in definition.outputs.items()}
    with graph.as_default():
        outputs = {key: tf.identity(tensor, f"{name}_output_{i}") for i, (key, tensor) in enumerate(tensors.items())}
    inputs = {key: graph.get_tensor_by_name(info.name) for key, info in definition.inputs.items()}
    return tf.compat.v1.saved_model.signature_def_utils.predict_signature_def(inputs, outputs)
