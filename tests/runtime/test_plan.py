"""Where invokes run and what they share, by the profile and by what the owner has fixed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ModelError
from app.runtime.contract import BatchClass, Contract
from app.runtime.plan import Plan, Wishes, make_plan
from app.runtime.profile import Profile
from app.tensors import Batching

SHARING_PAYS = Profile({1: 10.0, 8: 20.0, 32: 300.0})
MIXES = "output 'y' of a record depends on the records beside it"
KEEPS = "it keeps variables between invokes"

MERGED = Contract(BatchClass.MERGED, "no probe has found otherwise", Batching.FREE)
BATCHED = Contract(BatchClass.BATCHED, MIXES, Batching.FREE)
LOOPED = Contract(BatchClass.LOOPED, "model.toml says so", Batching.ONE)
WHOLE = Contract(BatchClass.WHOLE, "it has no batch dimension", Batching.NONE)
STATEFUL = Contract(BatchClass.STATEFUL, KEEPS, Batching.FREE)


def plan(profile: Profile = SHARING_PAYS, **options: Any) -> Plan:
    """Of a model whose rows are independent, that keeps nothing, and whose cost is always the same."""
    given: dict[str, Any] = {"contract": MERGED, "unpredictable": False, "inline_us": 50.0, "wishes": Wishes()}
    return make_plan(profile, **{**given, **options})


def refusal(**options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        plan(**options)
    return caught.value.message


def test_without_wishes_everything_follows_from_the_profile() -> None:
    found = plan()

    assert found == Plan(
        profile=SHARING_PAYS,
        threads=1,
        contract=MERGED,
        inline_rows=SHARING_PAYS.inline_rows(50.0),
        helpings=SHARING_PAYS.helpings(),
        most_rows=SHARING_PAYS.enough_rows(),
        splits=True,
    )
    assert (found.inline_rows, found.merge_rows, found.most_rows) == (8, 8, 32)


def test_requests_share_no_larger_an_invoke_than_a_batch_of_one_s_own_runs_in() -> None:
    profile = Profile({1: 10.0, 32: 40.0, 64: 79.0, 256: 316.0})
    assert max(profile.helpings()) == 256

    found = plan(profile)

    assert (found.merge_rows, found.most_rows) == (32, 32)
    assert [found.helping(waiting) for waiting in (31, 32, 33, 1000)] == [31, 32, 32, 32]


@pytest.mark.parametrize("contract", [BATCHED, LOOPED, WHOLE, STATEFUL])
def test_in_no_class_but_merged_does_anything_share_an_invoke_and_no_batch_is_cut(contract: Contract) -> None:
    found = plan(contract=contract)

    assert found.helpings == (0, 1)
    assert [found.helping(waiting) for waiting in (1, 2, 1000)] == [1, 1, 1]
    assert found.merge_rows == 1
    assert found.most_rows > 1 << 40
    assert not found.splits
    assert found.stateful is (contract is STATEFUL)
    assert found.batching is contract.batching


@pytest.mark.parametrize("options", [{"contract": STATEFUL}, {"unpredictable": True}])
def test_a_model_whose_cost_is_not_that_of_the_profile_never_runs_on_the_loop(options: dict[str, Any]) -> None:
    assert plan().inline_rows > 0
    assert plan(**options).inline_rows == 0
    assert plan(**options, wishes=Wishes(inline_rows=0)).inline_rows == 0


def test_a_model_whose_cost_is_unpredictable_may_share_an_invoke_all_the_same() -> None:
    assert plan(unpredictable=True).helpings == plan().helpings
    assert plan(unpredictable=True).splits


@pytest.mark.parametrize("rows", [0, 1, 7, 1 << 40])
@pytest.mark.parametrize("inline_us", [0.0, 50.0, 1e9])
def test_what_the_owner_wants_inline_runs_there_whatever_was_measured(rows: int, inline_us: float) -> None:
    found = plan(wishes=Wishes(inline_rows=rows), inline_us=inline_us)

    assert found.inline_rows == rows
    assert found.helpings == plan().helpings, "nothing else changes"


@pytest.mark.parametrize("rows", [1, 2, 5, 4096])
@pytest.mark.parametrize("profile", [SHARING_PAYS, Profile({1: 10.0}), Profile({1: 10.0, 8: 800.0})])
def test_as_many_records_share_an_invoke_as_the_owner_wants_whatever_was_measured(profile: Profile, rows: int) -> None:
    found = plan(profile, wishes=Wishes(merge_rows=rows))

    assert found.merge_rows == rows
    assert [found.helping(waiting) for waiting in range(1, rows + 1)] == list(range(1, rows + 1))
    assert found.helping(rows + 1) == found.helping(1 << 30) == rows
    assert found.most_rows == max(plan(profile).most_rows, rows), "what shares an invoke is not cut again"
    assert found.inline_rows == plan(profile).inline_rows, "nothing else changes"


def test_threads_are_those_that_the_owner_wants() -> None:
    assert plan(wishes=Wishes(threads=4)).threads == 4


@pytest.mark.parametrize("contract", [MERGED, BATCHED, LOOPED, WHOLE, STATEFUL])
def test_one_record_an_invoke_is_a_wish_that_every_model_can_be_granted(contract: Contract) -> None:
    assert plan(contract=contract, wishes=Wishes(merge_rows=1)).merge_rows == 1


def test_a_model_whose_cost_depends_on_its_input_is_refused_on_the_loop() -> None:
    assert refusal(unpredictable=True, wishes=Wishes(inline_rows=4)) == (
        "model.toml: lane.inline_rows = 4: what an invoke of this model costs depends on its input, so that it cannot "
        "run on the event loop: expected 0"
    )


def test_a_model_that_keeps_variables_is_refused_on_the_loop_for_what_it_is() -> None:
    assert refusal(contract=STATEFUL, wishes=Wishes(inline_rows=1)) == (
        "model.toml: lane.inline_rows = 1: this model keeps variables between invokes: each request gets an "
        "interpreter of its own, which cannot run on the event loop: expected 0"
    )


@pytest.mark.parametrize("contract", [BATCHED, LOOPED, WHOLE, STATEFUL])
def test_requests_that_cannot_share_an_invoke_are_not_made_to(contract: Contract) -> None:
    assert refusal(contract=contract, wishes=Wishes(merge_rows=2)) == (
        "model.toml: lane.merge_rows = 2: requests to this model cannot share an invoke, because "
        f"{contract.reason}: expected 1"
    )


@given(
    st.dictionaries(st.sampled_from([2, 3, 4, 7, 8, 16, 32]), st.integers(1, 1000).map(float), max_size=5),
    st.integers(1, 1 << 16),
)
def test_a_helping_is_never_nothing_and_never_more_than_what_waits(costs: dict[int, float], waiting: int) -> None:
    found = plan(Profile({1: 30.0, **dict(sorted(costs.items()))}))

    assert 1 <= found.helping(waiting) <= min(waiting, found.merge_rows)
    assert found.merge_rows <= max([1, *costs])
