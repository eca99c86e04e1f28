"""The application with its lifespan run, in this process: no port, and a loop that turns while a request is awaited."""

import asyncio
from collections.abc import Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import httpx

from app.server.app import Services, create_app
from app.settings import Settings

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which something that should have happened is a failure."""


class InProcess:
    """An application as a context, with a client for it.

    Args:
        models: the models folder.
        settle: wait until nothing of the first load is under way.
        settings: in place of the defaults; one pool thread, files loaded as soon as they are there, and the folder
            looked at only at start and when it is asked for, unless they say otherwise.
    """

    cache_dir: ClassVar[Path | None] = None
    """A cache for all, so that what is found of a model is found once; None: one beside the models folder."""

    def __init__(self, models: Path, *, settle: bool = True, **settings: Any) -> None:
        given: dict[str, Any] = {"workers": 1, "threads": 1, "poll_seconds": 0, "settle_seconds": 0}
        given["cache_dir"] = self.cache_dir or models.parent / "cache"
        self._settle = settle
        self._runner = asyncio.Runner()
        self._settled = asyncio.Event()
        self.settled_times = 0
        self.app = create_app(Settings(models_dir=models, **(given | settings)), self._on_settled)
        self._to_lifespan: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._from_lifespan: asyncio.Queue[Any] = asyncio.Queue()
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://litepool", timeout=PATIENCE)

    @property
    def services(self) -> Services:
        services = self.app.state.services
        assert isinstance(services, Services)
        return services

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Turn the loop until a coroutine is done."""
        return self._runner.run(asyncio.wait_for(coroutine, PATIENCE))

    def request(self, method: str, path: str, **parts: Any) -> httpx.Response:
        return self.run(self.client.request(method, path, **parts))

    def get(self, path: str, **parts: Any) -> httpx.Response:
        return self.request("GET", path, **parts)

    def post(self, path: str, document: Any) -> httpx.Response:
        return self.request("POST", path, json=document)

    def send(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        """Post a body with no headers but those given, `_` standing for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", path, content=body, headers=named)

    def wait_settled(self) -> None:
        self.run(self._settled.wait())

    def __enter__(self) -> Self:
        self.run(self._start())
        if self._settle:
            self.wait_settled()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._stop())
        self._runner.close()

    def _on_settled(self, _: Services) -> None:
        self.settled_times += 1
        self._settled.set()

    async def _start(self) -> None:
        scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.3"}, "state": {}}
        self._lifespan = asyncio.ensure_future(self.app(scope, self._to_lifespan.get, self._from_lifespan.put))
        await self._to_lifespan.put({"type": "lifespan.startup"})
        assert await self._from_lifespan.get() == {"type": "lifespan.startup.complete"}

    async def _stop(self) -> None:
        await self.client.aclose()
        await self._to_lifespan.put({"type": "lifespan.shutdown"})
        assert await self._from_lifespan.get() == {"type": "lifespan.shutdown.complete"}
        await self._lifespan


def error_of(response: httpx.Response, status: int) -> str:
    """The message of an error, which has our form and the right status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    message = body["error"]
    assert isinstance(message, str)
    assert message
    assert "Traceback" not in message
    return message


async def call_raw(
    application: Any,
    path: str,
    messages: Iterable[dict[str, Any]],
    headers: Iterable[tuple[bytes, bytes]] = (),
    method: str = "POST",
) -> list[dict[str, Any]]:
    """Call an ASGI application with the messages given, and no more than these; what it sent."""
    waiting = list(messages)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        assert waiting, "the application asked for more than there is"
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await application(scope, receive, send)
    return sent
