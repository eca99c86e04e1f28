"""Loading and unloading by gRPC, where the operator allows it."""

import grpc

from app.server import model_control
from app.server.orders import Orders
from app.server.rpc.status import Refused


class Control:
    """What `model_control` is to HTTP; no page of another site can send what it hears.

    Args:
        allowed: whether anything may be ordered.
    """

    def __init__(self, orders: Orders, allowed: bool) -> None:
        self._control = model_control.Control(orders, allowed)

    def check_allowed(self) -> None:
        """Refuse whatever is ordered where nothing may be.

        Raises:
            Refused: that is so.
        """
        if not self._control.allowed:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, model_control.NOT_ALLOWED)

    async def carry_out(self, do: str, model: str) -> None:
        """Have every worker load or unload a model.

        Raises:
            Refused: that is not allowed.
            LitepoolError: one of them could not.
        """
        self.check_allowed()
        await self._control.order(do, model)
