"""First boots: real cloud-init, real daemons, one fresh host each."""

from __future__ import annotations

import json

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")
on_both = pytest.mark.parametrize("system", SYSTEMS)


@on_both
def test_an_empty_section_gives_the_releases_mode(system: str) -> None:
    with Host(system, user_data=expect.user_data({})) as host:
        if system == "el10":
            host.chroot(["systemctl", "disable", "virtqemud.service"])
        host.boot()
        report = host.report()
        assert report["result"] == "ok", report
        assert report["errors"] == []
        assert report["mode"] == expect.MODE_OF[system]
        assert "CentOS Stream" in report["reason"]
        if system == "el10":
            # Nothing has woken the daemon, not even the run's look at the sockets.
            assert not expect.active(host, "virtqemud.service")
        expect.mode_is(host, expect.MODE_OF[system])
        expect.tuned_is(host, "virtual-host")
        expect.report_agrees(host, report)
        assert report["tuned"]["after"] == "virtual-host"


@on_both
def test_null_is_all_defaults(system: str) -> None:
    with Host(system, user_data="#cloud-config\nkvmhost:\n") as host:
        host.boot()
        assert host.report()["result"] == "ok"
        expect.mode_is(host, expect.MODE_OF[system])


@on_both
def test_the_chosen_mode_survives_a_reboot_and_the_module_does_not_run_again(system: str) -> None:
    with Host(system, user_data=expect.user_data({})) as host:
        if system == "el9":
            # EL 9's presets enable the mode that is not wanted.
            assert (
                host.chroot(["systemctl", "is-enabled", "virtqemud.service"]).stdout.strip()
                == "enabled"
            )
            assert (
                host.chroot(
                    ["systemctl", "is-enabled", "libvirtd.service"], check=False
                ).stdout.strip()
                != "enabled"
            )
        host.boot()
        expect.mode_is(host, expect.MODE_OF[system])
        host.reboot()
        assert not host.exists("/run/kvmhost/report.json")
        expect.mode_is(host, expect.MODE_OF[system])
        expect.tuned_is(host, "virtual-host")


@on_both
@pytest.mark.parametrize("mode", ["modular", "monolithic"])
def test_an_explicit_mode_is_taken(system: str, mode: str) -> None:
    with Host(system, user_data=expect.user_data({"libvirt": {"mode": mode}})) as host:
        host.boot()
        report = host.report()
        assert (report["result"], report["mode"]) == ("ok", mode), report
        assert "kvmhost.libvirt.mode" in report["reason"]
        expect.mode_is(host, mode)


@on_both
def test_one_driver_is_exactly_that_driver(system: str) -> None:
    section = {"libvirt": {"mode": "modular", "drivers": ["qemu"]}}
    with Host(system, user_data=expect.user_data(section)) as host:
        host.boot()
        assert host.report()["result"] == "ok"
        expect.mode_is(host, "modular", drivers=("virtqemud",))


@on_both
@pytest.mark.parametrize("autostart", [True, False])
def test_autostart_enables_the_drivers_services_and_starts_none(
    system: str, autostart: bool
) -> None:
    section = {"libvirt": {"mode": "modular", "autostart": autostart}}
    with Host(system, user_data=expect.user_data(section)) as host:
        host.boot()
        units = host.units(*(f"{daemon}.service" for daemon in expect.DRIVER_DAEMONS))
        assert {state.file_state for state in units.values()} == {
            "enabled" if autostart else "disabled"
        }
        expect.mode_is(host, "modular")


@on_both
def test_tuned_can_be_left_alone(system: str) -> None:
    with Host(system, user_data=expect.user_data({"tuned": {"enabled": False}})) as host:
        host.chroot(["systemctl", "disable", "tuned.service"])
        host.boot()
        report = host.report()
        assert (report["result"], report["tuned"]) == ("ok", {})
        assert not expect.active(host, "tuned.service")
        assert (
            host.run(["systemctl", "is-enabled", "tuned"], check=False).stdout.strip() == "disabled"
        )


@on_both
@pytest.mark.parametrize("enabled", [True, False], ids=["tuned-runs-already", "tuned-is-off"])
@pytest.mark.parametrize(("asked", "found"), [("balanced", "balanced"), (None, "virtual-guest")])
def test_tuned_gets_the_profile_that_is_asked_for(
    system: str, enabled: bool, asked: str | None, found: str
) -> None:
    with Host(system, user_data=expect.user_data({"tuned": {"profile": asked}})) as host:
        if not enabled:
            host.chroot(["systemctl", "disable", "tuned.service"])
        host.boot()
        assert host.report()["result"] == "ok", host.report()
        if asked is None:
            found = host.run(["tuned-adm", "recommend"]).stdout.strip()
        expect.tuned_is(host, found)


UNITS = {
    "/etc/systemd/system/extra.service": "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
    "/etc/systemd/system/once.service": "[Service]\nType=oneshot\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n",
    "/etc/systemd/system/fixed.service": "[Service]\nExecStart=sleep infinity\n",
    "/etc/systemd/system/extra.socket": "[Socket]\nListenStream=/run/extra\n[Install]\nWantedBy=sockets.target\n",
    "/etc/systemd/system/each@.service": "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
}


@on_both
def test_further_units_are_enabled_and_started(system: str) -> None:
    units = ["extra.socket", "once.service", "fixed.service", "each@one.service"]
    with Host(system, user_data=expect.user_data({"units": units}), files=UNITS) as host:
        host.boot()
        assert host.report()["result"] == "ok", host.report()
        for unit in ("extra.socket", "fixed.service", "each@one.service"):
            assert expect.active(host, unit), unit
        shown = host.run(
            ["systemctl", "show", "-p", "ExecMainExitTimestampMonotonic", "once.service"]
        ).stdout
        assert shown.strip() != "ExecMainExitTimestampMonotonic=0"
        assert host.run(
            ["systemctl", "is-enabled", "extra.socket", "once.service", "each@one.service"]
        )
        done = host.run(["kvmhost", "apply"])
        assert host.report()["changed"] == [], done.stdout


@on_both
def test_a_second_run_changes_nothing_and_calls_nothing_that_could(system: str) -> None:
    with Host(system, user_data=expect.user_data({})) as host:
        host.boot()
        assert host.report()["changed"]
        for command in (
            ["kvmhost", "apply"],
            ["cloud-init", "single", "--name", "kvmhost", "--frequency", "always"],
        ):
            status, methods = expect.calls_during(host, command)
            assert status == 0, host.read("/tmp/out")
            assert host.report()["changed"] == []
            assert host.report()["result"] == "ok"
            assert "ListUnitsByPatterns" in methods  # the watch works
            assert not set(methods).intersection(expect.CHANGING), methods
        # Prove that the watch sees changes.
        host.run(["systemctl", "disable", "virtlogd.socket"])
        status, methods = expect.calls_during(host, ["kvmhost", "apply"])
        assert "EnableUnitFiles" in methods


@on_both
def test_a_guest_runs_under_the_chosen_daemons(system: str) -> None:
    domain = """<domain type='qemu'><name>tiny</name><memory unit='MiB'>16</memory>
      <os><type arch='x86_64' machine='pc'>hvm</type></os>
      <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><console type='pty'/></devices></domain>"""
    with Host(system, user_data=expect.user_data({})) as host:
        host.boot()
        host.write("/root/tiny.xml", domain)
        host.run(["virsh", "define", "/root/tiny.xml"])
        host.run(["virsh", "start", "tiny"])
        assert host.run(["virsh", "-c", "qemu:///system", "list", "--name"]).stdout.split() == [
            "tiny"
        ]
        expect.mode_is(host, expect.MODE_OF[system])


@on_both
def test_without_a_section_nothing_happens(system: str) -> None:
    with (
        Host(system, user_data="#cloud-config\nhostname: plain\n") as plain,
        Host(system, install=False) as bare,
    ):
        plain.boot()
        bare.boot()
        assert plain.units("*") == bare.units("*")
        assert not plain.exists("/run/kvmhost")
        # cloud-init's own single run of the module, which ignores activate_by_schema_keys
        plain.run(["cloud-init", "single", "--name", "kvmhost", "--frequency", "always"])
        assert not plain.exists("/run/kvmhost")
        assert "pystemd" not in plain.read("/var/log/cloud-init.log")


@on_both
def test_plan_shows_what_apply_then_does(system: str) -> None:
    for section in (
        {},
        {"libvirt": {"mode": "modular", "drivers": ["qemu"]}},
        {"tuned": {"profile": "balanced"}},
    ):
        with Host(system, files={"/root/section.yaml": expect.user_data(section)}) as host:
            host.boot()
            before = host.units("*")
            planned = json.loads(
                host.run(["kvmhost", "plan", "--json", "/root/section.yaml"]).stdout
            )
            assert host.units("*") == before
            applied = json.loads(
                host.run(["kvmhost", "apply", "--json", "/root/section.yaml"]).stdout
            )
            assert planned["result"] == "planned"
            assert applied["result"] == "ok"
            assert planned["changed"] == applied["changed"] != []
            assert (planned["mode"], planned["reason"]) == (applied["mode"], applied["reason"])
            assert planned["tuned"] == applied["tuned"]
            for unit, states in planned["units"].items():
                if unit.endswith(".socket"):
                    assert states == applied["units"][unit], unit
