"""The ASGI application: every route in one place."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from app import __version__
from app.dataplane import DataPlane
from app.protocols.call import Wire
from app.protocols.wires import MAKERS
from app.rehearsal import try_samples
from app.repository.cache import Cache
from app.repository.convert import Converter
from app.repository.manager import Manager, Policy
from app.repository.trial import Trial
from app.runtime.pool import Pool
from app.runtime.servable import Lanes
from app.server import browsers, control, errors, inference, memory, model_control, openapi, page, serving
from app.server.channel import Message
from app.server.forward import Forwarding, Peers
from app.server.orders import Orders
from app.server.paths import TEMPLATES
from app.server.predict import Predict
from app.server.rpc import passing
from app.settings import Settings
from app.telemetry.metrics import Metrics

_POOL_NICE = 10
"""By how much pool threads give way to event loops. At equal priority a fast model's request that finds both processors
in the middle of a slow model's invoke waits for the kernel's next turn, up to 4 ms; a pool thread still gets a tenth of
a processor that a loop would like to have for itself."""

_CLOSE_SECONDS = 0.5
"""How long the threads may take to end when all requests are answered or cut off."""


@dataclass(frozen=True)
class Crew:
    """What a worker that is not alone knows of the others.

    Args:
        say: tells the parent.
        unloaded: the models that were unloaded by request before this worker was started.
        peers: the workers as owners of sequences.
    """

    say: Callable[[Message], None]
    unloaded: frozenset[str]
    peers: Peers


class Services:
    """What one worker consists of, made on its event loop."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, crew: Crew | None = None) -> None:
        self.metrics = Metrics(loop.call_later)
        self._pool = Pool(settings.pool_threads, _POOL_NICE)
        lanes = Lanes(
            self._pool,
            loop.call_soon,
            loop.call_later,
            loop.call_soon_threadsafe,
            settings.inline_us,
            settings.queue_size,
        )
        cache = Cache(settings.cache_dir, settings.cache_bytes)
        trial = Trial(cache, settings.load_timeout, settings.conversion_memory)
        converter = Converter(cache, trial, settings.conversion_timeout, settings.conversion_memory)
        policy = Policy(settings.load_timeout, settings.poll_seconds, settings.settle_seconds)
        self.manager = Manager(settings.models_dir, converter, lanes, settings.default_model, policy)
        self.manager.check = try_samples
        self.manager.freed = memory.trim
        self.unloaded = set(crew.unloaded) if crew is not None else set()
        self.orders = Orders(self.manager.order, crew.say if crew is not None else None)
        self.dataplane = DataPlane(self.manager, self.metrics, settings.request_timeout, settings.max_body_bytes)
        self.lingering = False
        """Whether, after `close`, a thread is still in an invoke that does not end."""

    def close(self) -> None:
        """End the threads; what they run is waited for, but not long."""
        loaded = self.manager.close(_CLOSE_SECONDS)
        self.lingering = not (self._pool.close(_CLOSE_SECONDS) and loaded)


def _nothing(_: Services) -> None:
    pass


def create_app(
    settings: Settings,
    on_settled: Callable[[Services], None] = _nothing,
    on_change: Callable[[Services], None] = _nothing,
    load_first: bool = False,
    crew: Crew | None = None,
) -> FastAPI:
    """Build the application; models are loaded when its lifespan starts.

    Args:
        on_settled: called on the loop once nothing of the first load is under way.
        on_change: called on the loop at the start, and after each change of what is loaded.
        load_first: the start of the lifespan waits for the first load, so that no connection is accepted before.
        crew: None for a worker that is alone.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        services = app.state.services = Services(settings, loop, crew)
        settled = asyncio.Event()
        _add_routes(app, services, settings, crew)

        def told() -> None:
            app.openapi_schema = None
            services.dataplane.refresh()
            on_change(services)
            if services.manager.settled.is_set() and not settled.is_set():
                settled.set()
                if not services.manager.draining:
                    on_settled(services)

        services.manager.changed = told
        services.manager.start(services.unloaded)
        told()
        try:
            if load_first:
                await settled.wait()
            yield
        finally:
            if crew is not None:
                crew.peers.close()
            # Here, since it is the loop that counts, and that may be about to do this itself.
            services.metrics.flush()
            await asyncio.to_thread(services.close)

    app = FastAPIOffline(
        redirect_slashes=False,
        title="Litepool",
        version=__version__,
        description="Keras and TFLite models over HTTP at the speed of the interpreter.",
        redoc_url=None,
        lifespan=lifespan,
    )
    errors.install(app)
    browsers.install(app, settings)
    return app


def _without_parameters(endpoint: Callable[..., Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A control endpoint for Starlette's own route; FastAPI answers HEAD, which some probes send, with 405."""

    async def answer(request: Request) -> Response:
        return await endpoint(**request.path_params)

    return answer


def _add_routes(app: FastAPI, services: Services, settings: Settings, crew: Crew | None) -> None:
    peers = crew.peers if crew is not None else None
    predictions: dict[Wire, ASGIApp] = {}
    for wire in MAKERS.keys() & TEMPLATES.keys():
        predict: ASGIApp = Predict(services.dataplane, settings.max_body_bytes, wire, peers)
        if peers is not None:
            predict = Forwarding(predict, peers)
        predictions[wire] = predict
        for path in TEMPLATES[wire]:
            app.router.routes.append(Route(path, predict, methods=["POST"]))
    if peers is not None and settings.grpc_port is not None:
        app.router.routes.extend(passing.routes(services.dataplane, settings.max_body_bytes))
    routes = control.router(services.manager, services.metrics)
    app.include_router(routes)
    orders = model_control.Control(services.orders, settings.model_control)
    app.include_router(model_control.router(services.manager, orders))
    servings = serving.router(services.manager)
    app.include_router(servings)
    inferences = inference.router(services.manager, services.metrics, orders)
    app.include_router(inferences)
    for route in (*routes.routes, *servings.routes, *inferences.routes):
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            app.router.routes.append(Route(route.path, _without_parameters(route.endpoint), methods=["HEAD"]))
    # Behind all others: it takes whatever there is below its path.
    for root in ("/v1", "/V1"):
        app.router.routes.append(Route(f"{root}/{{rest:path}}", serving.Malformed(predictions)))

    async def home(request: Request) -> Response:
        return page.answer(services.manager, request)

    app.router.routes.append(Route("/", home, methods=["GET"]))
    app.openapi = lambda: openapi.build(app, services.manager)  # type: ignore[method-assign]
