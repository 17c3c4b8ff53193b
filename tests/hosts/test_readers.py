"""plan and status write nothing, and say "not known" of what they can't see."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping

import pytest

import expect
import test_switching
from host import Host

SYSTEMS = ("el9", "el10")
#: All that a reader of ours could write to, by itself or through cloud-init's or libvirt's code.
TREES = """
for tree in /etc /var /root /tmp /run/kvmhost /run/cloud-init /run/libvirt; do
    [ ! -e $tree ] || find $tree -xdev '(' -path /var/log/journal -o -path /var/log/wtmp -o -path /var/lib/systemd ')' -prune \\
        -o -printf '%p %y %m %s %T@ %C@ %l\\n' | sort
done
"""
READERS = (["plan"], ["status"], ["plan", "--json"], ["apply", "--dry-run"])
#: Of these, libvirt's own files tell.
OBJECTS = {
    "libvirt": {
        "networks": [{"name": "default", "mode": "nat", "subnet": "auto"}],
        "pools": [{"name": "default", "type": "dir", "path": "/var/lib/libvirt/images"}],
    }
}
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def still_trees(host: Host) -> str:
    """The trees, once nobody else writes to them: libvirt's daemons may still be starting."""
    deadline = time.monotonic() + 60
    before = ""
    while before != (now := host.sh(TREES).stdout):
        assert time.monotonic() < deadline
        before = now
        time.sleep(1)
    return now


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_an_instance_they_say_so_and_write_nothing(system: str) -> None:
    def tells(words: str) -> None:
        before = still_trees(host)
        for command in READERS:
            done = host.run(["kvmhost", *command], check=False)
            assert done.returncode == 1, command
            assert words in done.stdout + done.stderr, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
        for command in READERS:
            host.run(["kvmhost", *command, "/root/section.yaml"], check=False)
        assert host.sh(TREES).stdout == before

    with Host(system, user_data=expect.user_data({})) as host:
        host.write("/etc/cloud/cloud-init.disabled", "")
        host.write("/root/section.yaml", expect.user_data(OBJECTS))
        host.boot()
        tells("cloud-init tells of no instance here: there is no /var/lib/cloud/instance/obj.pkl")
        host.sh("rm /etc/cloud/cloud-init.disabled")
        host.reboot()
        before = still_trees(host)
        for command in READERS:
            host.run(["kvmhost", *command])
            host.run(["kvmhost", *command, "/root/section.yaml"], check=False)
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
        # As on EL, where libvirt's settings are root's alone, and on 10 most of its sockets.
        host.run(["chmod", "700", "/etc/libvirt"])
        unit = "libvirtd-admin.socket" if mode == "monolithic" else "virtqemud-admin.socket"
        host.write("/tmp/section.yaml", expect.user_data({"libvirt": {"mode": mode}}))
        done = host.run([*NOBODY, "kvmhost", "plan", "--json", "/tmp/section.yaml"])
        report = json.loads(done.stdout)
        assert report["changed"] == []
        assert all("only root may look at it" in each for each in report["warnings"])
        warnings = "\n".join(report["warnings"])
        assert unit in warnings and "whether libvirt's networks can start" in warnings
        done = host.run([*NOBODY, "kvmhost", "status", "/tmp/section.yaml"], check=False)
        assert done.returncode == 1
        assert "only root may look at" in done.stderr and unit in done.stderr
        assert "not as asked" not in done.stderr
        assert "can't be reached" not in done.stdout and "kvmhost apply" not in done.stdout
        assert host.run(["kvmhost", "status", "/tmp/section.yaml"]).returncode == 0


NETWORK, POOL = ({"libvirt": {key: OBJECTS["libvirt"][key]}} for key in ("networks", "pools"))
CERTIFICATES = """
mkdir -p /etc/pki/CA /etc/pki/libvirt/private
touch /etc/pki/CA/cacert.pem /etc/pki/libvirt/servercert.pem
install -m 600 /dev/null /etc/pki/libvirt/private/serverkey.pem
"""
ROOTS = "install -m 600 /dev/null /dev/kvm; chmod 600 /usr/lib/systemd/system/extra.service"


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_only_root_may_read_is_not_taken_for_missing(system: str) -> None:
    extra = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    with Host(system, files={"/usr/lib/systemd/system/extra.service": extra}) as host:
        host.boot()
        conf = {"monolithic": "libvirtd.conf", "modular": "virtproxyd.conf"}[expect.MODE_OF[system]]

        def plan(section: Mapping[str, object]) -> tuple[int, str]:
            host.write("/tmp/section.yaml", expect.user_data(section))
            done = host.run([*NOBODY, "kvmhost", "plan", "/tmp/section.yaml"], check=False)
            assert "Traceback" not in done.stderr
            return done.returncode, done.stdout + done.stderr

        host.sh(ROOTS + CERTIFICATES)
        code, text = plan({"libvirt": {"tls": True}})
        unknown = "not known, because only root may look at "
        assert code == 0 and unknown + "/etc/pki/libvirt/private/serverkey.pem" in text, text
        code, text = plan({"kvm": "require"})
        assert code == 0 and "whether KVM can be used: only root may look at /dev/kvm" in text, text
        assert "can't be used" not in text
        code, text = plan({"units": ["extra.service"]})
        assert code == 0 and re.search("extra +enable, start +service", text), text
        host.run(["chmod", "700", "/etc/libvirt"])
        code, text = plan({"libvirt": {"tls": True}})
        assert code == 0 and f"{unknown}/etc/libvirt/{conf}" in text, text
        for section in (NETWORK, POOL):
            code, text = plan(section)
            assert code == 1 and "can't be read: Permission denied; it needs root" in text, text
