"""What the tmt plans install first: on EL's package managers, with stub packages in EL's repositories."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import el
import repositories
import stubs


@pytest.fixture(params=sorted(repositories.SUITES), scope="module")
def release(request: pytest.FixtureRequest) -> el.Release:
    return el.RELEASES[request.param]


@pytest.fixture(scope="module")
def offered(release: el.Release, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    output = tmp_path_factory.mktemp(f"centos{release.number}")
    tools = [stubs.Stub(name) for name in ("rpm-build", "audit")]
    return {
        "tools": stubs.build(output / "tools", tools),
        **repositories.build(output, release),
    }


@pytest.fixture
def system(release: el.Release, offered: dict[str, list[Path]]) -> Iterator[el.System]:
    """A fresh CentOS Stream that knows EPEL's package, with this source tree in /tree."""
    with repositories.fresh_centos(release, offered) as system:
        system.dnf("install", "epel-release")
        ignored = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
        shutil.copytree(el.CHECKOUT, system.path("/tree"), symlinks=True, ignore=ignored)
        yield system


def install(system: el.System) -> str:
    return system.run("sh", "-c", "cd /tree && tests/tmt/install").stdout


def test_this_tree_and_what_it_recommends(system: el.System) -> None:
    install(system)
    system.run("kvmhost", "register", "--check")
    system.run("rpm", "--query", "audit", "libvirt-daemon-kvm", "libvirt-client", "tuned")
    enabled = system.dnf("--quiet", "repolist", "--enabled").stdout
    assert "crb" in enabled and "epel" in enabled


def test_an_installed_package_stays(system: el.System, tmp_path: Path) -> None:
    system.dnf("config-manager", "--set-enabled", "crb")
    system.offer(el.our_package(tmp_path, system.release, "99.0"), repository="copr")
    system.dnf("--setopt=install_weak_deps=False", "install", "cc_kvmhost")
    assert system.run("rpm", "--query", "tuned", check=False).returncode == 1
    install(system)
    assert system.run("rpm", "--query", "cc_kvmhost").stdout.startswith("cc_kvmhost-99.0-1")
    system.run("rpm", "--query", "tuned")
