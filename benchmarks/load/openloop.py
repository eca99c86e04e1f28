"""The open loop: requests fall due at times fixed beforehand, whether or not the earlier ones have been answered.

A request's latency counts from the moment it was due, not from the moment it could be sent, so a server that stalls
is charged for everybody who had to wait: nothing is omitted. Arrivals are random (Poisson) from a fixed seed. The
client runs in a process of its own and shares the machine's cores with the server: what it needs of them is reported.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import dataclasses
import gc
import json
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.connection import AnswerParser, BrokenAnswerError
from benchmarks.paths import ROOT
from benchmarks.stats import percentile
from benchmarks.wire import Request

PR_SET_TIMERSLACK = 29
SEED = 20240229
LEAST_DRAIN_S = 2.0


@dataclasses.dataclass(frozen=True)
class Open:
    """One run at one rate. What was not answered when the time was up counts as answered then: `unanswered` of them.

    What was refused (no 2xx) counts in `errors` and in no latency. `achieved` is good answers over the time from the
    first of them to the last, so that a latency which does not grow takes nothing from it. `late_p99_us` is how long
    after they were due requests were sent (no free connection, or the client itself was slow); `client_cpu` is the
    client's share of one core.
    """

    rate: float
    offered: float
    achieved: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    unanswered: int
    errors: int
    late_p99_us: float
    client_cpu: float


def schedule(rate: float, seconds: float, seed: int = SEED) -> NDArray[np.float64]:
    """Due times in seconds from the start, ascending; at least one."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, max(round(rate * seconds), 1))
    return np.cumsum(gaps)


class Link:
    """One non-blocking connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.parser = AnswerParser()
        self.answer = bytearray()
        self.unsent = memoryview(b"")
        self.index = -1

    def send(self, index: int, request: memoryview) -> bool:
        """False when the socket's buffer is full and the rest must wait for EPOLLOUT."""
        self.index = index
        self.unsent = request
        return self.push()

    def push(self) -> bool:
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return False
        return True

    def receive(self) -> bool:
        """True when the answer is whole; the link is then free again."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return False
        if not data:
            raise BrokenAnswerError("the server closed a connection")
        self.answer += data
        if not self.parser.whole(self.answer):
            return False
        self.answer.clear()
        return True


class Client:
    """Sends what is due over free links, first freed first used. One run, one thread."""

    def __init__(self, port: int, request: bytes, due: NDArray[np.float64], links: int) -> None:
        self._port = port
        self._request = memoryview(request)
        self.due = due
        self._poll = select.epoll()
        self._free = collections.deque(Link(port) for _ in range(links))
        self._links = {link.socket.fileno(): link for link in self._free}
        for number in self._links:
            self._poll.register(number, select.EPOLLIN)
        self.sent_at: list[float] = []
        self.answered_at = [0.0] * len(self.due)
        self.refused = [False] * len(self.due)

    def run(self, drain: float) -> float:
        """Returns the moment of giving up or being done; all moments are seconds from the start."""
        due, free, clock = self.due.tolist(), self._free, time.perf_counter
        start, count, done, sent = clock(), len(self.due), 0, 0
        end = due[-1] + drain
        now = 0.0
        while done < count and now < end:
            while free and sent < count and due[sent] <= now:
                link = free.popleft()
                if not link.send(sent, self._request):
                    self._poll.modify(link.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
                self.sent_at.append(now)
                sent += 1
                now = clock() - start
            # epoll's own time-out counts milliseconds; select's, on the epoll's descriptor, microseconds.
            until = due[sent] if free and sent < count else end
            select.select([self._poll], [], [], max(until - now, 0))
            for number, event in self._poll.poll(0):
                done += self._advance(self._links[number], event, clock() - start)
            now = clock() - start
        return now

    def _advance(self, link: Link, event: int, now: float) -> int:
        if event & select.EPOLLOUT and link.push():
            self._poll.modify(link.socket.fileno(), select.EPOLLIN)
        if link.index < 0:
            # Closed while it was idle, as a server may: it kept it longer than it keeps connections.
            self._reopen(link)
            return 0
        if not event & ~select.EPOLLOUT or not link.receive():
            return 0
        self.answered_at[link.index] = now
        self.refused[link.index] = not link.parser.good
        link.index = -1
        self._free.append(link)
        return 1

    def close(self) -> None:
        for link in self._links.values():
            link.socket.close()
        self._poll.close()

    def _reopen(self, closed: Link) -> None:
        number = closed.socket.fileno()
        self._poll.unregister(number)
        del self._links[number]
        closed.socket.close()
        self._free.remove(closed)
        link = Link(self._port)
        self._links[link.socket.fileno()] = link
        self._poll.register(link.socket.fileno(), select.EPOLLIN)
        self._free.append(link)


def per_second(moments: NDArray[np.float64]) -> float:
    """How often, between the first and the last."""
    return (len(moments) - 1) / max(float(np.ptp(moments)), 1e-9) if len(moments) > 1 else 0.0


def figures(rate: float, client: Client, end: float, cpu: float) -> Open:
    """From the moments to the result."""
    due, sent, answered = client.due, np.asarray(client.sent_at), np.asarray(client.answered_at)
    refused = np.asarray(client.refused)
    missing = answered == 0
    good = answered[~missing & ~refused]
    latencies = ((np.where(missing, end, answered) - due) * 1e6)[~refused]
    return Open(
        rate=rate,
        offered=per_second(due),
        achieved=per_second(good),
        p50_us=percentile(latencies, 50),
        p90_us=percentile(latencies, 90),
        p99_us=percentile(latencies, 99),
        p999_us=percentile(latencies, 99.9),
        max_us=float(latencies.max(initial=0)),
        unanswered=int(missing.sum()),
        errors=int(refused.sum()),
        late_p99_us=percentile((sent - due[: len(sent)]) * 1e6, 99),
        client_cpu=cpu / end,
    )


def measure(request: Request, rate: float, seconds: float, links: int = 128) -> Open:
    """In a process of its own. Raises CalledProcessError when the server closes a connection."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(request.raw())
        file.flush()
        words = [sys.executable, "-m", "benchmarks.load.openloop", str(request.port), file.name]
        words += [f"--rate={rate}", f"--seconds={seconds}", f"--links={links}"]
        done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Open(**json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("request", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--links", type=int, default=128)
    options = parser.parse_args()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    due = schedule(options.rate, options.seconds)
    client = Client(options.port, options.request.read_bytes(), due, options.links)
    gc.disable()
    cpu = time.process_time()
    end = client.run(drain=max(options.seconds, LEAST_DRAIN_S))
    result = figures(options.rate, client, end, time.process_time() - cpu)
    print(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    main()
