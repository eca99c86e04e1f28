"""Every call of every real client, against a real server: `scripts/` has what each of them does and expects."""

import pytest

from tests.clients.conftest import Outcomes
from tests.clients.programs import PROGRAMS, Program

pytestmark = pytest.mark.slow

CASES = [pytest.param(program, name, id=f"{program.name}-{name}") for program in PROGRAMS for name in program.calls()]


@pytest.mark.parametrize(("program", "call"), CASES)
def test_a_real_client(outcomes: Outcomes, program: Program, call: str) -> None:
    if failure := outcomes(program)[call]:
        pytest.fail(failure, pytrace=False)
