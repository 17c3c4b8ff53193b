"""kvmhost registered with a real cloud-init: status, validation, upgrades, instances, reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import cloud_init
import expect
from host import SEED, Host

INVALID = {"libvirt": {"mode": "moduler"}, "timeout": 0}
#: The line from docs/cloud-init.md with which dpkg's upgrades register again, for users of pip.
DPKG_HOOK = {
    "/etc/dpkg/dpkg.cfg.d/kvmhost": "post-invoke=if command -v kvmhost >/dev/null; then kvmhost register; fi || :\n"
}


def user_data(section: Any, **more: Any) -> str:
    """These hosts have no KVM: without this setting a warning would make cloud-init's status degraded."""
    if isinstance(section, dict):
        section = {**expect.UNCHECKED, **section}
    return "#cloud-config\n" + json.dumps({"kvmhost": section, **more}) + "\n"


def is_done(host: Host) -> None:
    """cloud-init reports no error and no warning, neither at boot nor when it is asked."""
    done = host.run(["cloud-init", "status", "--long", "--format", "json"], check=False)
    status = json.loads(done.stdout)
    assert (done.returncode, status["status"], status["errors"]) == (0, "done", []), done.stdout
    assert status.get("extended_status", "done") == "done", done.stdout  # 23.4 and newer
    assert status.get("recoverable_errors", {}) == {}, done.stdout
    log = host.sh("grep -E 'WARNING|DEPRECATED|Traceback' /var/log/cloud-init.log || :").stdout
    assert log == ""
    schema = host.run(["cloud-init", "schema", "--system"], check=False)
    assert schema.returncode == 0, schema.stdout + schema.stderr
    assert "Valid" in schema.stdout


def next_instance(host: Host, name: str, section: Any) -> None:
    """Give the machine the datasource of another instance."""
    host.write(f"{SEED}/meta-data", f"instance-id: {name}\n")
    host.write(f"{SEED}/user-data", user_data(section))


def install(host: Host, version: str) -> None:
    """Install a cloud-init package on the running host; its configuration file was edited there."""
    host.run(["sh", "-c", "mkdir -p /run/new"])
    package = Path(f"/proc/{host.leader}/root/run/new/cloud-init.deb")
    shutil.copy(cloud_init.deb(version), package)
    force = "--force-confold,depends,downgrade,conflicts"
    host.sh(
        f"DEBIAN_FRONTEND=noninteractive dpkg --install {force} /run/new/cloud-init.deb",
        timeout=300,
    )


def test_a_valid_section_is_accepted(system: str) -> None:
    with Host(system, user_data=user_data({"tuned": {"profile": "balanced"}})) as host:
        host.boot()
        assert host.report()["result"] == "ok"
        is_done(host)
        assert host.run(["kvmhost", "register", "--check"]).stdout == ""


def test_an_invalid_section_is_flagged_and_the_boot_goes_on(system: str) -> None:
    after = "touch /run/the-boot-went-on"
    with Host(system, user_data=user_data(INVALID, runcmd=[after])) as host:
        host.boot()
        report = host.report()
        assert (report["result"], report["changed"]) == ("failed", [])
        assert host.exists("/run/the-boot-went-on")
        # cloud-init's own validation, at boot and when asked
        log = host.sh("grep -iE 'schema|invalid cloud-config' /var/log/cloud-init.log").stdout
        assert "WARNING" in log, log
        asked = host.run(["cloud-init", "schema", "--system"], check=False)
        assert asked.returncode == 1
        assert (
            "kvmhost.libvirt.mode: 'moduler' is not one of ['auto', 'modular', 'mono"
            in asked.stdout + asked.stderr
        )
        # the module's error: key, value, what is allowed; all at once
        (error,) = [text for text in host.cloud_init_status()["errors"] if "kvmhost" in text]
        for said in (
            "kvmhost.libvirt.mode",
            "moduler",
            "auto, modular, monolithic",
            "kvmhost.timeout",
            "from 1 to 3600",
        ):
            assert said in error, error


@pytest.mark.parametrize(
    ("system", "version"),
    [
        pytest.param("el9", "22.4", id="22.4-reinstalled"),
        pytest.param("el10", "26.2", id="25.1-to-26.2"),
        pytest.param("el10", "25.1", id="25.1-reinstalled"),
    ],
)
def test_after_an_upgrade_registration_is_back(system: str, version: str) -> None:
    with Host(system, user_data=user_data({})) as host:
        host.boot()
        install(host, version)
        missing = host.run(["kvmhost", "register", "--check"], check=False)
        assert missing.returncode == 1
        assert missing.stdout.startswith("missing: ")
        assert "schema-cloud-config-v1.json: the kvmhost section" in missing.stdout
        # From now on dpkg registers.
        for path, text in DPKG_HOOK.items():
            host.write(path, text)
        install(host, version)
        assert host.run(["kvmhost", "register", "--check"]).stdout == ""
        assert version in host.sh("cloud-init --version 2>&1").stdout
        next_instance(host, "after-the-upgrade", {"timeout": 60})
        host.sh("rm /var/log/cloud-init*.log; touch /var/log/cloud-init.log")
        host.reboot()
        assert host.report()["result"] == "ok"
        is_done(host)
        host.run(["kvmhost", "unregister"])
        schema = "/" + cloud_init.SCHEMA
        assert host.read(schema) == (cloud_init.package(version) / cloud_init.SCHEMA).read_text()
        assert not host.exists("/etc/cloud/cloud.cfg.d/zz_kvmhost.cfg")


def test_without_the_module_nothing_is_left_of_it(system: str) -> None:
    """unregister, then remove the package: the next boot has no trace of either."""
    with Host(system, user_data="#cloud-config\n{}\n") as host:
        host.boot()
        host.run(["kvmhost", "unregister"])
        host.sh("rm -r /usr/lib/python3/dist-packages/cc_kvmhost /usr/bin/kvmhost")
        host.write(f"{SEED}/meta-data", "instance-id: without\n")
        host.sh("rm /var/log/cloud-init*.log; touch /var/log/cloud-init.log")
        host.reboot()
        is_done(host)


def test_golden_image(system: str) -> None:
    """Baked, booted as A, cleaned, booted as B with another section: nothing of A is left."""
    other = expect.OTHER[expect.MODE_OF[system]]
    wishes_of_a = {"libvirt": {"mode": other}, "tuned": {"profile": "balanced"}}
    with Host(system, user_data=user_data(wishes_of_a)) as host:
        host.boot()
        expect.mode_is(host, other)
        expect.tuned_is(host, "balanced")
        host.run(["cloud-init", "clean", "--logs"])
        next_instance(host, "instance-b", {})
        host.sh("touch /var/log/cloud-init.log")
        host.reboot()
        report = host.report()
        assert (report["result"], report["mode"]) == ("ok", expect.MODE_OF[system])
        expect.mode_is(host, expect.MODE_OF[system])
        expect.tuned_is(host, "virtual-host")
        is_done(host)
        # The same instance again: the module does not run.
        host.reboot()
        assert not host.exists("/run/kvmhost/report.json")
        expect.mode_is(host, expect.MODE_OF[system])


def test_user_data_overrides_vendor_data(system: str) -> None:
    """cloud-init merges key by key: the user's keys win, the vendor's other keys stay."""
    other = expect.OTHER[expect.MODE_OF[system]]
    vendor = {"libvirt": {"mode": "auto", "autostart": False}, "tuned": {"profile": "balanced"}}
    user = {"libvirt": {"mode": other}}
    with Host(system, vendor_data=user_data(vendor), user_data=user_data(user)) as host:
        host.boot()
        assert (host.report()["result"], host.report()["mode"]) == ("ok", other)
        expect.tuned_is(host, "balanced")
        services = host.units("virtnetworkd.service", "libvirtd.service")
        if other == "modular":
            assert services["virtnetworkd.service"].file_state == "disabled"
        is_done(host)


def test_vendor_data_alone_is_enough(system: str) -> None:
    with Host(system, vendor_data=user_data({"tuned": {"profile": "balanced"}})) as host:
        host.boot()
        assert host.report()["result"] == "ok"
        expect.tuned_is(host, "balanced")
        is_done(host)


COLLECTOR = """
import http.server, json
class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open("/run/events", "a") as events:
            events.write(json.dumps([self.path, event]) + "\\n")
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8765), Collector).serve_forever()
"""
FILES = {
    "/usr/local/lib/collector.py": COLLECTOR,
    "/etc/systemd/system/collector.service": (
        "[Unit]\nDefaultDependencies=no\nBefore=cloud-init-local.service cloud-init-main.service\n"
        "[Service]\nExecStart=/usr/bin/python3 /usr/local/lib/collector.py\n"
    ),
    "/etc/systemd/system/sysinit.target.d/collector.conf": "[Unit]\nWants=collector.service\n",
    "/etc/systemd/system/fails.service": "[Service]\nType=oneshot\nExecStart=false\n[Install]\nWantedBy=multi-user.target\n",
}
EXAMPLES = Path(__file__).parents[2] / "examples"
VENDOR_DATA = (
    (EXAMPLES / "fleet-vendor-data.yaml")
    .read_text()
    .replace("collector.example", "127.0.0.1")
    .replace("timeout: 300", "timeout: 300\n  kvm: ignore")
)
PREFIX = "modules-final/config-kvmhost"


def finished(host: Host) -> dict[str, tuple[str, str]]:
    """The result and description of each step whose end the collector was sent."""
    told = [json.loads(line) for line in host.read("/run/events").splitlines()]
    assert {path for path, _ in told} == {f"/{host.name}"}  # the instance's id
    assert all("\n" not in event["description"] for _, event in told)
    return {
        event["name"][len(PREFIX) + 1 :]: (event["result"], event["description"])
        for _, event in told
        if event["name"].startswith(PREFIX) and event["event_type"] == "finish"
    }


def test_a_fleet_hears_of_each_step(system: str) -> None:
    example = (EXAMPLES / "fleet-user-data.yaml").read_text()
    with Host(system, vendor_data=VENDOR_DATA, user_data=example, files=FILES) as host:
        host.boot()
        is_done(host)
        told = finished(host)
        assert {result for result, _ in told.values()} == {"SUCCESS"}
        assert {step["name"] for step in host.report()["steps"]} | {"", "result"} == set(told)
        result, summary = told["result"]
        assert summary.startswith(f"{expect.MODE_OF[system]} mode (CentOS Stream"), summary


def test_a_fleet_hears_of_a_unit_that_fails(system: str) -> None:
    with Host(
        system,
        vendor_data=VENDOR_DATA,
        user_data=user_data({"units": ["fails.service"]}),
        files=FILES,
    ) as host:
        host.boot()
        told = finished(host)
        failed = {name for name, (result, _) in told.items() if result == "FAIL"}
        assert failed == {"start", "result", ""}, told
        assert "fails.service" in told["result"][1]
        assert told["undo"][0] == "SUCCESS"


def test_a_fleet_hears_of_an_invalid_section(system: str) -> None:
    with Host(system, vendor_data=VENDOR_DATA, user_data=user_data(INVALID), files=FILES) as host:
        host.boot()
        told = finished(host)
        assert set(told) == {"validate", "result", ""}
        assert {result for result, _ in told.values()} == {"FAIL"}
        assert "kvmhost.libvirt.mode" in told["result"][1]
