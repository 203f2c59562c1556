"""Fixtures of the adapters' tests: the recorded model endpoint, to which all SDKs are pointed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.endpoint import RecordedEndpoint
from kitaru_nb.testing.offline_model import OfflineModel


@pytest.fixture(scope="session")
def recorded_endpoint() -> Iterator[RecordedEndpoint]:
    """One process for all tests."""
    endpoint = RecordedEndpoint()
    yield endpoint
    endpoint.stop()


@pytest.fixture
def endpoint(recorded_endpoint: RecordedEndpoint, monkeypatch: pytest.MonkeyPatch) -> RecordedEndpoint:
    """The endpoint without scripts and requests; the environment points the SDKs there."""
    recorded_endpoint.reset()
    for name, value in recorded_endpoint.environment.items():
        monkeypatch.setenv(name, value)
    return recorded_endpoint


@pytest.fixture(scope="session")
def offline_model() -> Iterator[OfflineModel]:
    """A small real language model, loaded once for all tests."""
    with OfflineModel() as model:
        yield model
