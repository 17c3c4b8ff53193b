"""libvirt's systemd units: which belong to which mode, and where their sockets listen.

Source: the units of libvirt 8 to 12 and libvirt's docs/daemons.rst.
"""

from typing import Iterable, NamedTuple, Optional, Tuple

MODULAR = "modular"
MONOLITHIC = "monolithic"
MODES = (MODULAR, MONOLITHIC)

#: The drivers that a section can name, in the order of libvirt's documentation.
DRIVERS = ("qemu", "network", "storage", "nodedev", "secret", "interface", "nwfilter")
#: Drivers that join the five defaults if they are installed.
COMPANIONS = ("interface", "nwfilter")
DEFAULT_DRIVERS = tuple(driver for driver in DRIVERS if driver not in COMPANIONS)

PROXY = "virtproxyd"
#: Both modes use these. They hold the guests' consoles and locks, so they are never stopped.
SHARED = ("virtlockd", "virtlogd")

_DAEMONS = {
    "qemu": "virtqemud",
    "network": "virtnetworkd",
    "storage": "virtstoraged",
    "nodedev": "virtnodedevd",
    "secret": "virtsecretd",
    "interface": "virtinterfaced",
    "nwfilter": "virtnwfilterd",
}
#: Modular daemons that no section can name. Monolithic mode masks them, too.
_OTHER_DAEMONS = ("virtchd", "virtlxcd", "virtvboxd", "virtvzd", "virtxend")

#: Patterns of names (fnmatch) that match all of UNITS, so that one call asks about all of them.
PATTERNS = (
    "virt*d.service",
    "virt*d.socket",
    "virt*d-*.socket",
    "libvirtd.service",
    "libvirtd*.socket",
)

_PACKAGES = {
    "virtqemud": "libvirt-daemon-driver-qemu",
    "virtnetworkd": "libvirt-daemon-driver-network",
    "virtstoraged": "libvirt-daemon-driver-storage-core",
    "virtnodedevd": "libvirt-daemon-driver-nodedev",
    "virtsecretd": "libvirt-daemon-driver-secret",
    "virtinterfaced": "libvirt-daemon-driver-interface",
    "virtnwfilterd": "libvirt-daemon-driver-nwfilter",
    "virtproxyd": "libvirt-daemon-proxy",
    "virtlockd": "libvirt-daemon-lock",
    "virtlogd": "libvirt-daemon-log",
    "libvirtd": "libvirt-daemon",
}

RUN = "/run/libvirt/"
_PATH_ENDINGS = {"": "-sock", "ro": "-sock-ro", "admin": "-admin-sock"}


class Daemon(NamedTuple):
    """A libvirt daemon by its units."""

    name: str

    @property
    def service(self) -> str:
        return self.name + ".service"

    @property
    def socket(self) -> str:
        return self.name + ".socket"

    @property
    def sockets(self) -> Tuple[str, ...]:
        """Main socket first; not those that listen on the network."""
        return (self.socket, self.name + "-ro.socket", self.name + "-admin.socket")

    @property
    def tls(self) -> str:
        return self.name + "-tls.socket"

    @property
    def tcp(self) -> str:
        return self.name + "-tcp.socket"


LIBVIRTD = Daemon("libvirtd")
PROXYD = Daemon(PROXY)


def daemon(driver: str) -> Daemon:
    """The modular daemon of a driver (one of DRIVERS)."""
    return Daemon(_DAEMONS[driver])


def modular_daemons() -> Tuple[Daemon, ...]:
    """Every daemon of the modular mode, the proxy last."""
    names = tuple(_DAEMONS[driver] for driver in DRIVERS) + _OTHER_DAEMONS + (PROXY,)
    return tuple(Daemon(name) for name in names)


def mode_units(mode: str) -> Tuple[str, ...]:
    """Every unit that belongs to one mode alone, network sockets included, sockets first."""
    daemons = modular_daemons() if mode == MODULAR else (LIBVIRTD,)
    networked = daemons[-1]
    sockets = tuple(socket for each in daemons for socket in each.sockets)
    return sockets + (networked.tcp, networked.tls) + tuple(each.service for each in daemons)


#: Every unit that a plan decides about.
UNITS = (
    mode_units(MODULAR)
    + mode_units(MONOLITHIC)
    + tuple(unit for name in SHARED for unit in Daemon(name).sockets + (Daemon(name).service,))
)

#: libvirt's other units. They serve both modes and are never touched. For example, masking the service
#: that makes the key for secrets (since libvirt 12.1) would keep virtsecretd and libvirtd from starting.
LEFT_ALONE = (
    "libvirt-guests.service",
    "virt-guest-shutdown.target",
    "virt-secret-init-encryption.service",
)


def other(mode: str) -> str:
    return MONOLITHIC if mode == MODULAR else MODULAR


def required_units(mode: str, drivers: Iterable[str]) -> Tuple[str, ...]:
    """The units that a mode can't do without."""
    shared = tuple(Daemon(name).socket for name in SHARED)
    if mode == MODULAR:
        return tuple(daemon(driver).socket for driver in drivers) + shared
    return (LIBVIRTD.service, LIBVIRTD.socket) + shared


def package(unit: str, split: bool = True) -> str:
    """The EL package of a libvirt unit. ``split``: libvirt-daemon is split up, as since libvirt 9.5."""
    name = unit.rsplit(".", 1)[0]
    return _PACKAGES[name if split or name not in (PROXY,) + SHARED else "libvirtd"]


def socket_path(unit: str) -> Optional[str]:
    """The path where a libvirt socket unit listens; None for any other unit and for network sockets.

    libvirtd and virtproxyd have the same path: the one of clients that name no daemon.
    """
    stem, _, suffix = unit.rpartition(".")
    name, _, kind = stem.partition("-")
    if suffix != "socket" or name not in _PACKAGES or kind not in _PATH_ENDINGS:
        return None
    base = "libvirt" if name in (LIBVIRTD.name, PROXY) else name
    return RUN + base + _PATH_ENDINGS[kind]
