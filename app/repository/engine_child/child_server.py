"""Runs one SavedModel by TensorFlow, for models that TFLite cannot express. The other end is app/runtime/engine.py.

Run by path, not imported, as the conversion child is, whose checks and fences hold here too: they are taken from its
folder, and the form of the messages from app/runtime/frames.py by its path. Nothing else of ours is found here.

Standard input is a socket. The first message on it says what to load, and is answered with the model's signature, or
`{"error": "..."}`. After that comes a connection for each runner of the server, as a descriptor with one byte; on it
every message is an invoke. When the socket ends, so does this process, whatever it is at.
"""

import importlib.util
import os
import queue
import resource
import socket
import sys
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "conversion_child")]

_MOST_NOISE = 1 << 20
"""Bytes that may be written to a file, which standard error is."""


def load_frames() -> Any:
    """The server's own module, since both ends must agree."""
    spec = importlib.util.spec_from_file_location("child_frames", HERE.parents[1] / "runtime" / "frames.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


frames = load_frames()


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    request, _ = frames.receive(control)
    connections: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=watch, args=(control, connections), daemon=True).start()
    try:
        function = load(request)
    except Exception as error:
        frames.send(control, {"error": why(error, request["memory"])})
        os._exit(0)
    frames.send(control, function.description)
    while True:
        connection = socket.socket(fileno=connections.get())
        threading.Thread(target=serve, args=(connection, function.runner()), daemon=True).start()


def watch(control: socket.socket, connections: "queue.SimpleQueue[int]") -> None:
    """Take connections, and end with the server. From the start, since loading a model may take for ever."""
    try:
        while True:
            mark, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not mark:
                break
            for descriptor in descriptors:
                connections.put(descriptor)
    finally:
        # TensorFlow's threads need no orderly end.
        os._exit(0)


def load(request: dict[str, Any]) -> Any:
    """Set the limits, then import TensorFlow, then load the model: in this order."""
    from child_sandbox import READS, WRITES, fence, limit, readable

    limit(request["memory"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_NOISE, _MOST_NOISE))
    # What is imported keeps caches.
    fence(WRITES, [Path.cwd(), os.devnull])
    import tensorflow as tf

    source = Path(request["source"])
    fence(WRITES, [os.devnull])
    fence(READS, readable(source, HERE))
    tf.config.threading.set_intra_op_parallelism_threads(request["threads"])
    from child_function import Function

    return Function(tf, source, request["signature"], list(frames.DTYPES.values()))


def why(error: Exception, memory: int) -> str:
    """Why the model is not loaded, in one sentence."""
    from child_reasons import Refused, explain, is_out_of_memory

    if is_out_of_memory(error):
        return f"TensorFlow needs more than the {memory >> 20} MiB that it may use"
    return str(error) if isinstance(error, Refused) else explain(error)


def serve(connection: socket.socket, runner: Any) -> None:
    """Answer one runner's invokes until it is gone."""
    from child_function import brief

    with connection:
        while True:
            try:
                _, inputs = frames.receive(connection)
            except (OSError, frames.Ended, frames.Broken):
                return
            try:
                frames.send(connection, {}, runner.invoke(inputs))
            except OSError:
                return
            except Exception as error:
                frames.send(connection, {"error": brief(error)})


if __name__ == "__main__":
    main()
