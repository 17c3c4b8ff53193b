"""The RPM: built for each release, then installed, upgraded, outlived by cloud-init and removed by the real rpm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import el
import stubs

BUILD = el.CHECKOUT / "images/build-rpm"
RPMLINT = el.CHECKOUT / "images/rpm/rpmlint.toml"
REGISTERED = "/etc/cloud/cloud.cfg.d/zz_kvmhost.cfg"


@pytest.fixture(params=[8, 9, 10], scope="module")
def release(request: pytest.FixtureRequest) -> el.Release:
    return el.RELEASES[request.param]


@pytest.fixture(scope="module")
def output(release: el.Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(f"el{release.number}")


@pytest.fixture(scope="module")
def package(release: el.Release, output: Path) -> Path:
    return el.our_package(output, release)


def query(package: Path, *options: str) -> list[str]:
    return subprocess.check_output(["rpm", "-qp", *options, str(package)], text=True).splitlines()


class TestBuild:
    """Without a root: what build-rpm makes and refuses."""

    def test_files_modes_and_owners(self, release: el.Release, package: Path) -> None:
        lines = query(
            package,
            "--queryformat",
            r"[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME}\n]",
        )
        found = {path: (mode, owner) for path, mode, owner in (line.split(" ") for line in lines)}
        assert {owner for _, owner in found.values()} == {"root:root"}
        for program in ("/usr/bin/kvmhost", "/etc/cloud/clean.d/50-cc_kvmhost"):
            assert found.pop(program)[0] == "-rwxr-xr-x"
        assert {mode for mode, _ in found.values()} == {"drwxr-xr-x", "-rw-r--r--"}
        modules = (el.CHECKOUT / "cc_kvmhost").rglob("*.py")
        assert {f"{release.sitelib}/{path.relative_to(el.CHECKOUT)}" for path in modules} == {
            path
            for path in found
            if path.endswith(".py") and path.startswith(f"{release.sitelib}/cc_kvmhost/")
        }
        assert f"{release.sitelib}/cc_kvmhost/schemas/kvmhost.schema.json" in found
        assert "/usr/share/man/man1/kvmhost.1" in found
        assert "/usr/share/bash-completion/completions/kvmhost" in found

    def test_version_is_that_of_setup_py(self, release: el.Release, package: Path) -> None:
        version = subprocess.check_output(
            ["python3", "setup.py", "--version"], cwd=el.CHECKOUT, text=True
        ).strip()
        assert package.name == f"cc_kvmhost-{version}-1.el{release.number}.noarch.rpm"

    def test_requires(self, release: el.Release, package: Path) -> None:
        names = [
            "cloud-init",
            "python3-jsonschema",
            "python3-distro",
            "python3-pystemd",
            "python3-pyyaml",
            "systemd",
        ]
        assert {*names, f"python(abi) = {release.python}"} <= set(query(package, "--requires"))

    def test_recommends(self, package: Path) -> None:
        """What the defaults of a section need. 'kvmhost validate' needs none of it."""
        assert set(query(package, "--recommends")) == {
            "libvirt-client",
            "libvirt-daemon",
            "libvirt-daemon-kvm",
            "python3-libvirt",
            "tuned",
        }

    def test_links_of_the_documentation(self, package: Path) -> None:
        """README and what it links to are installed side by side."""
        place = Path("/usr/share/doc/cc_kvmhost")
        installed = {
            Path(path).relative_to(place)
            for path in query(package, "--docfiles")
            if Path(path).is_relative_to(place)
        }
        pages = [path for path in installed if path.suffix == ".md"]
        assert Path("README.md") in pages
        for page in pages:
            text = (el.CHECKOUT / page).read_text()
            for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
                target = Path(os.path.normpath(page.parent / link))
                there = target in installed or any(target in path.parents for path in installed)
                assert there, f"{page} links to {link}"

    def test_reads_on_the_oldest_rpm(self, package: Path) -> None:
        """Nothing that rpm 4.14 of EL8 cannot unpack."""
        features = {
            line.split("(")[1].split(")")[0]
            for line in query(package, "--requires")
            if "rpmlib" in line
        }
        assert features <= {"CompressedFileNames", "FileDigests", "PayloadFilesHavePrefix"}

    def test_same_source_same_bytes(
        self, release: el.Release, package: Path, tmp_path: Path
    ) -> None:
        assert el.our_package(tmp_path, release).read_bytes() == package.read_bytes()

    def test_rpmlint(self, package: Path) -> None:
        done = subprocess.run(
            ["rpmlint", "--strict", "-c", RPMLINT, package], capture_output=True, text=True
        )
        assert "0 errors, 0 warnings" in done.stdout, done.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--release", "7"], "unknown release '7': there are 8, 9 and 10"),
            ([], "--release is missing"),
            (["--release"], "--release needs a value"),
            (["--releas", "9"], "unknown argument '--releas'"),
        ],
    )
    def test_usage(self, arguments: list[str], message: str) -> None:
        done = subprocess.run([BUILD, *arguments], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr

    def test_failure_shows_rpmbuilds_output(self, release: el.Release, tmp_path: Path) -> None:
        for part in ("images", "docs", "examples", "schemas", "share"):
            shutil.copytree(el.CHECKOUT / part, tmp_path / part)
        (tmp_path / "cc_kvmhost").mkdir()
        for part in ("setup.py", *el.TEXTS):
            shutil.copy(el.CHECKOUT / part, tmp_path)
        build: list[str | Path] = [tmp_path / "images/build-rpm", "--release", str(release.number)]
        done = subprocess.run(build, capture_output=True, text=True)
        assert done.returncode == 1
        assert "cannot stat 'cc_kvmhost/*.py'" in done.stderr
        assert not list((tmp_path / "dist").glob("*"))


@pytest.fixture(scope="module")
def system(release: el.Release) -> Iterator[el.System]:
    with el.system(release.number) as system:
        yield system


@pytest.fixture(scope="module")
def cloud_inits(release: el.Release, output: Path) -> dict[str, Path]:
    """cloud-init as it is, and a newer one with another schema and another module list."""
    schema, cloud_cfg = el.real_cloud_init()
    newer_schema = schema.replace(b'"$defs"', b'"description": "newer", "$defs"', 1)
    newer_cfg = cloud_cfg.replace(" - phone_home", " - phone_home\n - newer_module")
    newer_cfg = newer_cfg.replace(" - phone-home", " - phone-home\n - newer-module")
    assert newer_schema != schema and newer_cfg != cloud_cfg
    return {
        version: stubs.build(output / version, [el.cloud_init(release, version, *content)])[0]
        for version, content in {
            "24.4": (schema, cloud_cfg),
            "25.1": (newer_schema, newer_cfg),
        }.items()
    }


class TestLifeCycle:
    """With the real rpm and dnf, in a root of its own; each test goes on where the one before stopped."""

    def assert_registered(self, system: el.System) -> None:
        system.run("kvmhost", "register", "--check")
        assert b"cc_kvmhost" in system.path(system.release.schema).read_bytes()
        assert "kvmhost" in system.path(REGISTERED).read_text()

    def test_install(
        self, system: el.System, output: Path, package: Path, cloud_inits: dict[str, Path]
    ) -> None:
        system.offer(package, cloud_inits["24.4"], *el.requirements(output, system.release))
        log = system.dnf("install", "cc_kvmhost").stdout
        assert "scriptlet failed" not in log and "Traceback" not in log, log
        self.assert_registered(system)

    def test_bytecode_is_made_and_owned(self, system: el.System) -> None:
        package = system.path(f"{system.release.sitelib}/cc_kvmhost")
        assert list(package.glob("cloud_init/__pycache__/registration.*.pyc"))
        if system.release.number == 9:  # here the stand-in's Python is the release's own
            made = [f"/{path.relative_to(system.root)}" for path in package.rglob("*.pyc")]
            assert set(system.run("rpm", "-qf", *made).stdout.split()) == {
                system.run("rpm", "-q", "cc_kvmhost").stdout.strip()
            }

    def test_verifies(self, system: el.System) -> None:
        assert system.run("rpm", "--verify", "cc_kvmhost").stdout == ""

    def test_upgrade(self, system: el.System, output: Path) -> None:
        system.offer(el.our_package(output, system.release, "99.0"))
        log = system.dnf("upgrade", "cc_kvmhost").stdout
        assert "scriptlet failed" not in log, log
        assert system.run("rpm", "-q", "cc_kvmhost").stdout.startswith("cc_kvmhost-99.0-1")
        self.assert_registered(system)
        assert system.run("rpm", "--verify", "cc_kvmhost").stdout == ""

    def test_cloud_init_is_upgraded(self, system: el.System, cloud_inits: dict[str, Path]) -> None:
        """The upgrade replaces its files by ones without kvmhost; the RPM's triggers register the module again."""
        system.offer(cloud_inits["25.1"])
        system.dnf("upgrade", "cloud-init")
        self.assert_registered(system)
        assert b'"newer"' in system.path(system.release.schema).read_bytes()
        assert "newer" in system.path(REGISTERED).read_text()

    def test_a_package_brings_a_list(self, system: el.System, output: Path) -> None:
        mine = "/etc/cloud/cloud.cfg.d/50_mine.cfg"
        listed = (
            "cloud_final_modules:\n- write_files_deferred\n- [of_my_own, always]\n- scripts_user\n"
        )
        package = el.stub(output, "mine", "1", {mine: listed})
        system.offer(package)
        system.dnf("install", "mine")
        self.assert_registered(system)
        assert "of_my_own" in system.path(REGISTERED).read_text()

    def test_a_package_takes_its_list_away(self, system: el.System) -> None:
        system.run("rpm", "--erase", "mine")
        self.assert_registered(system)
        assert "of_my_own" not in system.path(REGISTERED).read_text()

    def test_unregister_fails(self, system: el.System) -> None:
        """A package that can't unregister says so, and can be removed."""
        command = system.path("/usr/bin/kvmhost")
        content = command.read_bytes()
        command.write_text("#!/bin/sh\necho no way >&2\nexit 1\n")
        done = system.run("sh", "-c", "rpm --erase --test cc_kvmhost && rpm --erase cc_kvmhost")
        assert "no way" in done.stdout and "not unregistered from cloud-init" in done.stdout
        assert system.run("rpm", "-q", "cc_kvmhost", check=False).returncode == 1
        command.write_bytes(content)
        command.unlink()

    def test_install_again(self, system: el.System, package: Path) -> None:
        system.offer(package)
        system.dnf("install", "cc_kvmhost")
        self.assert_registered(system)

    def test_remove(self, system: el.System) -> None:
        log = system.dnf("remove", "--noautoremove", "cc_kvmhost").stdout
        assert "scriptlet failed" not in log, log
        self.assert_nothing_left(system)
        assert system.run("rpm", "--verify", "cloud-init").stdout == ""

    def test_remove_with_cloud_init(self, system: el.System, package: Path) -> None:
        """One transaction removes both without an error, and no file stays."""
        system.offer(package)
        system.dnf("install", "cc_kvmhost")
        self.assert_registered(system)
        log = system.run("rpm", "--erase", "cloud-init", "cc_kvmhost").stdout
        assert "fail" not in log and "not found" not in log and "Traceback" not in log, log
        self.assert_nothing_left(system)
        assert not system.path(system.release.schema).exists()

    def assert_nothing_left(self, system: el.System) -> None:
        assert not system.path(REGISTERED).exists()
        left = system.path(f"{system.release.sitelib}/cc_kvmhost")
        if (
            system.release.number != 9
        ):  # a Python of another version than the release's made its own bytecode
            left = (
                left
                / "__pycache__"
                / f"registration.cpython-{system.release.python.replace('.', '')}.pyc"
            )
        assert not left.exists()
        assert not list(system.path(system.release.schema).parent.glob("*kvmhost*"))
