import pytest

from app.protocols.call import Wire
from app.protocols.words import expired, missing, no_signature


@pytest.mark.parametrize(
    ("wire", "target", "words"),
    [
        (Wire.PREDICT, ("m", 7, None), ""),
        (Wire.SERVING_PREDICT, ("m", None, None), "Servable not found for request: Latest(m): "),
        (Wire.GRPC_REGRESS, ("m", 7, None), "Servable not found for request: Specific(m, 7): "),
        (Wire.SERVING_CLASSIFY, ("m", None, "canary"), "Unrecognized servable version label: canary: "),
        (Wire.INFER, ("m", None, None), "Request for unknown model: 'm' is not found: "),
        (Wire.GRPC_INFER, ("m", 7, None), "Request for unknown model: 'm' version 7 is not found: "),
    ],
)
def test_what_is_missing_is_said_in_the_words_of_the_format_s_own_server(
    wire: Wire, target: tuple[str, int | None, str | None], words: str
) -> None:
    assert missing(wire, *target) == words


def test_every_wire_format_that_is_another_server_s_has_words() -> None:
    assert [wire for wire in Wire if not missing(wire, "m")] == [Wire.PREDICT]


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (Wire.SERVING_PREDICT, 'Serving signature name: "z" not found in signature def'),
        (Wire.GRPC_PREDICT, 'Serving signature key "z" not found'),
        (Wire.SERVING_REGRESS, "No signature was found with the name: z"),
        (Wire.GRPC_CLASSIFY, "No signature was found with the name: z"),
    ],
)
def test_a_signature_that_there_is_not_has_other_words_in_each_call_of_tensorflow_serving(
    wire: Wire, words: str
) -> None:
    assert no_signature(wire, "z") == words


def test_names_are_not_repeated_at_any_length() -> None:
    assert all(len(no_signature(wire, "z" * 10_000)) < 200 for wire in Wire)
    assert all(len(missing(wire, "m" * 10_000, label="l" * 10_000)) < 200 for wire in Wire)


def test_only_triton_has_words_for_what_comes_too_late() -> None:
    assert {wire for wire in Wire if expired(wire)} == {Wire.INFER, Wire.GRPC_INFER}
    assert expired(Wire.INFER) == "Request timeout expired: "
