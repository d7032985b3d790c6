"""Fixtures for the tests of training."""

import pytest
from monitoring import Clock

from ddkeras.training import monitor, throughput


@pytest.fixture
def clock(monkeypatch):
    """Fake time for the monitor."""
    clock = Clock()
    for module in (monitor, throughput):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock
