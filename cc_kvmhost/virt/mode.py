"""Which of libvirt's two modes, decided from the section, the release and what is installed. Pure."""

import re
from typing import Collection, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..errors import KvmhostError
from . import units as libvirt

AUTO = "auto"

EL_IDS = ("rhel", "centos", "rocky", "almalinux", "ol")
FIRST_MODULAR_EL = 10
FIRST_SUPPORTED_EL = 8
FIRST_MODULAR_FEDORA = 35


class System(NamedTuple):
    """The fields of os-release; empty where it has none. Source: os-release(5)."""

    id: str = ""
    id_like: Tuple[str, ...] = ()
    version_id: str = ""
    pretty_name: str = ""
    platform_id: str = ""

    @property
    def major(self) -> Optional[int]:
        found = re.match(r"[0-9]+", self.version_id)
        return int(found.group()) if found else None

    @property
    def label(self) -> str:
        name = " ".join(filter(None, (self.id, self.version_id)))
        return self.pretty_name or name or "unknown system"

    @property
    def el(self) -> Optional[int]:
        """The major release of EL; None if the system is not EL, or if its release is unknown."""
        if self.id in EL_IDS:
            return self.major
        if not {"rhel", "centos"}.intersection(self.id_like):
            return None
        # Some derivatives have version numbers of their own: Alibaba Cloud Linux 3 is built from EL 8,
        # and its PLATFORM_ID is platform:al8.
        platform = re.match(r"platform:[a-z]+([0-9]+)\Z", self.platform_id)
        major = int(platform.group(1)) if platform else self.major
        return major if major is not None and major >= FIRST_SUPPORTED_EL else None

    @property
    def has_split_packages(self) -> bool:
        """Whether libvirt's proxy and the daemons that both modes share have packages of their own, as
        since libvirt 9.5 (EL 9.3)."""
        minor = re.match(r"9\.([0-9]+)", self.version_id)
        return self.el != 8 and not (self.el == 9 and minor and int(minor.group(1)) < 3)


class Choice(NamedTuple):
    """A mode ("modular" or "monolithic") and the sentence that says why."""

    mode: str
    reason: str


def choose(
    asked: str,
    system: System,
    drivers: Sequence[str],
    installed: Collection[str],
    enabled: Collection[str],
) -> Choice:
    """Choose the mode.

    :param asked: "auto", "modular" or "monolithic"
    :param drivers: the drivers that modular mode must have
    :param installed: names of the units that have a unit file
    :param enabled: names of the units that are enabled
    :raises KvmhostError: the release is not supported, or units are missing
    """

    lacking = {
        mode: tuple(u for u in libvirt.required_units(mode, drivers) if u not in installed)
        for mode in libvirt.MODES
    }
    if asked == AUTO:
        wanted = _by_release(system) or _by_installation(system, lacking, enabled)
        rest = libvirt.other(wanted.mode)
        if lacking[wanted.mode] and not lacking[rest]:
            reason = "{}, but not installed: {}".format(
                wanted.reason, ", ".join(lacking[wanted.mode])
            )
            return Choice(rest, reason)
    else:
        wanted = Choice(asked, "asked for by kvmhost.libvirt.mode")
    if lacking[wanted.mode]:
        raise KvmhostError([_lacks(wanted, lacking[wanted.mode], system)])
    return wanted


def _by_release(system: System) -> Optional[Choice]:
    if system.id == "fedora" and system.major is not None:
        if system.major >= FIRST_MODULAR_FEDORA:
            return Choice(
                libvirt.MODULAR, system.label + ": Fedora 35 and up run the modular daemons"
            )
        return Choice(libvirt.MONOLITHIC, system.label + ": Fedora before 35 runs libvirtd")
    major = system.el
    if major is None:
        return None
    if major >= FIRST_MODULAR_EL:
        return Choice(libvirt.MODULAR, system.label + ": EL 10 and up run the modular daemons")
    if major >= FIRST_SUPPORTED_EL:
        return Choice(libvirt.MONOLITHIC, system.label + ": EL 8 and 9 run libvirtd")
    raise KvmhostError(
        [
            f"os-release: VERSION_ID={system.version_id} of {system.label} is not supported; EL 8 and up are"
            " (kvmhost.libvirt.mode: monolithic chooses libvirtd all the same)"
        ]
    )


def _by_installation(
    system: System, lacking: Mapping[str, Sequence[str]], enabled: Collection[str]
) -> Choice:
    here = [mode for mode in libvirt.MODES if not lacking[mode]]
    if len(here) == 1:
        return Choice(here[0], f"{system.label}: only its units are installed")
    chosen = [mode for mode in here if any(u in enabled for u in libvirt.mode_units(mode))]
    if len(chosen) == 1:
        return Choice(chosen[0], f"{system.label}: both modes are installed, it is enabled")
    return Choice(libvirt.MODULAR, f"{system.label}: no rule for this system")


def _lacks(wanted: Choice, units: Sequence[str], system: System) -> str:
    packages = sorted({libvirt.package(unit, system.has_split_packages) for unit in units})
    return (
        "libvirt's {} mode ({}) needs units that are not installed: {}; install {}"
        " (EL's names; libvirt-daemon-kvm brings the usual set)".format(
            wanted.mode, wanted.reason, ", ".join(units), " ".join(packages)
        )
    )
