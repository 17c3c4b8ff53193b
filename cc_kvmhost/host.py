"""What is here: release, unit files, units, guests, tuned, certificates. Reads only."""

import errno
import glob
import os
import re
import socket
import subprocess
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from . import files, libvirt, tuned, unit_files
from .config import Config
from .errors import KvmhostError
from .mode import System
from .systemd import Manager, UnitState

_MASKED = ("masked", "masked-runtime")

#: libvirt's own defaults for its TLS files. Source: docs/tlscerts.rst.
_TLS_FILES = {
    "ca_file": "/etc/pki/CA/cacert.pem",
    "cert_file": "/etc/pki/libvirt/servercert.pem",
    "key_file": "/etc/pki/libvirt/private/serverkey.pem",
}


class Unit(NamedTuple):
    """A unit, on disk and in systemd's memory. The values are systemd's own.

    ``file_state``: UnitFileState, "" without a unit file. ``active``, ``sub``, ``load``:
    ActiveState, SubState, LoadState; "inactive", "dead", "" for one that is not in systemd's memory.
    ``installed``: there is a unit file, behind a mask too. ``in_etc``: an administrator's unit file
    in /etc, where a mask would stand. ``alias_of``: the unit's own name if
    this is another one. ``ran``: a one-shot that has done its work since boot, or whose conditions
    kept it from it. ``deaf``: a socket of libvirt's that listens, says systemd, and that nobody can
    reach: its path was removed, or a reload took its descriptor. ``fresh``: systemd loaded it for
    this look, so it has no start of it in memory.
    """

    name: str
    file_state: str = ""
    active: str = "inactive"
    sub: str = "dead"
    load: str = ""
    installed: bool = False
    in_etc: bool = False
    alias_of: str = ""
    ran: bool = False
    deaf: bool = False
    fresh: bool = False


class Host(NamedTuple):
    """Everything that a plan depends on.

    ``running``: systemd runs here (not an image's tree). ``units``: every unit of libvirt's that
    has a unit file, tuned's, and those asked for. ``guests``: names of the running ones.
    ``profiles``: tuned's, ``profile``: the one that is set. ``tls``: for each mode what keeps its
    TLS socket from working.
    """

    system: System
    running: bool
    units: Mapping[str, Unit]
    guests: Tuple[str, ...]
    profiles: Tuple[str, ...]
    profile: tuned.Profile
    tls: Mapping[str, Tuple[str, ...]]

    def unit(self, name: str) -> Unit:
        return self.units.get(name, Unit(name))


def read(manager: Manager, config: Config, profile: Optional[tuned.Profile] = None) -> Host:
    """Look at the running host.

    :param profile: tuned's, if it is known; tuned takes a while to answer
    """
    templates = [name for name in config.units if "@" in name]
    names = dict.fromkeys(libvirt.UNITS + (tuned.SERVICE,) + config.units)
    states, rest = unit_files.states(name for name in names if name not in templates)
    if rest:
        states.update(manager.unit_files(rest))
    for name in templates:
        states[name] = manager.unit_file_state(name)
    # libvirt's units as they are: one that systemd loads now would stay as it is on disk now. Those
    # asked for by name may be other units' names, or not loadable, which shows when they are loaded.
    loaded = manager.loaded_units(libvirt.PATTERNS + (tuned.SERVICE,) + config.units)
    fresh = [name for name in config.units if states.get(name) and name not in loaded]
    loaded.update(manager.units([name for name in config.units if states.get(name)]))
    refused = refusals(name for name, unit in loaded.items() if unit.active == "active")
    units = {}
    for name in sorted(name for name, state in states.items() if state):
        here = loaded.get(name, UnitState(name))
        units[name] = Unit(
            name,
            states[name],
            here.active,
            here.sub,
            here.load,
            states[name] not in _MASKED or _is_installed(name, "/"),
            _is_in_etc(name, "/"),
            here.name if here.name != name else "",
            # One that is still to be enabled has not been asked for before.
            name in config.units and states[name] != "disabled" and _ran(manager, here),
            bool(refused.get(name)),
            name in fresh,
        )
    daemon = units.get(tuned.SERVICE)
    asks = config.tuned and config.profile is not None
    running = asks and daemon is not None and daemon.active == "active"
    return Host(
        system=read_system("/"),
        running=True,
        units=units,
        guests=running_guests(),
        profiles=tuple(tuned.profiles()) if asks else (),
        profile=profile or (tuned.ask(manager) if running else tuned.read()),
        tls=_tls_problems("/") if config.tls else {},
    )


def read_tree(root: str, config: Config) -> Host:
    """Look at an image's tree, where nothing runs.

    :raises KvmhostError: the tree can't be read
    """
    units = {
        name: Unit(
            name,
            state,
            installed=state not in _MASKED or _is_installed(name, root),
            in_etc=_is_in_etc(name, root),
        )
        for name, state in _tree_unit_files(root, _patterns(config)).items()
    }
    return Host(
        system=read_system(root),
        running=False,
        units=units,
        guests=(),
        profiles=tuple(tuned.profiles(root)),
        profile=tuned.read(root),
        tls=_tls_problems(root) if config.tls else {},
    )


def read_system(root: str) -> System:
    """os-release of a tree, through distro; all empty if there is none.

    :raises KvmhostError: the file is not what os-release(5) describes
    """
    try:
        import distro
    except ImportError as error:
        raise KvmhostError(
            [f"the release can't be read: {error}; install python3-distro"]
        ) from error
    path = _os_release(root)
    if not path:
        return System()
    try:
        facts = distro.LinuxDistribution(include_lsb=False, os_release_file=path).os_release_info()
    except (OSError, ValueError) as error:
        raise KvmhostError([f"{path}: can't be read: {error}"]) from error
    return System(
        facts.get("id", ""),
        tuple(facts.get("id_like", "").split()),
        facts.get("version_id", ""),
        facts.get("pretty_name", ""),
    )


def running_guests() -> Tuple[str, ...]:
    """Names of the guests whose process runs, under whichever mode.

    Source: the status file and the pid file that libvirt keeps of each in /run/libvirt/DRIVER.
    """
    names = []
    drivers = ("qemu", "lxc")
    found = [path for driver in drivers for path in glob.glob(libvirt.RUN + driver + "/*.xml")]
    for stem in (path[: -len(".xml")] for path in found):
        pid = (files.read(stem + ".pid") or b"").strip().decode(errors="replace")
        if pid.isdigit() and os.path.isdir("/proc/" + pid):
            names.append(os.path.basename(stem))
    return tuple(sorted(names))


def refusals(units: Iterable[str]) -> Dict[str, str]:
    """For each libvirt socket among the units why it can't be reached, "" if it can."""
    paths = {unit: libvirt.socket_path(unit) for unit in sorted(units)}
    return {unit: _refusal(path) for unit, path in paths.items() if path}


def is_deserted(path: str) -> bool:
    """There is a socket, and nobody listens on it any more."""
    return _connect(path) == errno.ECONNREFUSED


def _refusal(path: str) -> str:
    number = _connect(path)
    if number == errno.EPROTOTYPE:
        return ""
    return f"{path}: {os.strerror(number) if number else 'not a stream socket'}"


def _connect(path: str) -> int:
    """What a datagram client is told (errno): the kernel looks the path up, checks the permission
    and finds the socket behind it, then refuses the type with EPROTOTYPE. A real connection would
    start the daemon behind it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(path)


def _patterns(config: Config) -> List[str]:
    return list(libvirt.PATTERNS + (tuned.SERVICE,) + config.units)


def _os_release(root: str) -> Optional[str]:
    for name in ("etc/os-release", "usr/lib/os-release"):
        path = os.path.join(root, name)
        # An absolute link in a tree means the tree's file, not this machine's.
        while os.path.islink(path) and os.readlink(path).startswith("/"):
            path = os.path.join(root, os.readlink(path).lstrip("/"))
        if os.path.isfile(path):
            return path
    return None


def _is_installed(unit: str, root: str) -> bool:
    return any(os.path.exists(root + os.path.join(where, unit)) for where in unit_files.VENDOR)


def _is_in_etc(unit: str, root: str) -> bool:
    path = root + os.path.join(unit_files.ETC, unit)
    return os.path.lexists(path) and not os.path.islink(path)


def _ran(manager: Manager, loaded: UnitState) -> bool:
    """True for a one-shot service that is inactive because it has nothing more to do."""
    if loaded.active != "inactive" or not loaded.name.endswith(".service"):
        return False
    wanted = (
        ("Service", "Type", "s", b"oneshot"),
        ("Service", "RemainAfterExit", "b", False),
    )
    for interface, name, signature, value in wanted:
        if manager.property(loaded.path, interface, name, signature) != value:
            return False
    return bool(manager.property(loaded.path, "Unit", "ConditionTimestampMonotonic", "t"))


def _tree_unit_files(root: str, patterns: Iterable[str]) -> Dict[str, str]:
    command = ["systemctl", "--root=" + root, "list-unit-files", "--full", "--no-legend"]
    try:
        done = subprocess.run(
            command + ["--no-pager"] + list(patterns),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
    except FileNotFoundError as error:
        raise KvmhostError([f"{root}: its unit files can't be read without systemctl"]) from error
    if done.stderr:
        raise KvmhostError([f"{root}: systemctl: {done.stderr.strip()}"])
    rows = (line.split() for line in done.stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) > 1}


def _tls_problems(root: str) -> Dict[str, Tuple[str, ...]]:
    """For each mode what keeps its TLS socket from working: a file missing, a key open to all."""
    confs = {libvirt.MODULAR: "virtproxyd.conf", libvirt.MONOLITHIC: "libvirtd.conf"}
    return {mode: tuple(_tls_file_problems(root, conf)) for mode, conf in confs.items()}


def _tls_file_problems(root: str, conf: str) -> Iterable[str]:
    settings = (files.read(os.path.join(root, "etc/libvirt", conf)) or b"").decode(errors="replace")
    for key, default in sorted(_TLS_FILES.items()):
        found = re.findall(rf'^\s*{key}\s*=\s*"([^"]*)"', settings, re.MULTILINE)
        path = found[-1] if found else default
        try:
            mode = os.stat(os.path.join(root, path.lstrip("/"))).st_mode
        except OSError as error:
            yield f"{path}: {error.strerror} ({key} of {conf})"
        else:
            if key == "key_file" and mode & 0o007:
                yield f"{path}: others may use the key (mode {mode & 0o7777:04o}); chmod 0600 it"
