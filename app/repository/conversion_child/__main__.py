"""Converts one model to TFLite, in a process of its own: this folder is the only place that imports TensorFlow.

Run by path, not imported: `python -I` and this folder. Its files find each other as top-level modules, and nothing else
of ours, so that a model's code finds nothing else of ours either. They come before TensorFlow's own dependencies where
Python looks for modules, and hide none of these, because their names begin with `child_`.

It reads one JSON request, a line, from standard input and writes JSON lines to standard output: `{"stage": "..."}` as
it goes on, `{"candidate": {...}}` for every file that it has converted, and at the end `{"report": {...}}` or
`{"error": "..."}`. After a candidate it waits for a line, `{"ok": true}` or `{"ok": false, "reason": "..."}`: the
parent runs the file, which this process, to which TensorFlow belongs, does not.

In the folder `out` it leaves the converted files, and `parity.npz`: inputs with TensorFlow's own answers. For the
signature that candidate and report call number k, 0 being the default, these are `in_<k>_<i>` and `out_<k>_<i>`, each
`[rows, *record]` and in the order of the names there, and, where the answers came of one batch, `alone_<k>_<i>`:
answers to the first rows, each asked about alone. Where TFLite can express nothing of the model and TensorFlow runs
it, the error has `engine`, and the folder `engine` is a SavedModel for TensorFlow to serve.
"""

import json
import os
import sys
from typing import Any

from child_conversion import convert
from child_reasons import Inexpressible, Refused, explain, is_out_of_memory
from child_sandbox import WRITES, confine, fence


def main() -> None:
    # The channel is the real standard output; what libraries print there goes to standard error.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    def ask(candidate: dict[str, Any]) -> str | None:
        say({"candidate": candidate})
        answer = json.loads(sys.stdin.readline() or "null")
        if answer is None:
            # There is nobody left to convert for.
            os._exit(1)
        return None if answer["ok"] else str(answer.get("reason"))

    request = json.loads(sys.stdin.readline())
    confine(request["memory"], request["parent"])
    fence(WRITES, [request["out"], "/dev/null"])
    try:
        say({"report": convert(request, lambda stage: say({"stage": stage}), ask)})
    except Inexpressible as error:
        say({"error": str(error), "engine": {"reason": str(error), **error.engine}})
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
