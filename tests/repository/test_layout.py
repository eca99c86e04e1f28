"""What lies in a models folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import ModelError
from app.repository.layout import Kind, Misplaced, Source, scan, source_of


def put(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def only(models: Path) -> Source | Misplaced:
    (item,) = scan(models)
    return item


def reason(models: Path) -> str:
    item = only(models)
    assert isinstance(item, Misplaced)
    return item.reason


SUFFIXES = {".keras": Kind.KERAS, ".h5": Kind.H5, ".hdf5": Kind.H5, ".tflite": Kind.TFLITE, ".KERAS": Kind.KERAS}


@pytest.mark.parametrize(("suffix", "kind"), SUFFIXES.items())
def test_a_file_is_version_1_of_a_model_without_a_folder(tmp_path: Path, suffix: str, kind: Kind) -> None:
    file = put(tmp_path / f"mlp{suffix}")

    assert only(tmp_path) == Source("mlp", 1, kind, file, None)


@pytest.mark.parametrize(("suffix", "kind"), SUFFIXES.items())
def test_a_file_in_a_folder_is_version_1_by_the_name_of_the_folder(tmp_path: Path, suffix: str, kind: Kind) -> None:
    file = put(tmp_path / "digits" / f"any name{suffix}")

    assert only(tmp_path) == Source("digits", 1, kind, file, tmp_path / "digits")


def test_of_several_versions_the_highest_number_is_served_and_not_the_last_in_the_alphabet(tmp_path: Path) -> None:
    for version in ("2", "9", "10"):
        put(tmp_path / "m" / version / "model.keras")

    found = only(tmp_path)

    assert found == Source("m", 10, Kind.KERAS, tmp_path / "m" / "10" / "model.keras", tmp_path / "m")


def test_a_version_may_have_leading_zeros(tmp_path: Path) -> None:
    put(tmp_path / "m" / "0007" / "model.h5")

    found = only(tmp_path)

    assert isinstance(found, Source)
    assert found.version == 7


def test_two_folders_of_one_version_are_no_model(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "a.keras")
    put(tmp_path / "m" / "01" / "b.keras")

    assert reason(tmp_path) == "01/ and 1/ in m/ are the same version: keep one"


@pytest.mark.parametrize("other", ["0", "-1", "v3", "1.5", "latest", ".2", "9" * 19])
def test_a_folder_that_is_no_positive_number_is_no_version(tmp_path: Path, other: str) -> None:
    put(tmp_path / "m" / "1" / "model.keras")
    put(tmp_path / "m" / other / "model.keras")

    found = only(tmp_path)

    assert isinstance(found, Source)
    assert found.path.parent.name == "1"


def test_a_file_called_like_a_version_is_no_version(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.keras")
    put(tmp_path / "m" / "2")

    found = only(tmp_path)

    assert isinstance(found, Source)
    assert found.version == 1


@pytest.mark.parametrize("place", ["m", "m/3", "m/export", "m/3/export"])
@pytest.mark.parametrize("file", ["saved_model.pb", "saved_model.pbtxt"])
def test_a_saved_model_is_a_folder_at_a_models_or_a_versions_place_or_in_it(
    tmp_path: Path, place: str, file: str
) -> None:
    put(tmp_path / place / file)
    put(tmp_path / place / "variables" / "variables.index")

    version = 3 if "3" in place else 1

    assert only(tmp_path) == Source("m", version, Kind.SAVED_MODEL, tmp_path / place, tmp_path / "m")


@pytest.mark.parametrize("name", [".hidden.keras", ".git/model.keras", ".DS_Store", "README.md", "notes.txt", "keras"])
def test_hidden_entries_and_files_that_are_no_models_are_not_looked_at(tmp_path: Path, name: str) -> None:
    put(tmp_path / name)

    assert scan(tmp_path) == []


@pytest.mark.parametrize("name", [".part.keras", "model.toml", "samples.json", "training.json", "notes/a.txt"])
def test_what_lies_beside_a_model_does_not_count(tmp_path: Path, name: str) -> None:
    file = put(tmp_path / "m" / "model.keras")
    put(tmp_path / "m" / name)

    assert only(tmp_path) == Source("m", 1, Kind.KERAS, file, tmp_path / "m")


@pytest.mark.parametrize("name", ["two words", "-dash", "_line", "ä", "a" * 129, "a+b", "caf\u00e9"])
def test_a_file_or_folder_of_another_name_than_models_may_have_is_shown_with_its_name(
    tmp_path: Path, name: str
) -> None:
    put(tmp_path / f"{name}.keras")

    found = only(tmp_path)

    assert isinstance(found, Misplaced)
    assert found.name == name[:128]
    assert found.reason.startswith(f"{name!r} is no model name: expected letters")

    (tmp_path / f"{name}.keras").unlink()
    put(tmp_path / name / "model.keras")

    assert only(tmp_path) == found


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "resnet50.v2", "7", "a" * 128])
def test_letters_digits_points_dashes_and_underlines_make_a_name(tmp_path: Path, name: str) -> None:
    put(tmp_path / f"{name}.keras")

    found = only(tmp_path)

    assert isinstance(found, Source)
    assert found.name == name


@pytest.mark.parametrize("place", ["\udcff.keras", "\udcff/model.keras", "m/\udcff.keras"])
def test_a_name_that_is_not_utf8_is_refused_in_words_that_are(tmp_path: Path, place: str) -> None:
    put(tmp_path / place)

    found = only(tmp_path)

    assert isinstance(found, Misplaced)
    assert (found.name + found.reason).encode("utf-8").isascii()
    assert r"'\udcff" in found.reason


@pytest.mark.parametrize("place", ["{}.keras", "{}/model.keras", "m/{}.keras"])
def test_a_name_that_a_terminal_would_obey_is_escaped(tmp_path: Path, place: str) -> None:
    put(tmp_path / place.format("bad name\n\x1b[31mINJECT"))

    found = only(tmp_path)

    assert isinstance(found, Misplaced)
    assert found.name.isprintable()
    assert found.reason.isprintable()
    assert r"bad name\n\x1b[31mINJECT" in found.reason
    assert found.name in (r"bad name\n\x1b[31mINJECT", "m")


def test_an_escaped_name_is_not_longer_than_another(tmp_path: Path) -> None:
    put(tmp_path / ("\x1b" * 100 + ".keras"))

    assert only(tmp_path).name == (r"\x1b" * 32)


def test_two_models_in_a_folder_are_named_in_the_reason(tmp_path: Path) -> None:
    put(tmp_path / "m" / "a.keras")
    put(tmp_path / "m" / "b.h5")

    assert reason(tmp_path) == (
        "expected one model in m/ (.keras, .h5, .tflite or a SavedModel), found 2 (a.keras, b.h5)"
    )


def test_a_saved_model_beside_a_file_is_two_models(tmp_path: Path) -> None:
    put(tmp_path / "m" / "saved_model.pb")
    put(tmp_path / "m" / "a.keras")

    assert reason(tmp_path).endswith("found 2 (saved_model.pb, a.keras)")


@pytest.mark.parametrize(("place", "shown"), [("m", "m"), ("m/4", "m/4")])
def test_an_empty_folder_says_where_a_model_was_expected(tmp_path: Path, place: str, shown: str) -> None:
    (tmp_path / place).mkdir(parents=True)

    found = only(tmp_path)

    assert isinstance(found, Misplaced)
    assert found.version == (4 if "4" in place else 1)
    assert found.reason == f"expected one model in {shown}/ (.keras, .h5, .tflite or a SavedModel), found none"


def test_an_empty_highest_version_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.keras")
    (tmp_path / "m" / "2").mkdir()

    assert "expected one model in m/2/" in reason(tmp_path)


@pytest.mark.parametrize("other", ["m.h5", "m/model.keras", "m/1/model.keras"])
def test_one_name_twice_is_refused_with_both_places(tmp_path: Path, other: str) -> None:
    put(tmp_path / "m.keras")
    put(tmp_path / other)
    put(tmp_path / "another.keras")

    another, both = scan(tmp_path)

    assert isinstance(another, Source)
    assert isinstance(both, Misplaced)
    first, second = sorted(["m.keras", other.split("/", maxsplit=1)[0]])
    assert both.reason == f"{first} and {second} have the same name, 'm': keep one of them"


def test_models_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("c.keras", "a/1/x.h5", "b.tflite"):
        put(tmp_path / name)

    assert [item.name for item in scan(tmp_path)] == ["a", "b", "c"]


def test_links_are_followed(tmp_path: Path) -> None:
    real, models = tmp_path / "real", tmp_path / "models"
    models.mkdir()
    put(real / "1" / "model.keras")
    (models / "folder").symlink_to(real)
    (models / "file.keras").symlink_to(real / "1" / "model.keras")

    file, folder = scan(models)

    assert isinstance(file, Source)
    assert file.path == models / "file.keras"
    assert isinstance(folder, Source)
    assert folder.path == models / "folder" / "1" / "model.keras"


@pytest.mark.parametrize("target", ["nowhere", "m.keras"])
def test_a_link_to_nothing_or_to_itself_is_no_model(tmp_path: Path, target: str) -> None:
    (tmp_path / "m.keras").symlink_to(target)

    assert reason(tmp_path) == "m.keras is no file, nor a link to one"


def test_a_pipe_is_not_opened_for_a_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.keras")
    os.mkfifo(put(tmp_path / "n" / "model.toml").with_name("model.keras"))

    pipe, folder = scan(tmp_path)

    assert isinstance(pipe, Misplaced)
    assert pipe.reason == "m.keras is no file, nor a link to one"
    assert isinstance(folder, Misplaced)
    assert folder.reason.endswith("found none")


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `closed` that nobody may list; made so for root too, whom permissions do not hold."""
    folder = tmp_path / "models" / "closed"
    put(folder / "model.keras")
    listing = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    return folder


def test_a_folder_that_cannot_be_read_leaves_the_other_models_alone(closed: Path) -> None:
    put(closed.parent / "open.keras")

    unreadable, other = scan(closed.parent)

    assert unreadable == Misplaced("closed", 1, "closed cannot be read: Permission denied")
    assert isinstance(other, Source)


def test_a_models_folder_that_cannot_be_read_is_an_error_that_names_it(closed: Path) -> None:
    with pytest.raises(ModelError) as caught:
        scan(closed)

    assert caught.value.message == f"the models folder {closed} cannot be read: Permission denied"


def test_a_models_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"models folder .*/nowhere cannot be read: No such file or directory"):
        scan(tmp_path / "nowhere")


# By hand


def test_a_file_given_by_hand_is_a_model_by_its_own_name(tmp_path: Path) -> None:
    file = put(tmp_path / "some model.keras")

    assert source_of(file) == Source("some model", 1, Kind.KERAS, file, None)


def test_a_file_given_by_hand_keeps_the_settings_that_lie_beside_it(tmp_path: Path) -> None:
    file = put(tmp_path / "m.keras")
    put(tmp_path / "model.toml")

    assert source_of(file).folder == tmp_path


def test_a_folder_given_by_hand_is_a_model_with_versions_or_without(tmp_path: Path) -> None:
    put(tmp_path / "m" / "model.keras")
    put(tmp_path / "n" / "3" / "saved_model.pb")

    assert source_of(tmp_path / "m").path == tmp_path / "m" / "model.keras"
    assert source_of(tmp_path / "n") == Source("n", 3, Kind.SAVED_MODEL, tmp_path / "n" / "3", tmp_path / "n")


def test_nothing_and_other_files_and_empty_folders_given_by_hand_are_no_models(tmp_path: Path) -> None:
    text = put(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe.keras")
    (tmp_path / "empty").mkdir()

    with pytest.raises(ModelError, match=r"there is nothing at .*/nowhere"):
        source_of(tmp_path / "nowhere")
    for path in (text, tmp_path / "pipe.keras"):
        with pytest.raises(ModelError, match=r"is no model: expected \.keras, \.h5, \.tflite or a SavedModel folder"):
            source_of(path)
    with pytest.raises(ModelError, match=r"expected one model in empty/ .* found none"):
        source_of(tmp_path / "empty")


def test_a_folder_of_models_given_by_hand_is_refused_with_the_names_in_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    put(models / "digits" / "1" / "model.keras")

    with pytest.raises(ModelError, match=r"models is a folder of models: name one of those in it, digits$"):
        source_of(models)
    put(models / "short.tflite")
    with pytest.raises(ModelError, match=r"models is a folder of models: name one of those in it, digits, short$"):
        source_of(models)


@pytest.mark.parametrize(
    "files",
    [
        ["model.keras", "assets/words.txt"],
        ["model.keras", "model.toml", "older/model.keras"],
        ["1/model.keras", "2/model.keras"],
        ["1/saved_model.pb"],
        ["saved_model.pb", "assets/model.tflite"],
        ["exported/saved_model.pb"],
    ],
    ids=" ".join,
)
def test_a_folder_of_one_model_is_no_folder_of_models(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        put(tmp_path / "m" / file)

    assert source_of(tmp_path / "m").name == "m"


def test_a_name_given_by_hand_is_escaped_too(tmp_path: Path) -> None:
    assert source_of(put(tmp_path / "a\x1b.keras")).name == r"a\x1b"
    assert source_of(put(tmp_path / "b\x1b" / "m.keras").parent).name == r"b\x1b"


def test_a_folder_given_by_hand_that_cannot_be_read_is_an_error(closed: Path) -> None:
    with pytest.raises(ModelError, match=r"closed cannot be read: Permission denied"):
        source_of(closed)
