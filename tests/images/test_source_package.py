"""What COPR does: a source package of a plain tarball, made anywhere, and of that the package, on the release itself."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import el

SPEC = el.CHECKOUT / "images/rpm/cc_kvmhost.spec"
SUITES = {8: "bookworm", 9: "bookworm", 10: "trixie"}  # with dnf builddep


@pytest.fixture(scope="module")
def source_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by rpmbuild alone, on a system that is no EL."""
    directory = tmp_path_factory.mktemp("source")
    (version,) = [
        line.split()[1] for line in SPEC.read_text().splitlines() if line.startswith("Version:")
    ]
    name = f"cc_kvmhost-{version}"
    made = {"build", "dist", "cc_kvmhost.egg-info"}
    with tarfile.open(directory / f"{name}.tar.gz", "w:gz") as archive:
        for part in el.CHECKOUT.glob("[!.]*"):
            if part.name not in made:
                archive.add(part, f"{name}/{part.name}", filter=without_bytecode)
    done = rpmbuild(directory, "-bs")
    assert done.returncode == 0, done.stdout
    return directory / f"{name}-1.src.rpm"


def without_bytecode(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.endswith("__pycache__") else member


def rpmbuild(directory: Path, what: str) -> subprocess.CompletedProcess[str]:
    places = ("_sourcedir", "_srcrpmdir", "_builddir", "_rpmdir")
    defines = [word for place in places for word in ("--define", f"{place} {directory}")]
    return subprocess.run(
        ["rpmbuild", what, *defines, str(SPEC)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module", params=[8, 9, 10])
def system(request: pytest.FixtureRequest, source_package: Path) -> Iterator[el.System]:
    """A root with the macros that each release's own release package brings, and the source package."""
    release = request.param
    with el.system(release, SUITES[release]) as system:
        system.path("/etc/rpm/macros.dist").write_text(f"%rhel {release}\n%dist .el{release}\n")
        system.path("/source.rpm").write_bytes(source_package.read_bytes())
        system.offer()
        yield system


def test_its_build_requirements_can_be_installed(system: el.System) -> None:
    log = system.dnf("builddep", "--srpm", "/source.rpm").stdout
    assert "No matching package" not in log


def test_the_package_is_build_rpms(system: el.System, tmp_path: Path) -> None:
    system.run("rpmbuild", "--rebuild", "--define", "_topdir /build", "/source.rpm")
    (built,) = system.path("/build/RPMS/noarch").iterdir()
    ours = el.our_package(tmp_path, system.release)
    assert built.name == ours.name
    for what in ("--list", "--requires", "--scripts", "--filetriggers"):
        found, expected = (
            subprocess.check_output(["rpm", "-qp", what, str(package)], text=True)
            for package in (built, ours)
        )
        assert found == expected


def test_no_package_without_a_release(source_package: Path) -> None:
    done = rpmbuild(source_package.parent, "-bb")
    assert done.returncode == 1
    assert "knows EL 8, 9 and 10; here the macro rhel is ''" in done.stdout
    assert not list(source_package.parent.glob("noarch/*"))


@pytest.mark.parametrize("what", ["the spec", "the source package"])
def test_rpmlint(what: str, source_package: Path) -> None:
    checked = {"the spec": SPEC, "the source package": source_package}[what]
    lint = ["rpmlint", "--strict", "-c", str(SPEC.with_name("rpmlint.toml")), str(checked)]
    done = subprocess.run(lint, capture_output=True, text=True)
    assert "0 errors, 0 warnings" in done.stdout, done.stdout
