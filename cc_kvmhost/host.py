"""What is here: release, units, guests, tuned, certificates, networks and pools. Reads only."""

import os
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple, TypeVar

from . import kvm, tuned
from .config import Config
from .errors import KvmhostError
from .kvm import Kvm
from .systemd import unit_files
from .systemd.manager import Manager, UnitState, is_reload_due
from .virt import guests, level, secret_key, sockets, subnets, tls
from .virt import units as libvirt
from .virt.guests import Guest
from .virt.level import Means
from .virt.mode import System
from .virt.secret_key import SecretKey
from .virt.tls import Findings

if TYPE_CHECKING:
    from .virt.objects import Objects

T = TypeVar("T")

_MASKED = ("masked", "masked-runtime")
#: A unit that is stopping counts as active: only a stop job waits until it has stopped.
_ACTIVE = ("active", "activating", "reloading", "refreshing", "deactivating")


class Unit(NamedTuple):
    """A unit, on the disk and in systemd's memory. The values are systemd's own.

    ``file_state``: UnitFileState, "" without a unit file. ``active``, ``sub``, ``load``:
    ActiveState, SubState, LoadState; "inactive", "dead", "" for a unit that is not in memory.
    ``installed``: a unit file exists, even if a mask hides it. ``in_etc``: an administrator's unit
    file is in /etc, where a mask would have to be. ``alias_of``: the unit's own name, if ``name`` is
    an alias. ``ran``: a one-shot that has done its work since boot, or whose conditions were not
    met. ``deaf``: a libvirt socket that systemd calls listening but that can't be reached, because
    its path was removed or a reload closed its descriptor. ``fresh``: systemd loaded the unit only
    now, so it has counted no starts. ``held_by``: the running service that keeps this socket from
    starting, for a socket from ``units``.
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
    held_by: str = ""

    @property
    def is_active(self) -> bool:
        return self.active in _ACTIVE

    @property
    def is_failed(self) -> bool:
        return self.active == "failed"

    @property
    def is_up(self) -> bool:
        return self.active in ("active", "reloading", "refreshing") or self.ran

    @property
    def in_memory(self) -> bool:
        """systemd has read its files. Other units' files it reads once somebody asks for the unit."""
        return self.load not in ("", "not-found")

    @property
    def is_stale(self) -> bool:
        """systemd remembers a mask that is gone from the disk, or the reverse."""
        return self.in_memory and self.file_state.startswith("masked") != (self.load == "masked")


class Host(NamedTuple):
    """Everything that a plan depends on.

    ``running``: systemd runs here; False for an image's tree. ``units``: libvirt's units, tuned's and
    those from ``units``, as far as they have a unit file. ``guests``: those that run. ``profiles``:
    tuned's; ``profile``: the one that is set; ``of_ppd``: the one that tuned-ppd sets when it starts,
    if it is installed. ``tls``: for each mode what is wrong with the files of its TLS socket.
    ``unseen``: in words, what this user may not look at. ``clashes``: a sentence for each libvirt
    network that can't start. ``kvm``, ``means``, ``secret_key``: see their classes; empty for an image's
    tree. ``objects``: networks and pools; None if the section has none, or for an image's tree.
    ``reload_due``: systemd has not read what an earlier run has changed.
    """

    system: System
    running: bool
    units: Mapping[str, Unit]
    guests: Tuple[Guest, ...]
    profiles: Tuple[str, ...]
    profile: tuned.Profile
    tls: Mapping[str, Findings]
    of_ppd: str = ""
    unseen: Tuple[str, ...] = ()
    clashes: Tuple[str, ...] = ()
    kvm: Kvm = Kvm(False)
    means: Means = Means()
    secret_key: SecretKey = SecretKey()
    objects: Optional["Objects"] = None
    reload_due: bool = False

    def unit(self, name: str) -> Unit:
        return self.units.get(name, Unit(name))


def read(
    manager: Manager,
    config: Config,
    profile: Optional[tuned.Profile] = None,
    before: Optional[Host] = None,
    written: bool = True,
) -> Host:
    """Look at the running host.

    :param profile: tuned's profile if it is known, since tuned is slow to answer
    :param before: an earlier look of the same run; what no run changes is taken from it
    :param written: since then the run has changed unit files
    """
    if before and not written:
        states = {name: unit.file_state for name, unit in before.units.items()}
    else:
        states = _unit_file_states(manager, config)
    # Don't make systemd load libvirt's units: it would then remember what the disk says before the
    # run's changes. Units from ``units`` are loaded, because only that shows whether the name is an
    # alias and whether the unit can be loaded at all.
    loaded = manager.loaded_units(libvirt.PATTERNS + (tuned.SERVICE,) + config.units)
    fresh = [name for name in config.units if states.get(name) and name not in loaded]
    loaded.update(manager.units([name for name in config.units if states.get(name)]))
    asked = set(config.units).difference(libvirt.UNITS)
    active = [name for name, unit in loaded.items() if unit.active == "active"]
    refused = sockets.refusals(active)
    units = {}
    for name in sorted(name for name, state in states.items() if state):
        here = loaded.get(name, UnitState(name))
        units[name] = Unit(
            name,
            states[name],
            here.active,
            here.sub,
            here.load,
            installed=states[name] not in _MASKED or unit_files.is_installed(name, "/"),
            in_etc=unit_files.is_in_etc(name, "/"),
            alias_of=here.name if here.name != name else "",
            # A unit that is not enabled yet cannot have run for us.
            ran=name in config.units and states[name] != "disabled" and _ran(manager, here),
            deaf=bool(refused.get(name)),
            fresh=name in fresh,
            held_by=_holder(manager, here) if name in asked else "",
        )
    hidden = sockets.hidden(active)
    unseen = [f"whether {', '.join(hidden)} can be reached"] if hidden else []

    def seen(what: str, ask: Callable[[], T], otherwise: T) -> T:
        try:
            return ask()
        except PermissionError:
            unseen.append(what)
            return otherwise

    running_guests: Tuple[Guest, ...] = seen("which guests run", guests.running, ())
    clashes: Tuple[str, ...] = seen("whether libvirt's networks can start", subnets.clashes, ())
    key = SecretKey()
    if not before:
        key = seen("whether this machine can decrypt libvirt's key", secret_key.read, key)
    daemon = units.get(tuned.SERVICE)
    asks = config.tuned and config.profile is not None
    running = asks and daemon is not None and daemon.active == "active"
    return Host(
        system=before.system if before else read_system("/"),
        running=True,
        units=units,
        guests=running_guests,
        profiles=before.profiles if before else tuple(tuned.profiles()) if asks else (),
        profile=profile or (tuned.ask(manager) if running else tuned.read()),
        of_ppd=tuned.of_ppd() if asks and tuned.PPD in units else "",
        tls=tls.look("/") if config.tls else {},
        clashes=clashes,
        kvm=before.kvm if before else kvm.read(),
        means=before.means if before else level.means(),
        secret_key=key,
        objects=read_objects(config),
        unseen=tuple(unseen),
        reload_due=is_reload_due(),
    )


def _unit_file_states(manager: Manager, config: Config) -> Dict[str, str]:
    """The state of each unit file that matters; "" if there is none."""
    templates = [name for name in config.units if "@" in name]
    names = dict.fromkeys(libvirt.UNITS + (tuned.SERVICE, tuned.PPD) + config.units)
    states, rest = unit_files.states(name for name in names if name not in templates)
    if rest:
        states.update(manager.unit_files(rest))
    for name in templates:
        states[name] = manager.unit_file_state(name)
    return states


def read_objects(config: Config) -> "Optional[Objects]":
    """Networks, pools and what they depend on; None if none are asked for."""
    if not config.networks and not config.pools:
        return None
    from .virt import objects  # not every host pays for its import

    return objects.read(config.networks, config.pools)


def read_tree(root: str, config: Config) -> Host:
    """Look at an image's tree, where nothing runs.

    :raises KvmhostError: the tree can't be read
    """
    templates = [name for name in config.units if "@" in name]
    patterns = libvirt.PATTERNS + (tuned.SERVICE, tuned.PPD) + config.units
    states = unit_files.tree_states(root, patterns)
    states.update((name, unit_files.tree_state(root, name)) for name in templates)
    units = {
        name: Unit(
            name,
            state,
            installed=state not in _MASKED or unit_files.is_installed(name, root),
            in_etc=unit_files.is_in_etc(name, root),
        )
        for name, state in states.items()
        if state
    }
    return Host(
        system=read_system(root),
        running=False,
        units=units,
        guests=(),
        profiles=tuple(tuned.profiles(root)),
        profile=tuned.read(root),
        of_ppd=tuned.of_ppd(root) if tuned.PPD in units else "",
        tls=tls.look(root) if config.tls else {},
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
        facts.get("platform_id", ""),
    )


def has_os_release(root: str) -> bool:
    return _os_release(root) is not None


def _os_release(root: str) -> Optional[str]:
    for name in ("etc/os-release", "usr/lib/os-release"):
        path = os.path.join(root, name)
        # In an image's tree an absolute link points to the tree's file, not to this machine's.
        while os.path.islink(path) and os.readlink(path).startswith("/"):
            path = os.path.join(root, os.readlink(path).lstrip("/"))
        if os.path.isfile(path):
            return path
    return None


def _holder(manager: Manager, loaded: UnitState) -> str:
    """The running service that makes systemd refuse to start this socket; "" if there is none."""
    if loaded.active in ("active", "activating") or not loaded.name.endswith(".socket"):
        return ""
    if not loaded.path:
        return ""
    services = [name.decode() for name in manager.property(loaded.path, "Unit", "Triggers", "as")]
    for name, unit in manager.units(services).items():
        # A service that waits for its next start (Restart=) holds nothing.
        if unit.active in _ACTIVE and not unit.sub.startswith("auto-restart"):
            return name
    return ""


def _ran(manager: Manager, loaded: UnitState) -> bool:
    """True for a one-shot service that is inactive because it is done."""
    if loaded.active != "inactive" or not loaded.name.endswith(".service"):
        return False

    def of(interface: str, name: str, signature: str) -> Any:
        return manager.property(loaded.path, interface, name, signature)

    one_shot = of("Service", "Type", "s") == b"oneshot"
    stays = of("Service", "RemainAfterExit", "b")
    return one_shot and not stays and bool(of("Unit", "ConditionTimestampMonotonic", "t"))
