"""Where a servable's invokes run and how many records share one: decided at load, from its profile and its owner."""

from dataclasses import dataclass

from app.errors import ModelError
from app.runtime.contract import Contract
from app.runtime.profile import Profile
from app.tensors import Batching

_ONE_BY_ONE = (0, 1)
_WITHOUT_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a model's owner has fixed, in place of what the profile says; None where nothing.

    Args:
        inline_rows: batches of so many records run on the event loop, larger ones on a pool thread.
        merge_rows: the most records of different requests in one invoke.
        threads: LiteRT's own threads in each interpreter.
    """

    inline_rows: int | None = None
    merge_rows: int | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """A servable's.

    Args:
        contract: whether, and how, records share an invoke.
        helpings: of so many waiting records, how many the next invoke takes.
        most_rows: a larger batch runs in several invokes.
        splits: whether a batch may be split over pool threads.
    """

    profile: Profile
    threads: int
    contract: Contract
    inline_rows: int
    helpings: tuple[int, ...]
    most_rows: int
    splits: bool

    @property
    def stateful(self) -> bool:
        """Whether every request gets an interpreter of its own."""
        return self.contract.stateful

    @property
    def batching(self) -> Batching:
        """How the arrays of an invoke hold records."""
        return self.contract.batching

    @property
    def merge_rows(self) -> int:
        """The most records of different requests in one invoke; 1 when requests share none."""
        return max(self.helpings)

    def helping(self, waiting: int) -> int:
        """Of so many waiting records, 1 or more, how many the next invoke takes."""
        helpings = self.helpings
        return helpings[waiting] if waiting < len(helpings) else helpings[-1]


def make_plan(profile: Profile, contract: Contract, unpredictable: bool, inline_us: float, wishes: Wishes) -> Plan:
    """Decide.

    Args:
        unpredictable: whether what an invoke costs depends on its input.
        inline_us: an invoke expected to be cheaper than this, in microseconds, runs on the loop.

    Raises:
        ModelError: a wish that cannot be granted.
    """
    stateful = contract.stateful
    inline_rows = profile.inline_rows(inline_us)
    if wishes.inline_rows is not None:
        inline_rows = wishes.inline_rows
    if stateful or unpredictable:
        if wishes.inline_rows:
            why = "what an invoke of this model costs depends on its input, so that it"
            if stateful:
                why = "this model keeps variables between invokes: each request gets an interpreter of its own, which"
            raise ModelError(
                f"model.toml: lane.inline_rows = {wishes.inline_rows}: {why} cannot run on the event loop: expected 0"
            )
        inline_rows = 0
    merges = contract.merges
    # Rows that mix must stay together; those that do not are run so many at a time.
    most_rows = profile.enough_rows() if merges else _WITHOUT_LIMIT
    if stateful and contract.batching is not Batching.FREE:
        # Each record begins with a clean state, unless it belongs to a sequence.
        most_rows = 1
    helpings = profile.helpings()[: most_rows + 1] if merges else _ONE_BY_ONE
    if wishes.merge_rows is not None:
        if wishes.merge_rows > 1 and not merges:
            raise ModelError(
                f"model.toml: lane.merge_rows = {wishes.merge_rows}: requests to this model cannot share an invoke, "
                f"because {contract.reason}: expected 1"
            )
        helpings = tuple(range(wishes.merge_rows + 1))
        most_rows = max(most_rows, wishes.merge_rows)
    return Plan(
        profile=profile,
        threads=wishes.threads,
        contract=contract,
        inline_rows=inline_rows,
        helpings=helpings,
        most_rows=most_rows,
        splits=merges,
    )
