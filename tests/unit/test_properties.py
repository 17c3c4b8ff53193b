"""Sections made from the schema: valid ones always plan, invalid ones never get that far.

Needs hypothesis-jsonschema 0.20 (Python 3.6) or newer; 0.23.1 with hypothesis < 6.152.
"""

import copy
from typing import Any, Dict, List, Tuple
from unittest import mock

import model_hosts as hosts
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

from cc_kvmhost import config, plan, run, tuned
from cc_kvmhost.config import Config
from cc_kvmhost.errors import KvmhostError
from cc_kvmhost.host import Host, Unit
from cc_kvmhost.virt import units as libvirt
from cc_kvmhost.virt.guests import Guest
from cc_kvmhost.virt.objects import Objects
from cc_kvmhost.virt.pools import Place
from cc_kvmhost.virt.volume_groups import Group

SCHEMA = config.load_schema()
#: Generating is slow on a busy machine, and shrinking too.
QUIET = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

UNITS = st.sampled_from((*hosts.EXTRA, "a@b.service", "x-y.timer", "z.target"))
PROFILES = st.sampled_from(("virtual-host", "virtual-guest", "balanced"))


def for_generation(rule: Any) -> Any:
    """The schema without its (?!...) patterns, which hypothesis-jsonschema can't start from."""
    if isinstance(rule, dict):
        rest = {key: for_generation(each) for key, each in rule.items() if key != "default"}
        pattern = rest.get("pattern", "")
        if isinstance(pattern, str) and "(service|" in pattern:
            rest["pattern"] = r"^[a-zA-Z][a-zA-Z0-9_]{0,20}\.(service|socket|timer|path|target)\Z"
        elif isinstance(pattern, str) and pattern:
            rest["pattern"] = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,20}\Z"
        return rest
    return [for_generation(each) for each in rule] if isinstance(rule, list) else rule


def _without_objects(rule: Any) -> Any:
    """The schema without networks and pools, whose keys depend on each other."""
    rule = copy.deepcopy(rule)
    for key in ("networks", "pools"):
        del rule["properties"]["libvirt"]["properties"][key]
    return rule


NAMES = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.+-]{0,10}\Z")
NETWORKS = st.one_of(
    st.fixed_dictionaries({"name": NAMES, "mode": st.just("nat")}),
    st.fixed_dictionaries({"name": NAMES, "mode": st.just("nat"), "subnet": st.just("auto")}),
    st.fixed_dictionaries({"name": NAMES, "mode": st.just("bridge"), "bridge": st.just("br0")}),
)
POOLS = st.one_of(
    NAMES.map(lambda name: {"name": name, "type": "dir", "path": f"/srv/{name}-"}),
    NAMES.map(lambda name: {"name": name, "type": "logical", "source": f"{name}-"}),
)


@st.composite
def valid_sections(draw: Any) -> Any:
    section = draw(from_schema(for_generation(_without_objects(SCHEMA))))
    for key, each in (("networks", NETWORKS), ("pools", POOLS)):
        objects = draw(st.lists(each, max_size=3, unique_by=lambda one: str(one["name"])))
        if objects and section is not None:
            section["libvirt"] = {**(section.get("libvirt") or {}), key: objects}
    return section


VALID = valid_sections()


def model_host(section: Any) -> Host:
    """A host where whatever the section names is installed."""
    wanted = config.parse(section)
    units = hosts.everything()
    units.update(hosts.installed(*(u for u in wanted.units if u not in units)))
    profiles = ("virtual-host", wanted.profile or "balanced")
    objects = Objects(
        networks={},
        pools={},
        routes=(),
        bridges={"br0": ""},
        places={pool.path: Place(room=1 << 40) for pool in wanted.pools if pool.path},
        groups={pool.source: Group() for pool in wanted.pools if pool.source},
    )
    asks = wanted.networks or wanted.pools
    return hosts.host(units, profiles=profiles, objects=objects if asks else None)


def lacks_a_driver(wanted: Config) -> bool:
    """Networks or pools without their driver: an error in modular mode."""
    needed = {"network"} if wanted.networks else set()
    return not needed.union(["storage"] if wanted.pools else []).issubset(wanted.drivers)


@st.composite
def broken_sections(draw: Any) -> Any:
    """A valid section with one thing wrong in it."""
    section: Dict[str, Any] = copy.deepcopy(draw(VALID)) or {}
    place, value = draw(st.sampled_from(FAULTS))
    inner = section
    for key in place[:-1]:
        inner[key] = inner.get(key) or {}
        inner = inner[key]
    inner[place[-1]] = value
    return section


FAULTS: List[Tuple[Tuple[str, ...], Any]] = [
    (("unknown",), 1),
    (("libvirt",), False),
    (("libvirt",), "modular"),
    (("libvirt", "unknown"), 1),
    (("libvirt", "mode"), "both"),
    (("libvirt", "mode"), 1),
    (("libvirt", "drivers"), []),
    (("libvirt", "drivers"), ["qemu", "qemu"]),
    (("libvirt", "drivers"), ["xen"]),
    (("libvirt", "autostart"), "yes"),
    (("libvirt", "tls"), 1),
    (("libvirt", "networks"), "default"),
    (("libvirt", "networks"), [{"name": "a"}]),
    (("libvirt", "networks"), [{"name": "a", "mode": "nat"}] * 2),
    (("libvirt", "networks"), [{"name": "a", "mode": "nat", "bridge": "br0"}]),
    (("libvirt", "networks"), [{"name": "a", "mode": "bridge"}]),
    (("libvirt", "networks"), [{"name": "a/b", "mode": "nat"}]),
    (("libvirt", "networks"), [{"name": "a", "mode": "nat", "subnet": "10.0.0.1/24"}]),
    (("libvirt", "pools"), [{"name": "a", "type": "dir"}]),
    (("libvirt", "pools"), [{"name": "a", "type": "dir", "path": "srv"}]),
    (("libvirt", "pools"), [{"name": "a", "type": "logical", "path": "/srv"}]),
    (("libvirt", "pools"), [{"name": "a", "type": "dir", "path": "/srv/../etc"}]),
    (("tuned",), False),
    (("tuned", "unknown"), 1),
    (("tuned", "enabled"), None),
    (("tuned", "profile"), ""),
    (("tuned", "profile"), "a/b"),
    (("tuned", "profile"), "a\n"),
    (("units",), "a.socket"),
    (("units",), ["a"]),
    (("units",), ["../a.socket"]),
    (("units",), ["a.socket\n"]),
    (("units",), ["a.socket", "a.socket"]),
    (("timeout",), 0),
    (("timeout",), 3601),
    (("timeout",), "5"),
]


class TestSections:
    @QUIET
    @given(VALID)
    def test_valid_ones_parse_and_plan(self, section: Any) -> None:
        wanted = config.parse(section)
        here = model_host(section)
        asked_off = set(wanted.units) & {
            unit for mode in libvirt.MODES for unit in (*libvirt.mode_units(mode),)
        }
        # A valid section that no host can have: a guest to check with, and no driver that runs it.
        no_guest = wanted.check == "guest" and "qemu" not in wanted.drivers
        impossible = lacks_a_driver(wanted) or no_guest and wanted.mode != libvirt.MONOLITHIC
        if not asked_off and not impossible:
            chosen = plan.make(wanted, here)
            assert chosen.mode in libvirt.MODES
            assert plan.make(wanted, hosts.applied(chosen, here)).is_empty

    @QUIET
    @given(broken_sections())
    def test_invalid_ones_never_reach_the_plan(self, section: Any) -> None:
        unreached = AssertionError("an invalid section got past the check")
        with mock.patch.object(run, "is_running", side_effect=unreached):
            with mock.patch.object(run.host, "read", side_effect=unreached):
                with mock.patch.object(plan, "make", side_effect=unreached):
                    with pytest.raises(KvmhostError) as caught:
                        run.preview(section)
        assert all("\n" not in each and "kvmhost" in each for each in caught.value.problems)

    @QUIET
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda each: (
                st.lists(each, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["libvirt", "mode", "tuned", "units", "timeout", "x", ""]),
                    each,
                    max_size=3,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_value_is_taken_or_refused_in_words(self, section: Any) -> None:
        try:
            config.parse(section)
        except KvmhostError as error:
            assert error.problems
            assert all("\n" not in each for each in error.problems)


STATES = ("enabled", "disabled", "masked", "enabled-runtime")
ACTIVE = ("active", "inactive", "failed")
CHANGEABLE = tuple(
    name for name, unit in sorted(hosts.everything().items()) if unit.file_state == "disabled"
)


@st.composite
def starts(draw: Any) -> Host:
    """An EL machine in any state: each unit of libvirt's, tuned and the extras differs."""
    units = hosts.everything()
    for name in draw(st.lists(st.sampled_from(CHANGEABLE), max_size=25, unique=True)):
        own = name in hosts.EXTRA or name == tuned.SERVICE
        state = draw(st.sampled_from(tuple(s for s in STATES if not (own and s == "masked"))))
        load = "masked" if state == "masked" else "loaded"
        active = "inactive" if state == "masked" else draw(st.sampled_from(ACTIVE))
        units[name] = Unit(name, state, active, load=load, installed=True)
    for name in draw(st.lists(st.sampled_from(hosts.SHARED_SERVICES), unique=True)):
        units[name] = units[name]._replace(active="active")
    system = draw(st.sampled_from((hosts.EL9, hosts.EL10)))
    profile = tuned.Profile(draw(PROFILES), draw(st.booleans()))
    return hosts.host(units, system=system, profile=profile)


SECTIONS = st.fixed_dictionaries(
    {
        "libvirt": st.fixed_dictionaries(
            {
                "mode": st.sampled_from(("auto", "modular", "monolithic")),
                "drivers": st.lists(
                    st.sampled_from(libvirt.DRIVERS), min_size=1, max_size=7, unique=True
                ),
                "autostart": st.booleans(),
                "tls": st.booleans(),
            }
        ),
        "tuned": st.fixed_dictionaries({"enabled": st.booleans(), "profile": st.none() | PROFILES}),
        "units": st.lists(st.sampled_from(hosts.EXTRA), unique=True),
    }
)


class TestPlans:
    @settings(QUIET, max_examples=200)
    @given(SECTIONS, starts())
    def test_a_second_run_changes_nothing(self, section: Dict[str, Any], start: Host) -> None:
        wanted = config.parse(section)
        first = plan.make(wanted, start, force=True)
        again = plan.make(wanted, hosts.applied(first, start))
        assert again.changed == [] and again.is_empty

    @settings(QUIET, max_examples=100)
    @given(SECTIONS, starts())
    def test_what_every_plan_keeps(self, section: Dict[str, Any], start: Host) -> None:
        chosen = plan.make(config.parse(section), start, force=True)
        after = hosts.applied(chosen, start)
        for name in hosts.SHARED_SERVICES:
            assert after.units[name] == start.units[name]
        for unit in libvirt.mode_units(libvirt.other(chosen.mode)):
            if unit in after.units:
                assert after.units[unit].file_state == "masked"
                assert after.units[unit].active == "inactive"
        for unit in libvirt.required_units(chosen.mode, config.parse(section).drivers):
            assert after.units[unit].file_state == "enabled"
        for units in (chosen.unmask, chosen.disable, chosen.enable, chosen.mask, chosen.start):
            assert len(set(units)) == len(units)


@st.composite
def broken_with_guests(draw: Any) -> Tuple[Host, str]:
    """A host set to one mode, on which guests were started; then their daemon went down, other
    units of the mode came into any state, and a forced run to the other mode ended in its middle.

    :return: the host, the other mode
    """
    first = draw(st.sampled_from(libvirt.MODES))
    here = hosts.host(hosts.everything())
    here = hosts.applied(plan.make(hosts.config(libvirt={"mode": first}), here), here)
    here = here._replace(guests=(Guest("a"),))
    other = libvirt.other(first)
    forced = plan.make(hosts.config(libvirt={"mode": other}), here, force=True)
    units = dict(here.units)
    daemon = "virtqemud" if first == libvirt.MODULAR else "libvirtd"
    own = [n for n in libvirt.mode_units(first) if n in units and n != f"{daemon}.socket"]
    for name in draw(st.lists(st.sampled_from(own), unique=True, max_size=12)):
        state = draw(st.sampled_from(("enabled", "disabled", "masked", "enabled-runtime")))
        active = draw(st.sampled_from(("active", "inactive", "failed")))
        units[name] = units[name]._replace(file_state=state, active=active)
    down = draw(st.sampled_from(("inactive", "failed")))
    units[f"{daemon}.service"] = units[f"{daemon}.service"]._replace(active=down)
    states = {"unmask": "disabled", "disable": "disabled", "enable": "enabled", "mask": "masked"}
    for verb, names in forced.unit_file_changes[: draw(st.integers(0, len(states)))]:
        for name in names:
            units[name] = units.get(name, Unit(name))._replace(file_state=states[verb])
    return here._replace(units=units), other


class TestGuests:
    @settings(QUIET, max_examples=200)
    @given(broken_with_guests())
    def test_no_broken_state_lets_them_change_their_daemon(self, case: Tuple[Host, str]) -> None:
        broken, other = case
        wanted = hosts.config(libvirt={"mode": other})
        with pytest.raises(KvmhostError) as caught:
            plan.make(wanted, broken)
        assert any("guests run" in problem for problem in caught.value.problems)
        plan.make(wanted, broken, force=True)
