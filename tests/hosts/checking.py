"""For tests of the check: a host to check, the check with a shorter deadline, and what it may not leave."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import expect
import project
from host import SEED, Host

#: The service that runs guests, and the file that sets it up.
DAEMON = {"el9": "libvirtd", "el10": "virtqemud"}
#: libvirt's for secrets.
KEY = "/var/lib/libvirt/secrets/secrets-encryption-key"
CLEANER = "share/cloud/clean.d/50-cc_kvmhost"
QEMU = "/usr/bin/qemu-system-x86_64"

#: Seconds instead of the 60 that a check may take: for one that is to be killed, and for one that is not.
SHORT, LONG = 10, 45
COMMAND = """
import sys
from cc_kvmhost import check, cli
check.SECONDS, check.SECONDS_TO_CLEAR = float(sys.argv[1]), 10.0
sys.exit(cli.main(sys.argv[2:]))
"""

#: Runs in QEMU's place. Before the first guest libvirt calls QEMU without the name of a guest.
WRAPPER = f"""#!/usr/bin/python3
import os, re, sys, time
line = " ".join(sys.argv)
ours = "guest=kvmhost-check-" in line
def rewrite(at, content):
    path = re.search("/[^ \\"]*/kvmhost-check-[a-z]*[.]img", line).group()
    with open(path, "r+b") as disk:
        disk.seek(at)
        disk.write(content)
{{}}
os.execv("{QEMU}.real", sys.argv)
"""


def qemu(line: str) -> str:
    """Shell that puts a wrapper in QEMU's place; ``line``: Python that it runs first."""
    text = WRAPPER.replace("{}", line)
    return f"mv {QEMU} {QEMU}.real; cat >{QEMU} <<'EOF'\n{text}EOF\nchmod 755 {QEMU}\n"


QEMU_BACK = f"mv {QEMU}.real {QEMU}"


def run(host: Host, *words: str, seconds: float = SHORT) -> subprocess.CompletedProcess[str]:
    """kvmhost with another limit of time for checks."""
    command = ["python3", "-c", COMMAND, str(seconds), *words]
    return host.run(command, check=False, timeout=seconds + 40)


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def set_up(host: Host, section: dict[str, Any] | None = None) -> None:
    """A host on which the section in /root/section.yaml is applied and not yet checked."""
    host.boot()
    wanted = {"kvm": "ignore", **(section or {})}
    unchecked = {**wanted, "check": "sockets", "kvm": "ignore"}
    host.write("/root/section.yaml", expect.user_data(unchecked))
    host.run(["kvmhost", "apply", "/root/section.yaml"])
    host.write("/root/section.yaml", expect.user_data(wanted, checked=True))


def traces(host: Host) -> list[str]:
    """Everything that a check may have left: processes, files, domains."""
    # The brackets keep the shell that runs this from finding itself.
    return host.sh(
        "grep -lE 'guest=kvmhost[-]check-|virt import [c]hild' /proc/[0-9]*/cmdline 2>/dev/null || true;"
        "find /var/lib/libvirt /var/log/libvirt /run/libvirt /etc/libvirt -name '*kvmhost-check-*'"
    ).stdout.split()


def nothing_is_left(host: Host) -> None:
    deadline = time.monotonic() + 5  # libvirt ends a guest when it notices that its client is gone
    while traces(host) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert traces(host) == []


def install_cleaner(host: Host) -> None:
    """Our hook for `cloud-init clean`, where the RPM has it."""
    text = (project.CHECKOUT / CLEANER).read_text()
    host.write("/etc/cloud/clean.d/50-cc_kvmhost", text, 0o755)


def become_another_machine(host: Host, section: dict[str, Any], name: str = "another") -> None:
    """Boot this host as a machine made from an image of it: nothing that only the first one can decrypt."""
    host.write(f"{SEED}/meta-data", f"instance-id: {name}\n")
    host.write(f"{SEED}/user-data", expect.user_data(section, checked=True))
    host.sh("rm -f /var/lib/systemd/credential.secret; : >/etc/machine-id")
    host.reboot(timeout=120)
