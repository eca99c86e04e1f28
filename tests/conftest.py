"""What every test starts from: no settings in the environment, and property tests that no clock can fail."""

import logging
import os
from collections.abc import Iterator

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "litepool", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("litepool")


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
