"""Bad input: a clear error, exit 1, and a host that is as it was."""

from __future__ import annotations

from typing import Any

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")

#: Section -> what the error must say: the key, what was found, what is allowed.
BAD: list[tuple[Any, list[str]]] = [
    ("yes please", ["kvmhost", "yes please", "a mapping"]),
    ([], ["kvmhost", "an empty list", "a mapping"]),
    ({"libvirt": "modular"}, ["kvmhost.libvirt", "modular", "a mapping"]),
    (
        {"libvirt": {"mode": "modlar"}},
        ["kvmhost.libvirt.mode", "modlar", "auto, modular, monolithic"],
    ),
    (
        {"libvirt": {"drivers": ["kemu"]}},
        ["kvmhost.libvirt.drivers[0]", "kemu", "did you mean 'qemu'"],
    ),
    ({"libvirt": {"drivers": []}}, ["kvmhost.libvirt.drivers", "an empty list", "at least 1"]),
    ({"libvirt": {"autostart": "yes"}}, ["kvmhost.libvirt.autostart", "yes", "true or false"]),
    ({"libvrt": {}}, ["kvmhost.libvrt", "did you mean 'libvirt'"]),
    ({"tuned": {"profil": "x"}}, ["kvmhost.tuned.profil", "did you mean 'profile'"]),
    ({"tuned": {"profile": "../etc"}}, ["kvmhost.tuned.profile", "../etc", "virtual-host"]),
    (
        {"tuned": {"profile": "virtual-hots"}},
        ["kvmhost.tuned.profile", "virtual-hots", "did you mean 'virtual-host'"],
    ),
    ({"units": "cockpit.socket"}, ["kvmhost.units", "cockpit.socket", "a list"]),
    ({"units": ["a/b.service"]}, ["kvmhost.units[0]", "a/b.service", "suffix"]),
    ({"units": ["../x.service"]}, ["kvmhost.units[0]", "../x.service"]),
    ({"units": ["a b.service"]}, ["kvmhost.units[0]", "a b.service"]),
    ({"units": ["a.service\n"]}, ["kvmhost.units[0]", "a.service\\n"]),
    ({"units": ["a.conf"]}, ["kvmhost.units[0]", "a.conf", ".service"]),
    ({"units": ["x" * 300 + ".service"]}, ["kvmhost.units[0]", "255"]),
    ({"units": ["no-such.service"]}, ["kvmhost.units[0]", "no-such.service", "no such unit"]),
    ({"units": ["libvirtd.service", "virtqemud.socket"]}, ["contradicts the chosen libvirt mode"]),
    ({"units": ["dbus-org.freedesktop.login1.service"]}, ["is an alias", "systemd-logind.service"]),
    ({"timeout": 0}, ["kvmhost.timeout", "0", "from 1 to 3600"]),
    ({"timeout": -5}, ["kvmhost.timeout", "-5"]),
    ({"timeout": 10**9}, ["kvmhost.timeout", "1000000000"]),
    ({"timeout": "120"}, ["kvmhost.timeout", '"120"', "a whole number"]),
    (
        {"timeout": 1.5, "unit": []},
        ["kvmhost.timeout", "1.5", "kvmhost.unit", "did you mean 'units'"],
    ),
    (
        {"units": ["no-such.service"], "tuned": {"profile": "nope"}},
        ["kvmhost.units[0]", "kvmhost.tuned.profile", "nope"],
    ),
]

#: File's content -> what the error must say.
BAD_FILES = [
    ("", ["the file is empty", "#cloud-config"]),
    ("#cloud-config\n", ["no kvmhost key"]),
    ("#cloud-config\n- kvmhost\n", ["not a mapping"]),
    ("#cloud-config\nkvmhost: {\n", [":2:", "not YAML", "not closed"]),
    ("kvmhost: {}\n", ["first line", "#cloud-config"]),
    ("#cloud-config\nkvm_host: {}\n", ["did you mean 'kvmhost'"]),
]


def everything(host: Host) -> str:
    """All that systemd knows of units, on disk and in memory; not what comes and goes by itself."""
    host.run(
        ["systemctl", "stop", "systemd-hostnamed.service", "systemd-timedated.service"], check=False
    )
    files = host.run(["systemctl", "list-unit-files", "--no-legend", "--no-pager"]).stdout
    units = host.run(
        ["systemctl", "list-units", "--all", "--no-legend", "--plain", "--no-pager"]
    ).stdout
    links = host.sh("find /etc/systemd/system -type l -printf '%p %l\\n' | sort").stdout
    profile = host.sh("cat /etc/tuned/active_profile /etc/tuned/profile_mode || true").stdout
    kept = [
        line for line in units.splitlines() if not line.startswith(("run-", "session-", "user"))
    ]
    return "\n".join([files, *kept, links, profile])


@pytest.mark.parametrize("system", SYSTEMS)
def test_bad_input_changes_nothing(system: str) -> None:
    with Host(system) as host:
        host.boot()
        before = everything(host)
        for section, words in BAD:
            host.write("/root/bad.yaml", expect.user_data(section))
            for command in ("plan", "apply"):
                done = host.run(["kvmhost", command, "/root/bad.yaml"], check=False)
                assert done.returncode == 1, (command, section, done.stdout, done.stderr)
                for word in words:
                    assert word in done.stderr, (command, section, done.stderr)
                assert "Traceback" not in done.stderr
        for text, words in BAD_FILES:
            host.write("/root/bad.yaml", text)
            done = host.run(["kvmhost", "apply", "/root/bad.yaml"], check=False)
            assert done.returncode == 1, (text, done.stdout)
            for word in ["/root/bad.yaml", *words]:
                assert word in done.stderr, (text, done.stderr)
        for command in (
            "cp /bin/true /root/bad.yaml",
            "rm -f /root/bad.yaml",
            "mkdir /root/bad.yaml",
        ):
            host.sh(command)
            done = host.run(["kvmhost", "apply", "/root/bad.yaml"], check=False)
            assert done.returncode == 1
            assert "/root/bad.yaml: can't be read" in done.stderr
        assert everything(host) == before
        assert not host.exists("/run/libvirt/never")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_file_that_may_not_be_read(system: str) -> None:
    with Host(system) as host:
        host.boot()
        host.write("/tmp/secret.yaml", expect.user_data({}), mode=0o600)
        done = host.run(
            ["setpriv", "--reuid=65534", "--clear-groups", "kvmhost", "plan", "/tmp/secret.yaml"],
            check=False,
        )
        assert done.returncode == 1
        assert "/tmp/secret.yaml: can't be read: Permission denied" in done.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_apply_needs_root_and_plan_does_not(system: str) -> None:
    with Host(system, files={"/tmp/section.yaml": expect.user_data({})}) as host:
        host.boot()
        host.write("/tmp/section.yaml", expect.user_data({}))
        nobody = ["setpriv", "--reuid=65534", "--clear-groups", "kvmhost"]
        assert host.run([*nobody, "plan", "/tmp/section.yaml"]).returncode == 0
        done = host.run([*nobody, "apply", "/tmp/section.yaml"], check=False)
        assert (done.returncode, "a run needs root" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_invalid_section_at_first_boot_changes_nothing_and_the_boot_goes_on(system: str) -> None:
    section = {"libvirt": {"mode": "modlar"}, "timeout": 0}
    with Host(system, user_data=expect.user_data(section) + "") as host, Host(system) as other:
        host.boot()
        other.boot()
        units, same = host.units("*"), other.units("*")
        assert {name: state.file_state for name, state in units.items()} == {
            name: state.file_state for name, state in same.items()
        }
        report = host.report()
        assert report["result"] == "failed"
        assert len(report["errors"]) == 2
        log = host.read("/var/log/cloud-init.log")
        for word in (
            "kvmhost.libvirt.mode",
            "modlar",
            "auto, modular, monolithic",
            "kvmhost.timeout",
        ):
            assert word in log
        assert "modules-final/config-final_message" in log or "config-final-message" in log
