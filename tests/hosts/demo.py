"""Boots both hosts with the example's user-data and prints the result.

Nothing is asked of the module but its report: units, profile and guests are what systemctl, tuned
and virsh say. Exit status 1 if a host did not come out right.
"""

from __future__ import annotations

import sys
from pathlib import Path

import roots
from host import Host, has_kvm
from nspawn import HarnessError

EXAMPLE = Path(__file__).parents[2] / "examples" / "kvmhost.yaml"
UNITS = ("virt*d.service", "virt*d.socket", "virt*d-ro.socket", "virt*d-admin.socket", "libvirtd*")


def main() -> int:
    """Show each host; returns 1 if one is not as it should be."""
    wrong = []
    for name in roots.SYSTEMS:
        try:
            roots.root(name, lambda text: print(text, flush=True))
            with Host(name, user_data=EXAMPLE.read_text(), kvm=has_kvm()) as host:
                host.boot()
                wrong += [f"{name}: {problem}" for problem in show(host)]
        except (HarnessError, OSError, ValueError) as error:
            wrong.append(f"{name}: {error}")
    print(*(f"error: {problem}" for problem in wrong), sep="\n", end="\n" if wrong else "")
    print("demo: both hosts are KVM hosts" if not wrong else "demo: failed")
    return int(bool(wrong))


def show(host: Host) -> list[str]:
    """Print the state of a booted host; returns what is wrong with it."""
    report = host.report()
    versions = host.sh("systemctl --version | head -n 1; cloud-init --version; virsh --version")
    systemd, cloud_init, libvirt = versions.stdout.split("\n")[:3]
    system = host.sh('. /etc/os-release; echo "$PRETTY_NAME"').stdout.strip()
    print(
        f"\n=== {host.system}: {system}, which Debian {roots.SYSTEMS[host.system].suite} stands in for ==="
    )
    print(f"{systemd.split(' (')[0]}, {cloud_init.split('/')[-1]}, libvirt {libvirt}")
    print(f"booted     {host.boot_seconds:.1f} s until everything was up, cloud-init done")
    print(
        f"module     {report['result']}, {sum(step['ms'] for step in report['steps']):.0f} ms: ",
        end="",
    )
    print(", ".join(f"{step['name']} {step['ms']:.0f}" for step in report["steps"]))
    print(f"mode       {report['mode']}: {report['reason']}")
    print(f"changed    {len(report['changed'])} things")
    print(f"KVM        {'can be used' if report['kvm']['usable'] else report['kvm']['reason']}")
    check = report["check"] or {}
    print(f"check      {check.get('level')}: {check.get('error') or 'passed'}, ", end="")
    print(f"a guest ran by {check.get('accelerator')}, {check.get('milliseconds')} ms")

    units = host.units(*UNITS)
    rows: dict[str, list[str]] = {}
    for unit, state in units.items():
        daemon, kind = unit.split(".")[0].split("-")[0], unit.split("-")[-1].split(".")[0]
        label = unit.rpartition(".")[2] if kind == daemon else f"-{kind}"
        words = f"{state.file_state}, {state.sub if state.active == 'active' else state.active}"
        rows.setdefault(f"{daemon:16}{words}", []).append(label)
    print("units      ", end="")
    print(
        "\n           ".join(f"{row:44} {' '.join(labels)}" for row, labels in sorted(rows.items()))
    )

    problems = list(report["errors"])
    if report["result"] != "ok":
        problems.append(f"the module's result is {report['result']}")
    print(f"tuned      {host.sh('tuned-adm active').stdout.strip()}")
    for command in (
        "kvmhost check",
        "virsh list --all",
        "virsh --connect qemu:///system list --all",
    ):
        done = host.sh(command, check=False)
        print(f"$ {command}\n{(done.stdout + done.stderr).rstrip()}")
        if done.returncode:
            problems.append(f"{command}: {done.stderr.strip()}")
    status = host.cloud_init_status()
    words = status.get("extended_status", status["status"])
    print(f"cloud-init {words}")
    # Without KVM there is one warning, which says so.
    if words != "done" and not (words == "degraded done" and not report["kvm"]["usable"]):
        problems.append(
            f"cloud-init: {words} {status['errors']} {status.get('recoverable_errors')}"
        )
    return problems


if __name__ == "__main__":
    sys.exit(main())
