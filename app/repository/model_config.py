"""`model.toml`, which may lie beside a model."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import ModelError
from app.runtime.plan import Wishes
from app.tensors import FREE, Signature, show_shape

Quantization = Literal["none", "float16", "dynamic"]

DEFAULT_TOLERANCE: dict[Quantization, float] = {"none": 1e-4, "float16": 1e-2, "dynamic": 0.1}
"""Largest difference from TensorFlow, relative to an output's largest absolute value, that a model is served with."""


class LaneConfig(BaseModel):
    """`[lane]`: what is fixed in place of what the measured profile says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inline_rows: int | None = Field(
        None,
        ge=0,
        description="Batches of up to so many records run on the event loop, larger ones on a pool thread; 0: none do.",
    )
    merge_rows: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="The most records of different requests in one invoke; 1: requests never share one.",
    )
    threads: int = Field(1, ge=1, le=256, description="LiteRT's own threads in each interpreter.")

    def wishes(self) -> Wishes:
        return Wishes(self.inline_rows, self.merge_rows, self.threads)


class ModelConfig(BaseModel):
    """Every key is optional; docs/models.md describes them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field("", description="What the model does, for people; shown in `GET /models/{m}`.")
    class_labels: list[str] | dict[str, list[str]] = Field(
        default_factory=list,
        description="Names of the classes in the order of the scores; `{output: [names]}` for several outputs.",
    )
    quantization: Quantization = Field(
        "none", description="Weights of the converted model: `none`, `float16`, or `dynamic` (int8)."
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Largest difference from TensorFlow, relative to the output's scale, that is served. "
        "Default: 1e-4 for `none`, 1e-2 for `float16`, 0.1 for `dynamic`.",
    )

    lane: LaneConfig = Field(
        default=LaneConfig(), description="Where invokes run and what they share, in place of what was measured."
    )

    @property
    def allowed_difference(self) -> float:
        return self.tolerance or DEFAULT_TOLERANCE[self.quantization]

    def check_labels(self, signature: Signature) -> None:
        """Refuse class labels that are not those of the model's outputs.

        Raises:
            ModelError: naming the output, what was found and what was expected.
        """
        if not self.class_labels:
            return
        outputs = {spec.name: spec for spec in signature.outputs}
        names = ", ".join(map(repr, outputs))
        labels = self.class_labels
        if isinstance(labels, list):
            if len(outputs) > 1:
                raise ModelError(
                    f"model.toml: class_labels is a list, and the model has the outputs {names}: "
                    "expected {output: [names]}"
                )
            labels = dict.fromkeys(outputs, labels)
        for name, classes in labels.items():
            if name not in outputs:
                raise ModelError(f"model.toml: class_labels names the output {name!r}, and the model has {names}")
            scores = signature.record_shape(outputs[name])[-1:]
            if scores and scores[0] not in (FREE, len(classes)):
                raise ModelError(
                    f"model.toml: class_labels has {len(classes)} names for output {name!r}, whose shape is "
                    f"{show_shape(signature.tensor_shape(outputs[name]))}: expected {scores[0]}"
                )


def read_config(folder: Path | None) -> ModelConfig:
    """Read `folder`/model.toml, if it is there.

    Raises:
        ModelError: naming the key, what was found and what was expected.
    """
    path = folder / "model.toml" if folder else None
    if path is None or not path.is_file():
        return ModelConfig()
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
        return ModelConfig.model_validate(given, strict=True)
    except OSError as error:
        raise ModelError(f"model.toml cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"model.toml is not TOML: {error}") from error
    except ValidationError as error:
        raise ModelError("model.toml: " + _faults(error, given)) from error


def _faults(error: ValidationError, given: dict[str, Any]) -> str:
    """Of each wrong key its value and what is wrong with that; a key of two forms is wrong by both."""
    wrong: dict[str, list[str]] = {}
    for fault in error.errors():
        key, *rest = map(str, fault["loc"])
        value, fields = given[key], ModelConfig.model_fields
        if key == "lane" and rest:
            key, value, fields = f"lane.{rest[0]}", value[rest[0]], LaneConfig.model_fields
        known = f"; the keys are {', '.join(fields)}" if fault["type"] == "extra_forbidden" else ""
        wrong.setdefault(f"{key} = {repr(value)[:100]}", []).append(fault["msg"] + known)
    return "; ".join(f"{place}: {' or '.join(faults)}" for place, faults in wrong.items())
