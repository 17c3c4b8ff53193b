"""status on a host that is right and on one that is not; a machine that lacks a library."""

from __future__ import annotations

import json

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")


@pytest.mark.parametrize("system", SYSTEMS)
def test_status_is_0_only_if_all_holds(system: str) -> None:
    socket = "virtqemud.socket" if system == "el10" else "libvirtd.socket"
    path = "/run/libvirt/virtqemud-sock" if system == "el10" else "/run/libvirt/libvirt-sock"
    with Host(system, user_data=expect.user_data({})) as host:
        host.boot()
        status = json.loads(host.run(["kvmhost", "status", "--json"]).stdout)
        assert (status["result"], status["mode"]) == ("ok", expect.MODE_OF[system])
        assert (status["changed"], status["errors"]) == ([], [])
        assert status["sockets"][socket] == ""

        # systemd calls it listening, but its path is gone.
        host.run(["rm", path])
        done = host.run(["kvmhost", "status", "--json"], check=False)
        status = json.loads(done.stdout)
        assert (done.returncode, status["result"]) == (1, "failed")
        assert status["sockets"][socket] == f"{path}: No such file or directory"
        assert f"{socket}: can't be reached: {path}" in status["errors"][0]
        host.run(["kvmhost", "apply"])
        assert host.report()["changed"][0] == f"stop {socket}"
        assert host.run(["kvmhost", "status"]).returncode == 0

        host.run(["systemctl", "disable", "tuned.service"])
        done = host.run(["kvmhost", "status"], check=False)
        assert done.returncode == 1
        assert "tuned           enable  service" in done.stdout
        assert "next     kvmhost apply" in done.stdout


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("library", ["pystemd", "distro", "jsonschema"])
def test_a_missing_library_is_one_clear_error_and_the_stage_goes_on(
    system: str, library: str
) -> None:
    with Host(system, user_data=expect.user_data({})) as host:
        host.chroot(["sh", "-c", f"rm -r /usr/lib/python3/dist-packages/{library}*"])
        host.boot()
        report = host.report()
        assert report["result"] == "failed"
        assert len(report["errors"]) == 1
        assert f"No module named '{library}'" in report["errors"][0]
        assert f"install python3-{library}" in report["errors"][0]
        log = host.read("/var/log/cloud-init.log")
        assert report["errors"][0] in log
        after = log[log.index("config-kvmhost") :]
        assert "config-scripts" in after  # the modules that come after it still ran
        units = expect.all_units(host)
        assert units["virtlogd.socket"].file_state == "enabled"
        assert "masked" not in {state.file_state for state in units.values()}


@pytest.mark.parametrize("system", ["el9", "el10"])
def test_a_network_whose_subnet_is_taken_is_named(system: str) -> None:
    """An image's default network got its subnet on the machine where the image was made."""
    with Host(system) as host:
        host.boot()
        host.write("/root/section.yaml", expect.user_data({}))
        host.run(["kvmhost", "apply", "/root/section.yaml"])
        host.sh(
            "virsh net-info default >/dev/null || virsh net-define /usr/share/libvirt/networks/default.xml"
        )
        host.sh("virsh net-destroy default 2>/dev/null || true; virsh net-autostart default")
        assert not host.run(["kvmhost", "status", "/root/section.yaml"]).stderr
        host.sh(
            "ip link add br9 type bridge; ip address add 192.168.122.7/24 dev br9; ip link set br9 up"
        )
        assert (
            "already in use by interface br9"
            in host.run(["virsh", "net-start", "default"], check=False).stderr
        )
        for command in ("plan", "status", "apply"):
            done = host.run(["kvmhost", command, "/root/section.yaml"])
            assert (
                "network default can't start: its subnet 192.168.122.0/24 is br9's" in done.stderr
            )
        host.sh("ip link delete br9; virsh net-start default")
        assert not host.run(["kvmhost", "status", "/root/section.yaml"]).stderr


HELD = {
    "/etc/systemd/system/held.socket": "[Socket]\nListenStream=/run/held\n[Install]\nWantedBy=sockets.target\n",
    "/etc/systemd/system/held.service": "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
    "/etc/systemd/system/again.socket": "[Socket]\nListenStream=/run/again\n[Install]\nWantedBy=sockets.target\n",
    "/etc/systemd/system/again.service": "[Service]\nExecStart=false\nRestart=always\nRestartSec=1h\n",
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_socket_and_its_service(system: str) -> None:
    """Asked for together, in whichever order; and one whose service waits for its next try."""
    with Host(system, files=HELD) as host:
        host.boot()
        host.write(
            "/root/section.yaml", expect.user_data({"units": ["held.service", "held.socket"]})
        )
        for _ in range(5):
            host.run(["kvmhost", "apply", "/root/section.yaml"])
            assert expect.active(host, "held.socket") and expect.active(host, "held.service")
            host.run(["systemctl", "stop", "held.socket", "held.service"])
        host.run(["systemctl", "start", "again.service"])
        host.write("/root/section.yaml", expect.user_data({"units": ["again.socket"]}))
        host.run(["kvmhost", "apply", "/root/section.yaml"])
        assert expect.active(host, "again.socket")
