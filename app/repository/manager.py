"""What is loaded, what is being loaded, and what failed: as the event loop sees it."""

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import NamedTuple

from app.errors import LitepoolError, NotFound, Unavailable
from app.repository.convert import Converter
from app.repository.keeper import UNLOADED, Done, Keeper, Key
from app.repository.layout import Source
from app.repository.loader import Check, Loaded, Progress, load
from app.repository.version import version_of
from app.runtime.servable import Lanes

log = logging.getLogger(__name__)

_SHOWN = 128


class State(Enum):
    """Where a version is in its life; the words of TensorFlow Serving."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    FAILED = "FAILED"
    UNLOADING = "UNLOADING"
    END = "END"


class Status(Enum):
    """How the server as a whole is; the words of `/healthz`."""

    STARTING = "starting"
    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    DRAINING = "draining"


class Target(NamedTuple):
    """What a request asks for: a model, None for the default one, and of its versions one, by number or by label."""

    model: str | None = None
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a model and its state.

    Args:
        reason: why it is in that state; of one that is available, why not what lies on disk now is served.
        stale: whether what lies on disk now could not be loaded in its place.
    """

    name: str
    version: int
    state: State
    reason: str = ""
    source: Source | None = None
    loaded: Loaded | None = None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """How a manager goes about its folder; the arguments are those of `Keeper`."""

    load_seconds: float = 120.0
    poll_seconds: float = 0.0
    settle_seconds: float = 0.0


class Manager:
    """Serves the models of a folder. For the loop's thread only; the loading happens in the keeper's threads.

    The entries are a mapping that is replaced as a whole, so that any thread may read them.

    Args:
        default_model: the model of `/predict`; None for the only one, or the one named `default`.
    """

    def __init__(
        self, models_dir: Path, converter: Converter, lanes: Lanes, default_model: str | None, policy: Policy
    ) -> None:
        self._models_dir = models_dir
        self._converter = converter
        self._lanes = lanes
        self._default = default_model
        self._entries: MappingProxyType[Key, Entry] = MappingProxyType({})
        self._labels: dict[str, dict[str, int]] = {}
        self._wanted_labels: dict[str, dict[str, int]] = {}
        self._scanned = False
        self._polls = policy.poll_seconds > 0
        self.draining = False
        self._closed = False
        self._reason = ""
        self._starting: list[Callable[[], None]] | None = None
        self._keeper = Keeper(
            models_dir,
            self._load,
            converter.has,
            self,
            policy.load_seconds,
            converter.timeout,
            policy.poll_seconds,
            policy.settle_seconds,
        )
        self.check: Check | None = None
        """Called by any thread on what has been opened, before it serves; it may raise ModelError."""
        self.changed: Callable[[], None] = lambda: None
        """Called on the loop after each change of an entry."""
        self.freed: Callable[[], None] = lambda: None
        """Called on the loop when what was let go of has left the memory."""
        self.settled = Event()
        """Set once nothing of the first load is under way."""
        self.peers_settled = True
        """False in a worker whose fellow workers still load: clients see one server, ready at one moment."""

    def start(self, off: set[str] | None = None) -> None:
        """List the folder and begin to load what is in it.

        Args:
            off: models that are not loaded, because they were unloaded by request.
        """
        told: list[Callable[[], None]] = []
        self._starting = told
        self._keeper.look_first(off or set())
        self._starting = None
        for tell in told:
            tell()
        self._scanned = True
        self._settle()
        self._keeper.start()
        if self._default is not None and self._default not in self._names():
            log.warning("%s", self._no_such_model(None).message)
        if self._names() and all(map(version_of, self._names())):
            # TensorFlow Serving is given a model's own folder.
            log.warning(
                "all names in %s are numbers: if they are a model's versions, serve its parent", self._models_dir
            )

    def close(self, seconds: float = 10.0) -> bool:
        """End conversions and loads under way; False when that takes longer than `seconds`, and they go on."""
        self._closed = True
        self._converter.close()
        return self._keeper.close(seconds)

    def drain(self) -> None:
        """Say from now on that the server is going away."""
        self.draining = True

    def order(self, do: str, name: str, done: Done) -> None:
        """Load a model (again) now, unload it, or look at the folder.

        Args:
            do: `load`, `unload` or `rescan`.
            done: called on the loop when it is done: with NotFound when there is no such model, with Unavailable when
                it could not be loaded, with None when all went well.
        """
        if do == "unload" and name not in self._names():
            done(self._no_such_model(name))
            return
        self._keeper.ask(do, name, lambda error: self._post(done, error))

    def entry(self, target: Target) -> Entry:
        """One version's.

        Raises:
            NotFound: there is no such model or version.
        """
        found = [entry for entry in self.versions(target.model or "") if entry.version == target.version]
        if not found:
            raise self._no_such_version(target.model or "", target.version)
        return found[0]

    def find(self, target: Target) -> Loaded:
        """What serves a request; of a model the newest version that is available, if none is asked for.

        Raises:
            NotFound: there is no such model, version or label; the message names those that exist.
            Unavailable: it is not loaded yet, or could not be.
        """
        name = target.model if target.model is not None else self.default_name()
        versions = {entry.version: entry for entry in self._entries.values() if entry.name == name}
        if name is None or not versions:
            raise self._no_such_model(target.model)
        version = target.version
        if target.label is not None:
            labels = self._labels.get(name, {})
            version = labels.get(target.label)
            if version is None:
                raise NotFound(
                    f"model {name!r} has no label {target.label[:_SHOWN]!r}; "
                    + (f"its labels are {', '.join(sorted(labels))}" if labels else "it has none")
                )
        if version is not None:
            entry = versions.get(version)
            if entry is None:
                raise self._no_such_version(name, version)
            return _serving(entry)
        serving = [entry for entry in versions.values() if entry.loaded is not None]
        return _serving(max(serving or versions.values(), key=lambda entry: entry.version))

    def targets(self) -> dict[Target, Loaded]:
        """All that requests can ask for now, and what serves it."""
        found: dict[Target, Loaded] = {}
        for entry in sorted(self.entries(), key=lambda entry: entry.version):
            if entry.loaded is not None:
                # Of all versions the newest has the model's own name.
                found[Target(entry.name)] = found[Target(entry.name, entry.version)] = entry.loaded
        for name, labels in self._labels.items():
            for label, version in labels.items():
                if (loaded := found.get(Target(name, version))) is not None:
                    found[Target(name, label=label)] = loaded
        if (default := found.get(Target(self.default_name()))) is not None:
            found[Target()] = default
        return found

    def entries(self) -> list[Entry]:
        """All versions known, by name and number."""
        return sorted(self._entries.values(), key=lambda entry: (entry.name, entry.version))

    def versions(self, name: str) -> list[Entry]:
        """Those of one model, at least one, in ascending order.

        Raises:
            NotFound: there is no such model.
        """
        found = [entry for entry in self.entries() if entry.name == name]
        if not found:
            raise self._no_such_model(name)
        return found

    def labels(self, name: str) -> dict[str, int]:
        """The versions of a model that have a label, by it."""
        return self._labels.get(name, {})

    def default_name(self) -> str | None:
        """The model that `/predict` serves, if that is decided."""
        names = self._names()
        if self._default is not None:
            return self._default if self._default in names else None
        if len(names) == 1:
            return next(iter(names))
        return "default" if "default" in names else None

    def status(self) -> tuple[Status, str]:
        """How the server is, and what there is to say about it beyond the models' own reasons."""
        if self.draining:
            return Status.DRAINING, "shutting down"
        entries = self.entries()
        serves = any(entry.state is State.AVAILABLE for entry in entries)
        under_way = [f"{entry.name}: {entry.reason}" for entry in entries if _under_way(entry)]
        if not self._scanned or not self.settled.is_set() or (under_way and not serves):
            return Status.STARTING, "; ".join(under_way) or "listing the models"
        if not self.peers_settled:
            return Status.STARTING, "the other workers are still loading"
        if not serves:
            return Status.FAILED, self.why_nothing()
        reason = self._reason
        if self._default is not None and self._default not in self._names():
            reason = self._no_such_model(None).message
        failed = any(entry.state is State.FAILED or entry.stale for entry in entries)
        return (Status.DEGRADED if failed else Status.OK), reason

    def why_nothing(self) -> str:
        """The reason when nothing at all is served."""
        entries = self._entries.values()
        unloaded = bool(entries) and all(entry.reason == UNLOADED for entry in entries)
        return self._reason or ("all models were unloaded by request" if unloaded else "no model could be loaded")

    def _names(self) -> set[str]:
        return {name for name, _ in self._entries}

    def _no_such_version(self, name: str, version: int | None) -> NotFound:
        have = ", ".join(str(entry.version) for entry in self.versions(name))
        return NotFound(f"model {name!r} has no version {version}; its versions are {have}")

    def _no_such_model(self, name: str | None) -> LitepoolError:
        names = ", ".join(sorted(self._names()))
        if not self._scanned:
            return Unavailable("the server is starting", retry_after=1)
        if not names:
            return Unavailable(self.why_nothing())
        if name is not None:
            return NotFound(f"no model {name[:_SHOWN]!r}; the models are {names}")
        if self._default is not None:
            return NotFound(f"the default model {self._default!r} is not among the models, which are {names}")
        return NotFound(f"/predict has no default model among {names}: name one in the path, or set default_model")

    # What the keeper tells, in its threads; but for the first look, which is the loop's.

    def _load(self, source: Source, progress: Progress) -> Loaded:
        return load(source, self._converter, self._lanes, progress, self.check)

    def waits(self, key: Key, reason: str) -> None:
        self._post(self._change, key, State.START, reason)

    def loads(self, key: Key, stage: str) -> None:
        self._post(self._change, key, State.LOADING, stage)

    def serves(self, key: Key, source: Source, loaded: Loaded) -> None:
        self._post(self._serve, key, source, loaded)

    def fails(self, key: Key, reason: str) -> None:
        self._post(self._change, key, State.FAILED, reason)

    def is_current(self, key: Key) -> None:
        self._post(self._be_current, key)

    def lets_go(self, key: Key, reason: str) -> None:
        self._post(self._let_go, key, reason)

    def labels_are(self, name: str, labels: dict[str, int]) -> None:
        self._post(self._label, name, labels)

    def folder(self, reason: str) -> None:
        self._post(self._see_folder, reason)

    def _post(self, do: Callable[..., None], *arguments: object) -> None:
        if self._starting is not None:
            self._starting.append(lambda: do(*arguments))
        elif not self._closed:
            # The loop of a server that has been closed may be gone.
            self._lanes.post(do, *arguments)

    # On the loop.

    def _change(self, key: Key, state: State, reason: str) -> None:
        """A version waits, loads or has failed. Of one that serves, that is said of what should take its place."""
        entry = self._entries.get(key) or Entry(*key, state)
        if entry.loaded is None:
            entry = replace(entry, state=state, reason=reason)
        elif state is State.FAILED:
            entry = replace(entry, reason=f"what lies on disk now is not served: {reason}", stale=True)
        else:
            entry = replace(entry, reason=f"what lies on disk now takes its place: {reason}")
        self._put(key, entry)

    def _serve(self, key: Key, source: Source, loaded: Loaded) -> None:
        before = self._entries[key].loaded if key in self._entries else None
        if before is not None:
            self._watch_end(before, None)
        self._put(key, Entry(*key, State.AVAILABLE, "", source, loaded))
        self._point(key[0])

    def _be_current(self, key: Key) -> None:
        entry = self._entries.get(key)
        if entry is not None and entry.loaded is not None:
            self._put(key, replace(entry, reason="", stale=False))

    def _let_go(self, key: Key, reason: str) -> None:
        entry = self._entries.get(key)
        if entry is None and not reason:
            return
        if entry is not None and entry.loaded is not None:
            self._watch_end(entry.loaded, key)
            self._put(key, Entry(*key, State.UNLOADING, reason or "requests under way are finished"))
            self._point(key[0])
        elif reason:
            # What its last requests still hold is not at its end; `_gone` hears of that.
            still = entry is not None and entry.state is State.UNLOADING
            self._put(key, Entry(*key, State.UNLOADING if still else State.END, reason))
        else:
            self._put(key, None)

    def _watch_end(self, loaded: Loaded, key: Key | None) -> None:
        """Hear of it when nobody holds what was loaded any more: when its last request is answered."""
        left = set(loaded.servables)

        def gone(name: str) -> None:
            left.discard(name)
            if not left:
                self._gone(key)

        for name, servable in loaded.servables.items():
            weakref.finalize(servable, self._post, gone, name).atexit = False

    def _gone(self, key: Key | None) -> None:
        entry = self._entries.get(key) if key is not None else None
        if key is not None and entry is not None and entry.state is State.UNLOADING:
            keep = entry.reason == UNLOADED
            self._put(key, replace(entry, state=State.END) if keep else None)
        self.freed()

    def _label(self, name: str, labels: dict[str, int]) -> None:
        self._wanted_labels[name] = labels
        self._point(name)

    def _point(self, name: str) -> None:
        """Let labels point where they should; one that has moved, only once its new version serves."""
        serving = {entry.version for entry in self._entries.values() if entry.name == name and entry.loaded is not None}
        before = self._labels.get(name, {})
        labels = {
            label: before[label] if version not in serving and before.get(label) in serving else version
            for label, version in self._wanted_labels.get(name, {}).items()
        }
        if before != labels:
            self._labels[name] = labels
            self.changed()

    def _see_folder(self, reason: str) -> None:
        if reason != self._reason:
            if reason:
                log.error("%s", reason)
            self._reason = reason
            self.changed()

    def _put(self, key: Key, entry: Entry | None) -> None:
        entries = dict(self._entries)
        if entry is None:
            entries.pop(key, None)
        else:
            entries[key] = entry
        if self._entries.get(key) == entry:
            return
        self._entries = MappingProxyType(entries)
        self._settle()
        self.changed()

    def _settle(self) -> None:
        if self._scanned and not any(_under_way(entry) for entry in self._entries.values()):
            self.settled.set()


def _under_way(entry: Entry) -> bool:
    return entry.state in (State.START, State.LOADING)


def _serving(entry: Entry) -> Loaded:
    if entry.loaded is not None:
        return entry.loaded
    which = f"version {entry.version} of model {entry.name!r}"
    if entry.state in (State.START, State.LOADING):
        raise Unavailable(f"{which} is still loading: {entry.reason}", retry_after=2)
    raise Unavailable(f"{which} is not served: {entry.reason}")
