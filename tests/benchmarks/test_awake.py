"""Processes that keep the processors from being halted."""

import os

import psutil
import pytest

from benchmarks.awake import can_be_kept, kept_awake

pytestmark = pytest.mark.skipif(not can_be_kept(), reason="this system has no idle priority")


def spinners() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "SCHED_IDLE" in command_of(child)]


def command_of(process: psutil.Process) -> str:
    """Empty when it has ended, as a child that other tests have left may do at any time."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_there_is_one_of_idle_priority_for_each_processor_until_the_block_is_left() -> None:
    with kept_awake():
        found = spinners()
        assert [os.sched_getscheduler(each.pid) for each in found] == [os.SCHED_IDLE] * len(found)
        assert sorted(cpu for each in found for cpu in each.cpu_affinity()) == sorted(os.sched_getaffinity(0))

    assert spinners() == []
