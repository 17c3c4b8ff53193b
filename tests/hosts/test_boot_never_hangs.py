"""Units that wait for cloud-init itself are started without waiting; no boot ever hangs."""

from __future__ import annotations

import time

import pytest

import expect
from host import Host

DIR = "/etc/systemd/system"
SERVICE = "\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n"
FILES = {
    f"{DIR}/after-final.service": "[Unit]\nAfter=cloud-final.service" + SERVICE,
    f"{DIR}/after-target.service": "[Unit]\nAfter=cloud-init.target" + SERVICE,
    f"{DIR}/pulls.service": "[Unit]\nRequires=middle.service\nAfter=middle.service" + SERVICE,
    f"{DIR}/middle.service": "[Unit]\nRequires=late.service\nAfter=late.service" + SERVICE,
    f"{DIR}/late.service": "[Unit]\nAfter=cloud-final.service" + SERVICE,
    f"{DIR}/prompt.service": "[Unit]\nDescription=waits for nothing" + SERVICE,
}
WAITING = ["after-final.service", "after-target.service", "pulls.service"]


@pytest.mark.parametrize("system", ["el9", "el10"])
def test_units_that_wait_for_cloud_init_are_queued(system: str) -> None:
    section = {"units": [*WAITING, "prompt.service"], "timeout": 30}
    with Host(system, user_data=expect.user_data(section), files=FILES) as host:
        host.boot()
        report = host.report()
        assert report["result"] == "ok", report
        assert report["queued"] == WAITING
        assert sum(step["ms"] for step in report["steps"]) < 20000, report["steps"]
        for unit in (*WAITING, "late.service", "prompt.service"):
            assert expect.active(host, unit), unit
        expect.mode_is(host, expect.MODE_OF[system])
        assert host.cloud_init_status()["status"] == "done"
        # Once cloud-init is done nothing waits for it any more.
        host.run(["systemctl", "stop", *WAITING])
        host.run(["kvmhost", "apply"])
        assert host.report()["queued"] == []
        assert expect.active(host, "after-final.service")


@pytest.mark.parametrize("system", ["el9", "el10"])
def test_a_job_that_never_ends_costs_the_timeout_at_most(system: str) -> None:
    hangs = "[Service]\nType=oneshot\nExecStart=sleep infinity\nTimeoutStartSec=infinity\n[Install]\nWantedBy=multi-user.target\n"
    section = {"units": ["hangs.service"], "timeout": 4}
    with Host(
        system, user_data=expect.user_data(section), files={f"{DIR}/hangs.service": hangs}
    ) as host:
        started = time.monotonic()
        host.boot()
        assert time.monotonic() - started < 45
        report = host.report()
        assert report["result"] == "failed"
        assert "4 s of kvmhost.timeout" in report["errors"][0]
        spent = sum(step["ms"] for step in report["steps"] if step["name"] != "undo")
        assert 3500 < spent < 7000, report["steps"]
        assert not expect.active(host, "hangs.service")
        assert "hangs.service" in host.read("/var/log/cloud-init.log")
        assert host.run(["systemctl", "is-active", "cloud-final.service"], check=False).stdout.strip() in (
            "active", "failed",
        )  # fmt: skip
