"""The ladder: ways to bring a model into a form that TFLite's converter takes, tried one after another.

plain     its SavedModel as it is
concrete  its variables made constants, which frees the converter of handling them
fixed     besides, a batch of 1, and then also all other free dimensions at a size that TensorFlow ran: loops over lists
          of tensors, which recurrent layers are, need elements of known shape
v1        a model of TensorFlow 1, run in a session and saved again
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from child_models import KerasModel, Model
from child_reasons import Refused
from child_reference import Reference
from child_signature import Signature, shape_of

PLAIN, CONCRETE, FIXED, V1 = "plain", "concrete", "fixed", "v1"

_ELEMENT_SHAPES = {
    "TensorListReserve": 0,
    "EmptyTensorList": 0,
    "TensorListFromTensor": 1,
    "TensorListStack": 1,
    "TensorListPopBack": 1,
    "TensorListGetItem": 2,
    "TensorListGather": 2,
}
"""Operations on lists of tensors, and which of their inputs is the shape of an element."""


_ONE = "the batch is fixed at 1"


@dataclass(frozen=True)
class Rung:
    """One way. `make` returns a SavedModel that has the signatures; what is wrong with the model raises."""

    name: str
    note: str
    make: Callable[[list[Reference]], Path]


SpecOf = Callable[[Reference, str], Any]


def rungs_of(tf: Any, model: Model, found: list[Reference], work: Path) -> list[Rung]:
    """The rungs of a model from the first to the last."""
    fixed: list[tuple[str, SpecOf]] = []
    if any(each.signature.batching == "free" for each in found):
        fixed.append((_ONE, lambda *of: _fixed(tf, *of, inner=False)))
    if any(None in each.signature.record_shape(name) for each in found for name in each.signature.inputs):
        sizes = ", ".join(str(list(value.shape[1:])) for value in found[0].records.tensors.values())
        all_fixed = f"all dimensions are fixed: a record is {sizes}"
        fixed.append((all_fixed, lambda *of: _fixed(tf, *of, inner=True)))

    def of_v1(references: list[Reference], spec_of: SpecOf | None = None) -> Path:
        again = model.v1_again()
        if spec_of is None:
            return again.saved
        return save(tf, [_of(again, each) for each in references], spec_of, work / "rung")

    def make(spec_of: SpecOf) -> Callable[[list[Reference]], Path]:
        return lambda references: save(tf, references, spec_of, work / "rung")

    if model.is_v1_again:
        return [
            Rung(V1, "", lambda _: model.saved),
            *(Rung(V1, note, make(spec_of)) for note, spec_of in fixed),
        ]
    rungs = [
        Rung(PLAIN, "", lambda _: model.saved),
        Rung(CONCRETE, "", make(lambda reference, name: reference.signature.inputs[name])),
        *(Rung(FIXED, note, make(spec_of)) for note, spec_of in fixed),
    ]
    if isinstance(model, KerasModel) and fixed and fixed[-1][0] != _ONE:
        # From its layers, which know more of shapes than a graph that was made for all.
        rungs[-1] = Rung(FIXED, fixed[-1][0], partial(_traced, tf, model, work / "rung"))
    if model.is_v1:
        rungs.append(Rung(V1, "", of_v1))
        rungs += [Rung(V1, note, partial(of_v1, spec_of=spec_of)) for note, spec_of in fixed]
    return rungs


def _of(model: Model, reference: Reference) -> Reference:
    """The reference with the signature of the same name of another form of the model."""
    named = [each for each in model.signatures if each.name == reference.signature.name]
    if not named:
        raise Refused(f"its signature {reference.signature.name!r} cannot be frozen")
    return Reference(named[0], reference.records, reference.answers)


def _traced(tf: Any, model: KerasModel, place: Path, found: list[Reference]) -> Path:
    shapes = {name: list(_fixed(tf, found[0], name, inner=True).shape) for name in found[0].signature.inputs}
    return model.traced(shapes, place)


def _fixed(tf: Any, reference: Reference, name: str, *, inner: bool) -> Any:
    """The spec of an input with a batch of 1, or, `inner`, of the shape that its records have."""
    signature = reference.signature
    spec = signature.inputs[name]
    record = list(reference.records.tensors[name].shape[1:]) if inner else signature.record_shape(name)
    return tf.TensorSpec([1, *record] if signature.batching != "none" else record, spec.dtype, name=name)


def save(tf: Any, found: list[Reference], spec_of: Callable[[Reference, str], Any], place: Path) -> Path:
    """A SavedModel of functions without variables, their inputs as `spec_of` says."""
    functions = {}
    for each in found:
        specs = {name: spec_of(each, name) for name in each.signature.inputs}
        functions[each.signature.name] = frozen(tf, each.signature, specs)
    shutil.rmtree(place, ignore_errors=True)
    tf.saved_model.save(tf.Module(), str(place), signatures=functions)
    return place


def frozen(tf: Any, signature: Signature, specs: dict[str, Any]) -> Any:
    """A signature's function with constants for its variables, and inputs of the given specs.

    Raises:
        Refused: it changes variables, or has what is neither a tensor nor a variable.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if signature.keeps_state:
        raise Refused("it changes its variables, which thereby are no constants")
    function = convert_variables_to_constants_v2(signature.function, lower_control_flow=False)
    if len(function.inputs) != len(signature.inputs):
        raise Refused("it holds a table, or another resource, which cannot be made a constant")
    graph = function.graph.as_graph_def()
    for nodes in (graph.node, *(each.node_def for each in graph.library.function)):
        for node in nodes:
            # Found anew, from the new inputs.
            node.attr.pop("_output_shapes", None)
    if any(_leading(specs[name]) != _leading(spec) for name, spec in signature.inputs.items()):
        _fix_elements(tf, graph)
    # Tensors in the frozen graph have the order of the arguments, and of the outputs sorted by their names.
    places = {name: tensor.name for name, tensor in zip(_arguments(signature), function.inputs, strict=True)}
    results = [tensor.name for tensor in function.outputs]

    def serve(**given: Any) -> dict[str, Any]:
        fed = {place: given[name] for name, place in places.items()}
        made = tf.graph_util.import_graph_def(graph, fed, return_elements=results, name="")
        return dict(zip(sorted(signature.outputs), made, strict=True))

    return tf.function(serve).get_concrete_function(**specs)


def _leading(spec: Any) -> list[int | None]:
    return (shape_of(spec.shape) or [])[:1]


def _arguments(signature: Signature) -> list[str]:
    names: list[str] = list(signature.function._arg_keywords)
    return names


def _fix_elements(tf: Any, graph: Any) -> None:
    """Write a batch of 1 into the element shapes of lists, which were noted down when the batch was free.

    In the graph itself, not in the bodies of its loops: the converter finds these from there.
    """
    by_name = {node.name: node for node in graph.node}
    for node in graph.node:
        if node.op not in _ELEMENT_SHAPES:
            continue
        shape = by_name.get(node.input[_ELEMENT_SHAPES[node.op]].partition(":")[0])
        if shape is None or shape.op != "Const":
            continue
        sizes = tf.make_ndarray(shape.attr["value"].tensor).copy()
        if sizes.ndim == 1 and sizes[:1].tolist() == [-1]:
            sizes[0] = 1
            shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(sizes))
