"""samples.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.errors import ModelError
from app.repository.samples import Sample, read_samples


def read(folder: Path, samples: Any) -> list[Sample]:
    (folder / "samples.json").write_text(json.dumps(samples))
    return read_samples(folder)


def test_without_a_file_or_a_folder_there_are_none(tmp_path: Path) -> None:
    assert read_samples(None) == read_samples(tmp_path) == []


def test_samples_keep_their_order_and_all_they_say(tmp_path: Path) -> None:
    full = {"about": "a 7", "request": {"instance": [1, 2]}, "answer": {"prediction": 7}}

    first, second = read(tmp_path, [full, {"request": {"instances": [[0]]}}])

    assert first.model_dump() == full
    assert second == Sample(request={"instances": [[0]]}, answer=None, about="")


@pytest.mark.parametrize(
    ("samples", "place"),
    [
        ({}, ""),
        ([[]], "[0]"),
        ([{"request": {}}, {}], "[1].request"),
        ([{"request": []}], "[0].request"),
        ([{"request": {}, "answer": 5}], "[0].answer"),
        ([{"request": {}, "about": None}], "[0].about"),
        ([{"request": {}, "reply": {}}], "[0].reply"),
    ],
)
def test_another_form_is_refused_by_its_place(tmp_path: Path, samples: Any, place: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path, samples)

    assert caught.value.message.startswith(f"samples.json{place}: ")


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "samples.json").write_bytes(content)

    with pytest.raises(ModelError, match=r"^samples\.json: Invalid JSON"):
        read_samples(tmp_path)


def test_a_file_that_cannot_be_read_is_not_called_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_bytes(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "samples.json").touch()
    monkeypatch.setattr(Path, "read_bytes", read_bytes)

    with pytest.raises(ModelError, match=r"^samples\.json cannot be read: Permission denied$"):
        read_samples(tmp_path)
