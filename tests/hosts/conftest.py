"""Fixtures of the host tests."""

from __future__ import annotations

import pytest

import roots


@pytest.fixture(scope="session", autouse=True)
def _roots(request: pytest.FixtureRequest) -> None:
    """Build both roots before the first test. If that fails, every host test fails with the reason."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        for name in roots.SYSTEMS:
            roots.root(name)


@pytest.fixture(params=sorted(roots.SYSTEMS))
def system(request: pytest.FixtureRequest) -> str:
    """Each of the two systems that hosts stand for."""
    name: str = request.param
    return name
