"""Checks how a host must look. They ask systemd, libvirt and tuned, never our own code."""

from __future__ import annotations

import json
import shlex
from typing import Any

from host import Host

MODULAR_DAEMONS = tuple(
    f"virt{name}d"
    for name in (
        "qemu",
        "network",
        "storage",
        "nodedev",
        "secret",
        "interface",
        "nwfilter",
        "proxy",
    )
)
DRIVER_DAEMONS = MODULAR_DAEMONS[:-1]
SHARED_SOCKETS = tuple(
    f"{name}{kind}.socket" for name in ("virtlogd", "virtlockd") for kind in ("", "-admin")
)

MODE_OF = {"el9": "monolithic", "el10": "modular"}
OTHER = {"monolithic": "modular", "modular": "monolithic"}


#: The defaults of a test's section: no guest is run, and a missing KVM is no warning.
UNCHECKED = {"check": "sockets", "kvm": "ignore"}


def user_data(section: Any, checked: bool = False) -> str:
    """A cloud-config file. ``checked``: leave the section as it is, so that kvmhost's defaults hold."""
    if isinstance(section, dict) and not checked:
        section = {**UNCHECKED, **section}
    return "#cloud-config\n" + json.dumps({"kvmhost": section}) + "\n"


def sockets(daemon: str) -> list[str]:
    return [f"{daemon}{kind}.socket" for kind in ("", "-ro", "-admin")]


def wanted_sockets(mode: str, drivers: tuple[str, ...] = DRIVER_DAEMONS) -> list[str]:
    daemons = (*drivers, "virtproxyd") if mode == "modular" else ("libvirtd",)
    return [socket for daemon in daemons for socket in sockets(daemon)]


def all_units(host: Host) -> dict[str, Any]:
    return host.units("virt*d.service", "virt*d.socket", "virt*d-*.socket", "libvirtd*")


def belongs(unit: str, mode: str) -> bool:
    """Whether a unit belongs to one mode only."""
    if unit.startswith(("virtlogd", "virtlockd")):
        return False
    return unit.startswith("libvirtd") == (mode == "monolithic")


def mode_is(
    host: Host,
    mode: str,
    drivers: tuple[str, ...] = DRIVER_DAEMONS,
    tls: bool = False,
    other_installed: bool = True,
) -> None:
    """Exactly one mode is enabled, listening and answering; the other is disabled, masked and inactive."""
    units = all_units(host)
    for socket in (*wanted_sockets(mode, drivers), "virtlogd.socket", "virtlockd.socket"):
        state = units[socket]
        assert (state.file_state, state.active) == ("enabled", "active"), f"{socket}: {state}"
    for socket in SHARED_SOCKETS:
        assert units[socket].file_state == "enabled", socket
    away = {unit: state for unit, state in units.items() if belongs(unit, OTHER[mode])}
    assert len(away) >= 6 or not other_installed
    for unit, state in away.items():
        assert (state.file_state, state.active) == ("masked", "inactive"), f"{unit}: {state}"
    networked = "virtproxyd" if mode == "modular" else "libvirtd"
    assert units[f"{networked}-tcp.socket"].file_state == "disabled"
    assert units[f"{networked}-tcp.socket"].active == "inactive"
    assert (units[f"{networked}-tls.socket"].active == "active") == tls
    if mode == "monolithic":
        assert units["libvirtd.service"].file_state == "enabled"
    else:
        for daemon in MODULAR_DAEMONS[:-1]:
            if daemon not in drivers:
                for unit in (*sockets(daemon), f"{daemon}.service"):
                    assert (units[unit].file_state, units[unit].active) == (
                        "disabled",
                        "inactive",
                    ), unit
    listening = host.run(["ss", "-xlH"]).stdout
    for path in ("virtlogd-sock", "virtlockd-sock", "libvirt-sock"):
        assert f"/run/libvirt/{path} " in listening, path
    ports = [
        line
        for line in host.run(["ss", "-tlnH"]).stdout.splitlines()
        if ":16509 " in line or ":16514 " in line
    ]
    assert bool(ports) == tls, ports
    answers(host, mode)


def answers(host: Host, mode: str) -> None:
    """libvirt answers, with and without a URI, by the chosen mode's daemon."""
    assert "Id" in host.run(["virsh", "-c", "qemu:///system", "list", "--all"]).stdout
    assert "Id" in host.run(["virsh", "list", "--all"]).stdout
    daemon, other = ("virtqemud", "libvirtd") if mode == "modular" else ("libvirtd", "virtqemud")
    assert active(host, f"{daemon}.service")
    assert not active(host, f"{other}.service")


def active(host: Host, unit: str) -> bool:
    return host.run(["systemctl", "is-active", unit], check=False).stdout.strip() == "active"


def tuned_is(host: Host, profile: str) -> None:
    assert active(host, "tuned.service")
    assert host.run(["systemctl", "is-enabled", "tuned.service"]).stdout.strip() == "enabled"
    assert host.run(["tuned-adm", "active"]).stdout.split(":")[1].strip() == profile


def report_agrees(host: Host, report: dict[str, Any]) -> None:
    """Every unit's state after the run, as reported, is what systemctl says."""
    shown = host.units(*report["units"])
    assert report["units"]
    for unit, states in report["units"].items():
        after = states["after"]
        assert after["file_state"] == shown[unit].file_state, unit
        # A socket-activated daemon starts and exits by itself.
        if unit.endswith(".socket"):
            assert after["active"] == shown[unit].active, unit


def calls_during(host: Host, command: list[str]) -> tuple[int, list[str]]:
    """Run a command while watching the bus; returns its exit status and the calls to systemd's methods."""
    script = f"""
        stdbuf -oL busctl monitor --json=short org.freedesktop.systemd1 >/tmp/bus 2>/tmp/bus.err & watcher=$!
        until [ -s /tmp/bus ]; do
            busctl call org.freedesktop.systemd1 / org.freedesktop.DBus.Peer Ping; sleep 0.02
        done
        status=0; {shlex.join(command)} >/tmp/out 2>&1 || status=$?
        sleep 0.2; kill $watcher; wait $watcher || true
        echo $status
    """
    status = int(host.sh(script).stdout.split()[-1])
    messages = [
        json.loads(line) for line in host.read("/tmp/bus").splitlines() if line.startswith("{")
    ]
    methods = [
        message["member"]
        for message in messages
        if message["type"] == "method_call"
        and message.get("destination") == "org.freedesktop.systemd1"
    ]
    return status, methods


CHANGING = (
    "EnableUnitFiles", "DisableUnitFiles", "MaskUnitFiles", "UnmaskUnitFiles", "Reload", "StartUnit", "StopUnit",
    "RestartUnit", "ResetFailedUnit", "PresetUnitFiles", "LinkUnitFiles",
)  # fmt: skip
