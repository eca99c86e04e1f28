"""TensorFlow Serving's `ModelService`."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.errors import InvalidArgument, ModelError
from app.protocols.call import SHOWN
from app.repository.layout import Folder, scan
from app.repository.manager import Manager, State
from app.repository.policy import choose
from app.server import serving_info
from app.server.dispatch import LOAD, UNLOAD
from app.server.rpc.ordering import Control
from app.server.rpc.prediction import target_of


async def model_status(manager: Manager, request: Any) -> dict[str, Any]:
    """`GetModelStatus`."""
    return serving_info.model_status(manager, target_of(request))


class Reload:
    """`HandleReloadConfigRequest`: serve the models that are listed, and no others.

    Which versions a model has, and their labels, its folder and its `model.toml` say: a list that says otherwise is
    refused before anything is done.

    Args:
        models_dir: where all models are.
    """

    def __init__(self, manager: Manager, control: Control, models_dir: Path) -> None:
        self._manager = manager
        self._control = control
        self._models_dir = models_dir

    async def __call__(self, request: Any) -> dict[str, Any]:
        """Carry it out: first what is to be loaded; nothing is unloaded when some of that cannot be.

        Raises:
            LitepoolError: it cannot be done.
            Refused: it is not allowed.
        """
        self._control.check_allowed()
        kind = request.config.WhichOneof("config")
        if kind != "model_config_list":
            raise InvalidArgument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                f"supported: expected config.model_config_list, found {kind or 'no config'}"
            )
        wanted = await asyncio.to_thread(self._checked, request.config.model_config_list.config)
        if len(set(wanted)) < len(wanted):
            twice = next(name for name in wanted if wanted.count(name) > 1)
            raise InvalidArgument(f"model_config_list has {twice!r} twice: expected each model once")
        entries = self._manager.entries()
        serving = {entry.name for entry in entries if entry.state is State.AVAILABLE}
        left = {entry.name for entry in entries if entry.state is not State.END}
        for name in wanted:
            if name not in serving:
                await self._control.carry_out(LOAD, name)
        for name in sorted(left - set(wanted)):
            await self._control.carry_out(UNLOAD, name)
        return {"status": {"error_code": "OK"}}

    def _checked(self, configs: Sequence[Any]) -> list[str]:
        """The names of the listed models, of which nothing is asked that is not so. Looks at the disk.

        Raises:
            InvalidArgument
            ModelError: the models folder cannot be read.
        """
        # What is on disk says it of models too that are not loaded, and of those that came just now.
        folders = {folder.name: folder for folder in scan(self._models_dir)}
        for config in configs:
            if not config.name:
                raise InvalidArgument("model_config_list: a model has no name")
            where = f"model_config_list, model {config.name[:SHOWN]!r}"
            own = self._models_dir / config.name
            if config.base_path and not _is_same(config.base_path, own):
                raise InvalidArgument(
                    f"{where}: base_path is {config.base_path[:SHOWN]!r}, and all models of this server lie in one "
                    f"folder, this one in {str(own)[:SHOWN]!r}: leave base_path out"
                )
            if config.name in folders:
                _check_folder(config, folders[config.name], where)
        return [str(config.name) for config in configs]


def _is_same(path: str, own: Path) -> bool:
    """Whether a path is a model's own folder, by its name or by where a link in its place leads."""
    try:
        return os.path.realpath(path) == os.path.realpath(own)
    except ValueError:
        # No path has a byte of 0 in it.
        return False


def _check_folder(config: Any, folder: Folder, where: str) -> None:
    """Refuse another policy, or other labels, than a model's folder has.

    Raises:
        InvalidArgument
    """
    try:
        choice = choose(folder)
    except ModelError:
        # Loading it says so, and a fault in the folder is not one in the list.
        return
    policy = config.model_version_policy
    versions = folder.config.versions
    served = [source.version for source in choice.wanted]
    match policy.WhichOneof("policy_choice"):
        case "specific":
            asked, same = str(sorted(set(policy.specific.versions))), sorted(set(policy.specific.versions)) == served
        case "latest":
            # None is one, as there.
            count = max(1, policy.latest.num_versions)
            own = 0 if versions.all or versions.specific is not None else versions.latest or 1
            asked, same = f"the latest {count}", own == count
        case "all":
            asked, same = "all", bool(versions.all)
        case _:
            asked, same = "", True
    if not same:
        raise InvalidArgument(
            f"{where}: model_version_policy differs from what the model's model.toml says: found {asked}, expected "
            f"{versions.words()}, by which {served} is served: change it there, or leave model_version_policy out"
        )
    labels = dict(config.version_labels)
    if labels and labels != choice.labels:
        raise InvalidArgument(
            f"{where}: version_labels differ from the labels that there are, {dict(choice.labels)}: they are in "
            "[labels] of the model's model.toml; change them there, or leave version_labels out"
        )
