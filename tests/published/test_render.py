"""The table of published models says what was found."""

from typing import Any

from tests.published.render import markdown, table

ROWS: list[dict[str, Any]] = [
    {
        "model": "a",
        "package": "p",
        "format": ".h5",
        "about": "this | that",
        "class": "merged",
        "rung": "plain",
        "difference": 1.2e-6,
        "refused": "",
    },
    {"model": "b", "package": "p", "format": ".tflite", "about": "other", "class": "looped", "difference": 0.0},
    {"model": "c", "package": "p", "format": ".h5", "about": "none", "refused": "weights without a model"},
]


def test_the_markdown_table_has_a_line_for_each_model_and_keeps_bars_apart() -> None:
    lines = markdown(ROWS).splitlines()
    assert len(lines) == 5
    assert lines[2] == "| a | p | .h5 | this \\| that | merged | plain | 1.2e-06 |  |"
    assert lines[3].endswith("| looped |  | 0 |  |")
    assert lines[4].endswith("|  |  |  | weights without a model |")


def test_the_table_for_a_terminal_is_aligned() -> None:
    lines = table(ROWS).splitlines()
    starts = [line.index(form) for line, form in zip(lines, ("format", ".h5", ".tflite", ".h5"), strict=True)]
    assert len(set(starts)) == 1


def test_a_wrong_answer_is_called_wrong_on_the_terminal_and_after_json() -> None:
    for found in (float("inf"), None):
        assert markdown([{**ROWS[0], "difference": found}]).splitlines()[2].endswith("| wrong |  |")
