"""What is known of how a signature treats the records of a batch: the class of a servable, and why it is that."""

from dataclasses import dataclass
from enum import Enum

from app.errors import ModelError
from app.tensors import Batching


class BatchClass(Enum):
    """How requests become invokes, from the freest to the strictest."""

    MERGED = "merged"
    """Records of different requests may share an invoke."""
    BATCHED = "batched"
    """A client's own batch runs in one invoke; requests share none."""
    LOOPED = "looped"
    """A batch is run record by record."""
    WHOLE = "whole"
    """There is no batch dimension: a record is the whole tensor."""
    STATEFUL = "stateful"
    """The model keeps variables between invokes: each request gets a clean interpreter, or its sequence's own."""


_ORDER = list(BatchClass)


@dataclass(frozen=True, slots=True)
class Contract:
    """One signature's.

    Args:
        batch_class: how it is run.
        reason: why it is not freer, or how it is known that it may be as free as it is.
        batching: how the arrays of an invoke hold records; for a looped model with a free leading dimension, `ONE`.
    """

    batch_class: BatchClass
    reason: str
    batching: Batching

    @property
    def merges(self) -> bool:
        return self.batch_class is BatchClass.MERGED

    @property
    def stateful(self) -> bool:
        return self.batch_class is BatchClass.STATEFUL

    def stricter(self, wanted: str | None) -> "Contract":
        """As the model's owner wants it, who may only ask for less than was found.

        Args:
            wanted: `batched` or `looped`; None for what was found.

        Raises:
            ModelError: it would be freer.
        """
        if wanted is None or wanted == self.batch_class.value:
            return self
        target = BatchClass(wanted)
        if self.batch_class not in (BatchClass.MERGED, BatchClass.BATCHED) or _ORDER.index(target) < _ORDER.index(
            self.batch_class
        ):
            raise ModelError(
                f'model.toml: batching.class = "{wanted}": the model was found to be {self.batch_class.value}, because '
                f"{self.reason}: expected a stricter class, or none"
            )
        batching = Batching.ONE if target is BatchClass.LOOPED else self.batching
        return Contract(target, "model.toml says so", batching)
