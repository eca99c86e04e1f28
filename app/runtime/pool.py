"""Threads for models that are too slow to run on the event loop."""

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

log = logging.getLogger(__name__)

Task = Callable[[int], None]


class Queue:
    """The tasks of one servable that wait for a pool thread. Its fields are guarded by the pool's condition."""

    __slots__ = ("listed", "tasks")

    def __init__(self) -> None:
        self.tasks: deque[Task] = deque()
        self.listed = False


class Pool:
    """Threads that serve several queues in turn, so that a slow model's backlog does not hold up another's.

    A task is called with its thread's index, 0 to `threads` - 1, and must not raise: a servable keeps one interpreter
    for each index, which so belongs to one thread for life.

    Args:
        nice: how much lower than the process's the threads' priority is, where the system has one for threads.
    """

    def __init__(self, threads: int, nice: int = 0) -> None:
        self.size = threads
        self.idle = 0
        """Threads that wait for work; a glance, which may be out of date."""
        self._ready: deque[Queue] = deque()
        self._condition = threading.Condition()
        self._closed = False
        self._nice = nice
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"pool-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, queue: Queue, task: Task) -> None:
        """Put a task at the end of `queue`."""
        with self._condition:
            queue.tasks.append(task)
            if not queue.listed:
                queue.listed = True
                self._ready.append(queue)
            self._condition.notify()

    def close(self, seconds: float = 10.0) -> bool:
        """Run what waits, and end the threads; False when that takes longer than `seconds`, and they go on."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        deadline = monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, index: int) -> None:
        if self._nice and sys.platform.startswith("linux"):
            # To Linux a thread is a process: this is of the thread alone.
            os.nice(self._nice)
        while (task := self._take()) is not None:
            try:
                task(index)
            except Exception:
                log.exception("a task of the pool raised, which none may")
            # It would keep its servable in memory for as long as there is no other task.
            del task

    def _take(self) -> Task | None:
        with self._condition:
            while not self._ready:
                if self._closed:
                    return None
                self.idle += 1
                self._condition.wait()
                self.idle -= 1
            queue = self._ready.popleft()
            task = queue.tasks.popleft()
            if queue.tasks:
                self._ready.append(queue)
            else:
                queue.listed = False
            return task
