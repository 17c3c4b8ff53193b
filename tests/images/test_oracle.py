"""Every package that the project names is one that EL has, as far as public sources say (el-packages.tsv)."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

import el
import oracle
from cc_kvmhost.errors import KvmhostError
from cc_kvmhost.virt import mode, units

EL = (9, 10)
IMAGES = el.CHECKOUT / "images"
DOCS = [el.CHECKOUT / "README.md", *sorted((el.CHECKOUT / "docs").glob("*.md"))]
# How a package's name begins, where text names one.
PACKAGE = re.compile(
    r"(?<![-\w/])(?:libvirt|python3|qemu|guestfs|epel|edk2|swtpm|nmap|selinux|systemd-boot|cloud-utils)-[a-z0-9-]*[a-z0-9]\b"
)


def assert_known(release: int, names: set[str], where: str) -> None:
    unknown = sorted(names - set(oracle.packages(release)))
    assert not unknown, f"{where} names what EL {release} does not have: {' '.join(unknown)}"


def mkosi_packages(release: int) -> set[str]:
    """What mkosi installs: its own configuration's, and the list that mkosi.configure adds."""
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(IMAGES / "mkosi/mkosi.conf.d/el.conf")
    return {
        *parser["Content"]["Packages"].split(),
        *oracle.listed(IMAGES / f"packages/el-{release}"),
    }


def relations_of_ours(release: int, kind: str) -> set[str]:
    """What our package requires or recommends; the spec file is asked, not read."""
    argv = ["rpm", "--query", f"--{kind}", "--specfile", str(IMAGES / "rpm/cc_kvmhost.spec")]
    for macro in (
        f"rhel {release}",
        "upstream_version 1",
        "changelog_date Thu Jan 01 1970",
    ):
        argv += ["--define", macro]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    names = {line.split()[0] for line in out.splitlines()}
    return {name for name in names if not name.startswith(("/", "rpmlib(", "python(abi)"))}


class TestTables:
    @pytest.mark.parametrize("release", [8, *EL])
    def test_packages(self, release: int) -> None:
        """Each row says what is known and who says it."""
        for row in oracle.packages(release).values():
            unknown = row.version == oracle.UNKNOWN
            assert unknown or re.fullmatch(r"(\d+:)?[^-\s]+-[^-\s]+", row.version), row
            assert row.repository.rstrip("?") in (
                "BaseOS",
                "AppStream",
                "CRB",
                "EPEL",
                "extras",
                "",
            )
            assert len(row.source) > 10, row

    @pytest.mark.parametrize("release", EL)
    def test_requirements(self, release: int) -> None:
        for kind in ("requires", "recommends"):
            for name, names in oracle.relations(release, kind).items():
                assert_known(release, {name, *names}, f"el-requires.tsv, {name},")


class TestNames:
    @pytest.mark.parametrize("release", EL)
    def test_lists(self, release: int) -> None:
        for path in sorted(IMAGES.glob(f"packages/el-{release}*")):
            assert_known(release, oracle.listed(path), path.name)

    @pytest.mark.parametrize("release", EL)
    def test_mkosi(self, release: int) -> None:
        assert_known(release, mkosi_packages(release), "the mkosi recipe")

    @pytest.mark.parametrize("release", [8, *EL])
    def test_rpm(self, release: int) -> None:
        for kind in ("requires", "recommends"):
            assert_known(release, relations_of_ours(release, kind), f"the spec ({kind})")

    @pytest.mark.parametrize("release", [8, *EL])
    def test_errors(self, release: int) -> None:
        """What the error for units that are missing says to install."""
        system = mode.System("rhel", version_id=str(release))
        for wanted in units.MODES:
            drivers = ("qemu", "network", "storage", "nodedev", "secret")
            with pytest.raises(KvmhostError) as error:
                mode.choose(wanted, system, drivers, (), ())
            names = str(error.value).partition("; install ")[2].partition(" (")[0].split()
            assert names
            assert_known(release, set(names), f"the error for {wanted} mode")

    @pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
    def test_docs(self, path: Path) -> None:
        quoted = " ".join(re.findall(r"`([^`\n]+)`", path.read_text()))
        for name in set(PACKAGE.findall(quoted)) - {"libvirt-sock"}:  # a socket
            assert any(name in oracle.packages(release) for release in (8, *EL)), name

    @pytest.mark.parametrize("name", ["build", "provision", "verify-centos"])
    def test_messages(self, name: str) -> None:
        for found in PACKAGE.findall((IMAGES / name).read_text()):
            everywhere = all(found in oracle.packages(release) for release in EL)
            assert everywhere or found == "qemu-utils", found  # Debian's


@pytest.mark.parametrize("release", EL)
def test_nothing_that_is_recommended_is_missing(release: int) -> None:
    """Weak dependencies are not installed: each is a decision, and stands in the list."""
    installed = oracle.closure(release, oracle.listed(IMAGES / f"packages/el-{release}"))
    recommends = oracle.relations(release, "recommends")
    missing = {name for each in installed for name in recommends.get(each, [])} - installed
    assert not missing


class TestMkosi:
    @pytest.mark.parametrize("release", EL)
    def test_boots(self, release: int) -> None:
        """Bootable=yes takes systemd-boot from the image's own /usr/lib/systemd/boot/efi, and a kernel."""
        missing = {"systemd-boot-unsigned", "kernel-core"} - oracle.closure(
            release, mkosi_packages(release)
        )
        assert not missing, f"a disk image of EL {release} lacks {' '.join(sorted(missing))}"

    @pytest.mark.parametrize("release", EL)
    def test_grows(self, release: int) -> None:
        """The root is as large as its content; cloud-init grows it with growpart, which it does not require."""
        missing = {"cloud-utils-growpart", "xfsprogs"} - oracle.closure(
            release, mkosi_packages(release)
        )
        assert not missing, f"the root of EL {release} can't grow without {' '.join(missing)}"
