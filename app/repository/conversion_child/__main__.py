"""Converts one model to TFLite, in a process of its own: this folder is the only place that imports TensorFlow.

Run by path, not imported: `python -I` and this folder. Its files find each other as top-level modules, and nothing else
of ours, so that a model's code finds nothing else of ours either. They come before TensorFlow's own dependencies where
Python looks for modules, and hide none of these, because their names begin with `child_`.

It reads one JSON request from standard input and writes JSON lines to standard output: `{"stage": "..."}` as it goes
on, then `{"report": {...}}` or `{"error": "..."}`. In the folder `out` it leaves `model.tflite` and `parity.npz`:
seeded inputs with TensorFlow's own answers, arrays `in_0`, ..., `out_0`, ..., each `[rows, *record]`, in the order of
the names in the report.
"""

import json
import os
import sys
from typing import Any

from child_conversion import convert
from child_reasons import Refused, explain, is_out_of_memory
from child_sandbox import WRITES, confine, fence


def main() -> None:
    # The channel is the real standard output; what libraries print there goes to standard error.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    request = json.load(sys.stdin)
    confine(request["memory"], request["parent"])
    fence(WRITES, [request["out"], "/dev/null"])
    try:
        say({"report": convert(request, lambda stage: say({"stage": stage}))})
    except Refused as error:
        say({"error": str(error)})
    except Exception as error:
        too_little = (
            f"the conversion needs more than the {request['memory'] >> 20} MiB that it may use: "
            "give it more by --conversion-memory or LITEPOOL_CONVERSION_MEMORY"
        )
        say({"error": too_little if is_out_of_memory(error) else explain(error)})
    channel.flush()
    # TensorFlow's threads need no orderly end, and waiting for it costs a second.
    os._exit(0)


if __name__ == "__main__":
    main()
