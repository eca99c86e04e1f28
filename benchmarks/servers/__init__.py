"""The servers that `make bench` measures, in the order of the tables. The peers are in `benchmarks.peers`."""

from benchmarks.servers.base import Launch, Server
from benchmarks.servers.baseline import FLOOR, KERAS_CALL, KERAS_PREDICT, NAIVE
from benchmarks.servers.ours import ASGI, EXPRESS, EXPRESS_BOTH, EXPRESS_INT8

SERVERS = (FLOOR, EXPRESS_INT8, EXPRESS, ASGI, NAIVE, KERAS_CALL, KERAS_PREDICT)

__all__ = ["ASGI", "EXPRESS", "EXPRESS_BOTH", "EXPRESS_INT8", "FLOOR", "NAIVE", "SERVERS", "Launch", "Server"]
