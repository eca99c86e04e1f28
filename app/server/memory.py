"""How much memory a worker holds on to: the C library's habits, set for a server that should stay small."""

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_LARGE = 1 << 20
"""Blocks of this many bytes go back to the system when they are freed. glibc would raise the mark to whatever was freed
last, and a worker that has once seen a large batch would keep all its memory for ever."""

_ARENAS = 2
"""Heaps that threads share; glibc would make up to eight for each CPU."""


def _libc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def stay_small() -> None:
    """To be called before threads are started. Does nothing where the C library is not glibc."""
    libc = _libc()
    if libc is not None:
        for option, value in ((_M_TRIM_THRESHOLD, _LARGE), (_M_MMAP_THRESHOLD, _LARGE), (_M_ARENA_MAX, _ARENAS)):
            libc.mallopt(option, value)


def give_back() -> None:
    """Return what is free to the system: after the models are loaded, which takes far more than serving them.

    What is left is there to stay, so the collector need not look at it again: a look at all of it takes 30 ms.
    """
    gc.collect()
    gc.freeze()
    trim()


def trim() -> None:
    """Return what is free to the system: after a model has left the memory.

    What loading it left in circles goes first. That looks only at what came after the first load, which is little.
    """
    gc.collect()
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)
