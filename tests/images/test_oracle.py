"""Every package that the project names is one that EL has, as far as public sources say (el-packages.tsv)."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from pathlib import Path

import pytest

import el
import oracle
from cc_kvmhost import tuned
from cc_kvmhost.errors import KvmhostError
from cc_kvmhost.virt import mode, units

EL = (9, 10)
IMAGES = el.CHECKOUT / "images"
DOCS = [el.CHECKOUT / "README.md", *sorted((el.CHECKOUT / "docs").glob("*.md"))]
# Python: the package, whose messages an EL 8 shows, too, and what builds and boots images.
PACKAGE = sorted((el.CHECKOUT / "cc_kvmhost").rglob("*.py"))
PROGRAMS = [IMAGES / "build", IMAGES / "verify"]
SCRIPTS = [
    *(IMAGES / name for name in ("provision", "build-rpm", "verify-centos", "Containerfile")),
    el.CHECKOUT / "tests/tmt/install",
]
# What follows "install" in a message, and is no package.
WORDS = {"it", "its", "the"}
# Names of other things: Debian's packages, a socket, a firewalld service, Packit's targets, a manual page.
OTHERS = {
    "qemu-utils",
    "qemu-system",
    "qemu-system-x86",
    "libvirt-sock",
    "libvirt-tls",
    "epel-8",
    "epel-9",
    "epel-10",
    "guestfs-faq",
    "python3-venv",
}


def relative(path: Path) -> str:
    return str(path.relative_to(el.CHECKOUT))


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
            if row.version == oracle.UNKNOWN:
                assert re.match(r"no stored source|not looked up: .", row.source), row
            else:
                assert re.fullmatch(r"(\d+:)?[^-\s]+-[^-\s]+", row.version), row
                assert "made up" not in row.source or row.name == "systemd", row
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

    @pytest.mark.parametrize("release", EL)
    def test_mkosi_release_packages(self, release: int) -> None:
        """The packages that mkosi.configure adds to make a root that distribution."""
        tree = ast.parse((IMAGES / "mkosi/mkosi.configure").read_text())
        tables = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RELEASE_PACKAGES"
        ]
        names = {name for each in tables[0].values() for name in each}
        assert len(names) == 4
        assert_known(release, names, "mkosi.configure")

    @pytest.mark.parametrize("release", [8, *EL])
    def test_rpm(self, release: int) -> None:
        for kind in ("requires", "recommends"):
            assert_known(release, relations_of_ours(release, kind), f"the spec ({kind})")

    @pytest.mark.parametrize("release", [8, *EL])
    def test_errors(self, release: int) -> None:
        """The packages that the error for missing units names."""
        system = mode.System("rhel", version_id=str(release))
        for wanted in units.MODES:
            drivers = ("qemu", "network", "storage", "nodedev", "secret")
            with pytest.raises(KvmhostError) as error:
                mode.choose(wanted, system, drivers, (), ())
            names = str(error.value).partition("; install ")[2].partition(" (")[0].split()
            assert names
            assert_known(release, set(names), f"the error for {wanted} mode")

    @pytest.mark.parametrize("release", [8, *EL])
    @pytest.mark.parametrize("path", PACKAGE, ids=relative)
    def test_messages(self, path: Path, release: int) -> None:
        source = path.read_text()
        names = oracle.advised(source) - WORDS
        assert_known(release, names | (oracle.named(source) & names), relative(path))

    @pytest.mark.parametrize("release", [8, *EL])
    def test_tuned(self, release: int) -> None:
        """tuned's package, which errors name."""
        assert_known(release, {tuned.PACKAGE}, "tuned.PACKAGE")

    @pytest.mark.parametrize("release", EL)
    @pytest.mark.parametrize("path", PROGRAMS, ids=relative)
    def test_programs(self, path: Path, release: int) -> None:
        """What has to be installed where images are built and booted."""
        source = path.read_text()
        names = (oracle.advised(source) - WORDS) | (oracle.named(source) - OTHERS)
        if path.name == "build":
            tree = ast.parse(source)
            (tools,) = (
                ast.literal_eval(node.value)
                for node in tree.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TOOLS"
            )
            names |= {package.partition(",")[0] for package in tools.values()}
            assert "rpm-build" in names
        assert_known(release, names, relative(path))

    @pytest.mark.parametrize("release", EL)
    @pytest.mark.parametrize("path", SCRIPTS, ids=relative)
    def test_scripts(self, path: Path, release: int) -> None:
        text = re.sub(r"(?m)^\s*#.*", "", path.read_text())
        names = oracle.installed_by(text) | (oracle.named(text) - OTHERS)
        assert_known(release, names, relative(path))

    @pytest.mark.parametrize("path", DOCS, ids=relative)
    def test_docs(self, path: Path) -> None:
        """Commands are for EL 9 and 10; what the text names may be of one release alone."""
        text = path.read_text()
        for release in EL:
            assert_known(release, oracle.installed_by(text), relative(path))
        for name in oracle.named(text) - OTHERS:
            assert any(name in oracle.packages(release) for release in (8, *EL)), name


class TestReading:
    """A wrong name is noticed only if the reader finds it in the text."""

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("sudo dnf install -y qemu-kvm \\\n    tuned\nls", {"qemu-kvm", "tuned"}),
            ("dnf --assumeyes install rpm-build && reboot", {"rpm-build"}),
            ("apt-get install rpm, or dnf install rpm-build", {"rpm-build"}),
            ("(`dnf install tmt`, on Fedora)", {"tmt"}),
            ("dnf install 'dnf-command(config-manager)' git", set()),
            ('dnf install ./a.rpm https://b/c.rpm "$d"', set()),
            ("dnf --setopt=install_weak_deps=False install which", {"which"}),
            ("a plain `dnf install` enables it", set()),
        ],
    )
    def test_commands(self, text: str, names: set[str]) -> None:
        assert oracle.installed_by(text) - {"git"} == names

    @pytest.mark.parametrize(
        ("source", "names"),
        [
            ("raise E(f'{x} is missing; install tuned, or not')", {"tuned"}),
            ("E('no UEFI: install edk2-ovmf, on Debian ovmf')", {"edk2-ovmf"}),
            ("E(f'install {tuned.PACKAGE}, or set it')", set()),
            ("E('a', 'install its package')", {"its"}),
        ],
    )
    def test_messages(self, source: str, names: set[str]) -> None:
        assert oracle.advised(source) == names

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            (
                "`libvirt-daemon-kvmm` and libvirt-daemon.",
                {"libvirt-daemon-kvmm", "libvirt-daemon"},
            ),
            ("/usr/share/libvirt-x, my-libvirt-y", set()),
        ],
    )
    def test_names(self, text: str, names: set[str]) -> None:
        assert oracle.named(text) == names


@pytest.mark.parametrize("release", EL)
def test_nothing_that_is_recommended_is_missing(release: int) -> None:
    """Weak dependencies are not installed by themselves, so the lists name each recommended package."""
    installed = oracle.closure(release, oracle.listed(IMAGES / f"packages/el-{release}"))
    recommends = oracle.relations(release, "recommends")
    missing = {name for each in installed for name in recommends.get(each, [])} - installed
    assert not missing


class TestMkosi:
    @pytest.mark.parametrize("release", EL)
    def test_boots(self, release: int) -> None:
        """Bootable=yes takes systemd-boot from the image's own /usr/lib/systemd/boot/efi, and a kernel."""
        wanted = {"systemd-boot-unsigned", "kernel-core", "kernel-modules"}
        missing = wanted - oracle.closure(release, mkosi_packages(release))
        assert not missing, f"a disk image of EL {release} lacks {' '.join(sorted(missing))}"

    @pytest.mark.parametrize("release", EL)
    def test_grows(self, release: int) -> None:
        """The root is as large as its content; cloud-init grows it with growpart, which it does not require."""
        missing = {"cloud-utils-growpart", "xfsprogs"} - oracle.closure(
            release, mkosi_packages(release)
        )
        assert not missing, f"the root of EL {release} can't grow without {' '.join(missing)}"
