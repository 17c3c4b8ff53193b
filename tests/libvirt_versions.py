"""libvirt's units in the versions that EL 8 to 10 have or had: what systemd does with a plan hangs on them.

Source: libvirt's specs and unit templates. test_upgrade.py and tests/more_hosts compare what is here
with the unit files of the libvirt that Debian has.
"""

from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

#: EL 8; EL 9.2, 9.3, then 11.10; EL 10.0, then 12.
VERSIONS = ("8.0", "9.0", "9.5", "10.10", "11.10", "12.1")

KEY = "virt-secret-init-encryption.service"
GUESTS = "libvirt-guests.service"
SHUTDOWN = "virt-guest-shutdown.target"
DRIVERS = ("qemu", "network", "storage", "nodedev", "secret", "interface", "nwfilter")


class File(NamedTuple):
    """Of a unit file what names other units of libvirt's, and WantedBy=. ``needs``: Requires= and
    BindsTo=: without them it does not start.
    """

    wanted_by: Tuple[str, ...] = ()
    also: Tuple[str, ...] = ()
    needs: Tuple[str, ...] = ()
    conflicts: Tuple[str, ...] = ()


_AT_BOOT = ("multi-user.target",)
_SOCKET = ("sockets.target",)
_LOG, _LOCK = "virtlogd.socket", "virtlockd.socket"


def units(version: str) -> Dict[str, File]:
    """The unit files of one of VERSIONS, all packages installed."""
    files = _before_sockets_were_optional() if version in VERSIONS[:3] else _since()
    if version == "8.0":
        own = tuple(_sockets("libvirtd"))
        libvirtd = files["libvirtd.service"]
        files["libvirtd.service"] = libvirtd._replace(needs=tuple(sorted(libvirtd.needs + own)))
    if version == "12.1":
        files[KEY] = File()
        for name in ("virtsecretd.service", "libvirtd.service"):
            files[name] = files[name]._replace(needs=tuple(sorted(files[name].needs + (KEY,))))
    files[GUESTS] = File(_AT_BOOT, needs=(SHUTDOWN,))
    files[SHUTDOWN] = File()
    return files


def _sockets(daemon: str) -> List[str]:
    return [f"{daemon}{kind}.socket" for kind in ("", "-ro", "-admin")]


def _modular() -> List[str]:
    return [f"virt{driver}d" for driver in DRIVERS] + ["virtproxyd"]


def _file(
    wanted_by: Tuple[str, ...],
    also: List[str],
    needs: List[str],
    conflicts: List[str],
) -> File:
    return File(wanted_by, *(tuple(sorted(names)) for names in (also, needs, conflicts)))


def _before_sockets_were_optional() -> Dict[str, File]:
    """8.0, 9.0, 9.5: a service requires its sockets, and sockets name each other nowhere."""
    files = {}
    networked = ["libvirtd-tcp.socket", "libvirtd-tls.socket"]
    for daemon in _modular():
        main, own = f"{daemon}.socket", _sockets(daemon)
        shared = [_LOG, _LOCK] if daemon == "virtqemud" else []
        files[f"{daemon}.service"] = _file(
            _AT_BOOT, own + shared, own + shared, ["libvirtd.service"]
        )
        proxy = daemon == "virtproxyd"
        rivals = _sockets("libvirtd") + networked if proxy else []
        for socket in own + ([f"{daemon}-tcp.socket", f"{daemon}-tls.socket"] if proxy else []):
            files[socket] = _file(_SOCKET, [], [main] if socket != main else [], rivals)
    own = _sockets("libvirtd")
    also = own[:2] + [_LOG, _LOCK]
    files["libvirtd.service"] = _file(_AT_BOOT, also, [_LOG, _LOCK], [])
    for socket in own + networked:
        needs = ["libvirtd.socket"] if socket != "libvirtd.socket" else []
        files[socket] = _file(_SOCKET, [], needs, [])
    for daemon in ("virtlogd", "virtlockd"):
        main, admin = f"{daemon}.socket", f"{daemon}-admin.socket"
        files[f"{daemon}.service"] = _file((), [main], [main, admin], [])
        files[main] = _file(_SOCKET, [], [], [])
        files[admin] = _file(_SOCKET, [], [main], [])
    return files


def _since() -> Dict[str, File]:
    """10.10 and later: only the main socket is needed, and each socket brings its sisters along."""
    files = {}
    for daemon in _modular() + ["libvirtd"]:
        main, own = f"{daemon}.socket", _sockets(daemon)
        modular = daemon != "libvirtd"
        needs = [main] if modular else []
        also = list(own)
        if daemon in ("virtqemud", "libvirtd"):
            needs, also = needs + [_LOG], also + [_LOG, _LOCK]
        files[f"{daemon}.service"] = _file(
            _AT_BOOT, also, needs, ["libvirtd.service"] if modular else []
        )
        for socket in own:
            sisters = [each for each in own if each != socket]
            rival = [socket.replace(daemon, "libvirtd")] if modular else []
            files[socket] = _file(_SOCKET, sisters, [main] if socket != main else [], rival)
        if daemon in ("virtproxyd", "libvirtd"):
            for kind in ("tcp", "tls"):
                rival = [f"libvirtd-{kind}.socket"] if modular else []
                files[f"{daemon}-{kind}.socket"] = _file(_SOCKET, [], [main], rival)
    for daemon in ("virtlogd", "virtlockd"):
        main, admin = f"{daemon}.socket", f"{daemon}-admin.socket"
        files[f"{daemon}.service"] = _file(_AT_BOOT, [main, admin], [main], [])
        files[main] = _file(_SOCKET, [admin], [], [])
        files[admin] = _file(_SOCKET, [main], [main], [])
    return files


def as_debian_has_them(files: Dict[str, File]) -> Dict[str, File]:
    """Without what Debian takes out since 11.3: Also= of libvirtd.service for other packages' units."""
    libvirtd = files["libvirtd.service"]
    also = tuple(name for name in libvirtd.also if name.startswith("libvirtd"))
    return dict(files, **{"libvirtd.service": libvirtd._replace(also=also)})


def read(directory: Path) -> Dict[str, File]:
    """libvirt's unit files, drop-ins included, as they lie in a directory."""
    patterns = (
        "virt*.service",
        "virt*.socket",
        "virt*.target",
        "libvirt*.service",
        "libvirt*.socket",
    )
    files = {}
    for path in [path for pattern in patterns for path in sorted(directory.glob(pattern))]:
        found: Dict[str, List[str]] = {}
        for part in [path, *sorted(directory.glob(f"{path.name}.d/*.conf"))]:
            for line in part.read_text().splitlines():
                key, equals, value = line.partition("=")
                if equals:
                    found.setdefault(key, []).extend(value.split())
        ours = {key: [name for name in names if "virt" in name] for key, names in found.items()}
        files[path.name] = _file(
            tuple(found.get("WantedBy", [])),
            ours.get("Also", []),
            ours.get("Requires", []) + ours.get("BindsTo", []),
            ours.get("Conflicts", []),
        )
    return files
