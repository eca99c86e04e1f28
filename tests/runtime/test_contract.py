"""The class of a servable, which its owner can only make stricter."""

import re

import pytest

from app.errors import ModelError
from app.runtime.contract import BatchClass, Contract
from app.tensors import Batching

FOUND = {
    BatchClass.MERGED: Contract(BatchClass.MERGED, "its rows are independent", Batching.FREE),
    BatchClass.BATCHED: Contract(BatchClass.BATCHED, "its rows mix", Batching.FREE),
    BatchClass.LOOPED: Contract(BatchClass.LOOPED, "its leading dimension is 1", Batching.ONE),
    BatchClass.WHOLE: Contract(BatchClass.WHOLE, "it has no batch dimension", Batching.NONE),
    BatchClass.STATEFUL: Contract(BatchClass.STATEFUL, "it keeps variables between invokes", Batching.ONE),
}


@pytest.mark.parametrize("found", list(BatchClass))
def test_only_a_merged_model_merges_and_only_a_stateful_one_is_stateful(found: BatchClass) -> None:
    assert FOUND[found].merges is (found is BatchClass.MERGED)
    assert FOUND[found].stateful is (found is BatchClass.STATEFUL)


@pytest.mark.parametrize("found", list(BatchClass))
def test_without_a_wish_it_is_as_found(found: BatchClass) -> None:
    assert FOUND[found].stricter(None) is FOUND[found]


@pytest.mark.parametrize("found", [BatchClass.BATCHED, BatchClass.LOOPED])
def test_a_wish_for_what_was_found_anyway_changes_nothing(found: BatchClass) -> None:
    assert FOUND[found].stricter(found.value) is FOUND[found]


@pytest.mark.parametrize(
    ("found", "wanted", "batching"),
    [
        (BatchClass.MERGED, "batched", Batching.FREE),
        (BatchClass.MERGED, "looped", Batching.ONE),
        (BatchClass.BATCHED, "looped", Batching.ONE),
    ],
)
def test_a_stricter_class_is_granted_and_a_looped_model_takes_one_record_an_invoke(
    found: BatchClass, wanted: str, batching: Batching
) -> None:
    assert FOUND[found].stricter(wanted) == Contract(BatchClass(wanted), "model.toml says so", batching)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (BatchClass.LOOPED, "batched"),
        (BatchClass.WHOLE, "batched"),
        (BatchClass.WHOLE, "looped"),
        (BatchClass.STATEFUL, "batched"),
        (BatchClass.STATEFUL, "looped"),
    ],
)
def test_a_freer_class_is_refused_with_the_reason_of_the_stricter(found: BatchClass, wanted: str) -> None:
    message = (
        f'model.toml: batching.class = "{wanted}": the model was found to be {found.value}, because '
        f"{FOUND[found].reason}: expected a stricter class, or none"
    )

    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        FOUND[found].stricter(wanted)
