"""systemd's memory after a run is as after a later reload, although most runs don't wait for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")
#: Prints what systemd's memory has about each unit, and what the targets want.
SHOW = ("LoadState", "UnitFileState", "ActiveState", "SubState", "WantedBy", "Conflicts")


def memory(host: Host) -> dict[str, list[str]]:
    """systemd's memory of libvirt's units and tuned's, and of the targets that want them."""
    names = [*expect.all_units(host), "tuned.service", "sockets.target", "multi-user.target"]
    properties = ",".join(["Id", *SHOW, "Wants"])
    shown = host.run(["systemctl", "show", f"--property={properties}", "--", *names]).stdout
    blocks = [dict(line.split("=", 1) for line in b.splitlines()) for b in shown.split("\n\n")]
    return {
        b["Id"]: [f"{key}={' '.join(sorted(b[key].split()))}" for key in sorted(b)] for b in blocks
    }


def on_disk(host: Host) -> dict[str, tuple[str, str]]:
    """The file state of each socket and mask, and whether a socket listens."""
    units = expect.all_units(host)
    return {
        unit: (state.file_state, state.active if unit.endswith(".socket") else "")
        for unit, state in units.items()
    }


def apply(host: Host, section: Any = None) -> dict[str, float]:
    host.write("/root/section.yaml", expect.user_data(section or {}))
    host.run(["kvmhost", "apply", "/root/section.yaml"])
    return {step["name"]: step["ms"] for step in host.report()["steps"]}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("preset", [True, False])
def test_memory_is_as_after_a_reload(system: str, preset: bool) -> None:
    with Host(system) as host:
        if not preset:
            host.enable_nothing()
        host.boot()
        apply(host)
        expect.mode_is(host, expect.MODE_OF[system])
        after = memory(host)
        host.run(["systemctl", "daemon-reload"])
        assert memory(host) == after
        states = on_disk(host)
        host.reboot()
        assert on_disk(host) == states
        expect.mode_is(host, expect.MODE_OF[system])


#: Arguments: what happens in place of the check.
INSTEAD_OF_THE_CHECK = """
import os, sys
from cc_kvmhost import check, run
def instead(*_):
    exec(sys.argv[1])
check.run = instead
run.apply({})
"""


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "happens", ["os.kill(os.getpid(), 9)", "sys.exit(1)", "raise OSError('no room')"]
)
def test_memory_after_a_run_that_ended_in_its_check(system: str, happens: str) -> None:
    """systemd reloads after the check. A run that was killed leaves that to the next."""
    killed = "kill" in happens
    with Host(system) as host:
        host.enable_nothing()
        host.boot()
        host.run(["python3", "-c", INSTEAD_OF_THE_CHECK, happens], check=False)
        assert host.exists("/run/kvmhost/reload-due") == killed
        if killed:
            assert "reload" in apply(host)
            assert host.report()["changed"] == []
        assert not host.exists("/run/kvmhost/reload-due")
        after = memory(host)
        host.run(["systemctl", "daemon-reload"])
        assert memory(host) == after
        assert "reload" not in apply(host)


def test_memory_after_a_switch() -> None:
    with Host("el10") as host:
        host.boot()
        for mode in ("monolithic", "modular"):
            apply(host, {"libvirt": {"mode": mode}})
            after = memory(host)
            host.run(["systemctl", "daemon-reload"])
            assert memory(host) == after


AT_ONCE = """
import subprocess, sys
from cc_kvmhost import run
from cc_kvmhost.systemd.bus import BusError
from cc_kvmhost.systemd.manager import Manager
with Manager(30) as manager:
    for _ in range(15):
        manager.change_unit_files("unmask", ["libvirtd.service"])
        manager.reload()
        assert manager.units(["libvirtd.service"])["libvirtd.service"].load == "loaded"
        report = run.apply({})
        assert report.changed == ("mask libvirtd.service",), report
        try:
            manager._call("StartUnit", "ss", b"libvirtd.service", b"replace")
        except BusError as error:
            print(error.name)
"""


def test_the_reload_that_is_not_waited_for_comes_before_any_other_request() -> None:
    """A mask of a unit in systemd's memory holds as soon as the run is over."""
    with Host("el10") as host:
        host.boot()
        apply(host)
        # It stays loaded in memory, because an active socket conflicts with it.
        answers = host.python(AT_ONCE).stdout.split()
        assert len(answers) == 15
        assert all(answer.endswith("UnitMasked") for answer in answers), answers


def test_a_unit_of_others_that_wants_the_other_mode_does_not_bring_it() -> None:
    """Without a reload its start job would start that mode: so this run waits for the reload."""
    unit = "[Unit]\nWants=libvirtd.service\n[Service]\nExecStart=sleep infinity\n"
    unit += "[Install]\nWantedBy=multi-user.target\n"
    with Host("el10", files={"/etc/systemd/system/compute.service": unit}) as host:
        host.boot()
        apply(host, {"units": ["compute.service"]})
        assert expect.active(host, "compute.service")
        expect.mode_is(host, "modular")


def test_reloads_are_counted() -> None:
    """Each run that writes reloads once, the others never; counted by systemd's own signal."""
    with Host("el10") as host:
        host.boot()
        host.sh("busctl monitor --json=short org.freedesktop.systemd1 >/tmp/watch 2>&1 & sleep 1")
        seen = []
        for section in (
            {},
            {},
            {"libvirt": {"mode": "monolithic"}},
            {"libvirt": {"mode": "modular"}},
        ):
            apply(host, section)
            host.sh("systemctl is-system-running >/dev/null || true; sleep 0.5")
            lines = [line for line in host.read("/tmp/watch").splitlines() if line.startswith("{")]
            messages = [json.loads(line) for line in lines]
            begun = [
                m for m in messages if m.get("member") == "Reloading" and m["payload"]["data"][0]
            ]
            seen.append(len(begun))
        assert seen == [1, 1, 2, 3]
