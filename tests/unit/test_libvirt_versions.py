"""The plan against the units of each libvirt that EL 8 to 10 have or had."""

from typing import Callable, Dict, Iterable, Set

import model_hosts as hosts
import pytest

import libvirt_versions as versions
from cc_kvmhost import plan, tuned
from cc_kvmhost.host import Host
from cc_kvmhost.plan import Plan
from cc_kvmhost.virt import units as libvirt
from libvirt_versions import File

VERSIONS = versions.VERSIONS
on_each_version = pytest.mark.parametrize("version", VERSIONS)
in_each_mode = pytest.mark.parametrize("mode", libvirt.MODES)

Files = Dict[str, File]
States = Dict[str, str]
Start = Callable[[Files], States]


def fresh(files: Files) -> States:
    """The states that systemd reports of unit files that nobody has enabled."""
    states = {tuned.SERVICE: "disabled"}
    for name, file in files.items():
        states[name] = "disabled" if file.wanted_by else "indirect" if file.also else "static"
    return states


def with_also(files: Files, names: Iterable[str]) -> Set[str]:
    """These units and all units that their Also= names, directly or through others."""
    found: Set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += files.get(name, File()).also
    return found


def switch(files: Files, states: States, verb: str, names: Iterable[str]) -> States:
    """The states of the unit files after one call to systemd. A mask hides the state below it."""
    changed = dict(states)
    names = list(names)
    if verb in ("enable", "disable"):
        for name in names:
            assert states[name] != "masked", f"{name}: systemd would refuse to {verb} it"
        for name in with_also(files, names):
            if states[name] in ("enabled", "disabled"):
                changed[name] = f"{verb}d"
    for name in names:
        if verb == "mask":
            changed[name] = "masked"
        elif verb == "unmask":
            changed[name] = fresh(files)[name]
    return changed


def preset(files: Files) -> States:
    return switch(files, fresh(files), "enable", hosts.PRESET)


def both_enabled(files: Files) -> States:
    names = [name for name, file in files.items() if file.wanted_by]
    return switch(files, fresh(files), "enable", names)


def host(states: States) -> Host:
    units = {}
    for name, state in states.items():
        units.update(hosts.installed(name, file_state=state))
    return hosts.host(units)


def make(mode: str, here: Host) -> Plan:
    return plan.make(hosts.config(libvirt={"mode": mode}), here)


def carried_out(files: Files, states: States, chosen: Plan) -> States:
    for verb, names in chosen.unit_file_changes:
        states = switch(files, states, verb, names)
    return states


def enabled(states: States) -> Set[str]:
    return {name for name, state in states.items() if state == "enabled"}


@on_each_version
def test_a_rule_knows_every_unit(version: str) -> None:
    unknown = set(versions.units(version)).difference(libvirt.UNITS, libvirt.LEFT_ALONE)
    assert not unknown, f"libvirt {version}: add a rule for {', '.join(sorted(unknown))}"


@on_each_version
@in_each_mode
@pytest.mark.parametrize("start", [fresh, preset, both_enabled])
class TestOneRun:
    def test_the_mode_is_as_wished(self, version: str, mode: str, start: Start) -> None:
        files = versions.units(version)
        chosen = make(mode, host(start(files)))
        states = carried_out(files, start(files), chosen)
        away = [name for name in libvirt.mode_units(libvirt.other(mode)) if name in files]
        assert len(away) >= 6
        assert {states[name] for name in away} == {"masked"}

        on = {socket for socket in hosts.SHARED_SOCKETS if "-ro" not in socket}  # they have none
        if mode == libvirt.MODULAR:
            on.update(socket for each in hosts.EL_DAEMONS for socket in each.sockets)
            on.update(f"virt{driver}d.service" for driver in versions.DRIVERS)
        else:
            on.update(libvirt.LIBVIRTD.sockets + (libvirt.LIBVIRTD.service,))
        assert on <= enabled(states)
        networked = libvirt.PROXYD if mode == libvirt.MODULAR else libvirt.LIBVIRTD
        assert not enabled(states).intersection((networked.tcp, networked.tls))

    def test_all_that_is_enabled_can_start(self, version: str, mode: str, start: Start) -> None:
        """Nothing that it needs is masked, and no two units conflict."""
        files = versions.units(version)
        states = carried_out(files, start(files), make(mode, host(start(files))))
        for name in enabled(states).intersection(files):
            missing = [need for need in files[name].needs if states[need] == "masked"]
            assert not missing, f"{name} needs {missing}"
            assert not enabled(states).intersection(files[name].conflicts), name

    def test_what_both_modes_use_stays_as_it_is(
        self, version: str, mode: str, start: Start
    ) -> None:
        files = versions.units(version)
        chosen = make(mode, host(start(files)))
        alone = set(libvirt.LEFT_ALONE).intersection(files)
        assert (versions.KEY in alone) == (version == "12.1")
        assert not alone.intersection(chosen.wishes)
        assert not [change for change in chosen.changed if change.split()[1] in alone]
        states = carried_out(files, start(files), chosen)
        assert {name: states[name] for name in alone} == {n: start(files)[n] for n in alone}

    def test_a_second_run_changes_nothing(self, version: str, mode: str, start: Start) -> None:
        files = versions.units(version)
        here = host(start(files))
        chosen = make(mode, here)
        after = hosts.applied(chosen, here)
        states = carried_out(files, start(files), chosen)
        units = {name: unit._replace(file_state=states[name]) for name, unit in after.units.items()}
        assert make(mode, after._replace(units=units)).changed == []


@in_each_mode
@pytest.mark.parametrize("before, after", list(zip(VERSIONS, VERSIONS[1:])))
def test_an_upgrade_leaves_nothing_to_do(before: str, after: str, mode: str) -> None:
    """What the newer version adds is preset; what was there keeps its links."""
    old, new = versions.units(before), versions.units(after)
    here = host(preset(old))
    chosen = make(mode, here)
    ran = hosts.applied(chosen, here)
    states = carried_out(old, preset(old), chosen)
    units = dict(ran.units)
    for name, state in preset(new).items():
        unit = ran.units.get(name) or hosts.installed(name, file_state=state)[name]
        units[name] = unit._replace(file_state=states.get(name, state))
    assert make(mode, ran._replace(units=units)).changed == []
