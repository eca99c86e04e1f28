"""What is loaded, what is being loaded, and what failed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType

from app.errors import LitepoolError, ModelError, NotFound, Unavailable
from app.repository.convert import Converter
from app.repository.layout import Misplaced, Source, scan
from app.repository.loader import Loaded, load
from app.runtime.servable import Lanes, Servable

log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a model and its state."""

    name: str
    version: int
    state: State
    reason: str = ""
    source: Source | None = None
    loaded: Loaded | None = None


class Manager:
    """Loads the models of a folder in threads of its own. Everything but the loading happens on the loop's thread.

    The entries are a mapping that is replaced as a whole, so that any thread may read them.

    Args:
        default_model: the model of `/predict`; None for the only one, or the one named `default`.
        load_seconds: how long one model may take to be opened, compared and measured, conversion not counted.
    """

    def __init__(
        self,
        models_dir: Path,
        converter: Converter,
        lanes: Lanes,
        default_model: str | None,
        load_seconds: float = 120.0,
    ) -> None:
        self._models_dir = models_dir
        self._converter = converter
        self._lanes = lanes
        self._default = default_model
        self._entries: MappingProxyType[str, Entry] = MappingProxyType({})
        self._scanned = False
        self.draining = False
        self._closed = False
        self._reason = ""
        self._load_seconds = load_seconds
        self._given_up: set[str] = set()
        # One thread: conversions side by side would only take each other's CPUs, and spoil each other's timings.
        self._loader = Thread(target=self._load_all, name="loader", daemon=True)
        self.changed: Callable[[], None] = lambda: None
        """Called on the loop after each change of an entry."""
        self.settled = Event()
        """Set once nothing of the first load is under way."""
        self.peers_settled = True
        """False in a worker whose fellow workers still load: clients see one server, ready at one moment."""

    def start(self) -> None:
        """List the folder and begin to load what is in it."""
        try:
            found = scan(self._models_dir)
        except ModelError as error:
            self._reason = error.message
            found = []
        entries = {}
        for item in found:
            if isinstance(item, Misplaced):
                log.error("%s: %s", item.name, item.reason)
                entries[item.name] = Entry(item.name, item.version, State.FAILED, item.reason)
            else:
                entries[item.name] = Entry(item.name, item.version, State.START, "waiting to be loaded", item)
        if not entries:
            self._reason = self._reason or (
                f"no model in {self._models_dir}: put one there, for example {self._models_dir}/my_model.keras, "
                "and start again"
            )
            log.error("%s", self._reason)
        self._entries = MappingProxyType(entries)
        self._scanned = True
        self._settle()
        if self._default is not None and self._default not in entries:
            log.warning("%s", self._no_such_model(None).message)
        self._loader.start()

    def close(self, seconds: float = 10.0) -> bool:
        """End conversions and loads under way; False when that takes longer than `seconds`, and they go on."""
        self._closed = True
        self._converter.close()
        if self._loader.is_alive():
            self._loader.join(seconds)
        return not self._loader.is_alive()

    def drain(self) -> None:
        """Say from now on that the server is going away."""
        self.draining = True

    def find(self, name: str | None) -> Servable:
        """The servable of a model; with None, of the default model.

        Raises:
            NotFound: there is no such model; the message names those that exist.
            Unavailable: it is not loaded yet, or could not be.
        """
        entries = self._entries
        entry = entries.get(name) if name is not None else self._default_entry(entries)
        if entry is None:
            raise self._no_such_model(name)
        if entry.loaded is None:
            if entry.state is State.FAILED:
                raise Unavailable(f"model {entry.name!r} is not served: {entry.reason}")
            raise Unavailable(f"model {entry.name!r} is still loading: {entry.reason}", retry_after=2)
        return entry.loaded.servable

    def serving(self) -> list[Loaded]:
        """All models that are available."""
        return [entry.loaded for entry in self._entries.values() if entry.loaded is not None]

    def entries(self) -> list[Entry]:
        """All versions known."""
        return list(self._entries.values())

    def entry(self, name: str) -> Entry:
        """One model's.

        Raises:
            NotFound: there is no such model.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise self._no_such_model(name)
        return entry

    def default_name(self) -> str | None:
        """The model that `/predict` serves, if that is decided."""
        entry = self._default_entry(self._entries)
        return entry.name if entry else None

    def status(self) -> tuple[Status, str]:
        """How the server is, and what there is to say about it beyond the models' own reasons."""
        if self.draining:
            return Status.DRAINING, "shutting down"
        if not self._scanned or not self.settled.is_set():
            waiting = [f"{entry.name}: {entry.reason}" for entry in self.entries() if _under_way(entry)]
            return Status.STARTING, "; ".join(waiting) or "listing the models"
        if not self.peers_settled:
            return Status.STARTING, "the other workers are still loading"
        serving = [entry.state is State.AVAILABLE for entry in self.entries()]
        if not any(serving):
            return Status.FAILED, self.why_nothing()
        reason = ""
        if self._default is not None and self._default not in self._entries:
            reason = self._no_such_model(None).message
        return (Status.OK if all(serving) else Status.DEGRADED), reason

    def why_nothing(self) -> str:
        """The reason when nothing at all is served."""
        return self._reason or "no model could be loaded"

    def _default_entry(self, entries: MappingProxyType[str, Entry]) -> Entry | None:
        if self._default is not None:
            return entries.get(self._default)
        if len(entries) == 1:
            return next(iter(entries.values()))
        return entries.get("default")

    def _no_such_model(self, name: str | None) -> LitepoolError:
        names = ", ".join(sorted(self._entries))
        if not self._scanned:
            return Unavailable("the server is starting", retry_after=1)
        if not names:
            return Unavailable(self._reason)
        if name is not None:
            return NotFound(f"no model {name[:128]!r}; the models are {names}")
        if self._default is not None:
            return NotFound(f"the default model {self._default!r} is not among the models, which are {names}")
        return NotFound(f"/predict has no default model among {names}: name one in the path, or set default_model")

    # On the loader thread, and the threads that it starts.

    def _load_all(self) -> None:
        """Load what is converted already, then convert the rest."""
        later = []
        for source in [entry.source for entry in self.entries() if entry.source is not None]:
            if self._converter.has(source):
                self._load_within(source, self._load_seconds)
            else:
                later.append(source)
        for source in later:
            self._load_within(source, self._converter.timeout + self._load_seconds)

    def _load_within(self, source: Source, seconds: float) -> None:
        """Load a model, but go on to the next when it takes too long: some never end their first invoke."""
        if self._closed:
            return
        thread = Thread(target=self._load, args=(source,), name=f"load-{source.name}", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._given_up.add(source.name)
            self._fail(source, f"loading it takes longer than the {seconds:g} s it may")

    def _load(self, source: Source) -> None:
        def progress(stage: str) -> None:
            log.info("%s %d: %s", source.name, source.version, stage)
            self._tell(source.name, State.LOADING, stage, None)

        try:
            self._tell(source.name, State.LOADING, "loading", None)
            loaded = load(source, self._converter, self._lanes, progress)
        except LitepoolError as error:
            self._fail(source, error.message)
        except Exception as error:
            log.exception("%s %d: loading it failed in a way that nobody foresaw", source.name, source.version)
            self._fail(source, f"{type(error).__name__}: {error}")
        else:
            self._tell(source.name, State.AVAILABLE, "", loaded)

    def _fail(self, source: Source, reason: str) -> None:
        if not self._closed:
            log.error("%s %d: not served: %s", source.name, source.version, reason)
        self._tell(source.name, State.FAILED, reason, None)

    def _tell(self, name: str, state: State, reason: str, loaded: Loaded | None) -> None:
        # The loop of a server that has been closed may be gone.
        if not self._closed:
            self._lanes.post(self._update, name, state, reason, loaded)

    # On the loop.

    def _update(self, name: str, state: State, reason: str, loaded: Loaded | None) -> None:
        if name in self._given_up and state is not State.FAILED:
            return
        entries = dict(self._entries)
        entries[name] = replace(entries[name], state=state, reason=reason, loaded=loaded)
        self._entries = MappingProxyType(entries)
        self._settle()
        self.changed()

    def _settle(self) -> None:
        if not any(_under_way(entry) for entry in self._entries.values()):
            self.settled.set()


def _under_way(entry: Entry) -> bool:
    return entry.state in (State.START, State.LOADING)
