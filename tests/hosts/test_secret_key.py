"""libvirt's key for secrets, which only the machine that made it can decrypt: images and copies have it too."""

from __future__ import annotations

from pathlib import Path

import pytest

import expect
from checking import (
    KEY,
    become_another_machine,
    install_cleaner,
    report_of,
    run,
    set_up,
)
from host import Host

in_each_mode = pytest.mark.parametrize("mode", ["modular", "monolithic"])
DIRECTORY = KEY.rsplit("/", 1)[0]
UNITS = Path(__file__).parent / "recipe/el10/usr/lib/systemd/system"


def units(system: str) -> dict[str, str]:
    """libvirt 12's units, which EL 10's stand-in has. EL 9 may get them with a later libvirt."""
    if system == "el10":
        return {}
    paths = [path for path in UNITS.rglob("*") if path.is_file()]
    files = {
        f"/usr/lib/systemd/system/{path.relative_to(UNITS)}": path.read_text() for path in paths
    }
    # Its libvirt has no such directory, and libvirt 12 makes it when it is installed.
    return {**files, f"{DIRECTORY}/.keep": ""}


@in_each_mode
def test_a_stale_key_with_secrets_is_an_error(system: str, mode: str) -> None:
    with Host(system, files=units(system)) as host:
        host.boot()
        host.sh(
            f"head -c 100 /dev/urandom >{KEY};"
            "mkdir -p /etc/libvirt/secrets; touch /etc/libvirt/secrets/a.xml"
        )
        host.write(
            "/root/section.yaml", expect.user_data({"libvirt": {"mode": mode}}, checked=True)
        )
        for command in ("apply", "check"):
            done = run(host, command, "--json", "/root/section.yaml")
            errors = " ".join(report_of(done)["errors"])
            assert done.returncode == 1
            assert f"{KEY}: this machine can't decrypt" in errors and "a.xml" in errors
            assert "credential.secret" in errors
        assert host.sh(f"ls {KEY}*").stdout.split() == [KEY]


@in_each_mode
def test_a_stale_key_without_secrets_is_renamed(system: str, mode: str) -> None:
    section = {"libvirt": {"mode": mode}, "kvm": "ignore"}
    files = {KEY: "the key of another machine", **units(system)}
    with Host(system, user_data=expect.user_data(section, checked=True), files=files) as host:
        host.boot()
        report = host.report()
        assert report["result"] == "ok", report["errors"]
        assert report["check"]["level"] == "guest"
        (change,) = [change for change in report["changed"] if KEY in change]
        assert change.startswith(f"rename {KEY}, which this machine can't decrypt, to {KEY}.stale-")
        new, stale = host.sh(f"ls {KEY}*").stdout.split()
        assert host.read(stale) == "the key of another machine"
        host.sh(f"systemd-creds decrypt --name=secrets-encryption-key {new} - >/dev/null")
        host.run(["virsh", "-c", "secret:///system", "secret-list"])
        # The check is not repeated.
        again = report_of(host.run(["kvmhost", "apply", "--json"]))
        assert again["changed"] == [] and again["check"]["reused"]


@in_each_mode
def test_check_names_a_key_that_has_gone_stale_and_apply_mends_it(system: str, mode: str) -> None:
    daemon = "virtsecretd" if mode == "modular" else "libvirtd"
    with Host(system, files=units(system)) as host:
        set_up(host, {"libvirt": {"mode": mode}})
        host.run(["kvmhost", "check", "/root/section.yaml"])
        host.sh(
            f"head -c 100 /dev/urandom >{KEY}; systemctl stop virtsecretd.service {daemon}.service"
        )
        done = run(host, "check", "--json", "/root/section.yaml")
        assert done.returncode == 1
        errors = " ".join(report_of(done)["errors"])
        assert f"{daemon}.service: " in errors and "exit status 243/CREDENTIALS" in errors
        assert (
            f"{KEY}: this machine can't decrypt" in errors and "'kvmhost apply' renames" in errors
        )
        assert host.sh(f"ls {KEY}*").stdout.split() == [KEY]
        done = run(host, "apply", "--json", "/root/section.yaml", seconds=30)
        assert done.returncode == 0, report_of(done)["errors"]
        run(host, "check", "/root/section.yaml", seconds=30).check_returncode()


@in_each_mode
def test_cleaned_and_booted_as_another_machine(system: str, mode: str) -> None:
    section = {"libvirt": {"mode": mode}, "kvm": "ignore"}
    files = units(system)
    with Host(system, user_data=expect.user_data(section, checked=True), files=files) as host:
        host.boot()
        assert host.report()["check"]["passed"] and host.exists(KEY)
        install_cleaner(host)
        host.run(["cloud-init", "clean", "--logs"])
        assert not host.exists(KEY)
        become_another_machine(host, section)
        report = host.report()
        assert report["result"] == "ok", report["errors"]
        assert report["check"]["level"] == "guest" and report["check"]["passed"]
        assert not [each for each in report["changed"] if KEY in each]
        host.sh(f"systemd-creds decrypt --name=secrets-encryption-key {KEY} - >/dev/null")


def test_cleaning_keeps_the_key_of_stored_secrets(system: str) -> None:
    with Host(system, files={KEY: "of this machine", "/etc/libvirt/secrets/a.xml": ""}) as host:
        install_cleaner(host)
        done = host.chroot(["/etc/cloud/clean.d/50-cc_kvmhost"], check=False)
        assert done.returncode == 1 and "has secrets" in done.stderr
        assert host.exists(KEY)
