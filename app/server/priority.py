"""How soon the event loop's thread gets a processor that a slow model's thread is using."""

import ctypes
import logging
import os
import platform
import struct
import sys

log = logging.getLogger(__name__)

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_RESET_ON_FORK = 1
_SLICE_NS = 100_000


def ask_for_short_turns() -> None:
    """Have the kernel give this thread short turns, and so let it interrupt threads with longer ones when it wakes.

    An event loop sleeps, wakes for a request and works for some microseconds; by default it would wait for up to 3 ms
    until an invoke on the same processor has had its turn. It takes no more of the processor than before. Threads that
    this one starts do not inherit it. Linux 6.12 and newer (sched_setattr(2): the slice of a SCHED_OTHER thread);
    elsewhere nothing changes.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        return
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
    size = 48
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("=IIQiIQQQ", size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, _SLICE_NS, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, attributes, 0):
        log.debug("the event loop has turns of the usual length: %s", os.strerror(ctypes.get_errno()))
