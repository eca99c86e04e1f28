"""Other servers, each in an environment of its own: `python -m benchmarks --peers`.

What is in the folders beside this file runs in those environments and is no part of this package.
"""

from benchmarks.peers.definitions import PEERS, TRITON_GRPC

__all__ = ["PEERS", "TRITON_GRPC"]
