"""The definitions of the servers, without starting any."""

from pathlib import Path

import pytest

from benchmarks.models import CONV, MLP
from benchmarks.paths import PEERS as FOLDERS
from benchmarks.peers import PEERS
from benchmarks.peers.environment import pinned
from benchmarks.plots import colours
from benchmarks.servers import SERVERS, Launch, Server
from benchmarks.servers.ours import models_dir
from tests.benchmarks import sample


def test_names_and_titles_are_given_once() -> None:
    servers = (*SERVERS, *PEERS)
    assert len({server.name for server in servers}) == len({server.title for server in servers}) == len(servers)


@pytest.mark.parametrize("server", [*SERVERS[:1], *SERVERS[4:], *PEERS], ids=lambda server: server.name)
def test_a_server_is_told_its_port(server: Server, tmp_path: Path) -> None:
    launch = Launch(23456, MLP, tmp_path, tmp_path)
    assert "23456" in [*server.command(launch), *server.env(launch).values()]


@pytest.mark.parametrize("server", PEERS, ids=lambda server: server.name)
def test_a_peer_knows_its_versions_and_gets_the_model(server: Server, tmp_path: Path) -> None:
    assert len(server.versions()) >= 2
    assert server.env(Launch(23456, CONV, tmp_path, tmp_path))["BENCH_TFLITE"].endswith("conv.float32.tflite")


@pytest.mark.parametrize("file", sorted(FOLDERS.glob("*/requirements.txt")), ids=lambda file: file.parent.name)
def test_every_requirement_of_a_peer_is_pinned(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    assert len(pinned(file.read_text())) == len(lines)


def test_a_pin_is_read_without_its_extras_and_remarks() -> None:
    assert pinned("ray[serve]==2.60.0  # why\nnumpy==1.26.4 ; python_version < '3.13'\n\n# x==1\n") == {
        "ray": "2.60.0",
        "numpy": "1.26.4",
    }


def test_servers_of_one_picture_have_colours_of_their_own() -> None:
    entries = [sample.entry(server.name, server.group, 1, 1) for server in (*SERVERS, *PEERS)]
    found = colours(entries)
    assert len({found[entry.server] for entry in entries}) == len(entries)


@pytest.mark.parametrize("file", sorted(FOLDERS.glob("*/requirements.in")), ids=lambda file: file.parent.name)
def test_what_is_asked_for_is_what_is_installed(file: Path) -> None:
    assert pinned(file.read_text()).items() <= pinned(file.with_suffix(".txt").read_text()).items()


def test_litepool_finds_one_folder_for_each_model_with_the_weights_it_should_use(tmp_path: Path) -> None:
    folder = models_dir(Launch(23456, MLP, tmp_path, tmp_path), quantization="dynamic")
    assert sorted(path.name for path in folder.iterdir()) == ["mlp"]
    assert (folder / "mlp" / "model.toml").read_text() == 'quantization = "dynamic"\n'
    assert (folder / "mlp" / "mlp.keras").read_bytes() == MLP.keras.read_bytes()
