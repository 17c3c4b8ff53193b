"""A failure puts things back: fault by fault, on real hosts."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any, NamedTuple

import pytest

import expect
import test_switching
from host import Host
from test_bad_input import everything

SYSTEMS = ("el9", "el10")


def installable(service: str, unit: str = "") -> str:
    return f"[Unit]\n{unit}\n[Service]\n{service}\n[Install]\nWantedBy=multi-user.target\n"


DIR = "/etc/systemd/system"
FILES = {
    f"{DIR}/fails.service": installable("Type=oneshot\nExecStart=sh -c 'exit 7'"),
    f"{DIR}/unbound.socket": "[Socket]\nListenStream=/proc/none/here\n[Install]\nWantedBy=sockets.target\n",
    f"{DIR}/unbound.service": "[Service]\nExecStart=sleep infinity\n",
    f"{DIR}/lacks.service": installable(
        "ExecStart=sleep infinity", "Requires=no-such.service\nAfter=no-such.service"
    ),
    f"{DIR}/hangs.service": installable(
        "Type=oneshot\nExecStart=sleep infinity\nTimeoutStartSec=infinity"
    ),
    f"{DIR}/along.service": installable("ExecStart=sleep infinity")
    + "Also=taken.service\nAlias=also-along.service\n",
    f"{DIR}/taken.service": installable("ExecStart=sleep infinity"),
    f"{DIR}/along@.service": installable("ExecStart=sleep infinity")
    + "Also=taken@two.service taken.service\nDefaultInstance=one\nAlias=also-along@.service\n",
    f"{DIR}/taken@.service": installable("ExecStart=sleep infinity"),
    f"{DIR}/clashes.service": installable("ExecStart=sleep infinity") + "Alias=theirs.service\n",
    f"{DIR}/theirs.service": installable("ExecStart=sleep infinity"),
    f"{DIR}/held.socket": "[Socket]\nListenStream=/run/held\n[Install]\nWantedBy=sockets.target\n",
    f"{DIR}/held.service": "[Service]\nExecStart=sleep infinity\n",
    f"{DIR}/reexec.service": installable("Type=oneshot\nExecStart=systemctl daemon-reexec"),
}


class Fault(NamedTuple):
    """``break_``, ``mend``: shell, before and after the run. ``words``: what the errors must say.

    ``start``: the state that the host starts from, or "" for the other mode, enabled and running.
    """

    section: dict[str, Any]
    words: list[str]
    break_: str = ":"
    mend: str = ":"
    start: str = ""


FAULTS = {
    "a service's program fails": Fault(
        {"units": ["fails.service"]},
        [
            "start fails.service: job result failed",
            "exit status 7",
            "journalctl -u fails.service -b",
        ],
    ),
    "a required daemon's program fails": Fault(
        {"libvirt": {"mode": "monolithic"}},
        [
            "start libvirtd.service: job result failed",
            "exit status 1",
            "journalctl -u libvirtd.service -b",
        ],
        f"mkdir -p {DIR}/libvirtd.service.d; printf '[Service]\\nExecStart=\\nExecStart=false\\nRestart=no\\n'"
        f" >{DIR}/libvirtd.service.d/bad.conf; systemctl daemon-reload",
        f"rm -r {DIR}/libvirtd.service.d; systemctl daemon-reload",
    ),
    "a unit takes others along": Fault(
        {"units": ["along.service", "fails.service"]}, ["start fails.service: job result failed"]
    ),
    "an instance of a template takes others along": Fault(
        {"units": ["along@one.service", "fails.service"]},
        ["start fails.service: job result failed"],
        # The slice that it pulls in goes on running.
        "systemctl start along@two.service",
    ),
    "systemd enables some units only": Fault(
        {"units": ["along.service", "along@one.service", "clashes.service"]},
        ["EnableUnitFiles", "theirs.service"],
    ),
    "units are enabled until the next reboot": Fault(
        {"units": ["fails.service"]},
        ["start fails.service: job result failed"],
        "systemctl enable --runtime libvirtd-tcp.socket virtproxyd-tcp.socket",
    ),
    "a socket's service runs already": Fault(
        {"units": ["along.service", "held.socket"]},
        ["kvmhost.units[1]: held.socket can't start while held.service runs"],
        "systemctl start held.service",
        "systemctl stop held.service",
    ),
    "a socket can't be bound": Fault(
        {"units": ["unbound.socket"]},
        ["start unbound.socket: job result failed", "resources", "journalctl -u unbound.socket -b"],
    ),
    "a required socket can't be bound": Fault(
        {"libvirt": {"mode": "modular"}},
        ["start virtsecretd.socket: job result failed", "journalctl -u virtsecretd.socket -b"],
        f"mkdir -p {DIR}/virtsecretd.socket.d; printf '[Socket]\\nListenStream=\\nListenStream=/proc/none/x\\n'"
        f" >{DIR}/virtsecretd.socket.d/bad.conf; systemctl daemon-reload",
        f"rm -r {DIR}/virtsecretd.socket.d; systemctl daemon-reload",
    ),
    "a unit lacks what it requires": Fault(
        {"units": ["lacks.service"]}, ["lacks.service", "no-such.service"]
    ),
    "a required unit is masked in /run": Fault(
        {"libvirt": {"mode": "modular"}},
        ["virtnodedevd.socket is masked in /run", "systemctl unmask --runtime virtnodedevd.socket"],
        "systemctl mask --runtime virtnodedevd.socket",
        "systemctl unmask --runtime virtnodedevd.socket",
    ),
    "a unit is masked": Fault(
        {"units": ["extra.service"]},
        ["kvmhost.units[0]: extra.service is masked", "systemctl unmask extra.service"],
        "systemctl mask extra.service",
        "systemctl unmask extra.service",
    ),
    "a start hangs": Fault(
        {"units": ["hangs.service"], "timeout": 3},
        [
            "start hangs.service: job result timeout",
            "3 s of kvmhost.timeout",
            "journalctl -u hangs.service -b",
        ],
        # A unit that libvirtd pulled in goes on running.
        "systemctl start systemd-machined.service",
        # Without libvirtd running, because it sometimes takes 30 s to stop.
        start="nothing-enabled",
    ),
    "a stop takes longer than the timeout": Fault(
        {"libvirt": {"mode": "modular"}, "timeout": 3},
        ["stop libvirtd.service: job result timeout", "journalctl -u libvirtd.service -b"],
        f"mkdir -p {DIR}/libvirtd.service.d; printf '[Service]\\nExecStop=sleep 8\\n'"
        f" >{DIR}/libvirtd.service.d/slow.conf; systemctl daemon-reload; systemctl start libvirtd",
        f"rm -r {DIR}/libvirtd.service.d; systemctl daemon-reload",
    ),
    "/etc is read-only": Fault(
        {},
        ["Read-only file system"],
        "mount --bind /etc /etc; mount -o remount,bind,ro /etc",
        "umount /etc",
    ),
    "a unit file of the administrator's stands where a mask must": Fault(
        {"libvirt": {"mode": "modular"}},
        ["/etc/systemd/system/libvirtd.service is a unit file of this host's own"],
        f"cp /usr/lib/systemd/system/libvirtd.service {DIR}/; systemctl daemon-reload",
        f"rm {DIR}/libvirtd.service; systemctl daemon-reload",
    ),
    "tuned is not installed": Fault(
        {},
        [
            "kvmhost.tuned: tuned.service is not installed",
            "install tuned",
            "kvmhost.tuned.enabled: false",
        ],
        "systemctl stop tuned; rm -f /etc/systemd/system/multi-user.target.wants/tuned.service;"
        " f=$(readlink -f /usr/lib/systemd/system/tuned.service); mv $f /root/tuned.service; systemctl daemon-reload",
    ),
    "tuned fails": Fault(
        {},
        ["start tuned.service: job result failed", "journalctl -u tuned.service -b"],
        f"systemctl stop tuned; mkdir -p {DIR}/tuned.service.d; printf '[Service]\\nExecStart=\\nExecStart=false\\n'"
        f" >{DIR}/tuned.service.d/bad.conf; systemctl daemon-reload",
        f"rm -r {DIR}/tuned.service.d; systemctl daemon-reload",
    ),
    "tuned takes longer than the timeout": Fault(
        {"timeout": 3},
        ["start tuned.service: job result timeout", "3 s of kvmhost.timeout"],
        f"systemctl stop tuned; mkdir -p {DIR}/tuned.service.d; printf '[Service]\\nExecStartPre=sleep 20\\n'"
        f" >{DIR}/tuned.service.d/slow.conf; systemctl daemon-reload; systemctl start systemd-machined",
        f"rm -r {DIR}/tuned.service.d; systemctl daemon-reload",
        start="nothing-enabled",
    ),
    "tuned's profile is broken": Fault(
        {"tuned": {"profile": "broken"}},
        ["kvmhost.tuned.profile", "broken"],
        "mkdir -p /etc/tuned/broken; printf '[main]\\ninclude=no-such-profile\\n' >/etc/tuned/broken/tuned.conf",
    ),
    "the profile is missing": Fault(
        {"tuned": {"profile": "vanished"}}, ["no profile 'vanished'", "virtual-host"]
    ),
    "certificates are missing": Fault(
        {"libvirt": {"tls": True}}, ["/etc/pki/CA/cacert.pem", "kvmhost.libvirt.tls"]
    ),
}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_failed_run_leaves_the_host_as_it_was(system: str, name: str) -> None:
    fault = FAULTS[name]
    extra = {"/usr/lib/systemd/system/extra.service": installable("ExecStart=sleep infinity")}
    with Host(system, files={**FILES, **extra}) as host:
        # The run switches modes, so that every kind of change has begun when the fault strikes.
        mode = fault.section.get("libvirt", {}).get("mode") or expect.MODE_OF[system]
        other = "libvirtd-runs" if mode == "modular" else "modular-runs"
        start = test_switching.start_states(mode)[fault.start or other]
        host.chroot(["bash", "-euc", start])
        host.boot()
        host.sh(fault.break_)
        before = everything(host)
        host.write("/root/section.yaml", expect.user_data(fault.section))
        started = time.monotonic()
        done = host.run(["kvmhost", "apply", "--json", "/root/section.yaml"], check=False)
        took = time.monotonic() - started
        assert done.returncode == 1, done.stdout
        report = json.loads(done.stdout)
        journal = host.run(
            ["journalctl", "-b", "-n", "80", "-o", "short-precise", "--no-pager"]
        ).stdout
        assert took < fault.section.get("timeout", 20) + 60, (
            report["steps"],
            report["errors"],
            journal,
        )
        assert report["result"] == "failed"
        assert report["changed"] == []
        for word in fault.words:
            assert word in " ".join(report["errors"]), report["errors"]
        assert "putting things back" not in " ".join(report["errors"]), report["errors"]
        assert everything(host) == before, report["errors"]
        assert host.report() == report

        # On the same host without the fault, the run succeeds.
        host.sh(fault.mend)
        if fault.mend != ":":
            test_switching.run(host, mode)
            expect.mode_is(host, mode)


@pytest.mark.parametrize("system", SYSTEMS)
def test_systemd_may_execute_itself_again_in_the_middle(system: str) -> None:
    with Host(system, files=FILES) as host:
        host.boot()
        for mode in ("modular", "monolithic"):
            host.write(
                "/root/section.yaml",
                expect.user_data({"libvirt": {"mode": mode}, "units": ["reexec.service"]}),
            )
            done = host.run(["kvmhost", "apply", "/root/section.yaml"], check=False)
            assert done.returncode == 0, done.stderr
            assert host.report()["result"] == "ok"
            expect.mode_is(host, mode)
        # And while it does so all the time.
        host.sh(
            "(while sleep 0.3; do systemctl daemon-reexec; done) >/dev/null 2>&1 & echo $! >/run/loop"
        )
        try:
            test_switching.run(host, "modular")
            test_switching.run(host, "monolithic")
        finally:
            host.sh("kill $(cat /run/loop)")
        time.sleep(1)
        expect.mode_is(host, "monolithic")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_report_that_cant_be_written_is_no_failure(system: str) -> None:
    with Host(system) as host:
        host.boot()
        host.sh("mkdir -p /run/kvmhost; mount -t tmpfs -o size=16k none /run/kvmhost")
        host.sh("dd if=/dev/zero of=/run/kvmhost/full bs=1k 2>/dev/null || true")
        host.write("/root/section.yaml", expect.user_data({}))
        done = host.run(["kvmhost", "apply", "/root/section.yaml"])
        assert "/run/kvmhost/report.json can't be written: No space left on device" in done.stderr
        expect.mode_is(host, expect.MODE_OF[system])
        assert host.sh("ls /run/kvmhost").stdout.split() == ["full", "lock"]


MUTE_BUS = """
import socket, time
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/dbus/system_bus_socket")
listener.listen(8)
time.sleep(3600)
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_an_answer_the_result_is_clear_and_in_time(system: str) -> None:
    def fails_in_time(words: str) -> None:
        started = time.monotonic()
        done = host.run(["kvmhost", "apply", "/root/section.yaml"], check=False)
        took = time.monotonic() - started
        assert done.returncode == 1
        assert words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        # libsystemd alone would wait for 90 s. A machine under load takes seconds to start Python.
        assert took < 3 + 15, took

    with Host(system, files={"/root/bus.py": MUTE_BUS}) as host:
        host.boot()
        links = host.sh("find /etc/systemd/system -type l -printf '%p %l\\n' | sort").stdout
        host.write("/root/section.yaml", expect.user_data({"timeout": 3}))
        os.kill(host.leader, signal.SIGSTOP)
        try:
            fails_in_time("systemd did not do what it was asked")
        finally:
            os.kill(host.leader, signal.SIGCONT)
        host.sh(
            "systemctl stop dbus.socket dbus.service 2>/dev/null || true; rm -f /run/dbus/system_bus_socket"
        )
        fails_in_time("the system bus (/run/dbus/system_bus_socket): No such file or directory")
        host.sh("python3 /root/bus.py >/dev/null 2>&1 & sleep 0.5")
        fails_in_time("the system bus (/run/dbus/system_bus_socket): did not answer within 3 s")
        assert host.sh("find /etc/systemd/system -type l -printf '%p %l\\n' | sort").stdout == links


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_systemd_the_run_is_skipped_and_says_so(system: str) -> None:
    with Host(system) as host:
        host.write("/root/section.yaml", expect.user_data({}))
        # Its /run is gone with it.
        script = "kvmhost apply --json /root/section.yaml; cp /run/kvmhost/report.json /root/"
        done = host.chroot(["sh", "-euc", script])
        report = json.loads(done.stdout)
        assert (report["result"], report["mode"], report["changed"]) == ("skipped", None, [])
        assert "no systemd runs here" in report["reason"]
        assert json.loads(host.read("/root/report.json")) == report


@pytest.mark.parametrize("system", SYSTEMS)
def test_everybody_can_read_what_a_run_leaves_whatever_its_umask(system: str) -> None:
    with Host(system) as host:
        host.boot()
        test_switching.run(host, expect.OTHER[expect.MODE_OF[system]])
        host.sh("rm -r /run/kvmhost")
        host.write("/root/section.yaml", expect.user_data({}))
        host.sh("umask 077; kvmhost apply /root/section.yaml")
        host.run(["setpriv", "--reuid=65534", "--clear-groups", "cat", "/run/kvmhost/report.json"])
        assert host.run(["stat", "-c", "%a", "/run/kvmhost/lock"]).stdout.strip() == "600"
        # And what a failed run puts back: a directory that systemd removed with its last link.
        daemon = "virtproxyd" if expect.MODE_OF[system] == "modular" else "libvirtd"
        host.sh(
            f"systemctl enable --runtime {daemon}-tcp.socket 2>&1;"
            "stat -c '%a %n' $(find /etc/systemd/system /run/systemd/system -type d) >/root/before"
        )
        host.write("/etc/systemd/system/fails.service", FILES[f"{DIR}/fails.service"])
        host.write("/root/section.yaml", expect.user_data({"units": ["fails.service"]}))
        host.sh("umask 077; kvmhost apply /root/section.yaml", check=False)
        host.sh(
            "stat -c '%a %n' $(find /etc/systemd/system /run/systemd/system -type d) >/root/after"
        )
        assert host.read("/root/after") == host.read("/root/before")


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_bus_dies_in_the_middle(system: str) -> None:
    kills = installable(
        "Type=oneshot\nExecStart=sh -c 'systemctl kill --signal=KILL dbus.service; sleep 1'\n",
    )
    with Host(system, files={f"{DIR}/kills-bus.service": kills}) as host:
        mode = expect.MODE_OF[system]
        host.boot()
        test_switching.run(host, expect.OTHER[mode])
        links = host.sh("find /etc/systemd/system -type l -printf '%p %l\\n' | sort").stdout
        host.write(
            "/root/section.yaml", expect.user_data({"units": ["kills-bus.service"], "timeout": 20})
        )
        done = host.run(["kvmhost", "apply", "/root/section.yaml"], check=False, timeout=90)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stderr
        assert host.sh("find /etc/systemd/system -type l -printf '%p %l\\n' | sort").stdout == links
        # Once the bus works again, a run succeeds.
        host.sh("systemctl start dbus.socket; systemctl restart tuned systemd-logind || true")
        test_switching.run(host, mode)
        expect.mode_is(host, mode)


KILLED = """
import os, sys
import yaml
from cc_kvmhost import run
from cc_kvmhost.systemd import manager as systemd
number, calls, original = int(sys.argv[1]), [0], systemd.Manager._call
def call(self, *args, **options):
    calls[0] += 1
    if calls[0] == number:
        os.kill(os.getpid(), 9)
    return original(self, *args, **options)
systemd.Manager._call = call
report = run.apply(yaml.safe_load(open("/root/section.yaml"))["kvmhost"])
sys.exit(1 if report.errors else 0)
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_killed_before_any_call_a_later_run_converges(system: str) -> None:
    with Host(system, files={"/root/killed.py": KILLED}) as host:
        host.boot()
        test_switching.run(host, "modular")
        number, wanted = 1, "monolithic"
        while True:
            host.write("/root/section.yaml", expect.user_data({"libvirt": {"mode": wanted}}))
            done = host.run(["python3", "/root/killed.py", str(number)], check=False)
            if done.returncode == 0:
                break
            assert done.returncode in (-9, 137), done.stderr
            test_switching.run(host, wanted)
            expect.mode_is(host, wanted)
            wanted = expect.OTHER[wanted]
            # Every call until the jobs are queued, then every fourth: they are all of one kind.
            number += 1 if number < 16 else 4
        assert number > 16


@pytest.mark.parametrize("system", SYSTEMS)
def test_two_runs_at_the_same_time_take_turns(system: str) -> None:
    with Host(system) as host:
        host.boot()
        test_switching.run(host, expect.OTHER[expect.MODE_OF[system]])
        host.write("/root/section.yaml", expect.user_data({}))
        host.sh("""
            for n in 1 2 3; do kvmhost apply --json /root/section.yaml >/root/$n.json & done; wait
        """)
        reports = [json.loads(host.read(f"/root/{n}.json")) for n in (1, 2, 3)]
        assert [report["result"] for report in reports] == ["ok"] * 3
        assert sorted(bool(report["changed"]) for report in reports) == [False, False, True]
        expect.mode_is(host, expect.MODE_OF[system])
        # A run that has to wait longer than its timeout says so.
        host.write("/root/section.yaml", expect.user_data({"timeout": 1}))
        done = host.run(
            ["flock", "/run/kvmhost/lock", "kvmhost", "apply", "/root/section.yaml"], check=False
        )
        assert done.returncode == 1
        assert "another kvmhost run is at work" in done.stderr


SET_BACK = """
import sys, time
import yaml
from cc_kvmhost import run
clock = iter(range(10**9, 0, -3600))
time.time = lambda: next(clock)
report = run.apply(yaml.safe_load(open("/root/section.yaml"))["kvmhost"])
assert all(0 <= ms < 60000 for _, ms in report.steps), report.steps
sys.exit(1 if report.errors else 0)
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_clock_set_back_in_the_middle_does_not_matter(system: str) -> None:
    # A container may not set the clock. So only the process sees it go back, by an hour each time it looks.
    with Host(system, files={"/root/set-back.py": SET_BACK}) as host:
        host.boot()
        host.write("/root/section.yaml", expect.user_data({}))
        host.run(["python3", "/root/set-back.py"])
        expect.mode_is(host, expect.MODE_OF[system])
