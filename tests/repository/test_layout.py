"""What lies in a models folder."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import ModelError
from app.repository.layout import Folder, Kind, Misplaced, Source, scan, source_of
from app.repository.model_config import ModelConfig, VersionsConfig


def put(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def only_folder(models: Path) -> Folder:
    (folder,) = scan(models)
    return folder


def only(models: Path) -> Source | Misplaced:
    (item,) = only_folder(models).versions
    return item


def all_in(models: Path) -> list[Source | Misplaced]:
    """Of each model the only version."""
    return [item for folder in scan(models) for (item,) in [folder.versions]]


def reason(models: Path) -> str:
    item = only(models)
    assert isinstance(item, Misplaced)
    return item.reason


PASSING = ["m.tmp/model.keras", "m.part/1/model.keras", "m.keras~", "m~/model.keras", "m.keras.tmp", "m.keras.part"]
SUFFIXES = {".keras": Kind.KERAS, ".h5": Kind.H5, ".hdf5": Kind.H5, ".tflite": Kind.TFLITE, ".KERAS": Kind.KERAS}


@pytest.mark.parametrize(("suffix", "kind"), SUFFIXES.items())
def test_a_file_is_version_1_of_a_model_without_a_folder(tmp_path: Path, suffix: str, kind: Kind) -> None:
    file = put(tmp_path / f"mlp{suffix}")

    assert only(tmp_path) == Source("mlp", 1, kind, file, None)


@pytest.mark.parametrize(("suffix", "kind"), SUFFIXES.items())
def test_a_file_in_a_folder_is_version_1_by_the_name_of_the_folder(tmp_path: Path, suffix: str, kind: Kind) -> None:
    file = put(tmp_path / "digits" / f"any name{suffix}")

    assert only(tmp_path) == Source("digits", 1, kind, file, tmp_path / "digits")


def test_versions_are_listed_by_their_numbers_and_not_by_the_alphabet(tmp_path: Path) -> None:
    places = [put(tmp_path / "m" / version / "model.keras") for version in ("2", "9", "10", "1700000000000000000")]

    folder = only_folder(tmp_path)

    assert folder.versions == tuple(
        Source("m", int(place.parent.name), Kind.KERAS, place, tmp_path / "m") for place in places
    )


def test_a_version_may_have_leading_zeros(tmp_path: Path) -> None:
    put(tmp_path / "m" / "0007" / "model.h5")

    found = only(tmp_path)

    assert isinstance(found, Source)
    assert found.version == 7


def test_two_folders_of_one_version_are_no_model_and_the_other_versions_are(tmp_path: Path) -> None:
    for version in ("1", "01", "2"):
        put(tmp_path / "m" / version / "a.keras")

    first, second = only_folder(tmp_path).versions

    assert first == Misplaced("m", 1, "01/ and 1/ in m/ are the same version: keep one")
    assert isinstance(second, Source)


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


@pytest.mark.parametrize(
    "name", [".hidden.keras", ".git/model.keras", ".DS_Store", "README.md", "notes.txt", "keras", *PASSING]
)
def test_hidden_entries_and_files_that_are_no_models_are_not_looked_at(tmp_path: Path, name: str) -> None:
    put(tmp_path / name)

    assert scan(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        ".part.keras",
        "model.toml",
        "samples.json",
        "training.json",
        "notes/a.txt",
        "b.keras.part",
        "b.keras~",
        "b.tmp/saved_model.pb",
        ".b/saved_model.pb",
    ],
)
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


def test_an_empty_version_harms_no_other(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.keras")
    (tmp_path / "m" / "2").mkdir()

    first, second = only_folder(tmp_path).versions

    assert isinstance(first, Source)
    assert isinstance(second, Misplaced)
    assert second.reason.startswith("expected one model in m/2/")


@pytest.mark.parametrize("other", ["m.h5", "m/model.keras", "m/1/model.keras"])
def test_one_name_twice_is_refused_with_both_places(tmp_path: Path, other: str) -> None:
    put(tmp_path / "m.keras")
    put(tmp_path / other)
    put(tmp_path / "another.keras")

    another, both = all_in(tmp_path)

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

    file, folder = all_in(models)

    assert isinstance(file, Source)
    assert file.path == models / "file.keras"
    assert isinstance(folder, Source)
    assert folder.path == models / "folder" / "1" / "model.keras"


def test_a_linked_version_is_a_version(tmp_path: Path) -> None:
    real = put(tmp_path / "store" / "abc" / "model.tflite").parent
    place = tmp_path / "models" / "m" / "3"
    place.parent.mkdir(parents=True)
    place.symlink_to(real)

    assert only(tmp_path / "models") == Source("m", 3, Kind.TFLITE, place / "model.tflite", place.parent)


def test_folders_as_kubernetes_mounts_them_hold_one_model_before_a_swap_and_after(tmp_path: Path) -> None:
    models = tmp_path / "models"
    first = put(models / "m" / "..2026_01" / "1" / "model.keras", b"1").parent.parent
    second = put(models / "m" / "..2026_02" / "1" / "model.keras", b"2").parent.parent
    data = models / "m" / "..data"
    data.symlink_to(first.name)
    (models / "m" / "1").symlink_to("..data/1")

    before = only(models)
    (models / "m" / "..data_tmp").symlink_to(second.name)
    (models / "m" / "..data_tmp").rename(data)

    assert only(models) == before == Source("m", 1, Kind.KERAS, models / "m" / "1" / "model.keras", models / "m")
    assert before.path.read_bytes() == b"2"


@pytest.mark.parametrize(("link", "shown"), [("m", "m"), ("m/7", "m/7")])
@pytest.mark.parametrize("target", ["nowhere", "self"])
def test_a_linked_model_or_version_that_is_gone_is_told_of(tmp_path: Path, link: str, shown: str, target: str) -> None:
    place = tmp_path / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(place.name if target == "self" else target)

    assert only(tmp_path) == Misplaced("m", 7 if "7" in link else 1, f"{shown} is a link that leads nowhere")


def test_a_link_to_nothing_beside_a_model_does_not_count_and_in_place_of_one_is_named(tmp_path: Path) -> None:
    model = put(tmp_path / "m" / "a.keras")
    (tmp_path / "m" / "b.h5").symlink_to("nowhere")
    (tmp_path / "m" / "notes").symlink_to("nowhere")
    assert isinstance(only(tmp_path), Source)

    model.unlink()

    assert reason(tmp_path).endswith("found a link that leads nowhere (b.h5)")


def test_links_that_lead_round_end(tmp_path: Path) -> None:
    put(tmp_path / "m" / "model.keras")
    (tmp_path / "m" / "1").symlink_to(".")
    (tmp_path / "round").symlink_to("..")
    (tmp_path / "m" / "2").mkdir()
    (tmp_path / "m" / "2" / "round").symlink_to("..")

    m, _ = scan(tmp_path)

    first, second = m.versions
    assert isinstance(first, Source)
    assert isinstance(second, Misplaced)


@pytest.mark.parametrize("target", ["nowhere", "m.keras"])
def test_a_link_to_nothing_or_to_itself_is_no_model(tmp_path: Path, target: str) -> None:
    (tmp_path / "m.keras").symlink_to(target)

    assert reason(tmp_path) == "m.keras is no file, nor a link to one"


def test_a_pipe_is_not_opened_for_a_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.keras")
    os.mkfifo(put(tmp_path / "n" / "model.toml").with_name("model.keras"))

    pipe, folder = all_in(tmp_path)

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

    unreadable, other = all_in(closed.parent)

    assert unreadable == Misplaced("closed", 1, "closed cannot be read: Permission denied", unreadable=True)
    assert isinstance(other, Source)


@pytest.mark.parametrize("call", ["iterdir", "stat"])
def test_a_version_that_cannot_be_read_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for version in ("1", "2", "3"):
        put(tmp_path / "m" / version / "model.keras")
    right = getattr(Path, call)

    def wrong(path: Path, **options: Any) -> Any:
        if path.name == "2":
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return right(path, **options)

    monkeypatch.setattr(Path, call, wrong)

    first, second, third = only_folder(tmp_path).versions

    assert second == Misplaced("m", 2, "m/2 cannot be read: Stale file handle", unreadable=True)
    assert isinstance(first, Source)
    assert isinstance(third, Source)


def test_a_models_folder_that_cannot_be_read_is_an_error_that_names_it(closed: Path) -> None:
    with pytest.raises(ModelError) as caught:
        scan(closed)

    assert caught.value.message == f"the models folder {closed} cannot be read: Permission denied"


def test_a_models_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"models folder .*/nowhere cannot be read: No such file or directory"):
        scan(tmp_path / "nowhere")


# What model.toml says


def test_a_folder_has_what_its_model_toml_says(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.keras")
    put(tmp_path / "m" / "model.toml", b"versions.all = true")
    put(tmp_path / "n.keras")

    m, n = scan(tmp_path)

    assert (m.path, m.config, m.fault) == (tmp_path / "m", ModelConfig(versions=VersionsConfig(all=True)), "")
    assert (n.path, n.config, n.fault) == (None, ModelConfig(), "")


def test_a_folder_whose_model_toml_is_wrong_has_its_versions_and_the_fault(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.keras")
    put(tmp_path / "m" / "model.toml", b"nonsense = 1")

    folder = only_folder(tmp_path)

    assert isinstance(folder.versions[0], Source)
    assert folder.config == ModelConfig()
    assert folder.fault.startswith("model.toml: nonsense = 1: ")


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


def test_of_versions_given_by_hand_with_their_folder_the_highest_is_taken(tmp_path: Path) -> None:
    for version in ("2", "9", "10"):
        put(tmp_path / "m" / version / "model.keras")

    assert source_of(tmp_path / "m").version == 10


@pytest.mark.parametrize("beside", ["model.toml", "samples.json"])
@pytest.mark.parametrize("given", ["2", "02", "2/model.keras"])
def test_a_version_given_by_hand_keeps_what_lies_beside_all_versions(tmp_path: Path, beside: str, given: str) -> None:
    place = tmp_path / "m" / given.partition("/")[0] / "model.keras"
    put(place)
    put(tmp_path / "m" / "1" / "model.h5")
    put(tmp_path / "m" / beside)

    assert source_of(tmp_path / "m" / given) == Source("m", 2, Kind.KERAS, place, tmp_path / "m")


def test_a_version_given_by_hand_is_one_of_its_model_without_anything_beside_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put(tmp_path / "m" / "2" / "saved_model.pb").parent
    wanted = Source("m", 2, Kind.SAVED_MODEL, place, tmp_path / "m")
    assert source_of(place) == wanted

    monkeypatch.chdir(tmp_path / "m")
    assert source_of(Path("2")) == wanted

    monkeypatch.chdir(place)
    assert source_of(Path()) == wanted


def test_a_linked_version_given_by_hand_is_that_version(tmp_path: Path) -> None:
    put(tmp_path / "store" / "abc" / "model.tflite")
    put(tmp_path / "m" / "model.toml")
    (tmp_path / "m" / "3").symlink_to(tmp_path / "store" / "abc")

    assert source_of(tmp_path / "m" / "3") == Source(
        "m", 3, Kind.TFLITE, tmp_path / "m" / "3" / "model.tflite", tmp_path / "m"
    )


@pytest.mark.parametrize("beside", ["7/model.toml", "7/1/model.keras"])
def test_a_folder_given_by_hand_whose_name_is_a_number_may_be_a_model_of_that_name(tmp_path: Path, beside: str) -> None:
    put(tmp_path / ("7/1/model.keras" if "/1/" in beside else "7/model.keras"))
    put(tmp_path / beside)

    found = source_of(tmp_path / "7")

    assert (found.name, found.version, found.folder) == ("7", 1, tmp_path / "7")


def test_an_empty_version_given_by_hand_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "m" / "2").mkdir(parents=True)

    with pytest.raises(ModelError, match=r"^expected one model in m/2/ "):
        source_of(tmp_path / "m" / "2")


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
