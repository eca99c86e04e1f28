"""Two workers behind one port: one ready line, one set of metrics, and a dead worker is replaced."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from signal import SIGTERM

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.load import Load
from tests.e2e.process import MODELS, PATIENCE, Client, Litepool, poll
from tests.e2e.reference import Reference
from tests.e2e.test_shutdown import exchanges, stop_under_load

pytestmark = pytest.mark.slow

RECORD = {"instance": [0.5] * 256}


@pytest.fixture
def server(cache: Path) -> Iterator[Litepool]:
    """A server of this test alone, which may end it."""
    with Litepool(MODELS, "--workers", "2", settings={"cache_dir": cache}) as litepool:
        yield litepool.wait_ready()


@pytest.fixture(scope="module")
def shared(cache: Path) -> Iterator[Litepool]:
    with Litepool(MODELS, "--workers", "2", settings={"cache_dir": cache}) as litepool:
        yield litepool.wait_ready()


def serving(worker: psutil.Process) -> int:
    """How many connections a worker has taken up and not let go: one that its client has closed is its own still."""
    held = (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT)
    return sum(each.status in held for each in worker.net_connections("tcp"))


def connect(server: Litepool, count: int, stack: ExitStack) -> list[Client]:
    clients = [stack.enter_context(server.client()) for _ in range(count)]
    for client in clients:
        assert client.get("/livez").status == 200
    return clients


def connect_to_all(server: Litepool, workers: list[psutil.Process], stack: ExitStack) -> list[Client]:
    """Open connections until every worker has taken up one."""
    clients: list[Client] = []

    def open_more() -> bool:
        for _ in range(4):
            client = stack.enter_context(server.client())
            assert client.get("/livez").status == 200
            clients.append(client)
        return all(serving(worker) for worker in workers)

    poll("a connection for each worker", open_more)
    return clients


def has_counted(client: Client, requests: int) -> bool:
    """Whether /metrics knows of just so many good requests of mlp; more would be wrong at any time."""
    reply = client.get("/metrics")
    assert reply.status == 200
    counted = sum(
        sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
        if sample.name == "litepool_requests_total"
        and sample.labels["model"] == "mlp"
        and sample.labels["code"] == "OK"
    )
    assert counted <= requests
    return counted == requests


def has_models(worker: psutil.Process) -> bool:
    """Whether a worker has mapped a model's weights."""
    return "model.tflite" in Path(f"/proc/{worker.pid}/maps").read_text(encoding="utf-8")


def test_no_worker_has_a_library_of_tensorflow_in_it(shared: Litepool) -> None:
    for worker in shared.workers():
        maps = Path(f"/proc/{worker.pid}/maps").read_text(encoding="utf-8")

        assert "/ai_edge_litert/" in maps
        assert "/tensorflow/" not in maps


def test_a_worker_of_two_takes_less_than_90_mb(shared: Litepool) -> None:
    memory = [worker.memory_full_info() for worker in shared.workers()]
    parent = psutil.Process(shared.pid).memory_full_info()

    print("\nPSS of each worker:", *(f"{each.pss / 1e6:.1f} MB (RSS {each.rss / 1e6:.1f})" for each in memory))
    print(f"PSS of their parent: {parent.pss / 1e6:.1f} MB")
    assert len(memory) == 2
    assert all(each.pss < 90e6 for each in memory)


def test_either_worker_tells_the_requests_of_both(shared: Litepool) -> None:
    with ExitStack() as stack:
        clients = connect_to_all(shared, shared.workers(), stack)
        for client in clients:
            assert client.post("/predict/mlp", RECORD).status == 200
        # Each worker hands over its counts a moment later.
        for client in clients:
            poll("the requests of both workers", partial(has_counted, client, len(clients)))


def test_connections_are_spread_evenly_also_after_some_have_closed(server: Litepool) -> None:
    workers = server.workers()
    with ExitStack() as stack:
        clients = connect(server, 16, stack)
        assert [serving(worker) for worker in workers] == [8, 8]

        # Whoever they were with: the next ones go where there is room.
        for client in clients[:10:2]:
            client.close()
        poll("the closed connections to be noticed", lambda: sum(map(serving, workers)) == 11)
        connect(server, 5, stack)
        assert [serving(worker) for worker in workers] == [8, 8]


def test_a_worker_told_to_stop_by_itself_answers_what_it_has_and_is_replaced(
    server: Litepool, reference: dict[str, Reference]
) -> None:
    first, second = server.workers()
    singles = exchanges(server, reference, 1, 8)
    with Load(server.url, singles, keep_alive=False) as load:
        load.wait_answered(100)
        first.terminate()
        server.log.wait_for(rf"worker {first.pid} died \(exit code 0\) and is replaced")
        load.wait_answered(load.tally.answered + 100)
    assert load.tally.faults == []
    assert load.tally.answered == load.tally.sent
    assert second in server.workers()


def test_a_signal_to_the_parent_and_its_workers_at_once_loses_no_request(
    server: Litepool, reference: dict[str, Reference]
) -> None:
    stop_under_load(server, reference, SIGTERM, also=server.workers())


def test_a_killed_worker_is_replaced_while_the_other_serves_on_and_its_requests_stay_counted(server: Litepool) -> None:
    first, second = server.workers()
    with ExitStack() as stack:
        clients = connect_to_all(server, [first, second], stack)
        replies = [client.post("/predict/mlp", RECORD) for client in clients]
        poll("the requests of both workers", partial(has_counted, clients[0], len(replies)))

    first.kill()
    server.log.wait_for(rf"worker {first.pid} died \(SIGKILL\) and is replaced")

    def replaced() -> list[psutil.Process]:
        with server.client() as client:
            replies.append(client.post("/predict/mlp", RECORD))
        alive = server.workers()
        return alive if len(alive) == 2 and all(map(has_models, alive)) else []

    workers = poll("a new worker with its models", replaced)
    assert second in workers
    assert first not in workers
    with ExitStack() as stack:
        clients = connect_to_all(server, workers, stack)
        replies += [client.post("/predict/mlp", RECORD) for client in clients]
        assert [reply for reply in replies if reply.status != 200] == []
        assert len({reply.body for reply in replies}) == 1
        for client in clients:
            poll("the requests of all three", partial(has_counted, client, len(replies)))
    assert len(server.out.text().splitlines()) == 1, "it is ready once"


def test_a_parent_killed_outright_takes_its_workers_along(server: Litepool) -> None:
    workers = server.workers()

    server.process.kill()
    server.wait()

    assert psutil.wait_procs(workers, PATIENCE)[1] == []


def test_sigterm_under_load_loses_no_request_of_either_worker_and_ends_with_0(
    server: Litepool, reference: dict[str, Reference]
) -> None:
    workers = server.workers()
    assert len(workers) == 2

    stop_under_load(server, reference, SIGTERM)

    assert psutil.wait_procs(workers, 0)[1] == [], "a worker outlived its server"
    assert server.out.end() == [f"Litepool is ready on {server.url}: diabetes, digits, mlp (2 workers)"]
