"""Which versions of a model are wanted, of those on disk: `[versions]` and `[labels]` of model.toml."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import ModelError
from app.repository.layout import Folder, Misplaced, Source
from app.repository.model_config import VersionsConfig


@dataclass(frozen=True, slots=True)
class Choice:
    """What should be served of one model: versions in ascending order, and those that have a label, by it.

    A version that model.toml names and that is not on disk is among `wanted` as `Misplaced`. A folder without a model,
    which may be one that is still copied, takes no other's place among the latest: it is wanted besides.
    """

    wanted: tuple[Source | Misplaced, ...]
    labels: Mapping[str, int]


def choose(folder: Folder) -> Choice:
    """Apply a model's policy to what lies in its folder.

    Raises:
        ModelError: in one sentence, what is wrong with model.toml: what is served should stay as it is.
    """
    if folder.fault:
        raise ModelError(folder.fault)
    policy = folder.config.versions
    on_disk = {item.version: item for item in folder.versions}
    if policy.specific is not None:
        have = ", ".join(map(str, on_disk))
        wanted = tuple(
            on_disk.get(version)
            or Misplaced(folder.name, version, f"model.toml names version {version}, and on disk is {have}")
            for version in sorted(set(policy.specific))
        )
    else:
        wanted = folder.versions if policy.all else _latest(folder.versions, policy.latest or 1)
    _check_labels(folder.config.labels, [item.version for item in wanted], policy)
    return Choice(wanted, folder.config.labels)


def _latest(versions: tuple[Source | Misplaced, ...], count: int) -> tuple[Source | Misplaced, ...]:
    numbers = [number for number, item in enumerate(versions) if isinstance(item, Source)]
    # With fewer models than that all are wanted; with none, only the highest is worth a complaint.
    return versions[numbers[-count:][0] :] if numbers else versions[-1:]


def _check_labels(labels: Mapping[str, int], wanted: list[int], policy: VersionsConfig) -> None:
    for label, version in labels.items():
        if version not in wanted:
            raise ModelError(
                f"model.toml: labels.{label} = {version}: by {policy.words()} the versions served are "
                f"{', '.join(map(str, wanted))}: expected one of these"
            )
