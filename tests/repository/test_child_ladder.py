"""How the conversion's ladder is climbed, with nothing behind its rungs, which test_child_rungs.py is about."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import child_ladder
from child_ladder import Ladder, NotTaken
from child_reasons import explain, names_operations
from child_records import Records
from child_reference import Reference
from child_rungs import Rung

Fault = Callable[[str, str, list[str]], str | None]


def none(variant: str, rung: str, names: list[str]) -> None:
    """No fault in any candidate."""


class Stairs:
    """A ladder over rungs that do nothing.

    Args:
        fails: what the converter raises for a variant, rung and signatures.
        refuses: why the parent does not take such a candidate.

    Attributes:
        converted, asked: what was converted, and of that, what the parent was asked about.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *,
        signatures: tuple[str, ...] = ("main",),
        ops: tuple[str, ...] = (),
        fails: Fault = none,
        refuses: Fault = none,
    ) -> None:
        self.asked: list[tuple[str, str, list[str]]] = []
        self.converted: list[tuple[str, str, list[str]]] = []
        self.stages: list[str] = []
        rungs = [Rung(name, "", partial(saved_as, name)) for name in ("plain", "concrete", "fixed")]

        def to_tflite(
            tf: Any, saved: Path, keys: list[str], variant: str, stateful: bool, calibration: Any, found: Any
        ) -> bytes:
            self.converted.append((variant, saved.name, keys))
            if reason := fails(variant, saved.name, keys):
                raise RuntimeError(reason)
            return b"model"

        def ask(candidate: dict[str, Any]) -> str | None:
            assert (folder / candidate["file"]).read_bytes() == b"model"
            names = [each["name"] for each in candidate["signatures"]]
            self.asked.append((candidate["variant"], candidate["rung"], names))
            return refuses(candidate["variant"], candidate["rung"], names)

        monkeypatch.setattr(child_ladder, "rungs_of", lambda *arguments: rungs)
        monkeypatch.setattr(child_ladder, "to_tflite", to_tflite)
        monkeypatch.setattr(child_ladder, "nodes_of", lambda function: [SimpleNamespace(op=op) for op in ops])
        found = [reference(name) for name in signatures]
        model: Any = SimpleNamespace(stateful=False)
        nothing: Any = None
        self.ladder = Ladder(nothing, model, found, nothing, folder, folder, ask, self.stages.append)


def saved_as(name: str, found: list[Reference]) -> Path:
    return Path(name)


def reference(name: str) -> Reference:
    signature: Any = SimpleNamespace(
        name=name, inputs={"x": None}, outputs=["y"], batching="free", keeps_state=False, function=None
    )
    return Reference(signature, Records({"x": np.zeros((4, 2))}), {"y": np.zeros((4, 1))})


MISSING = "Some ops\nTF Select ops: StringLower\nDetails"


def test_what_the_converter_does_not_take_is_tried_on_the_next_rung(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(monkeypatch, tmp_path, fails=lambda variant, rung, names: "no" if rung == "plain" else None)

    done = stairs.ladder.run(["none"])

    assert stairs.asked == [("none", "concrete", ["main"])]
    assert done.variants["none"]["rung"] == "concrete"
    assert done.rungs_failed == [{"variant": "none", "rung": "plain", "reason": "RuntimeError: no"}]


def test_what_the_parent_does_not_take_is_tried_on_the_next_rung_and_its_file_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(monkeypatch, tmp_path, refuses=lambda variant, rung, names: "no" if rung != "fixed" else None)

    done = stairs.ladder.run(["none"])

    assert [rung for _, rung, _ in stairs.asked] == ["plain", "concrete", "fixed"]
    assert [each["reason"] for each in done.rungs_failed] == ["no", "no"]
    assert [path.name for path in tmp_path.iterdir()] == [done.variants["none"]["file"]]


def test_when_no_rung_does_nothing_else_is_tried_and_the_reason_names_operations_if_one_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(monkeypatch, tmp_path, fails=lambda variant, rung, names: MISSING if rung == "fixed" else "no")

    done = stairs.ladder.run(["none", "dynamic"])

    assert not done.done
    assert [variant for variant, _, _ in stairs.converted] == ["none"] * 3
    assert done.variants == {"none": {"error": explain(RuntimeError(MISSING))}}
    assert names_operations(done.reason_for("none"))


def test_a_variant_whose_candidate_is_not_taken_is_given_up_if_another_variant_is_served_from_the_rung(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(monkeypatch, tmp_path, refuses=lambda variant, rung, names: "far" if variant == "int8" else None)

    done = stairs.ladder.run(["none", "int8", "dynamic"])

    assert [variant for variant, _, _ in stairs.asked] == ["none", "int8", "dynamic"]
    assert done.variants["int8"] == {"error": "far"}
    assert done.variants["dynamic"]["rung"] == "plain"


@pytest.mark.parametrize("op", ["While", "StatelessWhile", "Enter"])
def test_int8_of_a_graph_with_loops_is_not_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, op: str) -> None:
    stairs = Stairs(monkeypatch, tmp_path, ops=("MatMul", op))

    done = stairs.ladder.run(["none", "int8", "dynamic"])

    assert [variant for variant, _, _ in stairs.converted] == ["none", "dynamic"]
    assert "loops" in done.variants["int8"]["error"]


def test_a_signature_that_does_not_convert_is_left_out_for_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(
        monkeypatch,
        tmp_path,
        signatures=("main", "bad", "good"),
        fails=lambda variant, rung, names: MISSING if "bad" in names else None,
    )

    done = stairs.ladder.run(["none", "dynamic"])

    assert stairs.asked == [("none", "plain", ["main", "good"]), ("dynamic", "plain", ["main", "good"])]
    assert done.left_out == {"bad": explain(RuntimeError(MISSING))}
    assert done.rungs_failed == []


def test_a_default_that_does_not_convert_is_not_served_by_another_signature(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(
        monkeypatch,
        tmp_path,
        signatures=("main", "other"),
        fails=lambda variant, rung, names: "no" if "main" in names else None,
    )

    done = stairs.ladder.run(["none"])

    assert stairs.asked == []
    assert done.left_out == {}
    assert len(done.rungs_failed) == 3


def test_signatures_that_are_not_taken_together_are_left_out_but_for_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(
        monkeypatch,
        tmp_path,
        signatures=("main", "other"),
        refuses=lambda variant, rung, names: "no" if len(names) > 1 else None,
    )

    done = stairs.ladder.run(["none"])

    assert done.variants["none"]["signatures"] == ["main"]
    assert done.left_out == {"other": "the model with it is not served: no"}


def test_a_signature_left_out_on_one_rung_is_served_from_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(
        monkeypatch,
        tmp_path,
        signatures=("main", "other"),
        refuses=lambda variant, rung, names: "no" if rung == "plain" else None,
    )

    done = stairs.ladder.run(["none"])

    assert done.variants["none"]["signatures"] == ["main", "other"]
    assert done.left_out == {}


def test_a_later_variant_without_a_signature_leaves_it_to_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stairs = Stairs(
        monkeypatch,
        tmp_path,
        signatures=("main", "other"),
        fails=lambda variant, rung, names: "no" if variant == "int8" and "other" in names else None,
    )

    done = stairs.ladder.run(["none", "int8"])

    assert done.variants["none"]["signatures"] == ["main", "other"]
    assert done.variants["int8"]["signatures"] == ["main"]
    assert done.left_out == {}


def test_too_little_memory_ends_the_climb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stairs = Stairs(monkeypatch, tmp_path, fails=lambda variant, rung, names: "failed to map segment")

    with pytest.raises(RuntimeError, match="failed to map segment"):
        stairs.ladder.run(["none"])


def test_what_the_parent_says_is_told_in_its_own_words() -> None:
    assert explain(NotTaken("output 'y' differs")) == "output 'y' differs"
