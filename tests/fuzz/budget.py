"""How many examples a property is tried on: few with every run of the fast suite, many in the whole, more on demand.

The number is what is fixed, never the time. In the suite each property is tried on the same examples every time;
`make fuzz`, which sets FUZZ, tries as many times more, and others each time.
"""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.examples import TIMES

T = TypeVar("T")

FEW = 12

budget = pytest.mark.parametrize(
    "share", [pytest.param(0, id="few"), pytest.param(1, id="many", marks=pytest.mark.slow)]
)
"""Runs a test twice: with `share` 0 on a few examples, and with 1 on all."""


def try_all(name: str, examples: st.SearchStrategy[T], check: Callable[[T], Any], share: int, many: int) -> None:
    """Hold a property against examples; the one that fails is shown, as small as it can be made.

    Args:
        name: which property it is: each has examples of its own.
        many: how many, if all of them are wanted.
    """

    others_each_time = TIMES > 1 and bool(share)

    @hypothesis.settings(max_examples=TIMES * many if share else FEW, derandomize=not others_each_time, database=None)
    @hypothesis.given(examples)
    def run(example: T) -> None:
        hypothesis.note(repr(example))
        check(example)

    if not others_each_time:
        run = hypothesis.seed(zlib.crc32(name.encode()))(run)
    run()
