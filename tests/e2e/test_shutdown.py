"""SIGTERM and SIGINT under load: what was accepted is answered, and the exit code is 0."""

import io
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import numpy as np
import orjson
import psutil
import pytest

from tests.e2e.load import Exchange, Load
from tests.e2e.process import MODELS, PATIENCE, Litepool
from tests.e2e.reference import FILES, Reference
from tests.tflite import fixed_one

pytestmark = pytest.mark.slow

CLIENTS = 8
BUSY = 100


def exchanges(server: Litepool, reference: dict[str, Reference], rows: int, count: int) -> list[Exchange]:
    """Requests of `rows` records, each with what this server answers to it when nothing else goes on."""
    made = []
    with server.client() as client:
        for number in range(count):
            model = list(FILES)[number % len(FILES)]
            document = {"instances": reference[model].instances(np.arange(number, number + rows))}
            request = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
            reply = client.send("POST", f"/predict/{model}", request, {"Content-Type": "application/json"})
            assert reply.status == 200, reply
            made.append(Exchange(model, request, reply.body))
    return made


def stop_under_load(
    server: Litepool, reference: dict[str, Reference], number: signal.Signals, also: Sequence[psutil.Process] = ()
) -> None:
    """Signal a busy server, and see that each request was answered, on a connection kept and on one of its own.

    Args:
        also: processes that get the signal before the server does.
    """
    singles = exchanges(server, reference, 1, CLIENTS)
    # Half a megabyte each for mlp: some are always half sent, half decoded or half run.
    batches = exchanges(server, reference, 200, CLIENTS // 2)
    loads = [
        Load(server.url, singles, keep_alive=True),
        Load(server.url, singles, keep_alive=False),
        Load(server.url, batches, keep_alive=True),
    ]
    with ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
        for load in loads:
            load.wait_answered(BUSY)
        for load in loads:
            # Before it is sent: what holds this up then would be the end of the load, too.
            load.signalled()
        signalled = perf_counter()
        for process in also:
            process.send_signal(number)
        server.process.send_signal(number)
        tallies = [load.wait_refused() for load in loads]
    code = server.wait()
    print(f"\nended {perf_counter() - signalled:.2f} s after {number.name}; {tallies}")
    assert code == 0
    for tally, clients in zip(tallies, (CLIENTS, CLIENTS, CLIENTS // 2), strict=True):
        assert tally.faults == []
        assert tally.answered == tally.sent
        assert tally.refused == clients, "clients end when they are refused"
    assert sum(tally.after_signal for tally in tallies) > 0, "the server was not busy when it was told to stop"
    assert "Traceback" not in server.log.text()


@pytest.mark.parametrize("inline_us", ["300", "0"], ids=["inline", "pool"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_under_load_loses_no_request_that_was_accepted_and_ends_with_0(
    cache: Path, reference: dict[str, Reference], number: signal.Signals, inline_us: str
) -> None:
    settings: dict[str, str | Path] = {"inline_us": inline_us, "cache_dir": cache}
    with Litepool(MODELS, "--workers", "1", settings=settings) as server:
        server.wait_ready()

        stop_under_load(server, reference, number)


def test_an_invoke_that_does_not_end_in_time_is_cut_off_and_the_exit_code_is_0(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "slow.tflite").write_bytes(fixed_one())
    settings: dict[str, str | Path] = {"cache_dir": tmp_path / "cache", "drain_seconds": "0.3"}
    with Litepool(models, "--workers", "1", settings=settings) as server:
        server.wait_ready()
        # Record by record, which takes far longer than the drain may.
        body = io.BytesIO()
        np.save(body, np.zeros((3_000_000, 4), np.float32))
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as connection:
            head = f"POST /predict HTTP/1.1\r\nContent-Type: application/x-npy\r\nContent-Length: {body.tell()}\r\n\r\n"
            connection.sendall(head.encode() + body.getvalue())
            with server.client() as other:
                assert other.get("/livez").status == 200
            server.process.terminate()
            server.log.wait_for("1 connections were cut off")
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert server.wait() == 0
