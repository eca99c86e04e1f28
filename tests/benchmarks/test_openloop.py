"""The open loop's arithmetic: when requests fall due, and what the latencies are counted from."""

import contextlib
import socket
import threading
from typing import cast

import numpy as np
import pytest

from benchmarks.load.openloop import Client, Open, figures, per_second, schedule


class Finished:
    """A client whose run is over, with moments of our choice."""

    def __init__(self, due: list[float], sent: list[float], answered: list[float], refused: list[bool]) -> None:
        self.due = np.array(due)
        self.sent_at = sent
        self.answered_at = answered
        self.refused = refused


def result(
    due: list[float], sent: list[float], answered: list[float], refused: list[bool] | None = None, end: float = 10
) -> Open:
    client = Finished(due, sent, answered, refused or [False] * len(due))
    return figures(100, cast("Client", client), end, cpu=1)


def test_a_schedule_is_the_same_every_time_and_has_the_rate_it_was_asked_for() -> None:
    due = schedule(1000, 20)
    assert np.array_equal(due, schedule(1000, 20))
    assert per_second(due) == pytest.approx(1000, rel=0.03)


def test_a_schedule_never_goes_back() -> None:
    assert (np.diff(schedule(5000, 2)) > 0).all()


def test_even_the_lowest_rate_has_a_request() -> None:
    assert len(schedule(0.1, 1)) == 1


def test_latency_counts_from_the_moment_due_and_not_from_the_sending() -> None:
    found = result(due=[1.0, 2.0], sent=[1.0, 4.0], answered=[1.5, 4.5])
    assert found.max_us == pytest.approx(2.5e6)
    assert found.late_p99_us == pytest.approx(2e6)


def test_what_was_not_answered_counts_as_answered_when_the_run_was_given_up() -> None:
    found = result(due=[1.0, 2.0], sent=[1.0, 2.0], answered=[1.5, 0.0], end=9)
    assert found.unanswered == 1
    assert found.max_us == pytest.approx(7e6)


def test_refused_requests_are_errors_and_in_no_latency() -> None:
    found = result([1, 2, 3], [1, 2, 3], [1.5, 2.001, 3.5], [False, True, False])
    assert found.errors == 1
    assert found.p50_us == pytest.approx(0.5e6)


def test_a_constant_latency_takes_nothing_from_what_was_achieved() -> None:
    due = [0.0, 1.0, 2.0, 3.0]
    found = result(due, due, [moment + 0.9 for moment in due])
    assert found.achieved == pytest.approx(found.offered)


def test_a_growing_backlog_shows_as_fewer_answers_than_arrivals() -> None:
    found = result([0, 1, 2, 3], [0, 1, 2, 3], [2, 4, 6, 8])
    assert found.achieved == pytest.approx(found.offered / 2)


def test_nothing_answered_is_a_rate_of_zero() -> None:
    assert result([1, 2], [1, 2], [0, 0]).achieved == 0


def test_a_connection_that_the_server_closes_between_requests_is_opened_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1000)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            client = Client(listener.getsockname()[1], b"GET / HTTP/1.1\r\n\r\n", np.array([0.0, 0.05, 0.1]), links=1)
            client.run(drain=30)
            client.close()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()

    assert all(client.answered_at)
    assert not any(client.refused)
