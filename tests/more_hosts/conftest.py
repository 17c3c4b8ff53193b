"""The oldest and the newest systems that the module meets; the harness is that of tests/hosts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hosts"))

import roots  # noqa: E402  (found through the line above)


@pytest.fixture(scope="session", params=sorted(roots.MORE_SYSTEMS))
def system(request: pytest.FixtureRequest) -> str:
    """Each of the two; its root is built first."""
    name: str = request.param
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        roots.root(name)
    return name
