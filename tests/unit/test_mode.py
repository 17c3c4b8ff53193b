"""Which mode: a table over the os-release texts of real systems, and what is installed."""

import os
import re
from pathlib import Path
from typing import Optional, Tuple

import pytest

from cc_kvmhost.errors import KvmhostError
from cc_kvmhost.host import read_system
from cc_kvmhost.virt import units as libvirt
from cc_kvmhost.virt.mode import Choice, System, choose

MODULAR, MONOLITHIC = libvirt.MODULAR, libvirt.MONOLITHIC
FREE = "no rule for this system"

OS_RELEASE = {
    "RHEL 7": """\
NAME="Red Hat Enterprise Linux Server"
VERSION="7.9 (Maipo)"
ID="rhel"
ID_LIKE="fedora"
VARIANT="Server"
VERSION_ID="7.9"
PRETTY_NAME="Red Hat Enterprise Linux Server 7.9 (Maipo)"
CPE_NAME="cpe:/o:redhat:enterprise_linux:7.9:GA:server"
""",
    "CentOS 7": """\
NAME="CentOS Linux"
VERSION="7 (Core)"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="7"
PRETTY_NAME="CentOS Linux 7 (Core)"
ANSI_COLOR="0;31"

CENTOS_MANTISBT_PROJECT="CentOS-7"
""",
    "RHEL 8": """\
NAME="Red Hat Enterprise Linux"
VERSION="8.10 (Ootpa)"
ID="rhel"
ID_LIKE="fedora"
VERSION_ID="8.10"
PLATFORM_ID="platform:el8"
PRETTY_NAME="Red Hat Enterprise Linux 8.10 (Ootpa)"
""",
    "RHEL 9": """\
NAME="Red Hat Enterprise Linux"
VERSION="9.6 (Plow)"
ID="rhel"
ID_LIKE="fedora"
VERSION_ID="9.6"
PLATFORM_ID="platform:el9"
PRETTY_NAME="Red Hat Enterprise Linux 9.6 (Plow)"
""",
    "RHEL 10": """\
NAME="Red Hat Enterprise Linux"
VERSION="10.0 (Coughlan)"
ID="rhel"
ID_LIKE="centos fedora"
VERSION_ID="10.0"
PLATFORM_ID="platform:el10"
PRETTY_NAME="Red Hat Enterprise Linux 10.0 (Coughlan)"
""",
    "CentOS Stream 8": """\
NAME="CentOS Stream"
VERSION="8"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="8"
PLATFORM_ID="platform:el8"
PRETTY_NAME="CentOS Stream 8"
""",
    "CentOS Stream 9": """\
NAME="CentOS Stream"
VERSION="9"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="9"
PLATFORM_ID="platform:el9"
PRETTY_NAME="CentOS Stream 9"
""",
    "CentOS Stream 10": """\
NAME="CentOS Stream"
VERSION="10 (Coughlan)"
RELEASE_TYPE=stable
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="10"
PLATFORM_ID="platform:el10"
PRETTY_NAME="CentOS Stream 10 (Coughlan)"
""",
    "Rocky 8": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.9"\n'
    'PRETTY_NAME="Rocky Linux 8.9 (Green Obsidian)"\n',
    "Rocky 9": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.3"\n'
    'PRETTY_NAME="Rocky Linux 9.3 (Blue Onyx)"\n',
    "Rocky 10": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="10.0"\n'
    'PRETTY_NAME="Rocky Linux 10.0 (Red Quartz)"\n',
    "AlmaLinux 8": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.10"\n',
    "AlmaLinux 9": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n',
    "AlmaLinux 10": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="10.0"\n',
    "Oracle 8": 'ID="ol"\nID_LIKE="fedora"\nVERSION_ID="8.10"\n'
    'PRETTY_NAME="Oracle Linux Server 8.10"\n',
    "Oracle 9": 'ID="ol"\nID_LIKE="fedora"\nVERSION_ID="9.5"\n'
    'PRETTY_NAME="Oracle Linux Server 9.5"\n',
    "Oracle 10": 'ID="ol"\nID_LIKE="fedora"\nVERSION_ID="10.0"\n'
    'PRETTY_NAME="Oracle Linux Server 10.0"\n',
    "an EL clone by ID_LIKE": 'ID="eurolinux"\nID_LIKE="rhel fedora centos"\nVERSION_ID="9.4"\n',
    "Alibaba Cloud Linux 3": 'ID="alinux"\nID_LIKE="rhel fedora centos anolis"\nVERSION_ID="3"\n'
    'PLATFORM_ID="platform:al8"\nPRETTY_NAME="Alibaba Cloud Linux 3.2104 U13 (OpenAnolis Edition)"\n',
    "Alibaba Cloud Linux 4": 'ID="alinux"\nID_LIKE="rhel fedora centos anolis"\nVERSION_ID="4"\n'
    'PLATFORM_ID="platform:alnx4"\n',
    "Anolis OS 8": 'ID="anolis"\nID_LIKE="rhel fedora centos"\nVERSION_ID="8.8"\n'
    'PLATFORM_ID="platform:an8"\n',
    "a clone that counts its own way and names no platform": 'ID="x"\nID_LIKE="rhel"\nVERSION_ID="4"\n',
    "Fedora 34": 'NAME=Fedora\nID=fedora\nVERSION_ID=34\nPRETTY_NAME="Fedora 34 (Cloud Edition)"\n',
    "Fedora 35": 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=35\n',
    "Fedora 41": 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=41\nVARIANT_ID=cloud\n',
    "Fedora 43": 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=43\nSUPPORT_END=2026-12-02\n',
    "Amazon Linux 2": 'NAME="Amazon Linux"\nID="amzn"\nID_LIKE="centos rhel fedora"\n'
    'VERSION_ID="2"\nPRETTY_NAME="Amazon Linux 2"\n',
    "Amazon Linux 2023": 'NAME="Amazon Linux"\nVERSION="2023"\nID="amzn"\nID_LIKE="fedora"\n'
    'VERSION_ID="2023"\nPRETTY_NAME="Amazon Linux 2023"\n',
    "Debian 12": """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
""",
    "Debian sid, no VERSION_ID": 'PRETTY_NAME="Debian GNU/Linux trixie/sid"\nID=debian\n',
    "Ubuntu 24.04": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nVERSION_ID="24.04"\nID=ubuntu\n'
    "ID_LIKE=debian\nUBUNTU_CODENAME=noble\n",
    "openSUSE Leap": 'NAME="openSUSE Leap"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\n'
    'VERSION_ID="15.6"\nPRETTY_NAME="openSUSE Leap 15.6"\n',
    "openSUSE Tumbleweed": 'NAME="openSUSE Tumbleweed"\nID="opensuse-tumbleweed"\n'
    'ID_LIKE="opensuse suse"\nVERSION_ID="20250101"\n',
    "empty": "",
    "single quotes": "ID='centos'\nID_LIKE='rhel fedora'\nVERSION_ID='9'\n",
    "no quotes": "ID=centos\nVERSION_ID=9\n",
    "comments and empty lines": '# VERSION_ID="10"\n\nID="centos"\n#ID=fedora\nVERSION_ID="9"\n\n',
    "no newline at the end": 'ID="centos"\nVERSION_ID="9"',
    "VERSION and VERSION_ID differ": 'ID="rhel"\nVERSION="10.1"\nVERSION_ID="9.6"\n',
    "EL without VERSION_ID": 'ID="centos"\nID_LIKE="rhel fedora"\n',
}

#: Systems whose release alone decides: both modes are installed, and neither or both are enabled.
BY_RELEASE = {
    MONOLITHIC: (
        "RHEL 8",
        "RHEL 9",
        "CentOS Stream 8",
        "CentOS Stream 9",
        "Rocky 8",
        "Alibaba Cloud Linux 3",
        "Anolis OS 8",
        "Rocky 9",
        "AlmaLinux 8",
        "AlmaLinux 9",
        "Oracle 8",
        "Oracle 9",
        "an EL clone by ID_LIKE",
        "Fedora 34",
        "single quotes",
        "no quotes",
        "comments and empty lines",
        "no newline at the end",
        "VERSION and VERSION_ID differ",
    ),
    MODULAR: (
        "RHEL 10",
        "CentOS Stream 10",
        "Rocky 10",
        "AlmaLinux 10",
        "Oracle 10",
        "Fedora 35",
        "Fedora 41",
        "Fedora 43",
    ),
}
#: Systems whose release does not decide: what is installed and enabled does.
UNDECIDED = (
    "Amazon Linux 2",
    "a clone that counts its own way and names no platform",
    "Alibaba Cloud Linux 4",
    "Amazon Linux 2023",
    "Debian 12",
    "Debian sid, no VERSION_ID",
    "Ubuntu 24.04",
    "openSUSE Leap",
    "openSUSE Tumbleweed",
    "empty",
    "EL without VERSION_ID",
)
UNSUPPORTED = ("RHEL 7", "CentOS 7")

SHARED = ("virtlockd.socket", "virtlogd.socket")
DRIVERS = libvirt.DEFAULT_DRIVERS
MODULAR_UNITS = ("virtqemud", "virtnetworkd", "virtstoraged", "virtnodedevd", "virtsecretd")
SIDES = {
    MODULAR: tuple(name + ".socket" for name in MODULAR_UNITS) + SHARED,
    MONOLITHIC: ("libvirtd.service", "libvirtd.socket") + SHARED,
}
INSTALLED = {
    "both": SIDES[MODULAR] + SIDES[MONOLITHIC],
    "modular": SIDES[MODULAR],
    "monolithic": SIDES[MONOLITHIC],
    "none": (),
}


def system_of(text: Optional[str], tmp_path: Path) -> System:
    """A tree with this etc/os-release (None: without), as the package reads it."""
    (tmp_path / "etc").mkdir()
    if text is not None:
        (tmp_path / "etc/os-release").write_text(text)
    return read_system(str(tmp_path))


class TestReadSystem:
    def test_every_field(self, tmp_path: Path) -> None:
        assert system_of(OS_RELEASE["RHEL 10"], tmp_path) == System(
            "rhel",
            ("centos", "fedora"),
            "10.0",
            "Red Hat Enterprise Linux 10.0 (Coughlan)",
            "platform:el10",
        )

    @pytest.mark.parametrize("text", [None, "", "\n\n# nothing\n"])
    def test_nothing_known(self, text: Optional[str], tmp_path: Path) -> None:
        assert system_of(text, tmp_path) == System()

    def test_usr_lib_when_etc_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "usr/lib").mkdir(parents=True)
        (tmp_path / "usr/lib/os-release").write_text("ID=centos\nVERSION_ID=9\n")
        assert system_of(None, tmp_path).major == 9

    def test_etc_wins_over_usr_lib(self, tmp_path: Path) -> None:
        (tmp_path / "usr/lib").mkdir(parents=True)
        (tmp_path / "usr/lib/os-release").write_text("ID=centos\nVERSION_ID=9\n")
        assert system_of("ID=centos\nVERSION_ID=10\n", tmp_path).major == 10

    @pytest.mark.parametrize("target", ["/usr/lib/os-release", "../usr/lib/os-release"])
    def test_a_link_stays_in_the_tree(self, target: str, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "usr/lib").mkdir(parents=True)
        (tmp_path / "usr/lib/os-release").write_text("ID=tree\nVERSION_ID=9\n")
        os.symlink(target, str(tmp_path / "etc/os-release"))
        assert read_system(str(tmp_path)).id == "tree"

    @pytest.mark.parametrize(
        "version, major",
        [("9", 9), ("9.6", 9), ("10.0", 10), ("24.04", 24), ("", None), ("rawhide", None)],
    )
    def test_major(self, version: str, major: Optional[int]) -> None:
        assert System(version_id=version).major == major

    @pytest.mark.parametrize(
        "text", [b"ID=\xff\xfe\nVERSION_ID=9\n", b'ID="centos\nVERSION_ID=9\n']
    )
    def test_not_an_os_release(self, text: bytes, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_bytes(text)
        with pytest.raises(KvmhostError, match="etc/os-release: can't be read"):
            read_system(str(tmp_path))


class TestTable:
    """The tables above against each other: no system forgotten, none twice."""

    def test_complete(self) -> None:
        sorted_in = BY_RELEASE[MODULAR] + BY_RELEASE[MONOLITHIC] + UNDECIDED + UNSUPPORTED
        assert sorted(sorted_in) == sorted(OS_RELEASE)


def pick(
    name: str,
    tmp_path: Path,
    here: str = "both",
    enabled: Tuple[str, ...] = (),
    asked: str = "auto",
) -> Choice:
    return choose(asked, system_of(OS_RELEASE[name], tmp_path), DRIVERS, INSTALLED[here], enabled)


DECIDED = [(name, mode) for mode, names in BY_RELEASE.items() for name in names]


class TestByRelease:
    @pytest.mark.parametrize("enabled", [(), SIDES[MODULAR], SIDES[MONOLITHIC], INSTALLED["both"]])
    @pytest.mark.parametrize("name, mode", DECIDED)
    def test_both_installed(
        self, name: str, mode: str, enabled: Tuple[str, ...], tmp_path: Path
    ) -> None:
        chosen = pick(name, tmp_path, enabled=enabled)
        assert chosen.mode == mode
        assert "not installed" not in chosen.reason

    @pytest.mark.parametrize("name, mode", DECIDED)
    def test_only_the_other_installed(self, name: str, mode: str, tmp_path: Path) -> None:
        rest = libvirt.other(mode)
        chosen = pick(name, tmp_path, here=rest)
        assert chosen.mode == rest
        main = "virtqemud.socket" if mode == MODULAR else "libvirtd.service"
        assert re.search(f"but not installed: .*{main}", chosen.reason)

    @pytest.mark.parametrize("name, mode", DECIDED)
    def test_only_this_installed(self, name: str, mode: str, tmp_path: Path) -> None:
        assert pick(name, tmp_path, here=mode).mode == mode

    @pytest.mark.parametrize(
        "name, reason",
        [
            ("RHEL 10", "Red Hat Enterprise Linux 10.0 (Coughlan): EL 10 and up"),
            ("CentOS Stream 9", "CentOS Stream 9: EL 8 and 9 run libvirtd"),
            ("Fedora 41", "fedora 41: Fedora 35 and up"),
            ("Fedora 34", "Fedora 34 (Cloud Edition): Fedora before 35"),
        ],
    )
    def test_reason(self, name: str, reason: str, tmp_path: Path) -> None:
        assert pick(name, tmp_path).reason.startswith(reason)

    @pytest.mark.parametrize("here", sorted(INSTALLED))
    @pytest.mark.parametrize("name", UNSUPPORTED)
    def test_unsupported(self, name: str, here: str, tmp_path: Path) -> None:
        with pytest.raises(KvmhostError, match="VERSION_ID=.* is not supported; EL 8 and up are"):
            pick(name, tmp_path, here=here)

    @pytest.mark.parametrize("name", UNSUPPORTED)
    def test_unsupported_but_named(self, name: str, tmp_path: Path) -> None:
        assert pick(name, tmp_path, asked=MONOLITHIC).mode == MONOLITHIC


class TestByInstallation:
    @pytest.mark.parametrize("name", UNDECIDED)
    @pytest.mark.parametrize(
        "here, enabled, mode, reason",
        [
            ("modular", (), MODULAR, "only its units are installed"),
            ("monolithic", (), MONOLITHIC, "only its units are installed"),
            ("modular", SIDES[MONOLITHIC], MODULAR, "only its units are installed"),
            ("both", ("virtqemud.socket",), MODULAR, "both modes are installed, it is enabled"),
            ("both", ("libvirtd.service",), MONOLITHIC, "both modes are installed, it is enabled"),
            ("both", (), MODULAR, FREE),
            ("both", SHARED, MODULAR, FREE),
            ("both", ("libvirtd.socket", "virtqemud.service"), MODULAR, FREE),
        ],
    )
    def test_choice(
        self, name: str, here: str, enabled: Tuple[str, ...], mode: str, reason: str, tmp_path: Path
    ) -> None:
        chosen = pick(name, tmp_path, here=here, enabled=enabled)
        assert chosen.mode == mode
        assert chosen.reason.endswith(reason)

    def test_unknown_system_is_called_so(self, tmp_path: Path) -> None:
        assert pick("empty", tmp_path).reason.startswith("unknown system: ")


class TestMissing:
    @pytest.mark.parametrize("name", sorted(set(OS_RELEASE) - set(UNSUPPORTED)))
    def test_nothing_installed(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(KvmhostError, match="install .*libvirt-daemon"):
            pick(name, tmp_path, here="none")

    @pytest.mark.parametrize("name", sorted(OS_RELEASE))
    @pytest.mark.parametrize("asked", [MODULAR, MONOLITHIC])
    def test_a_named_mode_is_never_overruled(self, name: str, asked: str, tmp_path: Path) -> None:
        system = system_of(OS_RELEASE[name], tmp_path)
        assert choose(asked, system, DRIVERS, INSTALLED["both"], ()) == Choice(
            asked, "asked for by kvmhost.libvirt.mode"
        )
        rest = libvirt.other(asked)
        with pytest.raises(KvmhostError, match=f"libvirt's {asked} mode .* not installed: "):
            choose(asked, system, DRIVERS, INSTALLED[rest], INSTALLED[rest])

    @pytest.mark.parametrize("unit", SIDES[MODULAR])
    def test_each_required_unit_of_modular(self, unit: str) -> None:
        here = [each for each in SIDES[MODULAR] if each != unit]
        with pytest.raises(KvmhostError, match=f"not installed: {unit}; install libvirt-daemon-"):
            choose(MODULAR, System(), DRIVERS, here, ())

    @pytest.mark.parametrize("unit", SIDES[MONOLITHIC])
    def test_each_required_unit_of_monolithic(self, unit: str) -> None:
        here = [each for each in SIDES[MONOLITHIC] if each != unit]
        with pytest.raises(KvmhostError, match=f"not installed: {unit}; install libvirt-daemon"):
            choose(MONOLITHIC, System(), DRIVERS, here, ())

    @pytest.mark.parametrize(
        "name, version, package",
        [
            ("RHEL 8", "8.10", "libvirt-daemon"),
            ("Alibaba Cloud Linux 3", "3", "libvirt-daemon"),
            ("RHEL 9", "9.2", "libvirt-daemon"),
            ("RHEL 9", "9.3", "libvirt-daemon-log"),
            ("CentOS Stream 9", "9", "libvirt-daemon-log"),
            ("RHEL 10", "10.0", "libvirt-daemon-log"),
            ("Fedora 43", "43", "libvirt-daemon-log"),
        ],
    )
    def test_package_names_of_the_release(
        self, name: str, version: str, package: str, tmp_path: Path
    ) -> None:
        system = system_of(OS_RELEASE[name], tmp_path)._replace(version_id=version)
        here = [each for each in SIDES[MONOLITHIC] if each != "virtlogd.socket"]
        with pytest.raises(KvmhostError, match=f"virtlogd.socket; install {package} "):
            choose(MONOLITHIC, system, DRIVERS, here, ())

    def test_drivers_asked_for_count(self) -> None:
        assert choose("modular", System(), ["qemu"], ["virtqemud.socket", *SHARED], ())
        with pytest.raises(KvmhostError, match="virtinterfaced.socket; install .*-interface"):
            choose("modular", System(), [*DRIVERS, "interface"], SIDES[MODULAR], ())
