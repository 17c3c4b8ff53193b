"""plan and status write nothing, and say "not known" of what they can't see."""

from __future__ import annotations

import json

import pytest

import expect
import test_switching
from host import Host

SYSTEMS = ("el9", "el10")
TREES = "find /var/lib/cloud /run/cloud-init -printf '%p %y %s %T@ %l\\n' 2>/dev/null | sort"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_an_instance_they_say_so_and_write_nothing(system: str) -> None:
    def tells(words: str) -> None:
        before = host.sh(TREES).stdout
        for command in (["plan"], ["status"], ["plan", "--json"]):
            done = host.run(["kvmhost", *command], check=False)
            assert done.returncode == 1, command
            assert words in done.stdout + done.stderr, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
        assert host.sh(TREES).stdout == before

    with Host(system, user_data=expect.user_data({})) as host:
        host.write("/etc/cloud/cloud-init.disabled", "")
        host.boot()
        tells("cloud-init tells of no instance here: there is no /var/lib/cloud/instance/obj.pkl")
        host.sh("rm /etc/cloud/cloud-init.disabled")
        host.reboot()
        before = host.sh(TREES).stdout
        host.run(["kvmhost", "status"])
        host.run(["kvmhost", "plan"])
        assert host.sh(TREES).stdout == before
        done = host.run([*NOBODY, "kvmhost", "status"], check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "only root can read /var/lib/cloud/instance/obj.pkl" in done.stderr
        host.sh("echo broken >/var/lib/cloud/instance/obj.pkl")
        tells("/var/lib/cloud/instance/obj.pkl can't be loaded")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("mode", test_switching.MODES)
def test_what_only_root_may_see_is_unknown(system: str, mode: str) -> None:
    with Host(system) as host:
        host.boot()
        test_switching.run(host, mode)
        # As on EL 10, where nobody but root and libvirt's group may connect.
        unit = "libvirtd-admin.socket" if mode == "monolithic" else "virtqemud-admin.socket"
        host.write("/tmp/section.yaml", expect.user_data({"libvirt": {"mode": mode}}))
        done = host.run([*NOBODY, "kvmhost", "plan", "--json", "/tmp/section.yaml"])
        report = json.loads(done.stdout)
        assert report["changed"] == []
        (warning,) = report["warnings"]
        assert "only root may look" in warning and unit in warning
        done = host.run([*NOBODY, "kvmhost", "status", "/tmp/section.yaml"], check=False)
        assert done.returncode == 1
        assert "only root may look at" in done.stderr and unit in done.stderr
        assert "not as asked" not in done.stderr
        assert "can't be reached" not in done.stdout and "kvmhost apply" not in done.stdout
        assert host.run(["kvmhost", "status", "/tmp/section.yaml"]).returncode == 0
