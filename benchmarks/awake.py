"""Keeps the processors from falling asleep, as a machine that is set up for low latency does.

A processor with nothing to do is halted; in a virtual machine that is an exit to the host, and the next request finds
it slow and its caches cold. A process on each that computes at idle priority (SCHED_IDLE, sched(7)) prevents that, and
gives way at once to whatever else wants to run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
print(flush=True)
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


def can_be_kept() -> bool:
    return hasattr(os, "SCHED_IDLE")


@contextlib.contextmanager
def kept_awake() -> Iterator[None]:
    """For every processor that this process may use, until the block is left."""
    with contextlib.ExitStack() as stack:
        for cpu in os.sched_getaffinity(0):
            spinner = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", SPIN, str(cpu)], stdout=subprocess.PIPE)
            )
            stack.callback(spinner.kill)
            assert spinner.stdout is not None
            spinner.stdout.readline()
        yield
