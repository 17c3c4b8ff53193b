"""The oldest and the newest hosts: first boot, second run, reboot, and the unit tests on the host's Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import cloud_init
import expect
import libvirt_versions as versions
import project
import roots
from checking import KEY, become_another_machine, install_cleaner
from host import Host

SECTION = {"kvm": "ignore"}


def assert_a_guest_ran(report: dict[str, Any]) -> None:
    check = report["check"]
    assert (check["level"], check["passed"], check["accelerator"]) == ("guest", True, "tcg"), report
    assert 0 < check["milliseconds"] < 60000


def assert_hosts_guests(host: Host) -> None:
    """The mode is libvirtd's, systemd, libvirt, tuned and our own commands agree on it, and a guest runs."""
    expect.mode_is(host, "monolithic", other_installed=False)
    expect.tuned_is(host, "virtual-host")
    host.run(["kvmhost", "status"])
    done = host.run(["kvmhost", "check", "--json"], check=False, timeout=120)
    report = json.loads(done.stdout)
    assert (done.returncode, report["errors"]) == (0, []), done.stderr
    assert_a_guest_ran(report)


def test_first_boot_second_run_and_reboot(system: str) -> None:
    with Host(system, user_data=expect.user_data(SECTION, checked=True)) as host:
        host.boot(timeout=120)
        report = host.report()
        assert (report["result"], report["errors"]) == ("ok", []), report
        assert (report["mode"], bool(report["changed"])) == ("monolithic", True), report
        assert_a_guest_ran(report)
        # The result event that cloud-init reports; it logs each.
        said = f"a guest ran by TCG (checked in {report['check']['milliseconds']:.0f} ms)"
        assert said in host.read("/var/log/cloud-init.log")
        status = host.cloud_init_status()
        assert (status["status"], status["errors"]) == ("done", []), status
        expect.report_agrees(host, report)
        assert_hosts_guests(host)

        host.run(["kvmhost", "apply"])
        assert host.report()["changed"] == []

        host.reboot()
        assert_hosts_guests(host)
        host.run(["kvmhost", "apply"])
        assert host.report()["changed"] == []


def test_libvirts_key_for_secrets_of_another_machine() -> None:
    """By libvirt's own units, which `next` has: cleaned or not, an image's key keeps no machine from hosting."""
    with Host("next", user_data=expect.user_data(SECTION, checked=True)) as host:
        host.boot(timeout=120)
        assert_a_guest_ran(host.report())
        assert host.exists(KEY)
        install_cleaner(host)
        host.run(["cloud-init", "clean", "--logs"])
        assert not host.exists(KEY)
        become_another_machine(host, SECTION)
        assert_a_guest_ran(host.report())
        assert host.exists(KEY)
        assert not [change for change in host.report()["changed"] if KEY in change]

        become_another_machine(host, SECTION, "a-third")
        assert_a_guest_ran(host.report())
        (change,) = [change for change in host.report()["changed"] if KEY in change]
        assert change.startswith(f"rename {KEY}, which this machine can't decrypt, to {KEY}.stale-")


# importlib-metadata: Debian 11's is too old for the pinned setuptools.
# -I: the installed package is tested, not the checkout that the tests lie in.
UNIT_TESTS = """
python3 -m venv --system-site-packages /venv
/venv/bin/pip install --quiet --requirement /checkout/tests/requirements-unit.txt 'importlib-metadata>=6'
cd /checkout
/venv/bin/python -I -m pytest --quiet -p no:cacheprovider -m "not once" tests/unit
"""


def test_the_table_of_libvirts_units_is_right(system: str) -> None:
    """Nothing is new to it, and libvirt 12 still has what 12.1 had."""
    found = versions.read(roots.root(system) / "lib/systemd/system")
    table = versions.as_debian_has_them(versions.units("12.1"))
    assert "libvirtd.service" in found
    assert set(found) <= set(table)
    if system == "next":
        assert found == {name: table[name] for name in found}


def test_the_unit_tests_pass_on_its_python(system: str) -> None:
    """With the host's own cloud-init, pystemd, jsonschema and PyYAML; only the tools of the tests are PyPI's."""
    trusted = os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt")
    pip = ["PIP_CERT=/root/trusted.crt", "PIP_DISABLE_PIP_VERSION_CHECK=1"]
    pip += [f"{name}={os.environ[name]}" for name in ("PIP_INDEX_URL",) if name in os.environ]
    with Host(system) as host:
        root = host.console.parent / "root"
        shutil.copy(trusted, root / "root/trusted.crt")
        tree = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.check_output(["git", "-C", project.CHECKOUT, *tree], text=True)
        for path in filter(None, listed.split("\0")):
            copy = root / "checkout" / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(project.CHECKOUT / path, copy, follow_symlinks=False)
        for version in cloud_init.SUITES:  # mmdebstrap, which fetches them, is not on a host
            fetched = cloud_init.package(version).parent
            shutil.copytree(
                fetched, root / "root/.cache/cc_kvmhost/cloud-inits" / version, symlinks=True
            )
        done = host.chroot(
            ["env", *pip, "sh", "-euc", UNIT_TESTS], network=True, timeout=600, check=False
        )
        print(done.stdout[-6000:])
        assert done.returncode == 0, done.stderr[-3000:]
