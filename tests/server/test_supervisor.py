"""What the parent of several workers says of their ends. Its work is in tests/e2e/test_workers.py."""

import pytest

from app.server.supervisor import show_exit


@pytest.mark.parametrize(("code", "shown"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-15, "SIGTERM")])
def test_the_end_of_a_worker_is_told_by_its_exit_code_or_the_name_of_its_signal(code: int, shown: str) -> None:
    assert show_exit(code) == shown
