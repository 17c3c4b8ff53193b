"""Model hosts for tests of the plan: hand-made Host values, and their state after a plan."""

from typing import Any, Dict, Iterable, Tuple

from cc_kvmhost import config as configuration
from cc_kvmhost import tuned
from cc_kvmhost.config import Config
from cc_kvmhost.host import Host, Unit
from cc_kvmhost.kvm import Kvm
from cc_kvmhost.plan import AFTER_RUN, BEFORE_START, Plan
from cc_kvmhost.virt import units as libvirt
from cc_kvmhost.virt.level import Means
from cc_kvmhost.virt.mode import System
from cc_kvmhost.virt.tls import Findings

EL9 = System("centos", ("rhel", "fedora"), "9", "CentOS Stream 9")
EL10 = System("centos", ("rhel", "fedora"), "10", "CentOS Stream 10 (Coughlan)")

SHARED_SOCKETS = tuple(s for name in libvirt.SHARED for s in libvirt.Daemon(name).sockets)
SHARED_SERVICES = tuple(libvirt.Daemon(name).service for name in libvirt.SHARED)
EXTRA = ("cockpit.socket", "podman.socket", "NetworkManager.service")

#: Modular daemons that EL ships (not virtchd, virtlxcd and the like).
EL_DAEMONS = tuple(libvirt.daemon(driver) for driver in libvirt.DRIVERS) + (libvirt.PROXYD,)
EL_MODULAR = tuple(unit for each in EL_DAEMONS for unit in each.sockets + (each.service,)) + (
    libvirt.PROXYD.tcp,
    libvirt.PROXYD.tls,
)
MONOLITHIC = libvirt.mode_units(libvirt.MONOLITHIC)

#: EL 9's preset for a fresh machine.
PRESET = tuple(
    f"virt{name}d.socket"
    for name in ("interface", "network", "nodedev", "nwfilter", "secret", "storage", "proxy")
) + ("virtqemud.service", "virtlogd.socket", tuned.SERVICE)


def config(**section: Any) -> Config:
    """A Config from the top-level keys of a section."""
    return configuration.parse(section)


def installed(*names: str, file_state: str = "disabled", **more: Any) -> Dict[str, Unit]:
    """Units that have a unit file and that systemd has not loaded."""
    return {name: Unit(name, file_state, **dict({"installed": True}, **more)) for name in names}


def everything() -> Dict[str, Unit]:
    """Every unit that both modes, tuned and the usual extras need; nothing enabled or active."""
    units = installed(*EL_MODULAR, *MONOLITHIC, *SHARED_SOCKETS, tuned.SERVICE, *EXTRA)
    units.update(installed(*SHARED_SERVICES, file_state="indirect"))
    return units


def host(units: Dict[str, Unit], **changes: Any) -> Host:
    """A running EL 10 machine with these units, without guests, with tuned's usual profiles."""
    base = Host(
        system=EL10,
        running=True,
        units=units,
        guests=(),
        profiles=("balanced", "throughput-performance", "virtual-guest", "virtual-host"),
        profile=tuned.Profile("virtual-guest", False),
        tls={"modular": Findings(), "monolithic": Findings()},
        kvm=Kvm(True),
        means=Means("x86_64", True),
    )
    return base._replace(**changes)


def with_units(units: Dict[str, Unit], names: Iterable[str], **changes: Any) -> Dict[str, Unit]:
    """A copy in which the named units have these changes; missing ones are added."""
    changed = dict(units)
    for name in names:
        before = units.get(name) or Unit(name, "disabled", installed=True, load="loaded")
        changed[name] = before._replace(**changes)
    return changed


def fresh_el9() -> Host:
    """EL 9 as installed: the preset has enabled the modular side, nothing runs yet. systemd has
    loaded what is enabled, and with it everything that it names.
    """
    units = with_units(everything(), everything(), load="loaded")
    return host(with_units(units, PRESET, file_state="enabled"), system=EL9)


def fresh_el10() -> Host:
    """EL 10 as installed with libvirt-daemon: as EL 9, read as EL 10."""
    return fresh_el9()._replace(system=EL10)


def applied(plan: Plan, before: Host) -> Host:
    """What is left on the host when systemd has done exactly what the plan says, step by step.

    Written against systemd's rules, not against the plan's: a mask hides the unit file's state,
    unmasking shows a disabled or static one, and a unit's memory follows its file at the reload.
    """
    units = dict(before.units)

    def change(names: Iterable[str], **fields: Any) -> None:
        for name in names:
            units[name] = units.get(name, Unit(name))._replace(**fields)

    def reload() -> None:
        for name, unit in units.items():
            if unit.load:
                load = "masked" if unit.file_state.startswith("masked") else "loaded"
                units[name] = unit._replace(load=load)

    for name in plan.unmask:
        change([name], file_state="disabled" if units[name].installed else "")
    change(plan.disable + plan.disable_runtime, file_state="disabled")
    change(plan.enable + plan.keep_enabled, file_state="enabled")
    change(plan.mask, file_state="masked")
    change(plan.stop, active="inactive", sub="dead", deaf=False)
    change(plan.reset, active="inactive", sub="dead")
    if plan.reload == BEFORE_START:
        reload()
    for name in plan.start:
        assert units[name].load != "masked", f"{name}: systemd would refuse to start it"
        load = units[name].load or "loaded"
        change([name], active="active", sub="running", load=load)
    if plan.reload == AFTER_RUN:
        reload()
    profile = before.profile
    if plan.profile is not None:
        profile = tuned.Profile(plan.profile, True)
    objects = before.objects
    if objects is not None:
        objects = objects._replace(
            networks={**objects.networks, **plan.networks}, pools={**objects.pools, **plan.pools}
        )
    return before._replace(units=units, profile=profile, objects=objects)


def split(change: str) -> Tuple[str, str]:
    """("enable", "x.socket") for "enable x.socket"."""
    verb, _, rest = change.partition(" ")
    return verb, rest
