import numpy as np
import pytest

from app.protocols.call import Call, Form


def test_the_three_forms_are_the_three_keys_of_a_request() -> None:
    assert [form.value for form in Form] == ["instance", "instances", "inputs"]


def test_a_call_cannot_be_changed_by_what_runs_it() -> None:
    call = Call((np.zeros((1, 4)),), 1, Form.INSTANCE)

    with pytest.raises(AttributeError):
        call.rows = 2  # type: ignore[misc]
