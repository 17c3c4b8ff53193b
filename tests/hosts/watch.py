"""What happens on systemd's bus from before cloud-init's last stage on, in which the module runs."""

from __future__ import annotations

import json

import expect
from host import Host

WATCH = """
[Unit]
Wants=dbus.socket
After=dbus.socket
Before=cloud-final.service
[Service]
StandardOutput=file:/root/bus
ExecStart=stdbuf -oL busctl monitor --json=short org.freedesktop.systemd1
ExecStartPost=sh -c 'until [ -s /root/bus ]; do busctl call org.freedesktop.systemd1 / org.freedesktop.DBus.Peer Ping; sleep 0.02; done'
[Install]
WantedBy=multi-user.target
"""
#: A host that is to be watched has these, and watch.service enabled.
FILES = {"/etc/systemd/system/watch.service": WATCH}


def links(host: Host) -> str:
    """Every link of a unit file, and tuned's choice; the host runs or not."""
    script = "cd /etc; find systemd/system -type l -printf '%p %l\\n' | sort; cat tuned/active_profile tuned/profile_mode"
    inside = host.run if host.leader else host.chroot
    return inside(["sh", "-c", script]).stdout


def calls(host: Host) -> list[str]:
    """The methods of systemd's that were called since the watch began, its own reloads as "Reloading"."""
    lines = host.read("/root/bus").splitlines()
    messages = [json.loads(line) for line in lines if line.startswith("{")]
    members = [m["member"] for m in messages if m["type"] == "method_call"]
    journal = host.run(["journalctl", "--boot", "--output=cat", "_PID=1"]).stdout
    return members + [line for line in journal.splitlines() if line.startswith("Reloading")]


def ever_started(host: Host, mode: str) -> list[str]:
    """The units of a mode that were started at any time since boot, by systemd's own log: of a unit that is masked
    by now it remembers nothing else."""
    matches = ["_PID=1", "JOB_TYPE=start", "JOB_RESULT=done"]
    journal = host.run(["journalctl", "--boot", "--output=json", *matches]).stdout
    started = [json.loads(line)["UNIT"] for line in journal.splitlines()]
    assert "tuned.service" in started
    libvirts = [unit for unit in started if unit.startswith(("virt", "libvirtd"))]
    return [unit for unit in libvirts if expect.belongs(unit, mode)]
