"""What every test starts from: no settings in the environment, and property tests that no clock can fail."""

import os

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "litepool", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("litepool")


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LITEPOOL_")]:
        monkeypatch.delenv(name)
