"""`model.toml`, which may lie beside a model."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import ModelError

Quantization = Literal["none", "float16", "dynamic"]

DEFAULT_TOLERANCE: dict[Quantization, float] = {"none": 1e-4, "float16": 1e-2, "dynamic": 0.1}
"""Largest difference from TensorFlow, relative to an output's largest absolute value, that a model is served with."""


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
        description="Largest difference from TensorFlow, relative to the output's scale, that is served. "
        "Default: 1e-4 for `none`, 1e-2 for `float16`, 0.1 for `dynamic`.",
    )

    @property
    def allowed_difference(self) -> float:
        return self.tolerance or DEFAULT_TOLERANCE[self.quantization]


def read_config(folder: Path | None) -> ModelConfig:
    """Read `folder`/model.toml, if it is there.

    Raises:
        ModelError: naming the key, what was found and what was expected.
    """
    path = folder / "model.toml" if folder else None
    if path is None or not path.is_file():
        return ModelConfig()
    try:
        return ModelConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")), strict=False)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"model.toml is not TOML: {error}") from error
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            key = ".".join(map(str, fault["loc"]))
            known = (
                f"; the keys are {', '.join(ModelConfig.model_fields)}" if fault["type"] == "extra_forbidden" else ""
            )
            faults.append(f"{key} = {fault['input']!r}: {fault['msg']}{known}")
        raise ModelError("model.toml: " + "; ".join(faults)) from error
