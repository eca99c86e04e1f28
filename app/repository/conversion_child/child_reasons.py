"""Why a model is not converted: one sentence, for a person who can do something about it."""

import re
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_WRAPPER = re.compile(
    r"Exception encountered when calling |Error when deserializing |in user code:|Traceback |File \""
    r"|Graph execution error:|Detected at node |<stack traces unavailable>"
)
"""Lines that say where something went wrong; what it was follows."""


_BETWEEN_LAYERS = {"TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"}
"""What Keras 2 made of operations on its layers' outputs."""

_FLOATS = {"f64": "float64", "f16": "float16", "bf16": "bfloat16"}

_MISSING = "it needs operations that TFLite does not have"


class Refused(Exception):
    """The model is not converted, for a reason that a person can act on."""


class Inexpressible(Exception):
    """TensorFlow runs the model, and no rung of the ladder gave what LiteRT runs.

    Attributes:
        engine: what TensorFlow needs to serve it.
    """

    def __init__(self, reason: str, engine: dict[str, Any]) -> None:
        super().__init__(reason)
        self.engine = engine


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "failed to map segment" in str(error)


def explain(error: BaseException | None) -> str:
    """One sentence for an exception. Those of TensorFlow and Keras run to pages."""
    text = str(error)
    if isinstance(error, Refused):
        return text
    if found := re.search(r"(?:Could not locate (?:class|function)|Unknown layer:) '([^']+)'", text):
        name = found[1]
        if name in _BETWEEN_LAYERS:
            return (
                f"it holds TensorFlow operations between its layers ({name}), which Keras 3 does not load: "
                "export it as a SavedModel with the Keras that made it"
            )
        return (
            f"it needs the custom object {name!r}, whose code the file does not hold: use Keras' own layers, or export "
            "it as a SavedModel"
        )
    if found := re.search(r"Could not interpret (\w+) (?:function )?identifier: (\S+)", text):
        what = "a lambda" if "lambda" in found[2] else f"{found[2]!r}"
        return (
            f"it has a layer whose {found[1]} is {what}, whose code the file does not hold: use one of Keras' own, or "
            "export it as a SavedModel with the code that made it"
        )
    if "safe_mode=False" in text:
        return f"Keras does not load it in safe mode: {text.partition('. ')[0]}"
    if "not a valid parameter name" in text or "non-unique argument names" in text:
        return "Keras cannot export the names of its inputs: use letters, digits and '_' in them"
    if found := re.search(r"Op type not registered '([^']+)'", text):
        return f"it needs the operation {found[1]!r}, which is none of TensorFlow's own: use these"
    if "Could not find variable" in text or "uninitialized value" in text:
        return "it has variables without values, for its checkpoint does not hold them: save the model with its weights"
    if lacking := _lacking(text):
        return lacking
    lines = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]
    line = next((line for line in lines if not _WRAPPER.match(line)), lines[0] if lines else "")
    line = re.sub(r"<unknown>:0: |loc\(.*\): |\{\{.*?\}\} ", "", line)
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__


def retold(reason: str) -> str:
    """Why the parent does not take a candidate, where LiteRT's own words say too little."""
    if "hashtable need to be initialized" in reason:
        return f"{_MISSING}, InitializeTableFromTextFile: use tables that are filled from lists"
    return reason


def _lacking(text: str) -> str | None:
    """What the converter says that TFLite does not have."""
    if missing := re.findall(r"(?:Custom|TF Select) ops: ([\w, ]+)|'tf\.(\w+)' op is neither a custom op nor", text):
        names = dict.fromkeys(name.strip() for found in missing for name in "".join(found).split(","))
        if names := {name: None for name in names if not name.startswith("TensorList")}:
            if types := sorted(set(re.findall(r"tensor<[^>]*?x?(f64|f16|bf16)>", text))):
                return f"{_MISSING}, {', '.join(names)} on {' and '.join(_FLOATS[each] for each in types)}: use float32"
            return f"{_MISSING}, {', '.join(names)}: use other layers"
    if "TensorListReserve" in text:
        return (
            "it holds a recurrent layer over a free batch, which TFLite does not have: build that layer with "
            "unroll=True, for a fixed number of steps, or the model with a batch of 1"
        )
    return None


def names_operations(reason: str) -> bool:
    """Whether a reason of `explain`'s names what TFLite lacks."""
    return reason.startswith(_MISSING)
