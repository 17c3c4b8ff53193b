"""The check: it passes where guests can run, and no lie gets past it.

A lie is a host whose units are as asked, and that can't host guests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import expect
import packages
from checking import (
    DAEMON,
    LONG,
    QEMU,
    QEMU_BACK,
    SHORT,
    WRAPPER,
    nothing_is_left,
    qemu,
    report_of,
    run,
    set_up,
    traces,
)
from host import Host, has_kvm

SYSTEMS = ("el9", "el10")
#: Fills a file system completely.
FULL = """
mount -t tmpfs -o size=64k,mode=0711 none /var/lib/libvirt/images
dd if=/dev/zero of=/var/lib/libvirt/images/full bs=4k 2>/dev/null || true
"""
READ_ONLY = """
mount --bind /var/lib/libvirt/images /var/lib/libvirt/images
mount -o remount,bind,ro /var/lib/libvirt/images
"""
#: /var/lib/libvirt alone; disks have a file system of their own, as on many hosts.
ALL_FULL = """
cp -a /var/lib/libvirt /root/libvirt
mount -t tmpfs -o size=1m,mode=0755 none /var/lib/libvirt
cp -a /root/libvirt/. /var/lib/libvirt
mount -t tmpfs -o mode=0711 none /var/lib/libvirt/images
dd if=/dev/zero of=/var/lib/libvirt/full bs=4k 2>/dev/null || true
"""
ALL_READ_ONLY = """
mount --bind /var/lib/libvirt /var/lib/libvirt
mount -o remount,bind,ro /var/lib/libvirt
mount -t tmpfs -o mode=0711 none /var/lib/libvirt/images
"""
ALL_BACK = (
    "umount /var/lib/libvirt/images /var/lib/libvirt; systemctl reset-failed;"
    " systemctl stop DAEMON.service virtsecretd.service"
)
LOGD = "/etc/systemd/system/virtlogd.service.d"
#: So long after there is a guest of the check's, sends a service a signal; again for each guest.
WATCH = """
cat >/root/watch <<'EOF'
while sleep 0.02; do
    for guest in /run/libvirt/qemu/kvmhost-check-*.xml; do
        if [ -e "$guest" ] && [ "$guest" != "$last" ]; then
            last=$guest
            sleep SECONDS
            systemctl kill --signal=SIGNAL --kill-who=main SERVICE
        fi
    done
done
EOF
nohup sh /root/watch >/dev/null 2>&1 & echo $! >/run/watch.pid
"""
NO_WATCH = "kill $(cat /run/watch.pid)"


def watch(signal: str, service: str, seconds: int = 0) -> str:
    text = WATCH.replace("SIGNAL", signal).replace("SERVICE", service)
    return text.replace("SECONDS", str(seconds))


class Lie(NamedTuple):
    """``break_``, ``mend``: shell, in which DAEMON stands for the service that runs guests and OTHER for
    another one. ``words``: what the errors say.
    ``section``: what else is asked for. ``checked``: the run gets as far as the check."""

    break_: str
    words: list[str]
    mend: str
    section: dict[str, Any] = {}
    checked: bool = True


LIES = {
    "a syntax error in the daemon's file": Lie(
        "cp -p /etc/libvirt/DAEMON.conf /root/; echo 'no such line' >>/etc/libvirt/DAEMON.conf;"
        " systemctl stop DAEMON.service",
        ["DAEMON.service: ", "exit status ", "see 'journalctl -u DAEMON.service -b'"],
        "mv /root/DAEMON.conf /etc/libvirt/; systemctl reset-failed; systemctl restart DAEMON.socket",
    ),
    "QEMU's program is missing": Lie(
        f"mv {QEMU} {QEMU}.real",
        ["the check's guest kvmhost-check-", "starting it: "],
        QEMU_BACK,
    ),
    "QEMU exits": Lie(
        qemu("sys.exit(1)"), ["the check's guest kvmhost-check-", "starting it: "], QEMU_BACK
    ),
    "QEMU exits when it has a guest": Lie(
        qemu("if ours: sys.exit('qemu: no mercy')"),
        ["the check's guest kvmhost-check-", "starting it: ", "no mercy"],
        QEMU_BACK,
    ),
    "QEMU hangs when libvirt asks what it can": Lie(
        qemu("time.sleep(3600)"),
        ["the check's guest kvmhost-check-", f"starting it: not done within {SHORT} s"],
        # libvirt's child hangs here, and the daemon waits for it.
        f"systemctl kill --signal=KILL DAEMON.service; {QEMU_BACK}; systemctl reset-failed",
    ),
    "QEMU hangs when it has a guest": Lie(
        qemu("if ours: time.sleep(3600)"),
        ["the check's guest kvmhost-check-", f"starting it: not done within {SHORT} s"],
        QEMU_BACK,
    ),
    "a guest that never writes": Lie(
        qemu("if ours: rewrite(0, bytes(512))"),
        ["waiting for its line on the serial console: not done within"],
        QEMU_BACK,
    ),
    "a guest that writes another run's nonce": Lie(
        qemu("if ours: rewrite(0x9b, b'another run s no')"),
        ["waiting for its line on the serial console: it wrote another run's nonce"],
        QEMU_BACK,
    ),
    "a guest that names another hypervisor": Lie(
        qemu("if ours: rewrite(0xc, bytes.fromhex('9090'))"),
        ["waiting for its line on the serial console: it runs by ", "was started with 'tcg'"],
        QEMU_BACK,
    ),
    "a daemon that hangs": Lie(
        "systemctl start DAEMON.service; systemctl kill --signal=STOP --kill-who=main DAEMON.service",
        [f"DAEMON.service: does not answer within {SHORT} s", "journalctl -u DAEMON.service -b"],
        "systemctl kill --signal=CONT --kill-who=main DAEMON.service",
    ),
    "virtlogd fails": Lie(
        f"mkdir -p {LOGD}; printf '[Service]\\nExecStart=\\nExecStart=false\\n' >{LOGD}/bad.conf;"
        " systemctl daemon-reload; systemctl stop virtlogd.service",
        ["virtlogd.service: ", "exit status 1)", "journalctl -u virtlogd.service -b"],
        f"rm -r {LOGD}; systemctl daemon-reload; systemctl reset-failed;"
        " systemctl restart virtlogd.socket",
    ),
    "the file system of the disks is full": Lie(
        FULL,
        ["writing its disk: /var/lib/libvirt/images/kvmhost-check-", "No space left on device"],
        "umount /var/lib/libvirt/images",
    ),
    "the file system of the disks is read-only": Lie(
        READ_ONLY,
        ["writing its disk: /var/lib/libvirt/images/kvmhost-check-", "Read-only file system"],
        "umount /var/lib/libvirt/images",
    ),
    "the file system of libvirt's own files is full": Lie(
        ALL_FULL, ["see 'journalctl -u DAEMON.service -b'"], ALL_BACK
    ),
    "the file system of libvirt's own files is read-only": Lie(
        ALL_READ_ONLY, ["see 'journalctl -u DAEMON.service -b'"], ALL_BACK
    ),
    "libvirt's user may not enter the directory of the disks": Lie(
        "chmod 700 /var/lib/libvirt/images",
        ["starting it: ", "/var/lib/libvirt/images/kvmhost-check-", "Permission denied"],
        "chmod 711 /var/lib/libvirt/images",
    ),
    "a daemon that is killed while it starts the guest": Lie(
        qemu("if ours: time.sleep(4)") + watch("KILL", "DAEMON.service"),
        ["DAEMON.service: has answered once, and not again: ", "starting it: End of file"],
        f"{NO_WATCH}; {QEMU_BACK}; systemctl reset-failed",
    ),
    "a daemon that dies after its first answer, and is restarted": Lie(
        # Later than a daemon starts: one that is killed before its first answer is healthy after it.
        qemu("if ours: time.sleep(4)") + watch("KILL", "OTHER.service", 2),
        ["OTHER.service: has answered once, and not again: ", "journalctl -u OTHER.service -b"],
        f"{NO_WATCH}; {QEMU_BACK}; systemctl reset-failed",
    ),
    "a /dev/kvm of the wrong kind, and KVM required": Lie(
        "mknod -m 666 /dev/kvm c 1 3",
        ["kvmhost.kvm: require: ", "/dev/kvm is not KVM's device"],
        "true",
        {"kvm": "require"},
    ),
    "no /dev/kvm, and KVM required": Lie(
        "true", ["kvmhost.kvm: require: ", "there is no /dev/kvm"], "true", {"kvm": "require"}
    ),
    "a guest that was asked for, without the binding": Lie(
        "mv /usr/lib/python3/dist-packages/libvirt.py /root/",
        ["kvmhost.check: guest is not possible: ", "install python3-libvirt"],
        "mv /root/libvirt.py /usr/lib/python3/dist-packages/",
        {"check": "guest"},
        checked=False,
    ),
}


def named(text: str, system: str) -> str:
    other = {"el9": "virtlockd", "el10": "virtnetworkd"}[system]
    return text.replace("DAEMON", DAEMON[system]).replace("OTHER", other)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", sorted(LIES))
def test_no_lie_gets_past_it(system: str, name: str) -> None:
    lie = LIES[name]
    with Host(system) as host:
        set_up(host, lie.section)
        host.sh(named(lie.break_, system))
        words = [named(word, system) for word in lie.words]
        # A check that fails by itself may take its time on a busy machine: if it is killed before, a
        # daemon that is still starting the guest may write its log later.
        seconds = SHORT if any("within" in word for word in words) else LONG
        for command in ("apply", "check"):
            started = time.monotonic()
            done = run(host, command, "--json", "/root/section.yaml", seconds=seconds)
            took = time.monotonic() - started
            assert done.returncode == 1, done.stdout
            assert "Traceback" not in done.stderr, done.stderr
            report = report_of(done)
            errors = "\n".join(report["errors"])
            assert report["result"] == "failed"
            for word in words:
                assert word in errors, errors
            assert took < seconds + 14, (took, errors)
            if command == "apply":
                assert host.report() == report
                assert report["changes_kept"] == lie.checked
            nothing_is_left(host)
        expect_units(host, system)

        host.sh(named(lie.mend, system))
        time.sleep(1)  # for what a daemon may still do that hung
        nothing_is_left(host)
        host.write("/root/section.yaml", expect.user_data({"kvm": "ignore"}, checked=True))
        done = run(host, "apply", "--json", "/root/section.yaml", seconds=30)
        report = report_of(done)
        assert done.returncode == 0, report["errors"]
        assert report["check"]["level"] == "guest" and report["check"]["accelerator"] == "tcg"
        nothing_is_left(host)


def expect_units(host: Host, system: str) -> None:
    """A check that fails puts nothing back."""
    enabled = host.run(["systemctl", "is-enabled", f"{DAEMON[system]}.socket"]).stdout.strip()
    assert enabled == "enabled"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_daemon_that_hangs_while_it_starts_the_guest(system: str) -> None:
    """What it keeps of the guest goes when it goes on, or with the next check; no guest comes to life."""
    service = f"{DAEMON[system]}.service"
    with Host(system) as host:
        set_up(host)
        host.sh(qemu("if ours: rewrite(0, bytes(512))") + watch("STOP", service))
        started = time.monotonic()
        done = run(host, "apply", "--json", "/root/section.yaml")
        assert done.returncode == 1
        assert time.monotonic() - started < SHORT + 14
        errors = "\n".join(report_of(done)["errors"])
        assert "the check's guest kvmhost-check-" in errors
        assert f"{service} does not answer any more; what it keeps of kvmhost-check-" in errors
        assert not [each for each in traces(host) if each.startswith("/proc/")]
        host.sh(f"{NO_WATCH}; {QEMU_BACK}; systemctl kill --signal=CONT --kill-who=main {service}")
        time.sleep(2)
        assert [each for each in traces(host) if not each.endswith(".log")] == []
        done = run(host, "check", "--json", "/root/section.yaml", seconds=30)
        assert done.returncode == 0, report_of(done)["errors"]
        nothing_is_left(host)


@pytest.mark.parametrize("system", SYSTEMS)
class TestReuse:
    """What passed since boot is not checked again, until there is a reason to."""

    def apply(self, host: Host) -> tuple[int, dict[str, Any]]:
        done = run(host, "apply", "--json", "/root/section.yaml", seconds=30)
        report = report_of(done)
        assert report["changed"] == []
        return done.returncode, report["check"]

    def test_libvirt_and_qemu_are_those_that_were_checked(self, system: str) -> None:
        """A changed file is what an edit or an upgrade leaves."""
        daemon = DAEMON[system]
        with Host(system) as host:
            set_up(host)
            assert self.apply(host)[1]["reused"] is False
            for path in (f"/etc/libvirt/{daemon}.conf", f"/usr/sbin/{daemon}", QEMU):
                assert self.apply(host)[1]["reused"] is True
                host.sh(f"cp -p {path} {path}.new; mv {path}.new {path}")
                assert self.apply(host)[1]["reused"] is False
            host.sh(f"mv {QEMU} {QEMU}.real")
            code, check = self.apply(host)
            assert code == 1 and "starting it: " in check["error"]

    def test_a_daemon_that_has_failed_since_is_asked_again(self, system: str) -> None:
        service = f"{DAEMON[system]}.service"
        drop_in = f"/run/systemd/system/{service}.d/bad.conf"
        with Host(system) as host:
            set_up(host)
            self.apply(host)
            assert self.apply(host)[1]["reused"] is True
            host.write(drop_in, "[Service]\nExecStart=\nExecStart=false\n")
            host.sh(f"systemctl daemon-reload; systemctl restart {service} || true")
            code, check = self.apply(host)
            assert code == 1 and f"{service}: " in check["error"]


@pytest.mark.parametrize("system", SYSTEMS)
class TestItPasses:
    def check(self, host: Host, **wanted: Any) -> dict[str, Any]:
        done = run(host, "check", "--json", "/root/section.yaml", seconds=30)
        report = report_of(done)
        assert done.returncode == 0, report["errors"]
        for key, value in wanted.items():
            assert report["check"][key] == value, report["check"]
        nothing_is_left(host)
        return report

    def test_at_first_boot_without_kvm(self, system: str) -> None:
        with Host(system, user_data=expect.user_data({}, checked=True)) as host:
            host.boot()
            report = host.report()
            check = report["check"]
            assert report["result"] == "ok", report["errors"]
            assert (check["level"], check["passed"], check["accelerator"]) == ("guest", True, "tcg")
            assert 0 < check["milliseconds"] < 20000 and not check["reused"]
            assert report["kvm"]["usable"] is False and "/dev/kvm" in report["kvm"]["reason"]
            (warning,) = report["warnings"]
            assert "KVM can't be used" in warning and report["kvm"]["reason"] in warning
            log = host.read("/var/log/cloud-init.log")
            assert f"kvmhost: {warning}" in log
            status = host.cloud_init_status()
            if "extended_status" in status:
                assert status["extended_status"] == "degraded done"
                assert warning in str(status["recoverable_errors"]["WARNING"])
            assert not status["errors"]
            assert "a guest ran by TCG" in log
            nothing_is_left(host)
            expect.mode_is(host, expect.MODE_OF[system])
            # The second run reuses the check; the first run after a reboot does not.
            again = report_of(host.run(["kvmhost", "apply", "--json"]))
            assert again["check"] == {**check, "reused": True}
            host.reboot()
            after = report_of(host.run(["kvmhost", "apply", "--json"]))
            assert after["changed"] == [] and not after["check"]["reused"]

    def test_with_kvm(self, system: str) -> None:
        if not has_kvm():
            pytest.skip("this machine has no KVM that works")
        with Host(
            system, user_data=expect.user_data({"kvm": "require"}, checked=True), kvm=True
        ) as host:
            host.boot()
            report = host.report()
            assert report["result"] == "ok", report["errors"]
            assert report["kvm"]["usable"] and report["kvm"]["reason"] == ""
            assert report["check"]["accelerator"] == "kvm"
            assert report["warnings"] == []
            nothing_is_left(host)
            # If only root may use /dev/kvm, guests can't, and the guest is emulated.
            host.sh("umount /dev/kvm; rm -f /dev/kvm; mknod -m 600 /dev/kvm c 10 232")
            done = run(host, "check", "--json", seconds=30)
            errors = " ".join(report_of(done)["errors"])
            assert done.returncode == 1
            assert (
                "kvmhost.kvm: require: " in errors and "may not use /dev/kvm (root:root" in errors
            )
            host.write("/root/section.yaml", expect.user_data({}, checked=True))
            assert "may not use" in self.check(host, accelerator="tcg")["warnings"][0]

    def test_kvm_that_libvirt_refuses_is_a_failure(self, system: str) -> None:
        if not has_kvm():
            pytest.skip("this machine has no KVM that works")
        service = f"{DAEMON[system]}.service"
        with Host(system, kvm=True) as host:
            set_up(host)
            host.sh(qemu(FALL_BACK))
            done = run(host, "check", "--json", "/root/section.yaml", seconds=30)
            report = report_of(done)
            assert done.returncode == 1 and report["kvm"]["usable"], report["kvm"]
            assert "it runs by 'tcg', and was started with 'kvm'" in report["errors"][0]
            host.sh(QEMU_BACK)
            # A /dev without it.
            drop_in = f"/run/systemd/system/{service}.d/private.conf"
            host.write(drop_in, "[Service]\nPrivateDevices=yes\n")
            host.sh(f"systemctl daemon-reload; systemctl stop {service}")
            done = run(host, "check", "--json", "/root/section.yaml", seconds=30)
            report = report_of(done)
            assert done.returncode == 1 and report["kvm"]["usable"], report["kvm"]
            assert "starting it: " in report["errors"][0] and "kvm" in report["errors"][0]
            nothing_is_left(host)

    def test_what_a_killed_run_left_is_removed(self, system: str) -> None:
        with Host(system) as host:
            set_up(host)
            host.write("/root/old.xml", OLD)
            host.sh(
                "truncate -s 1M /var/lib/libvirt/images/kvmhost-check-old.img;"
                " virsh -c qemu:///system create /root/old.xml"
            )
            assert "kvmhost-check-old" in host.run(["virsh", "list"]).stdout
            self.check(host, accelerator="tcg")
            assert "kvmhost-check-old" not in host.run(["virsh", "list", "--all"]).stdout

    def test_a_killed_run_leaves_no_guest(self, system: str) -> None:
        with Host(system) as host:
            set_up(host)
            host.sh(qemu("if ours: rewrite(0, bytes(512))"))
            host.sh(
                "nohup kvmhost check /root/section.yaml >/dev/null 2>&1 & echo $! >/run/check.pid"
            )
            host.sh(
                "until ls /run/libvirt/qemu/kvmhost-check-*.xml 2>/dev/null; do sleep 0.05; done",
                timeout=30,
            )
            host.sh("kill -KILL $(cat /run/check.pid)")
            deadline = time.monotonic() + 10
            while "kvmhost-check" in host.run(["virsh", "list", "--all"]).stdout:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            host.sh(QEMU_BACK)
            self.check(host, accelerator="tcg")

    def test_an_interrupted_check_leaves_no_file(self, system: str) -> None:
        with Host(system) as host:
            set_up(host)
            host.sh(qemu("if ours: rewrite(0, bytes(512))"))
            host.python(INTERRUPTED)
            nothing_is_left(host)

    def test_two_at_a_time_take_turns(self, system: str) -> None:
        with Host(system) as host:
            set_up(host)
            one = "kvmhost check --json /root/section.yaml >/run/{0} 2>&1 & {0}=$!; "
            host.sh(one.format("a") + one.format("b") + "wait $a && wait $b")
            for name in "ab":
                assert json.loads(host.read(f"/run/{name}"))["check"]["accelerator"] == "tcg"
            nothing_is_left(host)

    @pytest.mark.parametrize(
        "place", ["mkdir -m 711 /srv/i; ln -s /srv/i /var/lib/libvirt/images", "true"]
    )
    def test_the_directory_of_disks_is_elsewhere(self, system: str, place: str) -> None:
        """A link to it; or there is none, where the storage driver, which has it, is not installed."""
        with Host(system) as host:
            set_up(host)
            host.sh(f"rmdir /var/lib/libvirt/images; {place}")
            self.check(host, accelerator="tcg")
            assert host.sh("ls /srv").stdout.split() == (["i"] if "mkdir" in place else [])
            assert host.sh("ls -A /srv/i 2>/dev/null || true").stdout == ""

    def test_a_host_that_leaves_the_owners_of_files_alone(self, system: str) -> None:
        with Host(system) as host:
            set_up(host)
            host.sh("echo 'dynamic_ownership = 0' >>/etc/libvirt/qemu.conf")
            host.sh(f"systemctl stop {DAEMON[system]}.service")
            self.check(host, accelerator="tcg")

    def test_the_other_mode(self, system: str) -> None:
        other = expect.OTHER[expect.MODE_OF[system]]
        with Host(system) as host:
            set_up(host, {"libvirt": {"mode": other}})
            assert self.check(host, level="guest")["mode"] == other

    def test_the_guest_for_aarch64(self, system: str) -> None:
        """As on a machine of that architecture, but by TCG: libvirt starts whatever QEMU it has a guest for."""
        with Host(system, layers=[packages.layer(system, "qemu-system-arm")]) as host:
            set_up(host)
            host.write("/root/aarch64", AARCH64, 0o755)
            done = host.run(["/root/aarch64", "check", "--json", "/root/section.yaml"], check=False)
            report = report_of(done)
            assert done.returncode == 0, report["errors"]
            check = report["check"]
            assert (check["level"], check["accelerator"]) == ("guest", "tcg")
            nothing_is_left(host)

    def test_some_drivers_only(self, system: str) -> None:
        with Host(system) as host:
            set_up(host, {"libvirt": {"mode": "modular", "drivers": ["qemu"]}})
            warnings = self.check(host, level="guest", accelerator="tcg")["warnings"]
            # virt-host-validate finds what this machine lacks: vhost_net, an IOMMU, secure guests.
            assert [each for each in warnings if not each.startswith("virt-host-validate: ")] == []
            storage = {"libvirt": {"mode": "modular", "drivers": ["storage"]}, "kvm": "ignore"}
            host.write("/root/section.yaml", expect.user_data(storage, checked=True))
            report = report_of(host.run(["kvmhost", "apply", "--json", "/root/section.yaml"]))
            assert report["check"]["level"] == "daemons" and report["check"]["accelerator"] is None
            (warning,) = report["warnings"]
            assert "kvmhost.libvirt.drivers has no qemu" in warning
            storage["check"] = "guest"
            host.write("/root/section.yaml", expect.user_data(storage, checked=True))
            done = run(host, "apply", "/root/section.yaml")
            assert done.returncode == 1 and "guest is not possible" in done.stderr

    def test_without_the_binding_daemons_are_pinged(self, system: str) -> None:
        with Host(system) as host:
            set_up(host)
            host.sh("rm /usr/lib/python3/dist-packages/libvirt.py")
            warnings = self.check(host, level="daemons")["warnings"]
            assert any("install python3-libvirt" in warning for warning in warnings)
            daemon = DAEMON[system]
            host.sh(f"systemctl kill --signal=STOP --kill-who=main {daemon}.service")
            done = run(host, "check", "--json", "/root/section.yaml")
            assert done.returncode == 1
            assert f"{daemon}.service: does not answer within" in report_of(done)["errors"][0]

    @pytest.mark.parametrize("level", ["sockets", "daemons", "guest"])
    def test_each_level_by_name(self, system: str, level: str) -> None:
        with Host(system) as host:
            set_up(host)
            done = run(host, "check", "--json", "--level", level, "/root/section.yaml", seconds=30)
            report = report_of(done)
            assert done.returncode == 0, report["errors"]
            assert report["check"]["level"] == level and report["check"]["passed"]
            # Here it misses control groups and devices.
            assert any(each.startswith("virt-host-validate: ") for each in report["warnings"])
            ran = host.sh("ls /var/cache/libvirt/qemu/capabilities/*.xml", check=False).returncode
            assert (ran == 0) == (level == "guest")
            nothing_is_left(host)


#: kvmhost on a machine that says it is of the other architecture.
AARCH64 = """#!/usr/bin/python3
import sys
from cc_kvmhost import cli
from cc_kvmhost.virt import level
level.means = lambda: level.Means("aarch64", True)
sys.exit(cli.main(sys.argv[1:]))
"""

#: What QEMU might do by itself where KVM fails it.
FALL_BACK = """
if ours: sys.argv = ["tcg" if a == "kvm" else "max" if a.startswith("host,") else a for a in sys.argv]
"""

#: Ctrl-C while the guest runs.
INTERRUPTED = """
import glob, signal, subprocess, time
check = subprocess.Popen(
    ["kvmhost", "check", "/root/section.yaml"],
    stderr=subprocess.DEVNULL,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
)
while not glob.glob("/run/libvirt/qemu/kvmhost-check-*.xml"):
    time.sleep(0.02)
check.send_signal(signal.SIGINT)
assert check.wait(20)
"""

OLD = """<domain type="qemu">
  <name>kvmhost-check-old</name><memory unit="MiB">64</memory>
  <os><type arch="x86_64" machine="q35">hvm</type></os>
  <devices><disk type="file" device="disk"><driver name="qemu" type="raw"/>
    <source file="/var/lib/libvirt/images/kvmhost-check-old.img"/><target dev="vda" bus="virtio"/>
  </disk></devices>
</domain>
"""


@pytest.fixture(params=SYSTEMS)
def mute(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host on whose first boot the guest never writes."""
    script = (QEMU + ".wrapper", WRAPPER.replace("{}", "if ours: rewrite(0, bytes(512))"))
    with Host(
        request.param, user_data=expect.user_data({}, checked=True), files=dict([script])
    ) as host:
        host.chroot(
            ["sh", "-c", f"mv {QEMU} {QEMU}.real; mv {QEMU}.wrapper {QEMU}; chmod 755 {QEMU}"]
        )
        yield host


def test_a_first_boot_whose_check_fails_goes_on_and_keeps_its_changes(mute: Host) -> None:
    mute.boot(timeout=120)
    report = mute.report()
    assert report["result"] == "failed" and report["changes_kept"]
    assert report["changed"] and "not done within 60 s" in report["errors"][0]
    assert 60000 < report["check"]["milliseconds"] < 75000
    status = mute.cloud_init_status()
    assert status["status"] == "error" and "kvmhost" in str(status["errors"])
    nothing_is_left(mute)
    expect.mode_is(mute, expect.MODE_OF[mute.system])
