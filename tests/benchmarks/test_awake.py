"""Processes that keep the processors from being halted."""

import os
from contextlib import suppress

import psutil
import pytest

from benchmarks.awake import can_be_kept, kept_awake

pytestmark = pytest.mark.skipif(not can_be_kept(), reason="this system has no idle priority")


def spinners() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        # Another test's may end meanwhile, or be waiting to be reaped.
        with suppress(psutil.NoSuchProcess):
            if "SCHED_IDLE" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_there_is_one_of_idle_priority_for_each_processor_until_the_block_is_left() -> None:
    with kept_awake():
        found = spinners()
        assert [os.sched_getscheduler(each.pid) for each in found] == [os.SCHED_IDLE] * len(found)
        assert sorted(cpu for each in found for cpu in each.cpu_affinity()) == sorted(os.sched_getaffinity(0))

    assert spinners() == []
