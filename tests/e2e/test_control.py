"""Two workers as one server: models loaded and unloaded in both, and sequences that each belong to one of them."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM

import numpy as np
import psutil
import pytest

from app.server.forward import Peers
from tests import tflite
from tests.e2e.process import Client, Litepool, Reply, poll
from tests.e2e.test_workers import connect_to_all, serving

pytestmark = pytest.mark.slow

RECORD = {"instance": [1, 2, 3, 4]}
BODY = b'{"instance": [1, 2, 3, 4]}'
NPY = "application/x-npy"
JSON = "application/json"
ANSWER = {"prediction": [3, 5, 7, 9]}
SUM = {"prediction": [1, 2, 3, 4]}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "affine.tflite").write_bytes(tflite.affine())
    # Only a model with state has sequences. It goes record by record, so that a large batch takes long.
    (folder / "sum.tflite").write_bytes(tflite.running_sum())
    return folder


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for what each of the servers would find of the same two models."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def server(models: Path, findings: Path) -> Iterator[Litepool]:
    settings: dict[str, str | Path] = {"cache_dir": findings, "settle_seconds": "0"}
    with Litepool(models, "--workers", "2", "--model-control", settings=settings) as litepool:
        yield litepool.wait_ready()


def socket_paths(worker: psutil.Process) -> list[Path]:
    """The names under which a worker has made its own socket."""
    paths = [Path(str(each.laddr)) for each in worker.net_connections("unix") if each.laddr]
    return [path for path in paths if path.parent.name.startswith("litepool-")]


def place_of(worker: psutil.Process) -> int:
    """A worker's place among the workers."""
    return int(socket_paths(worker)[0].stem)


def by_place(server: Litepool) -> list[psutil.Process]:
    return sorted(server.workers(), key=place_of)


def sequence_of(owner: int) -> str:
    """A sequence that is one worker's."""
    peers = Peers(Path(), 0, 2, 1, 1)
    return next(name for name in map(str, range(100)) if peers.owner_of(name) == owner)


def client_of(server: Litepool, worker: psutil.Process, stack: ExitStack) -> Client:
    """A connection that this worker has taken up."""
    while True:
        before = serving(worker)
        client = stack.enter_context(server.client())
        assert client.get("/livez").status == 200
        if serving(worker) > before:
            return client


def predict(client: Client, sequence: str) -> Reply:
    """A sequence begun anew, whose first sum is the record itself."""
    headers = {"Litepool-Sequence-Id": sequence, "Litepool-Sequence-Start": "true"}
    return client.send("POST", "/predict/sum", BODY, headers)


def npy(rows: int) -> bytes:
    body = io.BytesIO()
    np.save(body, np.ones((rows, 4), np.float32))
    return body.getvalue()


def begin(client: Client, sequence: str, body: bytes, sent: int, kind: str = NPY) -> None:
    """Send a request that starts a sequence, but only the first bytes of its body."""
    headers = {"Content-Type": kind, "Accept": kind, "Content-Length": str(len(body))}
    headers |= {"Litepool-Sequence-Id": sequence, "Litepool-Sequence-Start": "true"}
    client.ask("POST", "/predict/sum", body[:sent], headers)


# Loading and unloading


def test_what_one_worker_is_told_to_unload_and_load_is_true_for_both(server: Litepool) -> None:
    with ExitStack() as stack:
        clients = connect_to_all(server, server.workers(), stack)
        for client in (clients[0], clients[-1]):
            assert client.send("POST", "/models/affine/unload").status == 200
            assert {each.post("/predict/affine", RECORD).status for each in clients} == {503}
            assert {each.post("/predict/sum", RECORD).status for each in clients} == {200}

            assert client.send("POST", "/models/affine/load").status == 200
            replies = [each.post("/predict/affine", RECORD) for each in clients]
            assert [reply.json() for reply in replies] == [ANSWER] * len(clients)


def test_a_worker_that_replaces_another_does_not_serve_what_was_unloaded_before(server: Litepool) -> None:
    first, second = server.workers()
    with ExitStack() as stack:
        clients = connect_to_all(server, [first, second], stack)
        assert clients[0].send("POST", "/models/affine/unload").status == 200
    first.kill()
    server.log.wait_for(rf"worker {first.pid} died \(SIGKILL\) and is replaced")
    workers = poll("a new worker", lambda: server.workers() if len(server.workers()) == 2 else [])

    with ExitStack() as stack:
        clients = connect_to_all(server, workers, stack)
        assert {client.post("/predict/affine", RECORD).status for client in clients} == {503}
        assert {client.post("/predict/sum", RECORD).status for client in clients} == {200}
        assert clients[0].send("POST", "/models/affine/load").status == 200
        assert {client.post("/predict/affine", RECORD).status for client in clients} == {200}


def test_a_worker_that_dies_over_an_order_does_not_keep_its_client_waiting(server: Litepool) -> None:
    workers = by_place(server)
    with ExitStack() as stack:
        client = client_of(server, workers[1], stack)
        workers[0].suspend()
        client.ask("POST", "/models/affine/unload")

        workers[0].kill()

        assert client.reply().status == 200


# Sequences


def test_a_sequence_is_answered_by_its_owner_and_503_while_that_one_is_away(server: Litepool) -> None:
    workers = by_place(server)
    with ExitStack() as stack:
        clients = [client_of(server, worker, stack) for worker in workers]
        for owner in (0, 1):
            for client in clients:
                assert predict(client, sequence_of(owner)).json() == SUM

        workers[0].kill()
        poll("the owner's death", lambda: not workers[0].is_running() or workers[0].status() == psutil.STATUS_ZOMBIE)
        reply = predict(clients[1], sequence_of(0))

        assert reply.status == 503
        assert reply.headers["retry-after"] == "1"
        assert reply.json().keys() == {"error"}
        assert predict(clients[1], sequence_of(1)).json() == SUM
        poll("its successor", lambda: predict(clients[1], sequence_of(0)).status == 200)


def test_a_request_waits_for_its_owner_and_no_other_worker_answers_it(server: Litepool) -> None:
    workers = by_place(server)
    with ExitStack() as stack:
        client, other = (client_of(server, workers[1], stack) for _ in range(2))
        workers[0].suspend()
        begin(client, sequence_of(0), BODY, len(BODY), JSON)
        poll("it to be passed on", lambda: passed_on(workers[0]))
        assert predict(other, sequence_of(1)).json() == SUM

        workers[0].resume()

        assert client.reply().json() == SUM


def passed_on(owner: psutil.Process) -> int:
    """How many connections other workers have to this one's socket; they keep them for the next request."""
    mine = Path(f"/proc/{owner.pid}/net/unix").read_text(encoding="utf-8")
    path = next(path for path in socket_paths(owner) if path.stem == "0")
    return sum(line.endswith(str(path)) for line in mine.splitlines()) - 1


# The end


def test_sigterm_loses_no_request_that_is_to_be_passed_on_and_of_which_only_a_part_has_come(server: Litepool) -> None:
    workers = by_place(server)
    body = npy(10)
    with ExitStack() as stack:
        clients = [client_of(server, worker, stack) for worker in workers]
        for client, owner in zip(clients, (1, 0), strict=True):
            begin(client, sequence_of(owner), body, 50)
        server.process.send_signal(SIGTERM)
        poll("all workers to drain", lambda: server.log.text().count("draining: ") == 2)
        clients[0].more(body[50:])
        replies = [clients[0].reply()]
        # This one has nothing to do any more but for what the other may pass on.
        poll("a worker that waits for the other", lambda: serving(workers[0]) == 0)
        clients[1].more(body[50:])
        replies.append(clients[1].reply())

        assert server.wait() == 0

    assert [reply.status for reply in replies] == [200, 200]
    assert [reply.headers["connection"] for reply in replies] == ["close", "close"]
    assert "Traceback" not in server.log.text()


def test_sigterm_loses_no_request_that_its_owner_is_at_work_on(server: Litepool) -> None:
    workers = by_place(server)
    body = npy(30_000)
    with ExitStack() as stack:
        client = client_of(server, workers[1], stack)
        begin(client, sequence_of(0), body, len(body))
        poll("the owner to be at work", lambda: passed_on(workers[0]))
        server.process.send_signal(SIGTERM)
        reply = client.reply()

        assert server.wait() == 0

    assert reply.status == 200
    assert len(reply.body) == len(body)


def test_a_worker_told_to_stop_by_itself_does_not_wait_for_the_other(server: Litepool) -> None:
    workers = by_place(server)
    with ExitStack() as stack:
        client = client_of(server, workers[1], stack)
        assert predict(client, sequence_of(0)).json() == SUM

        workers[0].terminate()
        server.log.wait_for(rf"worker {workers[0].pid} died \(exit code 0\) and is replaced")

        poll("its successor", lambda: predict(client, sequence_of(0)).status == 200)
        assert "have not ended their requests" not in server.log.text()


def test_the_server_leaves_no_socket_behind_and_none_but_its_user_may_use_them(server: Litepool) -> None:
    folder = socket_paths(server.workers()[0])[0].parent
    assert folder.stat().st_mode & 0o077 == 0
    assert {path.name for path in folder.iterdir()} == {"0.sock", "1.sock"}

    assert server.stop() == 0

    assert not folder.exists()
