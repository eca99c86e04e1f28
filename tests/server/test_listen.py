"""The listening socket and its URL."""

import resource
import socket

import pytest

from app.server.listen import allow_many_connections, listen, url_of


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_socket_listens_on_a_port_of_the_systems_choice_and_tells_its_url(host: str, shown: str) -> None:
    with listen(host, 0) as sock:
        port = sock.getsockname()[1]

        assert url_of(sock) == f"http://{shown}:{port}"
        assert not sock.getblocking()
        assert not sock.get_inheritable(), "workers are given connections, not this"
        with socket.create_connection((host, port), timeout=10):
            pass


def test_a_port_in_use_is_an_os_error_that_leaves_no_socket_open() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_name_that_is_no_host_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"."):
        listen("256.0.0.1", 0)


def test_a_port_that_was_just_left_can_be_had_again() -> None:
    with listen("127.0.0.1", 0) as first:
        address = first.getsockname()
        with socket.create_connection(address, timeout=10) as client:
            first.setblocking(True)
            accepted, _ = first.accept()
            # Closed by us first, so that the connection waits out its time on this port.
            accepted.close()
            assert client.recv(1) == b""
    with listen(*address) as again:
        assert again.getsockname() == address


def test_every_address_of_version_6_means_those_of_version_4_too() -> None:
    with listen("::", 0) as sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=10):
        assert url_of(sock).startswith("http://[::]:")


def test_as_many_files_may_be_open_as_the_system_allows_and_never_fewer_than_before() -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (1 << 16) if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)

        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert soft == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
