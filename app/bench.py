"""`litepool bench`: a quick look at a running server's latency, from one process with keep-alive connections.

A closed loop: each connection sends its next request when it has the answer to the last. Good for "is it healthy and
about how fast"; the comparison with other servers, by proper load tools, is in the repository's benchmarks.
"""

import asyncio
import json
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from app.errors import NotFound, Unavailable


@dataclass(frozen=True, slots=True)
class Result:
    """What one run has measured. Latencies are in microseconds, sorted."""

    connections: int
    seconds: float
    latencies_us: list[float]
    failed: int

    @property
    def per_second(self) -> float:
        return len(self.latencies_us) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency in microseconds that `share` of the requests do not exceed."""
        return self.latencies_us[min(len(self.latencies_us) - 1, int(share * len(self.latencies_us)))]


def example_request(url: str, model: str | None) -> tuple[str, bytes]:
    """A path and a body that work, from the server's own API documentation.

    Raises:
        Unavailable: no server there.
        NotFound: it does not serve the model.
    """
    try:
        with urlopen(f"{url}/openapi.json", timeout=10) as answer:  # noqa: S310  The operator's own address.
            paths: dict[str, Any] = json.load(answer)["paths"]
    except (OSError, ValueError, KeyError) as error:
        raise Unavailable(f"no Litepool answers at {url}: {error}") from error
    path = f"/predict/{model}" if model else "/predict"
    if path not in paths:
        served = ", ".join(sorted(name for name in paths if name.startswith("/predict")))
        raise NotFound(f"{url} does not serve {path}; it serves {served or 'no model'}")
    examples = paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    return path, json.dumps(next(iter(examples.values()))["value"]).encode()


def run(url: str, path: str, body: bytes, connections: int, seconds: float) -> Result:
    """Load a server for a while.

    Raises:
        Unavailable: it cannot be connected to, or no request was answered.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    try:
        result = asyncio.run(_load(host, port, request, connections, seconds))
    except (OSError, asyncio.IncompleteReadError) as error:
        raise Unavailable(f"{url} broke off: {error}") from error
    if not result.latencies_us:
        raise Unavailable(f"{url} answered none of {result.failed} requests with 200")
    return result


async def _load(host: str, port: int, request: bytes, connections: int, seconds: float) -> Result:
    latencies: list[float] = []
    failed = 0
    start = perf_counter()

    async def client() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(host, port)
        while (sent := perf_counter()) - start < seconds:
            writer.write(request)
            if await _answered(reader):
                latencies.append((perf_counter() - sent) * 1e6)
            else:
                failed += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(connections)))
    return Result(connections, perf_counter() - start, sorted(latencies), failed)


async def _answered(reader: asyncio.StreamReader) -> bool:
    """Read one answer; whether it is a success."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return lines[0].split()[1] == b"200"
