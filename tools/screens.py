#!/usr/bin/env python3
"""Writes docs/screens.md: what the commands print, from model hosts.

Run without arguments after a change of cc_kvmhost/screen.py; a unit test compares the two.
"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/unit")]

import model_hosts as hosts  # noqa: E402

from cc_kvmhost import cli, plan, report, run  # noqa: E402
from cc_kvmhost.check import Check  # noqa: E402
from cc_kvmhost.host import Host  # noqa: E402
from cc_kvmhost.kvm import Kvm  # noqa: E402
from cc_kvmhost.virt import sockets  # noqa: E402
from cc_kvmhost.virt.guests import Guest  # noqa: E402
from cc_kvmhost.virt.networks import NetworkState  # noqa: E402
from cc_kvmhost.virt.objects import Objects  # noqa: E402
from cc_kvmhost.virt.pools import Place  # noqa: E402

TARGET = ROOT / "docs/screens.md"

IMAGES = "/var/lib/libvirt/images"

GOOD = """\
#cloud-config
packages: [cockpit]
kvmhost:
  libvirt:
    mode: modular
  units: [cockpit.socket]
"""
BAD = """\
#cloud-config
packges: [cockpit]
kvmhost:
  mode: modular
  libvirt:
    drivers: [quemu, network
  timeout:120
"""
NETWORKS = """\
#cloud-config
kvmhost:
  libvirt:
    networks:
      - {name: default, mode: nat}
      - {name: lan, mode: bridge, bridge: br0}
    pools:
      - {name: default, type: dir, path: /var/lib/libvirt/images}
      - {name: vms, type: logical, source: vg_vms}
"""
KVM = """\
#cloud-config
kvmhost:
  kvm: require
"""
LESS_BAD = BAD.replace("network\n", "network]\n").replace("timeout:", "timeout: ")
FILES = {
    "good.yaml": GOOD,
    "bad.yaml": BAD,
    "mended.yaml": LESS_BAD,
    "networks.yaml": NETWORKS,
    "kvm.yaml": KVM,
    "none.yaml": "#cloud-config\npackages: [cockpit]\n",
}

INTRODUCTION = """\
<!-- Written by tools/screens.py from cc_kvmhost/screen.py and model hosts: change those. -->
# What the commands print

Each fits a terminal of 80 columns, and has colour only there. `--json` gives the same as data. Units
stand by daemon: `socket -ro -admin service` behind `virtqemud` are `virtqemud.socket`,
`virtqemud-ro.socket`, `virtqemud-admin.socket` and `virtqemud.service`. Daemons to which the same is
done stand together.
"""


class Machine:
    """A model host that the commands find instead of this one.

    :param refused: why a socket can't be reached
    :param fault: what a check finds
    """

    def __init__(self, here: Host, refused: Dict[str, str], fault: str = "") -> None:
        self.here = here
        self._refused = refused
        self._fault = fault
        self._made: Optional[Check] = None

    def preview(self, section: Any, force: bool = False) -> report.Report:
        config = hosts.config(**(section or {}))
        chosen = plan.make(config, self.here, force)
        found = report.of_plan(chosen, config, self.here, report.Steps())
        made = self._made and not chosen.changed and self._made._replace(reused=True)._asdict()
        return found._replace(check=made or None)

    def apply(self, section: Any, force: bool = False) -> report.Report:
        config = hosts.config(**(section or {}))
        chosen = plan.make(config, self.here, force)
        before, self.here = self.here, hosts.applied(chosen, self.here)
        steps = report.Steps()
        steps.done = [("all", 1020.4)]
        self._made = Check("guest", True, "kvm", 612.3, reused=not chosen.changed)
        done = report.of_run(chosen, config, before, self.here, (), steps)
        return done._replace(check=self._made._asdict())

    def prove(
        self, section: Any, level: Optional[str], networks: bool, pools: bool
    ) -> report.Report:
        found = self.preview(section, True)
        config = hosts.config(**(section or {}))
        steps = (("check", 655.7),)
        if self._fault:
            made = Check("guest", False, None, 655.7, self._fault)
            found = found._replace(result="failed", errors=(self._fault,))
        else:
            made = Check("guest", True, "kvm", 655.7)
            found = found._replace(result="ok")
        if networks:
            made = made._replace(networks=tuple(n.name for n in config.networks if n.mode == "nat"))
        if pools:
            made = made._replace(pools=tuple(p.name for p in config.pools if p.type == "dir"))
        return found._replace(changed=(), tuned={}, check=made._asdict(), steps=steps)

    def refusals(self, units: Any) -> Dict[str, str]:
        return {unit: self._refused.get(unit, "") for unit in units if unit.endswith(".socket")}


class NoMachine(Machine):
    """Where no systemd runs."""

    def __init__(self) -> None:
        pass

    def preview(self, section: Any, force: bool = False) -> report.Report:
        return report.Report("skipped", None, run.NO_SYSTEMD)


@contextlib.contextmanager
def on(machine: Machine) -> Any:
    """The commands work on a model host."""
    places: List[Tuple[Any, str, Any]] = [
        (run, "preview", machine.preview),
        (run, "apply", machine.apply),
        (run, "prove", machine.prove),
        (sockets, "refusals", machine.refusals),
        (cli.instance, "section", lambda: {}),
    ]
    kept = [(place, name, getattr(place, name)) for place, name, _ in places]
    try:
        for place, name, double in places:
            setattr(place, name, double)
        yield
    finally:
        for place, name, own in kept:
            setattr(place, name, own)


def said(*words: str) -> str:
    """A command line with what it prints, and the exit code if it is not 0."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    text = "$ kvmhost {}\n{}{}".format(" ".join(words), out.getvalue(), err.getvalue())
    return text + (f"$ echo $?\n{code}\n" if code else "")


def screens() -> List[Tuple[str, str]]:
    """Each screen with its heading."""
    for name, text in FILES.items():
        Path(name).write_text(text, encoding="utf-8")
    fresh = Machine(hosts.fresh_el10(), {})
    done = hosts.applied(plan.make(hosts.config(), fresh.here), fresh.here)
    # As libvirt's package leaves it, before anybody has started it.
    default = NetworkState(
        "default", subnets=("192.168.122.0/24",), bridge="virbr0", autostart=False, active=False
    )
    objects = Objects({"default": default}, {}, (), {"br0": ""}, {IMAGES: Place(room=1 << 36)})
    units = hosts.with_units(done.units, ["tuned.service"], file_state="disabled")
    refused = {"virtqemud.socket": "/run/libvirt/virtqemud-sock: No such file or directory"}
    guests = hosts.with_units(fresh.here.units, ["libvirtd.service"], active="active")
    busy = fresh.here._replace(units=guests, guests=(Guest("web"), Guest("db")))
    hung = (
        "virtqemud.service: does not answer within 60 s (success, exit status 0);"
        " see 'journalctl -u virtqemud.service -b'"
    )
    no_kvm = Kvm(
        False,
        "there is no /dev/kvm: this is a virtual machine, and its CPU has neither vmx nor svm;"
        " have nested virtualization turned on for it",
    )
    with on(fresh):
        found = [
            ("A plan for a fresh CentOS Stream 10", said("plan")),
            ("A run", said("apply")),
            ("A second run", said("apply")),
            ("A machine that is as asked", said("status")),
            ("A check", said("check")),
        ]
    with on(Machine(hosts.fresh_el9(), {})):
        found.append(("A plan for a fresh CentOS Stream 9", said("plan")))
    with on(Machine(done._replace(objects=objects), {})):
        found += [
            ("A plan for networks and pools", said("plan", "networks.yaml")),
            ("A run with networks and pools", said("apply", "networks.yaml")),
            ("A check of them", said("check", "--networks", "--pools", "networks.yaml")),
        ]
    with on(Machine(done._replace(units=units), refused)):
        found.append(("A machine that is not as asked", said("status")))
    with on(Machine(done._replace(kvm=no_kvm), {})):
        found.append(("A machine without KVM, which is required", said("status", "kvm.yaml")))
    with on(Machine(done, {}, hung)):
        found.append(("A check that fails", said("check")))
    with on(Machine(busy, {})):
        found.append(("A run that is refused", said("apply")))
    with on(NoMachine()):
        found.append(("In a container build or a chroot", said("plan", "good.yaml")))
    found.append(("Valid files", said("validate", "good.yaml", "none.yaml")))
    found.append(("Files that are not", said("validate", "bad.yaml", "mended.yaml", "good.yaml")))
    found.append(("The same for programs", said("validate", "--json", "good.yaml")))
    return found


def screens_in_a_directory() -> List[Tuple[str, str]]:
    """The screens, their files in a directory of its own."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        try:
            return screens()
        finally:
            os.chdir(here)


def render() -> str:
    parts = [INTRODUCTION]
    for heading, text in screens_in_a_directory():
        parts.append(f"## {heading}\n\n```console\n{text}```\n")
    return "\n".join(parts)


def main() -> None:
    TARGET.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
