"""`samples.json`, which may lie beside a model: requests that really occur, with the answers they should get.

    [{"about": "held-out image 12: a 7", "request": {"instance": RECORD}, "answer": {"prediction": RECORD}}, ...]

`request` is a body of `/predict`; `about` and `answer` may be left out.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from app.errors import ModelError


class Sample(BaseModel):
    """One request of `/predict`, and what it should be answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: dict[str, Any]
    answer: dict[str, Any] | None = None
    about: str = ""


_SAMPLES = TypeAdapter(list[Sample])


def read_samples(folder: Path | None) -> list[Sample]:
    """Read `folder`/samples.json, if it is there.

    Raises:
        ModelError: it has another form.
    """
    path = folder / "samples.json" if folder else None
    if path is None or not path.is_file():
        return []
    try:
        return _SAMPLES.validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"samples.json cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        raise ModelError(f"samples.json{place}: {fault['msg']}") from error
