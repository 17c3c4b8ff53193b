"""The project as a layer: its wheel installed and registered on top of a host's root, built once per content."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import installer
import installer.destinations
import installer.sources

import nspawn
import roots
from nspawn import HarnessError

CHECKOUT = Path(__file__).parents[2]
SOURCES = ("setup.py", "README.md", "LICENSE", "MANIFEST.in", "cc_kvmhost", "schemas", "share")
SCHEMES = {  # where Debian's Python looks for modules that packages install
    "purelib": "/usr/lib/python3/dist-packages",
    "platlib": "/usr/lib/python3/dist-packages",
    "scripts": "/usr/bin",
    "data": "/usr",
    "headers": "/usr/include",
}


def layer(system: str) -> Path:
    """The directory to stack on the root of ``system``: /usr/bin/kvmhost, the package and its registration.

    :raises HarnessError: the wheel can't be built, or registering fails.
    """
    root = roots.root(system)
    key = f"{root.parent.name}-{_content_hash()}"
    directory = nspawn.cache() / "layers" / key
    with nspawn.locked(nspawn.cache() / "locks" / "layers"):
        if not directory.is_dir():
            directory.parent.mkdir(exist_ok=True)
            _build(key, root, directory)
    return directory


def _content_hash() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for source in SOURCES:
        for path in sorted([CHECKOUT / source, *(CHECKOUT / source).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(CHECKOUT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _build(name: str, root: Path, directory: Path) -> None:
    work = nspawn.cache() / "layers" / f"{name}.building"
    with tempfile.TemporaryDirectory() as wheels, nspawn.overlay([root], work) as merged:
        destination = installer.destinations.SchemeDictionaryDestination(
            SCHEMES, interpreter="/usr/bin/python3", script_kind="posix", destdir=str(merged)
        )
        with installer.sources.WheelFile.open(_wheel(Path(wheels))) as source:
            installer.install(source, destination, additional_metadata={})
        _register(name, merged)
        (work / "upper").rename(directory)


def _wheel(directory: Path) -> Path:
    """Build the wheel from a copy: setuptools writes next to what it builds."""
    copy = directory / "source"
    copy.mkdir()
    for source in SOURCES:
        path = CHECKOUT / source
        if path.is_dir():
            shutil.copytree(path, copy / source, symlinks=True)
        else:
            shutil.copy(path, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    built = subprocess.run(
        [*pip, "--wheel-dir", str(directory), str(copy)], capture_output=True, text=True
    )
    if built.returncode:
        raise HarnessError(f"the wheel can't be built:\n{built.stdout}{built.stderr}")
    return next(directory.glob("*.whl"))


def _register(name: str, root: Path) -> None:
    register = ["kvmhost", "register"]
    done = nspawn.run(name, root, register, "--resolv-conf=off", capture_output=True)
    if done.returncode:
        raise HarnessError(f"kvmhost register failed:\n{done.stdout}{done.stderr}")
