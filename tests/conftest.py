"""What every test starts from: no settings in the environment, and property tests that no clock can fail."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling, Scheduling

from tests.examples import be_fast, many


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "not slow":
        be_fast()
    hypothesis.settings.register_profile(
        "litepool",
        deadline=None,
        max_examples=many(100),
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        derandomize=True,
    )
    hypothesis.settings.load_profile("litepool")


_TOGETHER = {
    "tests/e2e/": "models converted",
    "tests/clients/": "a server for clients",
    "tests/repository/test_child_rungs.py": "a workshop of models",
    "tests/repository/test_engine_child.py": "a workshop of models",
    "tests/repository/test_loader.py": "a workshop of models",
}
"""Tests that share what takes long to make, and so run in the same one of several processes."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return ByFile(config, log)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process whole files, or several that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((together for start, together in _TOGETHER.items() if file.startswith(start)), file)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Some tests set up logging as the server does, which would keep others from seeing what is logged."""
    loggers = [logging.getLogger(name) for name in ("", "app", "uvicorn.error", "uvicorn.access")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers
    for known in logging.root.manager.loggerDict.values():
        # A configuration that does not say otherwise disables every logger that it does not name.
        if isinstance(known, logging.Logger):
            known.disabled = False


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LITEPOOL_")]:
        monkeypatch.delenv(name)
