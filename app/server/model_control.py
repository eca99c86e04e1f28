"""Loading and unloading by HTTP, in all workers, where the operator allows it."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from app.errors import ModelError, Unavailable
from app.repository.manager import Manager
from app.server.control import list_models, show_model
from app.server.dispatch import LOAD, RESCAN, UNLOAD
from app.server.orders import Orders

NOT_ALLOWED = (
    "models are not loaded and unloaded by request here: to allow it, start the server with --model-control "
    "(LITEPOOL_MODEL_CONTROL=1)"
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "It was not done in every worker; the message says why",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}


class Control:
    """Carries out what requests order, by whatever path they come.

    Args:
        allowed: whether anything may be ordered.
    """

    def __init__(self, orders: Orders, allowed: bool) -> None:
        self._orders = orders
        self.allowed = allowed

    def check(self, request: Request) -> None:
        """Refuse what may not be ordered, here or by who sends it.

        Raises:
            HTTPException: 403.
        """
        if not self.allowed:
            raise HTTPException(403, NOT_ALLOWED)
        if _is_from_another_site(request):
            raise HTTPException(403, f"a page of {request.headers['origin'][:200]} may not order anything here")

    async def carry_out(self, request: Request, do: str, model: str = "") -> None:
        """Have every worker do it; the arguments are those of `Orders.carry_out`.

        Raises:
            HTTPException: it may not be ordered.
            LitepoolError: a worker could not.
        """
        self.check(request)
        await self.order(do, model)

    async def order(self, do: str, model: str = "") -> None:
        """The same, for who may.

        Raises:
            LitepoolError: a worker could not.
        """
        try:
            await self._orders.carry_out(do, model)
        except ModelError as error:
            raise Unavailable(error.message) from None


def router(manager: Manager, control: Control) -> APIRouter:
    """The routes; where they are not allowed they say so, and are in no documentation."""
    routes = APIRouter(tags=["models"], include_in_schema=control.allowed, responses=_RESPONSES)

    @routes.post("/models/rescan", summary="Look for new models and versions now")
    async def rescan(request: Request) -> Response:
        await control.carry_out(request, RESCAN)
        return list_models(manager)

    @routes.post("/models/{model}/load", summary="Serve a model again, or a new version of it now")
    async def load(request: Request, model: str) -> Response:
        await control.carry_out(request, LOAD, model)
        return show_model(manager, model)

    @routes.post("/models/{model}/unload", summary="Serve a model no more, until it is loaded again")
    async def unload(request: Request, model: str) -> Response:
        await control.carry_out(request, UNLOAD, model)
        return show_model(manager, model)

    return routes


def _is_from_another_site(request: Request) -> bool:
    """Whether a browser sends this for a page that is not ours: any page can make it post here."""
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")
