"""The plan: tables over hand-made hosts."""

from typing import Any, Dict, Iterable, List, Set, Tuple

import model_hosts as hosts
import pytest
from model_hosts import config, everything, host, installed, with_units

from cc_kvmhost import plan, tuned, wishes
from cc_kvmhost.errors import KvmhostError
from cc_kvmhost.host import Host, Unit
from cc_kvmhost.kvm import Kvm
from cc_kvmhost.plan import AFTER_RUN, BEFORE_START, Plan
from cc_kvmhost.virt import units as libvirt
from cc_kvmhost.virt.guests import Guest
from cc_kvmhost.virt.tls import Findings

MODULAR: Dict[str, Any] = {"libvirt": {"mode": "modular"}}
MONOLITHIC: Dict[str, Any] = {"libvirt": {"mode": "monolithic"}}
DRIVER_SOCKETS = {
    socket for each in hosts.EL_DAEMONS if each.name != "virtproxyd" for socket in each.sockets
}
DRIVER_SERVICES = {each.service for each in hosts.EL_DAEMONS if each.name != "virtproxyd"}
PROXY = set(libvirt.PROXYD.sockets)
LIBVIRTD_SOCKETS = set(libvirt.LIBVIRTD.sockets)
SHARED = set(hosts.SHARED_SOCKETS)


def make(section: Dict[str, Any], here: Host, force: bool = False) -> Plan:
    return plan.make(config(**section), here, force)


def problems_of(section: Dict[str, Any], here: Host, force: bool = False) -> Tuple[str, ...]:
    with pytest.raises(KvmhostError) as caught:
        make(section, here, force)
    return caught.value.problems


def of(changed: Iterable[str], verb: str) -> Set[str]:
    """The units that a plan does this to."""
    pairs = [hosts.split(change) for change in changed]
    return {unit for each, unit in pairs if each == verb}


def done(section: Dict[str, Any], here: Host) -> Host:
    """The host after a run."""
    return hosts.applied(make(section, here), here)


def broken(names: Iterable[str], units: Dict[str, Unit], **changes: Any) -> Host:
    return host(with_units(units, names, **changes))


class TestOneUnit:
    """What is done with one unit: a row for each branch."""

    @pytest.mark.parametrize(
        "state, wish, verbs",
        [
            # A unit of the other mode.
            ("masked", wishes.AWAY, ()),
            ("enabled", wishes.AWAY, ("disable", "mask")),
            ("enabled-runtime", wishes.AWAY, ("disable_runtime", "mask")),
            ("disabled", wishes.AWAY, ("mask",)),
            ("static", wishes.AWAY, ("mask",)),
            ("masked-runtime", wishes.AWAY, ("mask",)),
            # Masked, and must not be.
            ("masked", wishes.LEFT, ("unmask",)),
            ("masked", wishes.ON, ("unmask", "enable")),
            ("masked", wishes.AT_BOOT, ("unmask", "enable")),
            ("masked", wishes.OFF, ("unmask", "disable")),
            # Not wanted at boot.
            ("enabled", wishes.OFF, ("disable",)),
            ("enabled", wishes.NOT_AT_BOOT, ("disable",)),
            ("enabled-runtime", wishes.OFF, ("disable_runtime",)),
            ("disabled", wishes.OFF, ()),
            ("static", wishes.OFF, ()),
            # Wanted at boot.
            ("disabled", wishes.ON, ("enable",)),
            ("enabled-runtime", wishes.ON, ("enable",)),
            ("enabled", wishes.ON, ()),
            ("static", wishes.ON, ()),
            ("indirect", wishes.AT_BOOT, ()),
            ("generated", wishes.ON, ()),
            ("transient", wishes.ON, ()),
            ("linked", wishes.ON, ()),
            ("linked-runtime", wishes.ON, ()),
            ("alias", wishes.ON, ()),
            # Left as they are.
            ("enabled", wishes.LEFT, ()),
            ("disabled", wishes.LEFT, ()),
        ],
    )
    def test_unit_file(self, state: str, wish: wishes.Wish, verbs: Tuple[str, ...]) -> None:
        assert wishes.unit_file_verbs(state, wish) == verbs

    @pytest.mark.parametrize(
        "active, wish, anew, verbs",
        [
            ("active", wishes.LEFT, False, ()),
            ("inactive", wishes.AT_BOOT, False, ()),
            ("active", wishes.ON, True, ("stop", "start")),
            ("active", wishes.ON, False, ()),
            ("reloading", wishes.ON, False, ()),
            ("refreshing", wishes.ON, False, ()),
            ("activating", wishes.ON, False, ("start",)),
            ("deactivating", wishes.ON, False, ("start",)),
            ("inactive", wishes.ON, False, ("start",)),
            ("failed", wishes.ON, False, ("start",)),
            ("failed", wishes.OFF, False, ("reset",)),
            ("active", wishes.OFF, False, ("stop",)),
            ("activating", wishes.OFF, False, ("stop",)),
            ("reloading", wishes.OFF, False, ("stop",)),
            ("refreshing", wishes.OFF, False, ("stop",)),
            ("deactivating", wishes.AWAY, False, ("stop",)),
            ("inactive", wishes.AWAY, False, ()),
        ],
    )
    def test_job(self, active: str, wish: wishes.Wish, anew: bool, verbs: Tuple[str, ...]) -> None:
        assert wishes.job_verbs(Unit("x.socket", active=active), wish, anew) == verbs

    def test_a_one_shot_that_has_run_is_not_started_again(self) -> None:
        assert wishes.job_verbs(Unit("x.service", ran=True), wishes.ON, False) == ()


class TestFreshHosts:
    def test_el10_is_modular(self) -> None:
        chosen = make({}, hosts.fresh_el10())
        assert chosen.mode == "modular"
        on = DRIVER_SOCKETS | PROXY | SHARED
        assert of(chosen.changed, "start") == on | {tuned.SERVICE}
        enabled = set(hosts.PRESET)
        assert of(chosen.changed, "enable") == (on | DRIVER_SERVICES) - enabled
        assert of(chosen.changed, "mask") == set(hosts.MONOLITHIC)
        assert chosen.stop == () and chosen.unmask == () and chosen.disable == ()
        assert chosen.profile == "virtual-host"

    def test_el9_is_monolithic(self) -> None:
        chosen = make({}, hosts.fresh_el9())
        assert chosen.mode == "monolithic"
        on = LIBVIRTD_SOCKETS | SHARED | {"libvirtd.service"}
        assert of(chosen.changed, "start") == on | {tuned.SERVICE}
        assert of(chosen.changed, "enable") == on - set(hosts.PRESET)
        assert of(chosen.changed, "mask") == set(libvirt.mode_units(libvirt.MODULAR))
        assert set(chosen.disable) == set(hosts.PRESET) & set(hosts.EL_MODULAR)
        # Disabling virtqemud.service also disables virtlogd.socket, which it names in Also=.
        assert set(chosen.keep_enabled) == {"virtlogd.socket"}

    def test_only_what_is_installed(self) -> None:
        sockets = [f"{name}.socket" for name in ("virtqemud", "virtnetworkd", "virtstoraged")]
        sockets += ["virtnodedevd.socket", "virtsecretd.socket", "virtlogd.socket"]
        sockets += ["virtlockd.socket"]
        chosen = make({}, host(installed(*sockets, tuned.SERVICE)))
        assert set(chosen.wishes) - set(chosen.mask) == {*sockets, tuned.SERVICE}

    def test_the_other_modes_units_are_masked_before_they_are_installed(self) -> None:
        modular = installed(*hosts.EL_MODULAR, *hosts.SHARED_SOCKETS, tuned.SERVICE)
        chosen = make({}, host(modular))
        assert set(chosen.mask) == set(hosts.MONOLITHIC)
        after = done({}, host(modular))
        assert make({}, after).is_empty
        bare = {n: u for n, u in everything().items() if "interface" not in n}
        after = done(MONOLITHIC, host(bare))
        # Of hypervisors that EL does not ship, too: other distributions have packages of them.
        away = libvirt.mode_units(libvirt.MODULAR)
        assert {"virtinterfaced.socket", "virtlxcd.socket"} < set(away)
        assert {after.units[name].file_state for name in away} == {"masked"}
        assert make(MONOLITHIC, after).is_empty

    def test_their_masks_go_with_the_mode(self) -> None:
        bare = {n: u for n, u in everything().items() if "interface" not in n}
        before = done(MONOLITHIC, host(bare))
        chosen = make(MODULAR, before)
        assert "virtinterfaced.socket" in chosen.unmask
        assert "virtinterfaced.socket" not in chosen.enable + chosen.start
        later = installed(*libvirt.daemon("interface").sockets, file_state="masked", load="masked")
        chosen = make(MODULAR, before._replace(units=dict(before.units, **later)))
        assert "virtinterfaced.socket" in set(chosen.unmask) & set(chosen.start)

    @pytest.mark.parametrize("installed_by_now", [True, False])
    def test_no_mask_of_the_other_modes_times_stays(self, installed_by_now: bool) -> None:
        others = [*libvirt.Daemon("virtlxcd").sockets, "virtlxcd.service"]
        before = done(MONOLITHIC, host(everything()))
        units = with_units(dict(before.units), others, installed=installed_by_now)
        after = done(MODULAR, before._replace(units=units))
        assert not {
            n for n in libvirt.mode_units("modular") if after.unit(n).file_state == "masked"
        }
        # Nobody asked for them to be enabled.
        assert not {n for n in others if after.unit(n).file_state == "enabled"}

    def test_in_a_tree_nothing_is_started(self) -> None:
        here = hosts.fresh_el9()._replace(running=False)
        here = here._replace(units={n: u._replace(load="") for n, u in here.units.items()})
        chosen = make({}, here)
        assert chosen.start == chosen.stop == chosen.reset == ()
        assert chosen.enable == make({}, hosts.fresh_el9()).enable
        assert chosen.mask == make({}, hosts.fresh_el9()).mask


class TestSwitch:
    """From one mode to the other, on a host where a run has set up the first."""

    @pytest.mark.parametrize("first, then", [(MODULAR, MONOLITHIC), (MONOLITHIC, MODULAR)])
    def test_everything_of_the_other_mode_goes(
        self, first: Dict[str, Any], then: Dict[str, Any]
    ) -> None:
        before = done(first, host(everything()))
        running = {n for n, u in before.units.items() if u.active == "active"}
        chosen = make(then, before)
        leaving = set(libvirt.mode_units(first["libvirt"]["mode"])) & set(before.units)
        assert set(chosen.mask) == set(libvirt.mode_units(first["libvirt"]["mode"]))
        assert set(chosen.stop) == leaving & running
        coming = set(libvirt.mode_units(then["libvirt"]["mode"])) & set(before.units)
        assert set(chosen.unmask) == coming
        after = hosts.applied(chosen, before)
        assert {after.units[n].file_state for n in leaving} == {"masked"}
        assert {after.units[n].active for n in leaving} == {"inactive"}

    @pytest.mark.parametrize("section", [MODULAR, MONOLITHIC])
    @pytest.mark.parametrize("active", ["active", "activating", "reloading", "refreshing"])
    def test_whatever_runs_there_is_stopped(self, active: str, section: Dict[str, Any]) -> None:
        rest = libvirt.other(section["libvirt"]["mode"])
        for unit in set(libvirt.mode_units(rest)) & set(everything()):
            assert unit in make(section, broken([unit], everything(), active=active)).stop

    @pytest.mark.parametrize("section", [MODULAR, MONOLITHIC])
    def test_what_failed_there_is_reset(self, section: Dict[str, Any]) -> None:
        rest = libvirt.other(section["libvirt"]["mode"])
        for unit in set(libvirt.mode_units(rest)) & set(everything()):
            chosen = make(section, broken([unit], everything(), active="failed"))
            assert chosen.reset == (unit,) and unit not in chosen.stop

    def test_masks_come_after_enabling_and_disabling_before(self) -> None:
        verbs = [verb for verb, _ in make({}, hosts.fresh_el9()).unit_file_changes]
        assert verbs == ["disable", "enable", "mask"]
        switch = make(MODULAR, done(MONOLITHIC, host(everything())))
        verbs = [verb for verb, _ in switch.unit_file_changes]
        assert verbs == ["unmask", "disable", "enable", "mask"]

    def test_enabled_until_reboot(self) -> None:
        chosen = make(
            MODULAR, broken(["libvirtd.socket"], everything(), file_state="enabled-runtime")
        )
        assert chosen.disable_runtime == ("libvirtd.socket",)
        assert "disable libvirtd.socket" in chosen.changed
        chosen = make(
            MODULAR, broken(["virtqemud.socket"], everything(), file_state="enabled-runtime")
        )
        assert "virtqemud.socket" in chosen.enable


class TestShared:
    """virtlogd and virtlockd hold the guests' consoles and locks."""

    @pytest.mark.parametrize("section", [{}, MODULAR, MONOLITHIC])
    @pytest.mark.parametrize("active", ["active", "inactive", "failed"])
    def test_services_are_never_touched(self, active: str, section: Dict[str, Any]) -> None:
        units = with_units(everything(), hosts.SHARED_SERVICES, active=active)
        for before in (host(units), done(MODULAR, host(units)), done(MONOLITHIC, host(units))):
            chosen = make(section, before)
            named = {hosts.split(change)[1] for change in chosen.changed}
            assert not named & set(hosts.SHARED_SERVICES)
            assert not set(chosen.keep_enabled + chosen.reset) & set(hosts.SHARED_SERVICES)
            assert not set(chosen.stop) & SHARED

    def test_admin_sockets_wait_for_a_boot_while_the_service_runs(self) -> None:
        units = with_units(everything(), ["virtlogd.service"], active="active")
        chosen = make({}, host(units))
        assert "virtlogd-admin.socket" in chosen.enable
        assert "virtlogd-admin.socket" not in chosen.start
        assert "virtlockd-admin.socket" in chosen.start

    def test_masked_ones_are_unmasked(self) -> None:
        here = broken(["virtlogd.socket"], everything(), file_state="masked", load="masked")
        chosen = make({}, here)
        assert "virtlogd.socket" in chosen.unmask and "virtlogd.socket" in chosen.enable


class TestDrivers:
    def test_exactly_these(self) -> None:
        chosen = make({"libvirt": {"mode": "modular", "drivers": ["qemu"]}}, hosts.fresh_el10())
        qemu = set(libvirt.daemon("qemu").sockets)
        assert of(chosen.changed, "start") == qemu | PROXY | SHARED | {tuned.SERVICE}
        assert set(chosen.disable) == {
            f"virt{name}d.socket"
            for name in ("interface", "network", "nodedev", "nwfilter", "secret", "storage")
        }
        # Off, but not masked: they belong to this mode.
        assert set(chosen.mask) == set(hosts.MONOLITHIC)

    def test_running_ones_that_are_not_chosen_stop(self) -> None:
        before = done(MODULAR, host(everything()))
        units = with_units(dict(before.units), ["virtsecretd.service"], active="active")
        drivers = ["qemu", "network", "storage", "nodedev"]
        chosen = make({"libvirt": {"mode": "modular", "drivers": drivers}}, host(units))
        gone = [libvirt.daemon(name) for name in ("secret", "interface", "nwfilter")]
        assert set(chosen.stop) == {s for each in gone for s in each.sockets} | {
            "virtsecretd.service"
        }

    def test_companions_join_the_default_only(self) -> None:
        with_all = make(MODULAR, host(everything()))
        assert {"virtinterfaced.socket", "virtnwfilterd.socket"} <= set(with_all.start)
        four = ["qemu", "network", "storage", "nodedev"]
        chosen = make({"libvirt": {"mode": "modular", "drivers": four}}, host(everything()))
        assert not {"virtinterfaced.socket", "virtnwfilterd.socket"} & set(chosen.start)

    def test_monolithic_does_not_care(self) -> None:
        one = make({"libvirt": {"mode": "monolithic", "drivers": ["qemu"]}}, host(everything()))
        assert one == make(MONOLITHIC, host(everything()))


class TestNetworks:
    @pytest.mark.parametrize(
        "section, warned",
        [
            (MODULAR, True),
            (MONOLITHIC, True),
            ({"libvirt": {"mode": "modular", "drivers": ["qemu"]}}, False),
        ],
    )
    def test_one_that_cant_start_is_a_warning(self, section: Dict[str, Any], warned: bool) -> None:
        chosen = make(section, host(everything(), clashes=("default can't start",)))
        assert ("default can't start" in chosen.warnings) == warned


class TestWhatThisUserMayNotSee:
    def test_is_a_warning(self) -> None:
        chosen = make(MODULAR, host(everything(), unseen=("which guests run",)))
        said = "not known, because only root may look at it: which guests run"
        assert chosen.warnings == (said,)

    @pytest.mark.parametrize("kvm, warned", [("warn", True), ("ignore", False), ("require", True)])
    def test_what_kvm_can_do(self, kvm: str, warned: bool) -> None:
        unknown = Kvm(None, "only root may look at /dev/kvm")
        chosen = make(dict(MODULAR, kvm=kvm), host(everything(), kvm=unknown))
        assert chosen.fault == ""
        said = "not known: whether KVM can be used: only root may look at /dev/kvm"
        assert chosen.warnings == ((said,) if warned else ())


class TestAutostart:
    def test_on(self) -> None:
        chosen = make(MODULAR, host(everything()))
        assert DRIVER_SERVICES <= set(chosen.enable)
        assert not DRIVER_SERVICES & set(chosen.start)

    def test_off(self) -> None:
        section = {"libvirt": {"mode": "modular", "autostart": False}}
        before = done(MODULAR, host(everything()))
        chosen = make(section, before)
        assert set(chosen.disable) == DRIVER_SERVICES
        assert not chosen.stop and not chosen.start
        # Disabling the services also disables their sockets (Also=): enable those again.
        assert DRIVER_SOCKETS <= set(chosen.keep_enabled)
        assert not DRIVER_SERVICES & set(make(section, host(everything())).enable)


class TestEnabledAgain:
    """Disabling a unit also disables the units in its Also=."""

    def test_libvirts_units_only(self) -> None:
        section = dict(MONOLITHIC, units=list(hosts.EXTRA))
        before = done(dict(MODULAR, units=list(hosts.EXTRA)), host(everything()))
        chosen = make(section, before)
        assert chosen.disable and SHARED <= set(chosen.keep_enabled)
        # Units that these name in Also= may have been disabled by an administrator.
        assert not {tuned.SERVICE, *hosts.EXTRA} & set(chosen.keep_enabled)

    def test_not_those_that_are_left_as_they_are(self) -> None:
        """Enabling them again would enable their sockets, which an administrator may have disabled."""
        before = done(MODULAR, host(everything()))
        units = with_units(dict(before.units), ["virtlxcd.service"], file_state="enabled")
        section = {"libvirt": {"mode": "modular", "autostart": False}}
        chosen = make(section, before._replace(units=units))
        assert chosen.disable and "virtlxcd.service" not in chosen.keep_enabled


class TestTls:
    @pytest.mark.parametrize("mode, unit", [("modular", "virtproxyd"), ("monolithic", "libvirtd")])
    def test_on_and_off(self, mode: str, unit: str) -> None:
        unit += "-tls.socket"
        on, off = ({"libvirt": {"mode": mode, "tls": tls}} for tls in (True, False))
        chosen = make(on, host(everything()))
        assert unit in chosen.enable and unit in chosen.start
        back = make(off, done(on, host(everything())))
        assert back.disable == (unit,) and unit in back.stop
        # A running libvirtd keeps the socket that systemd gave it: it has to restart without it.
        again = {"libvirtd.service"} if mode == "monolithic" else set()
        assert set(back.stop) == {unit} | again and set(back.start) == again
        fresh = make(off, host(everything())).changed
        assert unit not in {hosts.split(change)[1] for change in fresh}

    def test_missing_files(self) -> None:
        gone = Findings(("/etc/pki/a: gone", "/b: gone"))
        here = host(everything(), tls={"modular": gone, "monolithic": Findings()})
        section = {"libvirt": {"mode": "modular", "tls": True}}
        assert problems_of(section, here) == (
            "kvmhost.libvirt.tls: /etc/pki/a: gone",
            "kvmhost.libvirt.tls: /b: gone",
        )
        make(MODULAR, here)
        make({"libvirt": {"mode": "monolithic", "tls": True}}, here)

    def test_what_some_clients_refuse_is_a_warning(self) -> None:
        other = Findings((), ("/cert is for another host",))
        here = host(everything(), tls={"modular": other, "monolithic": Findings()})
        section = {"libvirt": {"mode": "modular", "tls": True}}
        assert make(section, here).warnings == ("kvmhost.libvirt.tls: /cert is for another host",)
        assert make(MODULAR, here).warnings == ()

    @pytest.mark.parametrize("mode, unit", [("modular", "virtproxyd"), ("monolithic", "libvirtd")])
    def test_plain_tcp_is_turned_off(self, mode: str, unit: str) -> None:
        unit += "-tcp.socket"
        units = with_units(everything(), [unit], file_state="enabled", active="active")
        chosen = make({"libvirt": {"mode": mode}}, host(units))
        assert unit in chosen.disable and unit in chosen.stop and unit not in chosen.mask


class TestServicesInTheWay:
    """systemd refuses to start a socket under its running service: the service stops first."""

    def test_modular(self) -> None:
        units = with_units(everything(), ["virtqemud.service"], active="active")
        chosen = make(MODULAR, host(units, guests=(Guest("a"),)))
        assert chosen.stop == ("virtqemud.service",)

    def test_not_when_its_sockets_listen(self) -> None:
        before = done(MODULAR, host(everything()))
        units = with_units(dict(before.units), ["virtqemud.service"], active="active")
        assert make(MODULAR, before._replace(units=units)).changed == []

    @pytest.mark.parametrize("gone", sorted(LIBVIRTD_SOCKETS))
    def test_libvirtd_comes_back(self, gone: str) -> None:
        before = done(MONOLITHIC, host(everything()))
        units = with_units(dict(before.units), [gone], active="inactive")
        chosen = make(MONOLITHIC, before._replace(units=units))
        assert chosen.stop == ("libvirtd.service",)
        assert set(chosen.start) == {gone, "libvirtd.service"}

    def test_an_idle_libvirtd_is_no_fault(self) -> None:
        before = done(MONOLITHIC, host(everything()))
        units = with_units(dict(before.units), ["libvirtd.service"], active="inactive")
        assert make(MONOLITHIC, before._replace(units=units)).changed == []

    def test_a_failed_libvirtd_is_one(self) -> None:
        before = done(MONOLITHIC, host(everything()))
        units = with_units(dict(before.units), ["libvirtd.service"], active="failed")
        chosen = make(MONOLITHIC, before._replace(units=units))
        assert chosen.start == ("libvirtd.service",)


class TestStartLimits:
    """systemd refuses to start a unit that was started too often, by killed runs too. So each unit that
    starts and that systemd has in memory is reset first."""

    @pytest.mark.parametrize("section", [MODULAR, MONOLITHIC])
    @pytest.mark.parametrize(
        "active, load",
        [("inactive", "loaded"), ("failed", "loaded"), ("failed", "not-found")],
    )
    def test_what_starts_is_reset(self, active: str, load: str, section: Dict[str, Any]) -> None:
        units = with_units(everything(), everything(), active=active, load=load)
        chosen = make(section, host(units))
        assert chosen.start and set(chosen.start) <= set(chosen.reset)
        assert len(chosen.reset) == len(set(chosen.reset)), "one call for each"

    def test_what_systemd_does_not_remember_costs_no_call(self) -> None:
        assert make(MODULAR, host(everything())).reset == ()
        units = with_units(everything(), hosts.EXTRA, load="loaded", fresh=True)
        chosen = make({"units": list(hosts.EXTRA)}, host(units))
        assert set(hosts.EXTRA) <= set(chosen.start) and chosen.reset == ()

    def test_services_that_clients_will_start(self) -> None:
        units = with_units(everything(), ["virtqemud.service"], load="loaded")
        assert make(MODULAR, host(units)).reset == ("virtqemud.service",)
        units = with_units(units, ["virtqemud.service"], active="active")
        chosen = make(MODULAR, host(units))
        assert chosen.stop == chosen.reset == ("virtqemud.service",)


class TestDeafSockets:
    """Sockets that systemd calls listening but that can't be reached are restarted, and so are the other
    sockets of their daemon, because they stop with its main socket."""

    def test_modular(self) -> None:
        before = done(MODULAR, host(everything()))
        units = with_units(dict(before.units), ["virtqemud.socket"], deaf=True)
        units = with_units(units, ["virtqemud.service"], active="active")
        here = before._replace(units=units, guests=(Guest("a"),))
        chosen = make(MODULAR, here)
        assert chosen.stop == (*libvirt.daemon("qemu").sockets, "virtqemud.service")
        assert chosen.start == libvirt.daemon("qemu").sockets
        assert make(MODULAR, hosts.applied(chosen, here)).changed == []

    @pytest.mark.parametrize("tls", [True, False])
    def test_monolithic(self, tls: bool) -> None:
        section = {"libvirt": {"mode": "monolithic", "tls": tls}}
        before = done(section, host(everything()))
        units = with_units(dict(before.units), ["libvirtd-ro.socket"], deaf=True)
        chosen = make(section, before._replace(units=units))
        sockets = LIBVIRTD_SOCKETS | ({"libvirtd-tls.socket"} if tls else set())
        assert set(chosen.stop) == set(chosen.start) == sockets | {"libvirtd.service"}

    def test_the_other_modes_only_stop(self) -> None:
        before = done(MONOLITHIC, host(everything()))
        units = with_units(dict(before.units), ["libvirtd.socket"], deaf=True)
        chosen = make(MODULAR, before._replace(units=units))
        assert "libvirtd.socket" in chosen.stop and "libvirtd.socket" not in chosen.start

    @pytest.mark.parametrize("runs", [True, False])
    def test_shared_ones_never_stop_while_they_run(self, runs: bool) -> None:
        before = done(MODULAR, host(everything()))
        units = with_units(dict(before.units), ["virtlogd.socket"], deaf=True)
        state = "active" if runs else "inactive"
        units = with_units(units, ["virtlogd.service"], active=state)
        chosen = make(MODULAR, before._replace(units=units))
        sockets = libvirt.Daemon("virtlogd").sockets
        assert chosen.stop == chosen.start == (() if runs else sockets)


class TestGuests:
    @pytest.mark.parametrize(
        "section, daemon",
        [(MODULAR, "libvirtd.service"), (MONOLITHIC, "virtqemud.service")],
    )
    def test_refused_by_name(self, section: Dict[str, Any], daemon: str) -> None:
        here = broken([daemon], everything(), active="active")._replace(
            guests=(Guest("db"), Guest("web"))
        )
        (problem,) = problems_of(section, here)
        assert daemon in problem and "db, web" in problem and "--force" in problem
        assert daemon in make(section, here, force=True).stop
        assert daemon in make(section, here._replace(guests=())).stop

    @pytest.mark.parametrize("section", [MODULAR, MONOLITHIC])
    def test_not_under_the_mode_that_stays(self, section: Dict[str, Any]) -> None:
        before = done(section, host(everything()))
        daemon = {"modular": "virtqemud.service", "monolithic": "libvirtd.service"}[
            section["libvirt"]["mode"]
        ]
        units = with_units(dict(before.units), [daemon], active="active")
        assert make(section, before._replace(units=units, guests=(Guest("a"),))).changed == []

    @pytest.mark.parametrize("driver, daemon", [("qemu", "virtqemud"), ("lxc", "virtlxcd")])
    @pytest.mark.parametrize("first, then", [(MODULAR, MONOLITHIC), (MONOLITHIC, MODULAR)])
    def test_refused_although_their_daemon_is_down(
        self, first: Dict[str, Any], then: Dict[str, Any], driver: str, daemon: str
    ) -> None:
        both = dict(
            everything(), **installed("virtlxcd.service", *libvirt.Daemon("virtlxcd").sockets)
        )
        guests = (Guest("db", driver),)
        before = done(first, host(both))._replace(guests=guests)
        own, other = f"{daemon}.service", "libvirtd.service"
        if first is MONOLITHIC:
            own, other = other, own
        here = before._replace(units=with_units(dict(before.units), [own], active="failed"))
        (problem,) = problems_of(then, here)
        assert "db" in problem and f"{own} or {other}" in problem and "--force" in problem
        assert make(then, here, force=True).mode == then["libvirt"]["mode"]
        # A run for the guests' own mode works as usual.
        assert make(first, here).mode == first["libvirt"]["mode"]

    @pytest.mark.parametrize("unit", ["virtqemud.service", "virtqemud.socket"])
    def test_repairing_their_own_mode_is_no_change_of_it(self, unit: str) -> None:
        before = done(MODULAR, host(everything()))
        units = with_units(dict(before.units), [unit], active="failed")
        units = with_units(units, ["virtxend.socket"], file_state="disabled", installed=True)
        make(MODULAR, before._replace(units=units, guests=(Guest("db"),)))

    @pytest.mark.parametrize("running", ["virtqemud.service", "libvirtd.service"])
    def test_the_daemon_of_another_driver_holds_none_of_them(self, running: str) -> None:
        both = dict(everything(), **installed("virtlxcd.service", "virtlxcd.socket"))
        before = done(MONOLITHIC, host(both))
        units = with_units(dict(before.units), [running], active="active")
        (problem,) = problems_of(MODULAR, before._replace(units=units, guests=(Guest("c", "lxc"),)))
        assert "c" in problem and "libvirtd.service" in problem


class TestTuned:
    @pytest.mark.parametrize(
        "profile, manual, asked, change",
        [
            ("virtual-host", True, "virtual-host", None),
            ("virtual-host", False, "virtual-host", "virtual-host"),
            ("virtual-guest", True, "virtual-host", "virtual-host"),
            ("", False, "virtual-host", "virtual-host"),
            ("virtual-guest", False, None, None),
            ("virtual-host", True, "balanced", "balanced"),
        ],
    )
    def test_profile(self, profile: str, manual: bool, asked: Any, change: Any) -> None:
        here = host(everything(), profile=tuned.Profile(profile, manual))
        chosen = make({"tuned": {"profile": asked}}, here)
        assert chosen.profile == change
        assert (f"tuned profile {change}" in chosen.changed) == (change is not None)
        assert tuned.SERVICE in chosen.start and tuned.SERVICE in chosen.enable

    def test_left_alone(self) -> None:
        units = everything()
        del units[tuned.SERVICE]
        for here in (host(everything()), host(units, profiles=())):
            chosen = make({"tuned": {"enabled": False, "profile": "nonsense"}}, here)
            assert tuned.SERVICE not in chosen.wishes and chosen.profile is None

    @pytest.mark.parametrize(
        "ppd, asked, warned",
        [
            (installed(tuned.PPD), {}, True),
            (installed(tuned.PPD, file_state="enabled"), {}, True),
            (installed(tuned.PPD, file_state="masked"), {}, False),
            (installed(tuned.PPD), {"profile": None}, False),
            (installed(tuned.PPD), {"enabled": False}, False),
            ({}, {}, False),
        ],
    )
    def test_another_that_sets_profiles(self, ppd: Any, asked: Any, warned: bool) -> None:
        chosen = make({"tuned": asked}, host(dict(everything(), **ppd)))
        assert bool(chosen.warnings) == warned
        assert all("systemctl mask --now tuned-ppd.service" in each for each in chosen.warnings)
        assert tuned.PPD not in chosen.wishes

    def test_another_that_sets_the_same(self) -> None:
        here = host(dict(everything(), **installed(tuned.PPD)), of_ppd="virtual-host")
        assert make({}, here).warnings == ()
        (warning,) = make({"tuned": {"profile": "balanced"}}, here).warnings
        assert "sets virtual-host each time it starts, in place of balanced" in warning

    def test_unknown_profile(self) -> None:
        (problem,) = problems_of({"tuned": {"profile": "virtual-hots"}}, host(everything()))
        assert problem.startswith("kvmhost.tuned.profile: no profile 'virtual-hots'")
        assert "did you mean 'virtual-host'?" in problem
        assert "balanced, throughput-performance, virtual-guest, virtual-host" in problem

    def test_no_profiles_at_all(self) -> None:
        (problem,) = problems_of({}, host(everything(), profiles=()))
        assert "there are: none" in problem and "did you mean" not in problem

    def test_not_installed(self) -> None:
        units = everything()
        del units[tuned.SERVICE]
        (problem,) = problems_of({}, host(units, profiles=()))
        assert "not installed; install tuned, or set kvmhost.tuned.enabled: false" in problem

    def test_masked(self) -> None:
        here = broken([tuned.SERVICE], everything(), file_state="masked", load="masked")
        (problem,) = problems_of({}, here)
        assert "tuned.service is masked; run 'systemctl unmask tuned.service'" in problem


class TestUnits:
    def test_enabled_and_started(self) -> None:
        chosen = make({"units": list(hosts.EXTRA)}, host(everything()))
        assert set(hosts.EXTRA) <= set(chosen.enable) and set(hosts.EXTRA) <= set(chosen.start)

    def test_sockets_start_before_services(self) -> None:
        units = dict(everything(), **installed("x.service", "x.socket"))
        start = make({"units": ["x.service", "x.socket"]}, host(units)).start
        assert start[0] == tuned.SERVICE
        assert start.index("x.socket") < start.index("x.service")

    @pytest.mark.parametrize(
        "unit, words",
        [
            (Unit("x.service"), "no such unit on this host; install its package"),
            (Unit("x.service", "alias"), "is an alias; name the unit itself"),
            (Unit("x.service", "enabled", alias_of="y.service"), "is an alias of y.service"),
            (Unit("x.service", "masked", load="masked"), "run 'systemctl unmask x.service'"),
            (Unit("x.service", "masked-runtime"), "unmask --runtime x.service"),
            (Unit("x.service", "bad"), "can't be loaded (bad)"),
            (Unit("x.service", "enabled", load="bad-setting"), "can't be loaded (bad-setting)"),
            (Unit("x.service", "disabled", load="error"), "can't be loaded (error)"),
            (Unit("x.service", "disabled", held_by="y.service"), "run 'systemctl stop y.service'"),
        ],
    )
    def test_refused(self, unit: Unit, words: str) -> None:
        here = host(dict(everything(), **{"x.service": unit}))
        (problem,) = problems_of({"units": ["cockpit.socket", "x.service"]}, here)
        assert words in problem and "x.service" in problem

    @pytest.mark.parametrize("state", ["static", "indirect", "generated", "transient", "linked"])
    def test_nothing_to_enable(self, state: str) -> None:
        units = dict(everything(), **installed("x.service", file_state=state))
        chosen = make({"units": ["x.service"]}, host(units))
        assert "x.service" not in chosen.enable and "x.service" in chosen.start

    def test_a_one_shot_that_ran(self) -> None:
        units = dict(everything(), **installed("x.service", file_state="enabled", ran=True))
        assert "x.service" not in make({"units": ["x.service"]}, host(units)).start

    @pytest.mark.parametrize(
        "section, unit",
        [
            (MODULAR, "libvirtd.service"),
            (MODULAR, "libvirtd.socket"),
            (MONOLITHIC, "virtqemud.socket"),
            (MONOLITHIC, "virtproxyd-tls.socket"),
            (MODULAR, "virtproxyd-tls.socket"),
            (MODULAR, "virtproxyd-tcp.socket"),
            ({"libvirt": {"mode": "modular", "autostart": False}}, "virtqemud.service"),
            ({"libvirt": {"mode": "modular", "drivers": ["qemu"]}}, "virtsecretd.socket"),
        ],
    )
    def test_against_the_mode(self, section: Dict[str, Any], unit: str) -> None:
        (problem,) = problems_of(dict(section, units=[unit]), host(everything()))
        assert problem.startswith(f"kvmhost.units[0]: {unit} contradicts")

    def test_what_the_mode_wishes_anyway(self) -> None:
        asked = make(dict(MODULAR, units=["virtqemud.socket", tuned.SERVICE]), host(everything()))
        assert asked == make(MODULAR, host(everything()))


class TestMasks:
    def test_in_run(self) -> None:
        here = broken(["virtqemud.socket"], everything(), file_state="masked-runtime")
        (problem,) = problems_of(MODULAR, here)
        assert "virtqemud.socket is masked in /run" in problem
        assert "systemctl unmask --runtime virtqemud.socket" in problem

    def test_in_run_on_the_side_that_leaves(self) -> None:
        here = broken(["libvirtd.socket"], everything(), file_state="masked-runtime")
        assert "libvirtd.socket" in make(MODULAR, here).mask

    def test_a_unit_file_in_etc_is_in_the_way(self) -> None:
        here = broken(["libvirtd.service"], everything(), in_etc=True)
        (problem,) = problems_of(MODULAR, here)
        assert "/etc/systemd/system/libvirtd.service is a unit file of this host's own" in problem
        make(MONOLITHIC, here)

    def test_mode_whose_units_are_only_masks(self) -> None:
        units = with_units(
            everything(), hosts.EL_MODULAR, file_state="masked", load="masked", installed=False
        )
        with pytest.raises(KvmhostError, match="not installed: virtqemud.socket"):
            make(MODULAR, host(units))


class TestReload:
    """A run waits for a reload only if a start job would go wrong without it."""

    def test_nothing_to_write(self) -> None:
        units = dict(done(MODULAR, host(everything())).units)
        assert make(MODULAR, host(units)).reload is None
        units = with_units(units, ["virtqemud.socket"], active="inactive")
        chosen = make(MODULAR, host(units))
        assert chosen.start == ("virtqemud.socket",)
        assert chosen.reload is None

    @pytest.mark.parametrize("section", [MODULAR, MONOLITHIC])
    def test_what_nobody_has_loaded_is_read_when_it_starts(self, section: Dict[str, Any]) -> None:
        assert make(section, host(everything())).reload == AFTER_RUN

    def test_a_mask_of_what_is_in_memory_can_wait(self) -> None:
        units = with_units(everything(), hosts.MONOLITHIC, load="loaded")
        assert make(MODULAR, host(units)).reload == AFTER_RUN

    def test_but_not_if_units_of_others_start(self) -> None:
        section = dict(MODULAR, units=["cockpit.socket"])
        assert make(section, host(everything())).reload == AFTER_RUN
        units = with_units(everything(), hosts.MONOLITHIC, load="loaded")
        assert make(section, host(units)).reload == BEFORE_START

    def test_targets_want_what_was_enabled_when_they_were_loaded(self) -> None:
        assert make({}, hosts.fresh_el9()).reload == BEFORE_START
        for state in ("enabled", "enabled-runtime"):
            units = with_units(everything(), ["libvirtd.socket"], load="loaded", file_state=state)
            assert make(MODULAR, host(units)).reload == BEFORE_START

    def test_a_mask_in_memory_keeps_a_unit_from_starting(self) -> None:
        units = with_units(everything(), ["virtqemud.socket"], file_state="masked")
        assert make(MODULAR, host(units)).reload == AFTER_RUN
        units = with_units(units, ["virtqemud.socket"], load="masked")
        assert make(MODULAR, host(units)).reload == BEFORE_START

    def test_memory_that_differs_from_the_disk_already(self) -> None:
        before = done(MODULAR, host(everything()))
        assert make(MODULAR, before).reload is None
        for unit, load in (("libvirtd.service", "loaded"), ("virtqemud.socket", "masked")):
            units = with_units(dict(before.units), [unit], load=load)
            assert make(MODULAR, before._replace(units=units)).reload == BEFORE_START

    def test_what_a_killed_run_has_changed_is_read(self) -> None:
        before = done(MODULAR, host(everything()))._replace(reload_due=True)
        chosen = make(MODULAR, before)
        assert (chosen.changed, chosen.reload, chosen.is_empty) == ([], AFTER_RUN, False)
        # A target may still want what that run has disabled.
        units = with_units(dict(before.units), ["virtqemud.socket"], active="inactive")
        assert make(MODULAR, before._replace(units=units)).reload == BEFORE_START

    def test_what_systemd_did_not_find_it_looks_for_again(self) -> None:
        before = done(MODULAR, host(everything()))
        units = with_units(dict(before.units), ["libvirtd.service"], load="not-found")
        assert make(MODULAR, before._replace(units=units)).reload is None


class TestProblems:
    def test_all_at_once(self) -> None:
        units = with_units(everything(), ["virtqemud.socket"], file_state="masked-runtime")
        units = with_units(units, ["libvirtd.service"], active="active", in_etc=True)
        here = host(units, guests=(Guest("a"),), tls={"modular": Findings(("/cert: gone",))})
        section = {
            "libvirt": {"mode": "modular", "tls": True},
            "tuned": {"profile": "nonsense"},
            "units": ["no.service", "libvirtd.socket"],
        }
        found = problems_of(section, here)
        words = ["no.service", "contradicts", "nonsense", "masked in /run", "unit file of this"]
        words += ["/cert: gone", "guests run under"]
        assert len(found) == len(words)
        for word in words:
            assert any(word in problem for problem in found)


SECTIONS: List[Dict[str, Any]] = [
    {},
    MODULAR,
    MONOLITHIC,
    {"libvirt": {"mode": "modular", "drivers": ["qemu"]}},
    {"libvirt": {"mode": "modular", "autostart": False, "tls": True}},
    {"libvirt": {"mode": "monolithic", "tls": True}, "units": list(hosts.EXTRA)},
    {"tuned": {"enabled": False}},
    {"tuned": {"profile": None}},
]


class TestSecondRun:
    @pytest.mark.parametrize("then", SECTIONS, ids=str)
    @pytest.mark.parametrize("first", SECTIONS, ids=str)
    def test_changes_nothing(self, first: Dict[str, Any], then: Dict[str, Any]) -> None:
        for start in (hosts.fresh_el9(), hosts.fresh_el10(), host(everything())):
            after = done(then, done(first, start))
            again = make(then, after)
            assert again.changed == []
            assert again.unit_file_changes == [] and again.reset == () and again.reload is None
