"""Where requests of each wire format are posted, and what their paths ask for."""

import re
from collections.abc import Mapping

from app.errors import NotFound
from app.protocols.call import SHOWN, Wire
from app.repository.manager import Target

_VERSION = re.compile(r"[0-9]{1,18}")

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


def target_of(parameters: Mapping[str, str]) -> Target:
    """What a path asks for.

    Raises:
        NotFound: a version that is no number.
    """
    version = parameters.get("version")
    if version is not None and not _VERSION.fullmatch(version):
        raise NotFound(f"no version {version[:SHOWN]!r}: versions are positive integers")
    return Target(parameters.get("model"), int(version) if version else None, parameters.get("label"))
