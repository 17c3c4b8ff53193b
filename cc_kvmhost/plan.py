"""What to do, decided from what was asked and what is here. Pure: no I/O, so that a plan can be
shown to a user and tested by tables.

A plan is the difference between the host and the wish for each unit. On a host that is as asked it
is empty: so a run verifies its work by planning again.
"""

from typing import TYPE_CHECKING, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from . import consequences, tuned
from .config import KEY, Config
from .errors import KvmhostError
from .host import Host, Unit
from .virt import secret_key
from .virt import units as libvirt
from .virt.level import NotPossible
from .virt.level import choose as choose_level
from .virt.mode import Choice, choose
from .wishes import (
    AT_BOOT,
    AWAY,
    ENABLED,
    LEFT,
    NOT_AT_BOOT,
    OFF,
    ON,
    Wish,
    job_verbs,
    unit_file_verbs,
)

if TYPE_CHECKING:
    from .virt.networks import NetworkState
    from .virt.pools import PoolState
    from .virt.steps import Step

#: The modular daemons that guests run under, by driver; in monolithic mode it is libvirtd for all.
_GUEST_DAEMONS = {"qemu": libvirt.Daemon("virtqemud"), "lxc": libvirt.Daemon("virtlxcd")}
#: The services that can't start when libvirt's key for secrets can't be decrypted.
_SECRET_SERVICES = ("libvirtd.service", "virtsecretd.service")


#: When systemd reloads its unit files. A reload takes longer than all other calls of a run.
BEFORE_START = "before the start jobs"
AFTER_RUN = "after the run, which does not wait for it"


class Plan(NamedTuple):
    """What a run will do. Each field lists a unit at most once, and in a fixed order.

    ``key_aside``: the path that libvirt's key for secrets is renamed to, before anything else; None:
    the key stays. ``profile``: the profile that tuned gets next; None: it keeps the one it has. Then,
    in the order of the fields:

    ``wishes``: every unit that the plan is about. ``disable_runtime``: units that are enabled until
    the next reboot only. ``keep_enabled``: libvirt's units that are enabled, and are enabled again
    because disabling a unit also disables those in its Also=. ``stop``, ``start``: jobs. ``reset``:
    failed units that must be inactive, and units whose earlier starts must not count. ``reload``:
    when systemd reloads its unit files: BEFORE_START, AFTER_RUN, or None for never. ``networks``,
    ``pools``: those that are asked for, as they must be; ``steps``: how they get there, before the
    check. ``level``: how far the check goes; None in an image's tree. ``warnings``: for the report.
    ``fault``: why the run fails although everything was applied; "" if it does not.
    """

    mode: str
    reason: str
    wishes: Mapping[str, Wish]
    unmask: Tuple[str, ...]
    disable: Tuple[str, ...]
    disable_runtime: Tuple[str, ...]
    enable: Tuple[str, ...]
    keep_enabled: Tuple[str, ...]
    mask: Tuple[str, ...]
    stop: Tuple[str, ...]
    reset: Tuple[str, ...]
    reload: Optional[str]
    start: Tuple[str, ...]
    profile: Optional[str]
    key_aside: Optional[str] = None
    level: Optional[str] = None
    warnings: Tuple[str, ...] = ()
    fault: str = ""
    networks: Mapping[str, "NetworkState"] = {}
    pools: Mapping[str, "PoolState"] = {}
    steps: Tuple["Step", ...] = ()

    @property
    def changed(self) -> List[str]:
        """Each change as a sentence, for the report; empty if there is nothing to do."""
        changes = [
            f"{verb} {unit}"
            for verb, units in (
                ("unmask", self.unmask),
                ("disable", self.disable + self.disable_runtime),
                ("enable", self.enable),
                ("mask", self.mask),
                ("stop", self.stop),
                ("start", self.start),
            )
            for unit in units
        ]
        if self.profile is not None:
            changes.append(f"tuned profile {self.profile}")
        if self.key_aside is not None:
            changes.append(
                f"rename {secret_key.PATH}, which this machine can't decrypt, to {self.key_aside}"
            )
        return changes + [str(step) for step in self.steps]

    @property
    def is_empty(self) -> bool:
        """The host is as asked, and systemd's memory agrees with the disk."""
        return not (self.changed or self.reset or self.reload)

    @property
    def unit_file_changes(self) -> List[Tuple[str, Tuple[str, ...]]]:
        """The calls that change unit files, in order; the verbs are keys of UNIT_FILE_CALLS."""
        calls = (
            ("unmask", self.unmask),
            # Before enable, because it also disables what the units name in Also=.
            ("disable", self.disable),
            ("disable-runtime", self.disable_runtime),
            ("enable", self.enable + self.keep_enabled),
            ("mask", self.mask),
        )
        return [(verb, units) for verb, units in calls if units]


class NoPlan(KvmhostError):
    """There is no plan, because of problems. ``choice``: the mode, if one could be chosen."""

    def __init__(self, problems: Iterable[str], choice: Optional[Choice]) -> None:
        super().__init__(problems)
        self.choice = choice


def make(config: Config, host: Host, force: bool = False) -> Plan:
    """Plan the changes that make the host as asked.

    :param force: switch modes although guests run under the daemon that will be stopped
    :raises NoPlan: names every problem
    """
    installed = [name for name, unit in host.units.items() if unit.installed]
    enabled = [name for name, unit in host.units.items() if unit.file_state in ENABLED]
    try:
        choice = choose(config.mode, host.system, config.drivers, installed, enabled)
    except KvmhostError as error:
        others = _unit_problems(config, host, {}) + _tuned_problems(config, host)
        raise NoPlan(list(error.problems) + others, None) from error
    return make_for(choice, config, host, force)


def make_for(choice: Choice, config: Config, host: Host, force: bool = False) -> Plan:
    """Do the same as make() for a mode that is already chosen."""
    wishes = _libvirt_wishes(choice.mode, config, host)
    problems = _unit_problems(config, host, wishes)
    problems += _tuned_problems(config, host)
    if config.tuned:
        wishes[tuned.SERVICE] = ON
    for unit in config.units:
        wishes.setdefault(unit, ON)
    problems += _mask_problems(host, wishes)
    if config.tls:
        problems += [f"{KEY}.libvirt.tls: {each}" for each in host.tls[choice.mode].problems]
    if _needs_secret_key(choice, config) and host.secret_key.fault and host.secret_key.secrets:
        problems.append(secret_key.problem(host.secret_key))
    plan = _difference(choice, config, host, wishes)
    if host.running:
        try:
            plan = _with_check(plan, config, host)
        except NotPossible as error:
            problems.append(str(error))
    problems += _guest_problems(plan, host, force)
    problems += _driver_problems(choice.mode, config, host)
    plan, obstacles = _with_objects(plan, config, host)
    problems += obstacles
    if problems:
        raise NoPlan(problems, choice)
    return plan


def _with_objects(plan: Plan, config: Config, host: Host) -> Tuple[Plan, List[str]]:
    """The plan with networks and pools, and the problems with them."""
    here = host.objects
    if here is None:
        return plan, []
    from .virt import networks, pools  # not every host pays for their import

    problems = [
        f"{KEY}.libvirt.networks[{number}].bridge: {each.bridge}: {here.bridges[each.bridge]}"
        for number, each in enumerate(config.networks)
        if here.bridges.get(each.bridge)
    ]
    wanted, steps, obstacles = networks.decide(
        config.networks, here.networks, here.routes, bool(host.guests)
    )
    pools_wanted, more, pool_obstacles = pools.decide(
        config.pools, here.pools, here.places, here.groups
    )
    plan = plan._replace(networks=wanted, pools=pools_wanted, steps=tuple(steps + more))
    return plan, problems + obstacles + pool_obstacles


def _libvirt_wishes(mode: str, config: Config, host: Host) -> Dict[str, Wish]:
    """The wish for each libvirt unit that is installed, and for the other mode's units that KVM hosts
    usually have: those are masked before they are installed."""
    wishes: Dict[str, Wish] = {}
    if mode == libvirt.MODULAR:
        drivers = set(config.drivers)
        if drivers.issuperset(libvirt.DEFAULT_DRIVERS):
            drivers.update(libvirt.COMPANIONS)
        for driver in libvirt.DRIVERS:
            daemon = libvirt.daemon(driver)
            chosen = driver in drivers
            for socket in daemon.sockets:
                wishes[socket] = ON if chosen else OFF
            if not chosen:
                wishes[daemon.service] = OFF
            else:
                wishes[daemon.service] = AT_BOOT if config.autostart else NOT_AT_BOOT
        network = libvirt.PROXYD
    else:
        network = libvirt.LIBVIRTD
        wishes[network.service] = AT_BOOT
    for socket in network.sockets:
        wishes[socket] = ON
    if mode == libvirt.MODULAR:
        # No driver's: nothing to bring up, but no mask of the other mode's times stays.
        for other in libvirt.modular_daemons():
            for unit in other.sockets + (other.service,):
                wishes.setdefault(unit, LEFT)
    wishes[network.tcp] = OFF
    wishes[network.tls] = ON if config.tls else OFF
    for name in libvirt.SHARED:
        for socket in libvirt.Daemon(name).sockets:
            wishes[socket] = ON
    for unit in libvirt.mode_units(libvirt.other(mode)):
        wishes[unit] = AWAY
    possible = {unit: _possible(host, unit, wish) for unit, wish in wishes.items()}
    return {unit: wish for unit, wish in possible.items() if wish is not None}


def _possible(host: Host, unit: str, wish: Wish) -> Optional[Wish]:
    """The wish as far as this host can fulfil it now; None: leave the unit out of the plan."""
    if not host.unit(unit).installed:
        # Its package may be installed later, and its presets enable every unit that is not masked.
        if wish.masked:
            return wish
        return LEFT if _is(host.unit(unit), "masked") else None
    # systemd can't start a socket while its service runs: the -admin socket of a service that is
    # never stopped waits for the next boot.
    main = unit in [libvirt.Daemon(name).socket for name in libvirt.SHARED]
    return AT_BOOT if wish.active and not main and consequences.is_held(host, unit) else wish


def _difference(choice: Choice, config: Config, host: Host, wishes: Mapping[str, Wish]) -> Plan:
    units = {name: host.unit(name) for name in wishes}
    anew = consequences.sockets_to_start_anew(host, wishes) if host.running else set()
    verbs: Dict[str, List[str]] = {}
    for name, wish in wishes.items():
        here = unit_file_verbs(units[name].file_state, wish)
        if host.running:
            here += job_verbs(units[name], wish, name in anew)
        for verb in here:
            verbs.setdefault(verb, []).append(name)
    unmask, disable, disable_runtime, enable, mask, stop, reset, start = (
        verbs.get(verb, [])
        for verb in "unmask disable disable_runtime enable mask stop reset start".split()
    )
    keep_enabled = [
        n
        for n, w in wishes.items()
        if w.enabled and _is(units[n], "enabled") and n in libvirt.UNITS
    ]
    if host.running:
        stop += consequences.services_in_the_way(host, wishes, start, stop)
        start += consequences.services_to_start(choice.mode, host, wishes, start, stop)
        # tuned takes longest to start, so its job is queued first. Sockets come before services,
        # because systemd starts no socket whose service is starting.
        start.sort(key=lambda n: (n != tuned.SERVICE, not n.endswith(".socket")))
        reset += consequences.units_to_reset(host, start, stop)
    key_aside = None
    if _needs_secret_key(choice, config) and host.secret_key.fault:
        key_aside = host.secret_key.aside
        # Without the key they failed, often enough for systemd to refuse another start.
        failed = [n for n in _SECRET_SERVICES if n in units and units[n].is_failed]
        reset += [n for n in failed if n not in reset]
    profile = None
    if config.tuned and config.profile is not None:
        if host.profile != tuned.Profile(config.profile, True):
            profile = config.profile
    changed = unmask + disable + disable_runtime + enable + mask
    # A start job goes by systemd's memory: it fails on a unit that is remembered as masked, and it
    # starts whatever the targets that it pulls in are remembered to want. So systemd has to reload
    # before the start jobs if one of these units is in its memory. A new mask matters only if units
    # from ``units`` start, because they may want the masked unit. After a killed run nobody knows
    # which of its changes systemd has not read.
    decisive = unmask + disable + disable_runtime
    if set(start).intersection(config.units):
        decisive += mask
    misled = (
        any(units[n].in_memory for n in decisive)
        or any(unit.is_stale for unit in units.values())
        or (host.reload_due and bool(start))
    )
    return Plan(
        mode=choice.mode,
        reason=choice.reason,
        wishes=wishes,
        unmask=tuple(unmask),
        disable=tuple(disable),
        disable_runtime=tuple(disable_runtime),
        enable=tuple(enable),
        keep_enabled=tuple(keep_enabled if disable else ()),
        mask=tuple(mask),
        stop=tuple(stop),
        reset=tuple(reset),
        reload=BEFORE_START if misled else AFTER_RUN if changed or host.reload_due else None,
        start=tuple(start),
        profile=profile,
        key_aside=key_aside,
        warnings=tuple(_warnings(choice, config, host)),
    )


def _warnings(choice: Choice, config: Config, host: Host) -> List[str]:
    warnings: List[str] = []
    if config.tls:
        warnings += [f"{KEY}.libvirt.tls: {each}" for each in host.tls[choice.mode].warnings]
    warnings += [f"not known, because only root may look at it: {each}" for each in host.unseen]
    if choice.mode == libvirt.MONOLITHIC or "network" in config.drivers:
        # A network from the section is no warning: it gets another subnet, or is an error.
        asked = tuple(f"libvirt's network {each.name} " for each in config.networks)
        warnings += [each for each in host.clashes if not asked or not each.startswith(asked)]
    ppd = host.unit(tuned.PPD)
    if config.tuned and config.profile is not None and ppd.installed and not _is(ppd, "masked"):
        if host.of_ppd != config.profile:
            warnings.append(
                f"{tuned.PPD} sets {host.of_ppd or 'a profile of its own'} each time it starts, in"
                f" place of {config.profile}; run 'systemctl mask --now {tuned.PPD}', or name"
                f" {config.profile} for 'balanced' in {tuned.PPD_CONF}"
            )
    return warnings


def _with_check(plan: Plan, config: Config, host: Host) -> Plan:
    """The plan with the level of its check, and with what it says about KVM.

    :raises NotPossible: this host can't be checked to the level that was asked for
    """
    drivers = libvirt.DRIVERS if plan.mode == libvirt.MONOLITHIC else config.drivers
    level = choose_level(config.check, drivers, host.means)
    warnings = plan.warnings + ((level.warning,) if level.warning else ())
    fault = ""
    if host.kvm.usable is None:
        if config.kvm != "ignore":
            warnings += (f"not known: whether KVM can be used: {host.kvm.reason}",)
    elif not host.kvm.usable:
        text = f"KVM can't be used, so guests are emulated: {host.kvm.reason}"
        if config.kvm == "warn":
            warnings += (f"{text}; {KEY}.kvm: ignore accepts it",)
        elif config.kvm == "require":
            fault = f"{KEY}.kvm: require: {text}"
    return plan._replace(level=level.name, warnings=warnings, fault=fault)


def _needs_secret_key(choice: Choice, config: Config) -> bool:
    return choice.mode == libvirt.MONOLITHIC or "secret" in config.drivers


def _is(unit: Unit, file_state: str) -> bool:
    return unit.file_state == file_state


def _unit_problems(config: Config, host: Host, wishes: Mapping[str, Wish]) -> List[str]:
    """What is wrong with the units in ``units``."""
    problems = []
    for number, name in enumerate(config.units):
        where, unit = f"{KEY}.units[{number}]: {name}", host.unit(name)
        if wishes.get(name, ON).enabled is False:
            problems.append(
                f"{where} contradicts the chosen libvirt mode or its options, which turn it off;"
                f" take it out, or change {KEY}.libvirt"
            )
        elif unit.alias_of or unit.file_state == "alias":
            problems.append(
                "{} is an alias{}; name the unit itself".format(
                    where, unit.alias_of and " of " + unit.alias_of
                )
            )
        elif not unit.file_state:
            problems.append(f"{where}: no such unit on this host; install its package")
        elif unit.file_state == "bad" or unit.load in ("bad-setting", "error"):
            problems.append(
                f"{where} can't be loaded ({unit.load or unit.file_state}); see 'systemctl status {name}'"
            )
        elif unit.held_by:
            problems.append(
                f"{where} can't start while {unit.held_by} runs; take it out, or run"
                f" 'systemctl stop {unit.held_by}'"
            )
        elif _is(unit, "masked"):
            problems.append(f"{where} is masked; take it out, or run 'systemctl unmask {name}'")
    return problems


def _driver_problems(mode: str, config: Config, host: Host) -> List[str]:
    """What networks and pools need and this host or section lacks."""
    problems = []
    for key, driver, asked in (
        ("networks", "network", config.networks),
        ("pools", "storage", config.pools),
    ):
        if asked and mode == libvirt.MODULAR and driver not in config.drivers:
            problems.append(
                f"{KEY}.libvirt.{key}: needs the driver {driver}, which {KEY}.libvirt.drivers leaves"
                " out; add it there"
            )
        if asked and host.objects and not host.objects.binding:
            problems.append(
                f"{KEY}.libvirt.{key}: libvirt's Python binding is missing; install python3-libvirt"
            )
    return problems


def _tuned_problems(config: Config, host: Host) -> List[str]:
    unit = host.unit(tuned.SERVICE)
    if not config.tuned:
        return []
    if not unit.installed:
        return [
            f"{KEY}.tuned: {tuned.SERVICE} is not installed; install {tuned.PACKAGE}, or set {KEY}.tuned.enabled: false"
        ]
    problems = []
    if _is(unit, "masked"):
        problems.append(
            f"{KEY}.tuned: {tuned.SERVICE} is masked; run 'systemctl unmask {tuned.SERVICE}', or set {KEY}.tuned.enabled:"
            " false"
        )
    if config.profile is not None and config.profile not in host.profiles:
        from difflib import get_close_matches  # importing it takes longer than planning

        near = get_close_matches(config.profile, host.profiles, 1)
        problems.append(
            "{}.tuned.profile: no profile {!r} on this host;{} there are: {}".format(
                KEY,
                config.profile,
                f" did you mean {near[0]!r}?" if near else "",
                ", ".join(host.profiles) or "none",
            )
        )
    return problems


def _mask_problems(host: Host, wishes: Mapping[str, Wish]) -> List[str]:
    """Masks that a run does not remove, and units that can't be masked."""
    problems = [
        f"{name} is masked in /run, which a run does not undo; find what masks it, or run"
        f" 'systemctl unmask --runtime {name}'"
        for name, wish in wishes.items()
        if wish.enabled and _is(host.unit(name), "masked-runtime")
    ]
    problems += [
        f"{name} must be masked, but /etc/systemd/system/{name} is a unit file of this host's own;"
        " move it away"
        for name, wish in wishes.items()
        if wish.masked and host.unit(name).in_etc
    ]
    return problems


def _guest_problems(plan: Plan, host: Host, force: bool) -> List[str]:
    """Guests that would get another daemon. Guests go on when their daemon crashes or is stopped, so
    the daemons that run now don't tell which mode the guests belong to: if none runs, they count as
    the other mode's."""
    if force or not host.guests:
        return []
    names = ", ".join(guest.name for guest in host.guests)
    ways = "shut them down, or run 'kvmhost apply --force': they then go on under the other daemon"
    others = [daemon.service for daemon in _guest_daemons(libvirt.other(plan.mode), host)]
    leaving = [unit for unit in others if unit in plan.stop]
    if leaving:
        return [f"guests run under {', '.join(leaving)}, which would be stopped: {names}; {ways}"]
    own = [daemon.service for daemon in _guest_daemons(plan.mode, host)]
    if all(host.unit(unit).is_active for unit in own) or not _changes_mode(plan, host):
        return []
    return [
        f"guests run, their daemon does not, and the run would change the mode: {names}; start the"
        f" daemon that they belong to ({' or '.join(others + own)}), {ways}"
    ]


def _guest_daemons(mode: str, host: Host) -> List[libvirt.Daemon]:
    """The daemons of a mode that may have started the running guests."""
    if mode == libvirt.MONOLITHIC:
        return [libvirt.LIBVIRTD]
    return [_GUEST_DAEMONS[driver] for driver in sorted({g.driver for g in host.guests})]


def _changes_mode(plan: Plan, host: Host) -> bool:
    """Whether the other mode's guest daemon could start until now, or this mode's could not."""
    leaving = plan.disable + plan.disable_runtime + plan.mask + plan.stop
    others = _guest_daemons(libvirt.other(plan.mode), host)
    return any(
        host.unit(unit).installed and unit in leaving
        for daemon in others
        for unit in daemon.sockets + (daemon.service,)
    ) or any(
        daemon.socket in plan.unmask + plan.enable for daemon in _guest_daemons(plan.mode, host)
    )
