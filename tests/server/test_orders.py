"""A worker's side of the orders: alone, and under a parent that is a list."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from app.errors import Internal, LitepoolError, ModelError, NotFound, Unavailable
from app.server.channel import Message
from app.server.orders import Done, Orders
from tests.server.inprocess import PATIENCE


class Models:
    """What is ordered, and is done when the test says so."""

    def __init__(self) -> None:
        self.ordered: list[tuple[str, str]] = []
        self.done: list[Done] = []

    def order(self, do: str, model: str, done: Done) -> None:
        self.ordered.append((do, model))
        self.done.append(done)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, PATIENCE))


async def turn() -> None:
    """Let everything happen that does not wait for something."""
    for _ in range(10):
        await asyncio.sleep(0)


def raising(error: Exception) -> Orders:
    """Orders that fail before they have begun."""

    def apply(do: str, model: str, done: Done) -> None:
        raise error

    return Orders(apply)


def at_once(do: str, model: str, done: Done) -> None:
    done(None)


def test_a_worker_that_is_alone_carries_out_its_own_orders_one_after_another() -> None:
    async def check() -> None:
        models = Models()
        orders = Orders(models.order)
        first = asyncio.ensure_future(orders.carry_out("unload", "a"))
        second = asyncio.ensure_future(orders.carry_out("load", "a"))
        await turn()
        assert models.ordered == [("unload", "a")]

        models.done[0](None)
        await first
        await turn()
        assert models.ordered == [("unload", "a"), ("load", "a")]
        assert not second.done()
        models.done[1](None)
        await second

    run(check())


def test_hundreds_of_orders_that_are_done_at_once_are_all_answered() -> None:
    async def check() -> None:
        orders = Orders(at_once)
        for _ in range(20):
            await asyncio.gather(*(orders.carry_out("rescan") for _ in range(50)))

    run(check())


@pytest.mark.parametrize("error", [ModelError("it does not open"), NotFound("no such model"), Unavailable("busy", 3)])
def test_what_goes_wrong_is_raised_as_it_was(error: LitepoolError) -> None:
    async def check() -> None:
        models = Models()
        order = asyncio.ensure_future(Orders(models.order).carry_out("load", "a"))
        await turn()
        models.done[0](error)
        with pytest.raises(type(error), match=error.message):
            await order

    run(check())


def test_an_order_that_cannot_even_begin_is_told_like_any_other_failure() -> None:
    with pytest.raises(NotFound, match="no such model"):
        run(raising(NotFound("no such model")).carry_out("load", "a"))
    with pytest.raises(Internal, match="its log has it as order"):
        run(raising(KeyError("a")).carry_out("load", "a"))


def test_a_failed_order_does_not_keep_the_next_from_being_carried_out() -> None:
    async def check() -> None:
        models = Models()
        orders = Orders(models.order)
        order = asyncio.ensure_future(orders.carry_out("load", "a"))
        await turn()
        models.done[0](ModelError("it does not open"))
        with pytest.raises(ModelError):
            await order
        order = asyncio.ensure_future(orders.carry_out("load", "b"))
        await turn()
        models.done[1](None)
        await order

    run(check())


def test_under_a_parent_it_asks_and_obeys_and_is_answered() -> None:
    async def check() -> None:
        models, said = Models(), list[Message]()
        orders = Orders(models.order, said.append)
        order = asyncio.ensure_future(orders.carry_out("load", "a"))
        await turn()
        assert said == [{"ask": 1, "do": "load", "model": "a"}]
        assert models.ordered == [], "it is for the parent to say when"

        orders.heard({"order": 12, "do": "load", "model": "a"})
        assert models.ordered == [("load", "a")]
        models.done[0](ModelError("it does not open"))
        assert said[1] == {"done": 12, "error": {"code": "FAILED_PRECONDITION", "message": "it does not open"}}

        await turn()
        assert not order.done()
        orders.heard({"answer": 1, "error": None})
        await order

    run(check())


def test_an_answer_for_a_client_that_has_gone_is_dropped() -> None:
    async def check() -> None:
        orders = Orders(Models().order, list[Message]().append)
        order = asyncio.ensure_future(orders.carry_out("load", "a"))
        await turn()
        order.cancel()
        await turn()

        orders.heard({"answer": 1, "error": None})

    run(check())


def test_a_server_that_stops_waits_for_no_order_and_takes_none() -> None:
    async def check() -> None:
        orders = Orders(Models().order)
        order = asyncio.ensure_future(orders.carry_out("load", "a"))
        await turn()

        orders.close()

        for each in (order, orders.carry_out("load", "b")):
            with pytest.raises(Unavailable, match="shutting down"):
                await each

    run(check())
