"""Where requests of each wire format are posted, and what their paths ask for."""

from collections.abc import Mapping

from app.errors import InvalidArgument, NotFound
from app.protocols.call import SHOWN, Wire
from app.repository.manager import Target
from app.repository.version import version_of

_SERVING = {Wire.SERVING_PREDICT: ":predict", Wire.SERVING_CLASSIFY: ":classify", Wire.SERVING_REGRESS: ":regress"}

_PLACES = ("/{model}", "/{model}/versions/{version}", "/{model}/labels/{label}")

TEMPLATES: Mapping[Wire, tuple[str, ...]] = {
    Wire.PREDICT: ("/predict", *(f"/predict{place}" for place in _PLACES)),
    **{wire: tuple(f"/v1/models{place}{verb}" for place in _PLACES) for wire, verb in _SERVING.items()},
    Wire.INFER: tuple(f"/v2/models{place}/infer" for place in _PLACES[:2]),
}
"""The paths of each wire format as routes."""


def path_of(target: Target, wire: Wire = Wire.PREDICT) -> bytes:
    """The path by which requests ask for it; all but `/predict` need a model's name, and `INFER` knows no labels."""
    path = "/predict" if wire is Wire.PREDICT else "/v2/models" if wire is Wire.INFER else "/v1/models"
    if target.model is not None:
        path += f"/{target.model}"
    if target.version is not None:
        path += f"/versions/{target.version}"
    if target.label is not None:
        path += f"/labels/{target.label}"
    if wire is Wire.INFER:
        path += "/infer"
    return (path + _SERVING.get(wire, "")).encode()


def target_of(parameters: Mapping[str, str], wire: Wire = Wire.PREDICT) -> Target:
    """What a path asks for.

    Raises:
        NotFound: a version that is no number.
        InvalidArgument: the same by TensorFlow Serving's formats.
    """
    text = parameters.get("version")
    version = version_of(text) if text is not None else None
    if text is not None and version is None:
        expected = "versions are positive integers below 2^63"
        if wire in _SERVING:
            raise InvalidArgument(f"Failed to convert version: {text[:SHOWN]} to numeric: {expected}")
        raise NotFound(f"no version {text[:SHOWN]!r}: {expected}")
    return Target(parameters.get("model"), version, parameters.get("label"))
