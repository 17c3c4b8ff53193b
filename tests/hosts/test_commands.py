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

        # Listening for systemd, but nobody can find it.
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
