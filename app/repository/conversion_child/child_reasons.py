"""Why a model is not converted: one sentence, for a person who can do something about it."""

import re

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_WRAPPER = re.compile(r"Exception encountered when calling |Error when deserializing |in user code:|Traceback |File \"")
"""Lines that say where something went wrong; what it was follows."""


class Refused(Exception):
    """The model is not converted, for a reason that a person can act on."""


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "failed to map segment" in str(error)


def explain(error: BaseException | None) -> str:
    """One sentence for an exception of TensorFlow's or Keras', whose texts run to pages."""
    text = str(error)
    if found := re.search(r"(?:Could not locate (?:class|function)|Unknown layer:) '([^']+)'", text):
        name = found[1]
        return f"it needs the custom object {name!r}, whose code the file does not hold: use Keras' own layers"
    if "safe_mode=False" in text:
        return f"Keras does not load it in safe mode: {text.partition('. ')[0]}"
    if "not a valid parameter name" in text or "non-unique argument names" in text:
        return "Keras cannot export the names of its inputs: use letters, digits and '_' in them"
    if "TensorListReserve" in text:
        return (
            "it holds a recurrent layer over a free batch, which TFLite does not have: build that layer with "
            "unroll=True, for a fixed number of steps, or the model with a batch of 1"
        )
    if missing := re.findall(r"(?:Custom|TF Select) ops: ([\w, ]+)", text):
        return f"it needs operations that TFLite does not have, {', '.join(map(str.strip, missing))}: use other layers"
    lines = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]
    line = next((line for line in lines if not _WRAPPER.match(line)), lines[0] if lines else "")
    line = re.sub(r"<unknown>:0: |loc\(.*\): |\{\{.*?\}\} ", "", line)
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__
