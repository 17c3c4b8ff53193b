"""What the tests of images/ share; they use the throwaway roots and hosts of tests/hosts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hosts"))
for directory in ("", "images"):
    sys.path.insert(0, str(Path(__file__).parents[2] / directory))

import el  # noqa: E402  (found beside this file, and finds the roots through the line above)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our package as Debian's roots take it."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    source.mkdir()
    for part in ("cc_kvmhost", "schemas", "share"):
        shutil.copytree(el.CHECKOUT / part, source / part, symlinks=True)
    for part in ("setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(el.CHECKOUT / part, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(directory), str(source)], check=True)
    return next(directory.glob("*.whl"))
