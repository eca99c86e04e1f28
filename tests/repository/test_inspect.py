"""What the commands do with a model outside a server."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import ModelError
from app.repository import convert
from app.repository.inspect import convert_by_hand, fill_cache, open_by_hand, table
from app.repository.trial import Findings, Question, Trial
from app.runtime.interpreter import Model
from app.runtime.profile import Profile
from app.settings import Settings
from tests import tflite
from tests.repository import stand_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models_dir=tmp_path, cache_dir=tmp_path / "cache")


def silent(stage: str) -> None:
    pass


def test_a_tflite_file_is_reported_and_shown(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite.affine())

    found = open_by_hand(tmp_path / "m.tflite", None, settings, silent)
    lines = table(found).splitlines()

    assert (found["name"], found["version"], found["format"]) == ("m", 1, "tflite")
    assert lines[0] == "m, version 1: m.tflite (tflite)"
    assert lines[1] == f"  TFLite         {len(tflite.affine()):,} bytes, quantization none"
    assert "  input          x  float32 [-1, 4]" in lines
    assert "  output         y  float32 [-1, 4]" in lines
    assert any(line.startswith("  batch of 1     ") for line in lines)
    assert any(line.startswith("  lane           on the event loop up to ") for line in lines)
    assert not any("converted" in line for line in lines)


def measured(monkeypatch: pytest.MonkeyPatch, invoke_us: dict[int, float]) -> None:
    """From now on every model is found to cost this."""
    of = Trial.of

    def found(trial: Trial, model: Model, question: Question, keep: bool = True) -> Findings:
        findings = of(stand_in.trial(), model, question, keep)
        return Findings([replace(one, profile=Profile(invoke_us)) for one in findings.signatures], findings.left_out)

    monkeypatch.setattr(Trial, "of", found)


def test_few_of_many_sizes_are_shown(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite.affine())
    measured(monkeypatch, {1: 17.0, 2: 25.0, 7: 27.0, 16: 76.0, 64: 240.0, 256: 900.0})

    lines = table(open_by_hand(tmp_path / "m.tflite", None, settings, silent)).splitlines()

    assert lines[5:] == [
        "  batch of 1     17 us",
        "  batch of 16    76 us",
        "  batch of 256   900 us",
        "  lane           on the event loop up to 80 records, larger batches on pool threads",
    ]


def test_a_profile_is_shown_with_what_follows_from_it(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite.affine())
    (tmp_path / "model.toml").write_text("[lane]\ninline_rows = 4\nthreads = 2")
    measured(monkeypatch, {1: 17.0, 4: 25.0, 8: 50.0, 16: 1400.0})
    found = open_by_hand(tmp_path / "m.tflite", None, settings, silent)
    found["profile"] |= {"measured_ms": 46.2, "opened_ms": 1730.0}

    lines = table(found, profile=True).splitlines()

    assert lines[5:] == [
        "  profile        4 batch sizes measured in 46.2 ms; opening the model took 1.73 s",
        "    records   an invoke    a record   taken together",
        "          1       17 us       17 us                1",
        "          4       25 us     6.25 us                4",
        "          8       50 us     6.25 us                8",
        "         16      1.4 ms     87.5 us                8",
        "  lane           on the event loop up to 4 records, larger batches on pool threads",
        "  merging        up to 8 records of different requests are run together",
        "  splitting      batches of 6 records or more over idle pool threads; at most 32 records in one invoke",
        "  kernel threads 2",
        "  fixed          inline_rows = 4, threads = 2 in model.toml",
    ]


def test_a_profile_without_sharing_says_why(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite.running_sum())
    measured(monkeypatch, {1: 17.0})

    lines = table(open_by_hand(tmp_path / "m.tflite", None, settings, silent), profile=True).splitlines()

    why = "it keeps variables between invokes"
    assert lines[-8].startswith("  profile        1 batch size measured in ")
    assert lines[-7:-5] == ["    records   an invoke    a record", "          1       17 us       17 us"]
    assert lines[-5:] == [
        f"  lane           on pool threads: {why}, so that every request gets an interpreter of its own",
        f"  merging        each request is run alone: {why}",
        "  splitting      none",
        "  kernel threads 1",
        "  fixed          nothing in model.toml",
    ]


def test_the_documentation_shows_a_profile_as_it_is_shown(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    example = page.partition(" --profile\n")[2].partition("```")[0].splitlines()

    shown = table(open_by_hand(stand_in.model(tmp_path).path, None, settings, silent), profile=True).splitlines()

    def form(lines: list[str]) -> list[str]:
        return list(dict.fromkeys(line[:17] for line in lines[1:] if line[2:3].isalpha()))

    assert form(example) == form(shown)
    assert "    records   an invoke    a record   taken together" in example


def test_a_wish_that_cannot_be_granted_is_refused_before_a_server_meets_it(tmp_path: Path, settings: Settings) -> None:
    models = tmp_path / "models"
    (models / "m").mkdir(parents=True)
    (models / "m" / "m.tflite").write_bytes(tflite.maximum_over_batch())
    (models / "m" / "model.toml").write_text("[lane]\nmerge_rows = 2")
    reason = r"^model\.toml: lane\.merge_rows = 2: requests to this model cannot share an invoke, because its graph mix"

    with pytest.raises(ModelError, match=reason):
        open_by_hand(models / "m" / "m.tflite", None, settings, silent)
    assert re.match(reason, fill_cache(models, settings, silent)["m"])


def test_a_converted_model_is_shown_with_its_times_and_differences(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path, "say(stage='converting')")
    stages: list[str] = []

    lines = table(open_by_hand(stand_in.model(tmp_path).path, None, settings, stages.append)).splitlines()

    assert stages == ["converting", "checking the converted model", "comparing with TensorFlow"]
    assert "  converted      TensorFlow 2.21.0, plain; importing 3.5 s, converting 1 s" in lines
    assert "  model.predict  46 ms for one record" in lines
    assert "  model(x)       1.8 ms for one record" in lines
    assert "  difference     y: 0.00e+00, 0.00e+00 of its scale (allowed 0.0001)" in lines


def test_a_model_is_written_where_it_is_wanted(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    source = stand_in.model(tmp_path).path
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    assert convert_by_hand(source, None, None, settings, silent) == Path("m.tflite")
    assert convert_by_hand(source, tmp_path / "there", None, settings, silent) == tmp_path / "there"
    assert (tmp_path / "there").read_bytes() == Path("m.tflite").read_bytes() == tflite.affine()


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)

    with pytest.raises(ModelError, match=r"nowhere/m\.tflite cannot be written: No such file or directory$"):
        convert_by_hand(stand_in.model(tmp_path).path, tmp_path / "nowhere" / "m.tflite", None, settings, silent)


def test_a_file_is_replaced_whole_and_a_link_to_it_is_kept(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    source = stand_in.model(tmp_path).path
    out = tmp_path / "out"
    out.mkdir()
    (out / "m.tflite").write_bytes(b"as it was")
    (out / "link").symlink_to("m.tflite")

    with (out / "m.tflite").open("rb") as mapped:
        convert_by_hand(source, out / "link", None, settings, silent)
        assert mapped.read() == b"as it was"

    assert (out / "link").is_symlink()
    assert (out / "m.tflite").read_bytes() == tflite.affine()
    assert {path.name for path in out.iterdir()} == {"m.tflite", "link"}


def test_of_a_writing_that_fails_nothing_is_left(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    source = stand_in.model(tmp_path).path
    target = tmp_path / "out" / "m.tflite"
    target.parent.mkdir()
    target.write_bytes(b"as it was")
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write_bytes(path, content[:10])
        raise OSError(28, "No space left on device")

    # Once the model is in the cache.
    convert_by_hand(source, tmp_path / "first", None, settings, silent)
    monkeypatch.setattr(Path, "write_bytes", full)

    with pytest.raises(ModelError, match=r"m\.tflite cannot be written: No space left on device$"):
        convert_by_hand(source, target, None, settings, silent)
    assert [path.name for path in target.parent.iterdir()] == ["m.tflite"]
    assert target.read_bytes() == b"as it was"


def test_a_device_is_written_to_and_not_replaced(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)

    convert_by_hand(stand_in.model(tmp_path).path, Path(os.devnull), None, settings, silent)

    assert Path(os.devnull).is_char_device()


def test_the_commands_quantization_goes_before_the_files(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    stand_in.install_affine(monkeypatch, tmp_path, f"open({str(told)!r}, 'a').write(request['variants'][0] + ' ')")
    (tmp_path / "model.toml").write_text('quantization = "float16"')
    source = stand_in.model(tmp_path).path

    convert_by_hand(source, tmp_path / "out", None, settings, silent)
    convert_by_hand(source, tmp_path / "out", "dynamic", settings, silent)

    assert told.read_text() == "float16 dynamic "


def test_a_tflite_file_is_not_converted_again(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite.affine())

    with pytest.raises(ModelError, match=r"m\.tflite is a \.tflite file already$"):
        convert_by_hand(tmp_path / "m.tflite", None, None, settings, silent)


def test_a_filled_cache_serves_without_tensorflow(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    models = tmp_path / "models"
    models.mkdir()
    stand_in.model(models)
    told: list[str] = []

    assert fill_cache(models, settings, told.append) == {}

    assert told == ["m: checking the converted model", "m: comparing with TensorFlow", "m: done"]
    monkeypatch.setattr(convert, "installed_tensorflow", lambda: None)
    monkeypatch.setattr(convert, "_CHILD", tmp_path / "nothing")
    assert open_by_hand(models / "m.keras", None, settings, silent)["conversion"]["tensorflow"] == "2.21.0"


def test_a_model_that_fails_is_named_and_does_not_keep_the_others_out(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    models = tmp_path / "models"
    (models / "empty").mkdir(parents=True)
    (models / "a.tflite").write_bytes(b"none")
    (models / "b.tflite").write_bytes(tflite.never_runs())
    (models / "c.tflite").symlink_to(os.devnull)
    stand_in.model(models, "z")
    told: list[str] = []

    failed = fill_cache(models, settings, told.append)

    assert set(failed) == {"a", "b", "c", "empty"}
    assert failed["b"].startswith("it does not run: ")
    assert told[-1] == "z: done"


def test_the_versions_that_would_be_served_are_converted_and_those_that_cannot_be_are_told_by_their_numbers(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    models = tmp_path / "models"
    for version in ("1", "2", "3", "4"):
        (models / "m" / version).mkdir(parents=True)
        stand_in.model(models / "m" / version)
    (models / "m" / "3" / "m.keras").unlink()
    (models / "m" / "model.toml").write_text("versions.specific = [2, 3, 7]")
    (models / "wrong" / "1").mkdir(parents=True)
    (models / "wrong" / "model.toml").write_text("labels.stable = 9")
    told: list[str] = []

    failed = fill_cache(models, settings, told.append)

    assert set(failed) == {"m/3", "m/7", "wrong"}
    assert failed["m/7"] == "model.toml names version 7, and on disk is 1, 2, 3, 4"
    assert failed["wrong"].startswith("model.toml: labels.stable = 9: ")
    assert told.count("m: done") == 1


def test_a_fault_of_the_interpreter_does_not_keep_the_others_out_either(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path, content=tflite.doubles_rows())
    models = tmp_path / "models"
    models.mkdir()
    stand_in.model(models, "a")
    (models / "b.tflite").write_bytes(tflite.affine())
    told: list[str] = []

    assert fill_cache(models, settings, told.append) == {
        "a": "output 'y' has shape [32, 4] in LiteRT and [16, 4] in TensorFlow"
    }
    assert told[-1] == "b: done"


def test_a_folder_without_models_is_an_error(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(ModelError, match=r"^no model in "):
        fill_cache(tmp_path, settings, silent)
