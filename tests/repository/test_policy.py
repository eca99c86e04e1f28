"""Which versions of a model are wanted."""

from pathlib import Path

import pytest

from app.errors import ModelError
from app.repository.layout import Folder, Kind, Misplaced, Source
from app.repository.model_config import ModelConfig, VersionsConfig
from app.repository.policy import choose


def folder(*versions: int, labels: dict[str, int] | None = None, policy: VersionsConfig | None = None) -> Folder:
    """A model `m`; the versions below 0 are empty folders."""
    items = tuple(
        Source("m", version, Kind.KERAS, Path(f"m/{version}/m.keras"), Path("m"))
        if version > 0
        else Misplaced("m", -version, "empty")
        for version in versions
    )
    return Folder("m", items, Path("m"), ModelConfig(versions=policy or VersionsConfig(), labels=labels or {}))


def wanted(of: Folder) -> list[int]:
    """As `folder` has them."""
    return [item.version if isinstance(item, Source) else -item.version for item in choose(of).wanted]


@pytest.mark.parametrize(
    ("policy", "on_disk", "expected"),
    [
        (VersionsConfig(), [1, 2, 10], [10]),
        (VersionsConfig(latest=1), [1, 2, 10], [10]),
        (VersionsConfig(latest=2), [1, 2, 10], [2, 10]),
        (VersionsConfig(latest=3), [1, 2, 10], [1, 2, 10]),
        (VersionsConfig(latest=9), [1, 2, 10], [1, 2, 10]),
        (VersionsConfig(all=True), [1, 2, 10], [1, 2, 10]),
        (VersionsConfig(specific=[10, 1]), [1, 2, 10], [1, 10]),
        (VersionsConfig(specific=[2, 2]), [1, 2, 10], [2]),
    ],
    ids=str,
)
def test_a_policy_chooses_among_the_versions_on_disk(
    policy: VersionsConfig, on_disk: list[int], expected: list[int]
) -> None:
    assert wanted(folder(*on_disk, policy=policy)) == expected


@pytest.mark.parametrize(
    ("policy", "on_disk", "expected"),
    [
        (VersionsConfig(), [1, -2], [1, -2]),
        (VersionsConfig(), [-1, 2], [2]),
        (VersionsConfig(), [1, -2, 3], [3]),
        (VersionsConfig(), [1, 2, -3, -4], [2, -3, -4]),
        (VersionsConfig(latest=2), [1, -2, 3], [1, -2, 3]),
        (VersionsConfig(latest=2), [-1, 2], [2]),
        (VersionsConfig(), [-1, -2], [-2]),
        (VersionsConfig(all=True), [-1, 2], [-1, 2]),
        (VersionsConfig(specific=[1]), [-1, 2], [-1]),
    ],
    ids=str,
)
def test_a_version_without_a_model_is_told_of_and_takes_no_others_place(
    policy: VersionsConfig, on_disk: list[int], expected: list[int]
) -> None:
    assert wanted(folder(*on_disk, policy=policy)) == expected


def test_a_version_that_is_named_and_not_on_disk_is_told_of_by_its_number() -> None:
    found = choose(folder(1, 4, policy=VersionsConfig(specific=[1, 3]))).wanted

    assert found[1] == Misplaced("m", 3, "model.toml names version 3, and on disk is 1, 4")
    assert isinstance(found[0], Source)


def test_labels_name_versions_that_are_served() -> None:
    labels = {"stable": 2, "canary": 3, "old-one": 2}

    assert choose(folder(1, 2, 3, labels=labels, policy=VersionsConfig(latest=2))).labels == labels
    assert choose(folder(1, labels={"next": 2}, policy=VersionsConfig(specific=[1, 2]))).labels == {"next": 2}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (VersionsConfig(), "by versions.latest = 1 the versions served are 3: expected one of these"),
        (VersionsConfig(latest=2), "by versions.latest = 2 the versions served are 2, 3: expected one of these"),
        (VersionsConfig(specific=[3, 2]), "by versions.specific = [2, 3] the versions served are 2, 3: expected one"),
    ],
    ids=str,
)
def test_a_label_on_a_version_that_is_not_served_is_refused(policy: VersionsConfig, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        choose(folder(1, 2, 3, labels={"canary": 3, "stable": 1}, policy=policy))

    assert caught.value.message.startswith(f"model.toml: labels.stable = 1: {message}")


def test_a_label_on_a_version_that_is_not_on_disk_is_refused_too() -> None:
    with pytest.raises(ModelError, match=r"labels\.stable = 9: by versions\.all = true the versions served are 1, 2:"):
        choose(folder(1, 2, labels={"stable": 9}, policy=VersionsConfig(all=True)))


def test_by_a_model_toml_that_is_wrong_nothing_is_chosen() -> None:
    with pytest.raises(ModelError, match=r"^model\.toml: what is wrong$"):
        choose(Folder("m", folder(1).versions, Path("m"), fault="model.toml: what is wrong"))
