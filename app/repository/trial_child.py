"""Opens models that nobody has opened yet, each in a process of its own, which may well crash.

Its `main` is run by `python -I` with the argument FD. It imports LiteRT once and waits on the socket FD for requests,
one JSON line each with a socket to answer on, for which it forks: that takes milliseconds, where a new Python takes
half a second. It ends when the other end is closed, or when nothing was asked for a while.

For each request a process is forked that watches one more, in which the model is opened: so that a crash and its kind
are told, and a model that never ends is ended.
"""

import array
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import LitepoolError
from app.repository.examine import examine

_IDLE_SECONDS = 60.0
_LONGEST_PATH = 1 << 16


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.settimeout(_IDLE_SECONDS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while True:
        try:
            message, rights, _, _ = control.recvmsg(_LONGEST_PATH, socket.CMSG_LEN(4))
        except TimeoutError:
            return
        if not message:
            return
        reply = socket.socket(fileno=array.array("i", rights[0][2])[0])
        if os.fork() == 0:
            control.close()
            _watch(json.loads(Path(message.decode()).read_text()), reply)
            os._exit(0)
        reply.close()


def _watch(request: dict[str, Any], reply: socket.socket) -> None:
    """Have the model opened, and tell how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        _confine(request)
        _answer(request)
        os._exit(0)
    status = _wait(child, reply, request["seconds"])
    if status is None:
        verdict: dict[str, Any] = {"late": True}
    elif os.WIFSIGNALED(status):
        verdict = {"died": signal.Signals(os.WTERMSIG(status)).name}
    else:
        verdict = {"exit": os.WEXITSTATUS(status)}
    with suppress(OSError):
        reply.sendall(json.dumps(verdict).encode())


def _wait(child: int, reply: socket.socket, seconds: float) -> int | None:
    """The status of a child that has ended; None when it took longer, or nobody waits any more, and was ended."""
    pidfd = os.pidfd_open(child)
    # What is asked sends nothing more: it can be read from only when the other end is closed.
    ready, _, _ = select.select([pidfd, reply.fileno()], [], [], seconds)
    ended = pidfd in ready
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status if ended else None


def _confine(request: dict[str, Any]) -> None:
    # Its files are not modules of ours, because it runs where none of ours is to be found.
    sys.path.insert(0, str(Path(__file__).with_name("conversion_child")))
    from child_sandbox import READS, WRITES, confine, fence, readable  # noqa: PLC0415

    out, model = request["out"], request["model"]
    others = [path for path in (request["reference"], request["records"]) if path is not None]
    confine(request["memory"], os.getppid())
    fence(WRITES, [out, "/dev/null"])
    # Also what tells LiteRT which processor it has: without it, it takes slower kernels than the server will.
    fence(READS, [*readable(Path(model), Path(out)), *others])


def _answer(request: dict[str, Any]) -> None:
    out = Path(request["out"])
    try:
        found: dict[str, Any] = {"found": examine(Path(request["model"]), request, out)}
    except LitepoolError as error:
        found = {"error": error.message}
    except MemoryError:
        found = {"error": f"it needs more than the {request['memory'] >> 20} MiB of memory that it may use"}
    except Exception:  # noqa: BLE001  The parent logs it.
        found = {"fault": traceback.format_exc()}
    (out / "trial.json").write_text(json.dumps(found))
