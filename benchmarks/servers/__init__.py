"""The servers that `make bench` measures, in the order of the tables. The peers are in `benchmarks.peers`."""

from benchmarks.servers.base import Launch, Server
from benchmarks.servers.baseline import FLOOR, FLOOR_SIZED, KERAS_CALL, KERAS_PREDICT, NAIVE
from benchmarks.servers.ours import ASGI, EXPRESS, EXPRESS_BOTH, EXPRESS_GRPC, EXPRESS_INT8

SERVERS = (FLOOR, EXPRESS_INT8, EXPRESS, ASGI, NAIVE, KERAS_CALL, KERAS_PREDICT)

__all__ = [
    "ASGI",
    "EXPRESS",
    "EXPRESS_BOTH",
    "EXPRESS_GRPC",
    "EXPRESS_INT8",
    "FLOOR",
    "FLOOR_SIZED",
    "NAIVE",
    "SERVERS",
    "Launch",
    "Server",
]
