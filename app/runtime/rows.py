"""Whether a graph is known to treat each record alone, found by reading it and without running it.

One pass from the inputs to the outputs tells of every tensor along which axis the records lie in it, if they still lie
apart. A proof holds for the shapes that the file declares; what an interpreter makes of other shapes is for the probe
in `independence` to find, which runs in any case. It speaks of what is answered, not of failures: an index out of range
in one record fails the invoke for all.
"""

from dataclasses import dataclass
from typing import Literal

from app.runtime.graph import RANDOM_OPS, VARIABLE_OPS, Graph, Operator, Subgraph, Tensor
from app.runtime.row_rules import RULES
from app.runtime.row_sizes import follow
from app.runtime.row_values import Lost, Mixes, NotKnown, Plain, Records, Step, Value


@dataclass(frozen=True, slots=True)
class Rows:
    """What was found.

    Attributes:
        verdict: `independent` where every operator on the way to the outputs is known to treat rows alone;
            `mixing` where one is known not to; `unknown` where nothing can be said.
        reason: for people, for example "MEAN over the batch axis at 'model/mean'".
    """

    verdict: Literal["independent", "mixing", "unknown"]
    reason: str


def row_verdict(graph: Graph, subgraph: int = 0) -> Rows:
    """What the graph says of the rows of its inputs and outputs.

    Args:
        subgraph: the one that runs, by its index.
    """
    chosen = graph.subgraphs[subgraph]
    if not chosen.inputs or not chosen.outputs:
        return Rows("unknown", "it has no inputs or no outputs")
    for index in (*chosen.inputs, *chosen.outputs):
        if chosen.tensors[index].shape_signature[:1] != (-1,):
            return Rows("unknown", f"the leading dimension of {chosen.tensors[index].name!r} is not free")
    values = _follow(chosen)
    outputs = [(chosen.tensors[index].name, values[index]) for index in chosen.outputs]
    lost = sorted((value for _, value in outputs if isinstance(value, Lost)), key=lambda value: not value.mixing)
    if lost:
        return Rows("mixing" if lost[0].mixing else "unknown", lost[0].reason)
    for name, value in outputs:
        if isinstance(value, Plain):
            return Rows("unknown", f"the output {name!r} does not depend on what the records hold")
        if value != Records(0, 1):
            return Rows("mixing", f"the output {name!r} does not have one row for each record")
    return Rows("independent", "every operator from the inputs to the outputs treats rows alone")


def _follow(subgraph: Subgraph) -> dict[int, Value]:
    """What is known of every tensor that has a value."""
    values: dict[int, Value] = {
        index: Plain(tensor.integers()) for index, tensor in enumerate(subgraph.tensors) if not tensor.is_variable
    }
    values |= dict.fromkeys(subgraph.inputs, Records())
    for operator in subgraph.operators:
        value = _passed(operator, subgraph.tensors, values)
        if operator.name == "UNPACK" and isinstance(value, Plain):
            # Each output is another element; of which, nothing asks.
            value = Plain(None, value.sized)
        values |= dict.fromkeys(operator.outputs, value)
    return values


def _passed(operator: Operator, tensors: tuple[Tensor, ...], values: dict[int, Value]) -> Value:
    """What is known of an operator's outputs."""

    def lost(mixing: bool, reason: str) -> Lost:
        place = f" at {tensors[operator.outputs[0]].name!r}" if operator.outputs else ""
        return Lost(mixing, f"{operator.name} {reason}{place}")

    given = [values.get(index) for index in operator.inputs]
    before = sorted((value for value in given if isinstance(value, Lost)), key=lambda value: not value.mixing)
    if before:
        return before[0]
    if operator.custom:
        return lost(False, "is not an operator of LiteRT's own")
    if operator.name in VARIABLE_OPS or any(index >= 0 and tensors[index].is_variable for index in operator.inputs):
        return lost(True, "keeps a state from one invoke to the next")
    if operator.name in RANDOM_OPS:
        return lost(True, "draws random numbers")
    step = Step(
        operator,
        tuple(tensors[index] if index >= 0 else None for index in operator.inputs),
        tuple(value for value in given if not isinstance(value, Lost)),
    )
    try:
        if not any(isinstance(value, Records) for value in given):
            return follow(step) if operator.name in RULES or operator.name in KNOWN else lost(False, UNKNOWN)
        rule = RULES.get(operator.name)
        if rule is None:
            return lost(False, UNKNOWN)
        value = rule(step)
        # What is known of an input's inner sizes is not known of the output's.
        return value.at(value.axis) if isinstance(value, Records) and operator.name != "RESHAPE" else value
    except Mixes as reason:
        return lost(True, str(reason))
    except NotKnown as reason:
        return lost(False, str(reason))


UNKNOWN = "is not known to treat rows alone"
KNOWN = frozenset({"BROADCAST_ARGS", "DENSIFY", "FILL", "RANGE", "RANK", "SPARSE_TO_DENSE", "WHERE", "SCATTER_ND"})
"""Operators without a rule that give the same for the same inputs."""
