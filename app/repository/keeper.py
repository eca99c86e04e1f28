"""Keeps what is served in step with the models folder: looks at it now and then, loads, and lets go."""

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Protocol

from app.errors import LitepoolError, ModelError, NotFound, Unavailable
from app.repository.fingerprint import Fingerprint, of_folder, of_version
from app.repository.layout import Folder, Misplaced, Source, scan
from app.repository.loader import Loaded, Progress
from app.repository.policy import Choice, choose
from app.repository.watch import Settling

log = logging.getLogger(__name__)

Key = tuple[str, int]
"""A model's name and a version of it."""

_Task = tuple[Key, Source, Fingerprint]

Done = Callable[[LitepoolError | None], None]

_NICE = 10
"""By how much loading gives way to serving."""

UNLOADED = "unloaded by request: a request to load it serves it again"


class Tell(Protocol):
    """What the keeper says of the models; any thread calls it."""

    def waits(self, key: Key, reason: str) -> None: ...
    def loads(self, key: Key, stage: str) -> None: ...
    def serves(self, key: Key, source: Source, loaded: Loaded) -> None: ...
    def fails(self, key: Key, reason: str) -> None: ...
    def is_current(self, key: Key) -> None: ...
    def lets_go(self, key: Key, reason: str) -> None: ...
    def labels_are(self, name: str, labels: dict[str, int]) -> None: ...
    def folder(self, reason: str) -> None: ...


class Keeper:
    """Has threads of its own: one that looks and loads what is converted already, and one that converts.

    Conversions run one after another, because side by side they would only take each other's CPUs, and spoil each
    other's timings; and beside the looking, so that a model that takes long to convert holds up no other's new version.

    Args:
        load: makes a servable of what lies on disk; may raise ModelError.
        is_quick: whether `load` would find it converted.
        load_seconds: how long one model may take to be opened, compared and measured.
        convert_seconds: how long a conversion may take besides.
        poll_seconds: time between looks; 0: only the first one, and what is asked for.
        settle_seconds: how long nobody may have touched what is to be loaded.
        now: seconds, as `time.monotonic` has them.
    """

    def __init__(
        self,
        models_dir: Path,
        load: Callable[[Source, Progress], Loaded],
        is_quick: Callable[[Source], bool],
        tell: Tell,
        load_seconds: float,
        convert_seconds: float,
        poll_seconds: float = 0.0,
        settle_seconds: float = 0.0,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._models_dir = models_dir
        self._now = now
        self._load = load
        self._is_quick = is_quick
        self._tell = tell
        self._load_seconds = load_seconds
        self._convert_seconds = convert_seconds
        self._poll_seconds = poll_seconds
        self._settle_seconds = settle_seconds
        self._settling: Settling[str | Key] = Settling(settle_seconds)
        # What both threads see is guarded by the condition.
        self._condition = threading.Condition()
        self._served: dict[Key, Fingerprint] = {}
        self._failed: dict[Key, tuple[Fingerprint, str]] = {}
        self._busy: dict[Key, Fingerprint] = {}
        self._outdated: set[Key] = set()
        self._seen: dict[str, tuple[Folder, dict[str | Key, Fingerprint]]] = {}
        """Each folder as it was looked at last."""
        self._doubted: set[Key] = set()
        """What serves, and of which another thing was told than that."""
        self._told: set[Key] = set()
        self._choices: dict[str, Choice] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._missing: dict[str, float] = {}
        self._off: set[str] = set()
        self._quick: deque[_Task] = deque()
        self._slow: deque[_Task] = deque()
        self._asked: deque[tuple[str, str, Done]] = deque()
        self._waiting: list[tuple[str, Done]] = []
        self._closed = False
        self._threads = [
            threading.Thread(target=self._keep_looking, name="keeper", daemon=True),
            threading.Thread(target=self._keep_converting, name="converter", daemon=True),
        ]

    def look_first(self, off: set[str]) -> None:
        """List the folder, and say in the caller's thread what will be loaded.

        Args:
            off: the models that were unloaded by request.
        """
        self._off |= off
        self._look()

    def start(self) -> None:
        """Begin to load."""
        for thread in self._threads:
            thread.start()

    def close(self, seconds: float) -> bool:
        """End; False when a load goes on for longer than `seconds`."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        deadline = monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def ask(self, do: str, name: str, done: Done) -> None:
        """Carry out an order: `load`, `unload` or `rescan`; `done` is called by any thread, with what went wrong."""
        with self._condition:
            self._asked.append((do, name, done))
            self._condition.notify_all()

    # The thread that looks.

    def _keep_looking(self) -> None:
        _give_way()
        due = self._due()
        while True:
            with self._condition:
                while not (self._closed or self._quick or self._asked):
                    left = due - self._now()
                    if left <= 0 or not self._condition.wait(min(left, threading.TIMEOUT_MAX)):
                        break
                if self._closed:
                    return
                task = self._quick.popleft() if self._quick else None
                asked = list(self._asked) if task is None else []
                if task is None:
                    self._asked.clear()
            if task is not None:
                if self._is_due(task, self._slow):
                    self._load_one(*task, self._load_seconds)
                self._answer()
            else:
                for do, name, _ in asked:
                    self._carry_out(do, name)
                self._look(frozenset(name for do, name, _ in asked if do != "rescan"))
                due = self._due()
                with self._condition:
                    # Only now: before the look, what is to be loaded does not count as busy.
                    self._waiting += [(name, done) for _, name, done in asked]
                self._answer()

    def _due(self) -> float:
        """When to look again."""
        now = self._now()
        unsettled = self._settling.waiting(now)
        with self._condition:
            gone = min((self._settle_seconds - (now - since) for since in self._missing.values()), default=None)
        periods = [seconds for seconds in (self._poll_seconds or None, unsettled, gone) if seconds is not None]
        return now + max(0.01, min(periods, default=threading.TIMEOUT_MAX / 2))

    def _carry_out(self, do: str, name: str) -> None:
        with self._condition:
            if do == "unload":
                self._off.add(name)
                self._unload(name)
            elif do == "load":
                self._off.discard(name)
                self._failed = {key: found for key, found in self._failed.items() if key[0] != name}

    def _answer(self) -> None:
        """Tell those whose orders are carried out."""
        with self._condition:
            # A load of what was unloaded meanwhile goes on, but it is for nobody.
            busy = {name for name, _ in self._busy} - self._off
            ended = [(name, done) for name, done in self._waiting if name not in busy]
            self._waiting = [(name, done) for name, done in self._waiting if name in busy]
            answers = [(done, self._what_became(name)) for name, done in ended]
        for done, error in answers:
            done(error)

    def _what_became(self, name: str) -> LitepoolError | None:
        if not name or name in self._off:
            return None
        if name not in self._choices:
            faults = [reason for key, (_, reason) in self._failed.items() if key[0] == name]
            return Unavailable(faults[0]) if faults else NotFound(f"there is no model {name[:128]!r} in the folder")
        wanted = [(name, item.version) for item in self._choices[name].wanted]
        faults = [f"version {key[1]}: {self._failed[key][1]}" for key in wanted if key in self._failed]
        return Unavailable("; ".join(faults)) if faults else None

    def _look(self, at_once: frozenset[str] = frozenset()) -> None:
        """Compare what is served with what lies on disk.

        Args:
            at_once: the models that need not settle, because somebody has asked for them.
        """
        try:
            folders = {folder.name: folder for folder in scan(self._models_dir)}
        except ModelError as error:
            # A drive that is away for a moment is no reason to stop serving.
            self._tell.folder(error.message)
            return
        empty = f"no model in {self._models_dir}: put one there, for example {self._models_dir}/my_model.keras"
        self._tell.folder("" if folders else empty)
        prints: dict[str | Key, Fingerprint] = {name: of_folder(folder) for name, folder in folders.items()}
        for folder in folders.values():
            prints |= {(folder.name, item.version): of_version(item, folder) for item in folder.versions}
        settled = self._settling.look(self._now(), prints)
        settled |= {key for key in prints if (key if isinstance(key, str) else key[0]) in at_once}
        with self._condition:
            for name, folder in folders.items():
                self._missing.pop(name, None)
                self._compare(folder, prints, settled)
            for name in {name for name, _ in self._told} - folders.keys():
                self._miss(name)

    def _compare(self, folder: Folder, prints: dict[str | Key, Fingerprint], settled: set[str | Key]) -> None:
        name = folder.name
        if any(isinstance(item, Misplaced) and item.unreadable for item in folder.versions) and name in self._choices:
            # A drive that is away for a moment is no reason to stop serving.
            return
        self._seen[name] = (folder, prints)
        if name in self._off:
            self._told |= {(name, item.version) for item in folder.versions}
            self._unload(name)
            return
        if name not in settled and name in self._choices:
            return
        try:
            choice = self._or_older(folder, choose(folder), prints)
        except ModelError as error:
            self._find_fault(folder, prints, error.message)
            return
        self._choices[name] = choice
        self._label(name, choice)
        for item in choice.wanted:
            self._want((name, item.version), item, prints, settled)
        self._retire(name)

    def _or_older(self, folder: Folder, choice: Choice, prints: dict[str | Key, Fingerprint]) -> Choice:
        """The same with an older version besides, where nothing serves and none of the wanted can be loaded.

        A server that ran when the bad version came goes on with the one before; so does one that is started later.
        """
        name = folder.name
        if folder.config.versions.specific is not None or any(key[0] == name for key in self._served):
            return choice

        def has_failed(item: Source | Misplaced) -> bool:
            failed = self._failed.get((name, item.version))
            return failed is not None and failed[0] == prints.get((name, item.version))

        if not all(map(has_failed, choice.wanted)):
            return choice
        lowest = min(item.version for item in choice.wanted)
        older = [
            item
            for item in folder.versions
            if isinstance(item, Source) and item.version < lowest and not has_failed(item)
        ]
        return Choice((*older[-1:], *choice.wanted), choice.labels)

    def _fall_back(self, key: Key, found: Fingerprint, reason: str) -> None:
        """Go on with an older version, if there is one, before it is told that this one has failed."""
        folder, prints = self._seen[key[0]]
        before = self._failed.get(key)
        self._failed[key] = (found, reason)
        try:
            choice = self._or_older(folder, choose(folder), prints)
        except ModelError:
            return
        finally:
            if before is None:
                del self._failed[key]
            else:
                self._failed[key] = before
        self._choices[key[0]] = choice
        oldest = choice.wanted[0]
        if (key[0], oldest.version) not in self._busy and oldest.version < key[1]:
            self._want((key[0], oldest.version), oldest, prints, set(prints))

    def _unload(self, name: str) -> None:
        self._choices[name] = Choice((), {})
        for key in sorted(key for key in self._told if key[0] == name):
            self._served.pop(key, None)
            self._tell.lets_go(key, UNLOADED)

    def _want(
        self, key: Key, item: Source | Misplaced, prints: dict[str | Key, Fingerprint], settled: set[str | Key]
    ) -> None:
        found = prints.get(key) or Fingerprint("nothing", 0.0)
        if isinstance(item, Misplaced) and item.unreadable and key in self._served:
            return
        failed = self._failed.get(key)
        if found == self._served.get(key):
            # It may have been changed, and changed back.
            self._failed.pop(key, None)
            if key in self._doubted:
                self._doubted.discard(key)
                self._tell.is_current(key)
            return
        if found == self._busy.get(key) or (failed is not None and failed[0] == found):
            return
        if key[0] not in settled or (key in prints and key not in settled):
            self._wait(key, f"its files were changed within the last {self._settle_seconds:g} s")
        elif isinstance(item, Misplaced):
            self._fail(key, found, item.reason)
        elif key in self._busy:
            # What is loaded now is out of date: the look after it will find that.
            self._outdated.add(key)
        else:
            self._busy[key] = found
            self._wait(key, "waiting to be loaded")
            self._quick.append((key, item, found))
            self._condition.notify_all()

    def _wait(self, key: Key, reason: str) -> None:
        self._failed.pop(key, None)
        self._note(key)
        self._tell.waits(key, reason)

    def _note(self, key: Key) -> None:
        self._told.add(key)
        if key in self._served:
            self._doubted.add(key)

    def _find_fault(self, folder: Folder, prints: dict[str | Key, Fingerprint], reason: str) -> None:
        """What is wrong with model.toml stops nothing that is served."""
        keys = [(folder.name, item.version) for item in folder.versions]
        for key in [key for key in keys if key in self._served] or keys[-1:]:
            self._fail(key, prints[key], reason)

    def _fail(self, key: Key, found: Fingerprint, reason: str) -> None:
        known = self._failed.get(key)
        self._failed[key] = (found, reason)
        if known is None or known[1] != reason:
            self._note(key)
            log.error("%s %d: not served: %s", *key, reason)
            self._tell.fails(key, reason)

    def _miss(self, name: str) -> None:
        """A model's folder is not there. Who replaces one by removing it first has a moment for that."""
        since = self._missing.setdefault(name, self._now())
        if self._now() - since < self._settle_seconds:
            return
        del self._missing[name]
        self._choices.pop(name, None)
        for key in [key for key in self._told if key[0] == name]:
            self._drop(key)

    def _label(self, name: str, choice: Choice) -> None:
        """Say which versions have labels. One that is given to a version still to be loaded stays where it was for now:
        whoever asks by it is answered all the time."""
        before = self._labels.get(name, {})
        labels = dict(choice.labels)
        for label, version in choice.labels.items():
            if (name, version) not in self._served and (name, before.get(label, 0)) in self._served:
                labels[label] = before[label]
        self._labels[name] = labels
        self._tell.labels_are(name, labels)

    def _retire(self, name: str) -> None:
        """Let go of versions that are not wanted any more, once those that are can take their place."""
        choice = self._choices.get(name)
        if choice is None:
            return
        self._label(name, choice)
        wanted = {(name, item.version) for item in choice.wanted}
        sources = {(name, item.version) for item in choice.wanted if isinstance(item, Source)}
        replaced = bool(sources) and sources <= self._served.keys()
        for key in [key for key in self._told if key[0] == name and key not in wanted]:
            if key not in self._served or replaced:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        self._served.pop(key, None)
        self._failed.pop(key, None)
        self._doubted.discard(key)
        if key not in self._busy:
            self._told.discard(key)
            self._tell.lets_go(key, "")

    def _lose(self, key: Key) -> None:
        """It was unloaded, or removed, before it was loaded."""
        if key[0] not in self._off:
            self._drop(key)

    # The thread that converts, and what both do.

    def _keep_converting(self) -> None:
        _give_way()
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._slow)
                if self._closed:
                    return
                task = self._slow.popleft()
            if self._is_due(task):
                self._load_one(*task, self._convert_seconds + self._load_seconds)
            self._answer()

    def _is_due(self, task: _Task, slow: deque[_Task] | None = None) -> bool:
        """Whether a task is to be carried out, by this thread and now: what takes long goes to `slow`, if it is given.

        Whether it takes long is not asked with the condition held, because the answer may take a while itself.
        """
        key, source, _ = task
        is_slow = slow is not None and not self._is_quick(source)
        with self._condition:
            if not self._is_wanted(key):
                del self._busy[key]
                self._lose(key)
                return False
            if slow is not None and is_slow:
                slow.append(task)
                self._condition.notify_all()
                return False
        return True

    def _load_one(self, key: Key, source: Source, found: Fingerprint, seconds: float) -> None:
        """Load a version, but go on to the next when it takes too long: some never end their first invoke."""
        attempt = _Attempt()
        thread = threading.Thread(
            target=self._attempt, args=(attempt, key, source, found), name=f"load-{source.name}", daemon=True
        )
        thread.start()
        thread.join(seconds)
        with self._condition:
            if attempt.ended or self._closed:
                return
            attempt.ended = True
            self._end(key, found, f"loading it takes longer than the {seconds:g} s it may")

    def _attempt(self, attempt: "_Attempt", key: Key, source: Source, found: Fingerprint) -> None:
        def progress(stage: str) -> None:
            log.info("%s %d: %s", *key, stage)
            with self._condition:
                if not attempt.ended and key[0] not in self._off:
                    self._tell.loads(key, stage)

        loaded, reason = None, ""
        try:
            progress("loading")
            loaded = self._load(source, progress)
        except LitepoolError as error:
            reason = error.message
        except Exception as error:
            log.exception("%s %d: loading it failed in a way that nobody foresaw", *key)
            reason = f"{type(error).__name__}: {error}"
        with self._condition:
            if attempt.ended or self._closed:
                return
            attempt.ended = True
            self._end(key, found, reason, source, loaded)

    def _end(
        self, key: Key, found: Fingerprint, reason: str, source: Source | None = None, loaded: Loaded | None = None
    ) -> None:
        """A load has ended; with the condition held."""
        self._busy.pop(key, None)
        if key in self._outdated:
            self._outdated.discard(key)
            self._look_again()
        if not self._is_wanted(key):
            self._lose(key)
        elif loaded is None or source is None:
            self._fall_back(key, found, reason)
            self._fail(key, found, reason)
        else:
            self._failed.pop(key, None)
            self._doubted.discard(key)
            self._served[key] = found
            self._tell.serves(key, source, loaded)
        self._retire(key[0])

    def _look_again(self) -> None:
        self._asked.append(("rescan", "", lambda _: None))
        self._condition.notify_all()

    def _is_wanted(self, key: Key) -> bool:
        choice = self._choices.get(key[0])
        return choice is not None and any(item.version == key[1] for item in choice.wanted)


class _Attempt:
    """One load, of which nothing is heard any more once it has ended."""

    ended = False


def _give_way() -> None:
    if sys.platform.startswith("linux"):
        # To Linux a thread is a process: this is of the thread alone, and of those that it starts.
        os.nice(_NICE)
