"""Every start state reaches every mode, and stays there."""

from __future__ import annotations

import json

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")
MODES = ("modular", "monolithic")

ALL_OFF = """
for unit in /usr/lib/systemd/system/virt*d.service /usr/lib/systemd/system/virt*d*.socket \
            /usr/lib/systemd/system/libvirtd*.s*; do
    name=${unit##*/}
    find /etc/systemd/system -name "$name" -delete
done
"""
MODULAR = "systemctl enable virt{qemu,network,storage,nodedev,secret,interface,nwfilter}d.service virtproxyd.socket\n"
MODULAR += "systemctl enable virt{qemu,network,storage,nodedev,secret,interface,nwfilter,proxy}d{,-ro,-admin}.socket\n"
MONOLITHIC = "systemctl enable libvirtd.service libvirtd{,-ro,-admin}.socket virtlogd.socket virtlockd.socket\n"
MASK = {
    "modular": "systemctl mask $(cd /usr/lib/systemd/system; ls virt*d.s* virt*d-*.s* | grep -v virtlo)\n",
    "monolithic": "systemctl mask $(cd /usr/lib/systemd/system; ls libvirtd*.s*)\n",
}
#: Only the -ro and -admin sockets: systemctl would not make these links alone, because of Also=.
SIDE_DOORS = """
cd /etc/systemd/system; mkdir -p sockets.target.wants
for name in virtqemud virtnetworkd virtproxyd libvirtd; do for kind in ro admin; do
    ln -s /usr/lib/systemd/system/$name-$kind.socket sockets.target.wants/
done; done
"""


def start_states(wanted: str) -> dict[str, str]:
    other = expect.OTHER[wanted]
    return {
        "nothing-enabled": ALL_OFF,
        "preset": "",
        "modular-runs": ALL_OFF + MODULAR,
        "libvirtd-runs": ALL_OFF + MONOLITHIC,
        "both-enabled": MODULAR + MONOLITHIC,
        "wanted-masked": ALL_OFF + MASK[wanted],
        "other-masked": ALL_OFF + MASK[other],
        "side-doors": ALL_OFF + SIDE_DOORS,
        "tls-enabled": ALL_OFF + MONOLITHIC + "systemctl enable libvirtd-tls.socket\n",
    }


def shared_daemons(host: Host) -> str:
    """The processes and sockets of virtlogd and virtlockd: if the text is the same, so are they."""
    properties = "Id,MainPID,ActiveEnterTimestampMonotonic,ActiveState"
    units = [
        f"{name}.{kind}" for name in ("virtlogd", "virtlockd") for kind in ("service", "socket")
    ]
    return host.run(["systemctl", "show", "-p", properties, *units]).stdout


def run(host: Host, mode: str, **more: object) -> dict[str, object]:
    host.write("/root/section.yaml", expect.user_data({"libvirt": {"mode": mode, **more}}))
    done = host.run(["kvmhost", "apply", "--json", "/root/section.yaml"], check=False)
    report: dict[str, object] = json.loads(done.stdout)
    if report["result"] != "ok":
        print(host.run(["journalctl", "-b", "-n", "200", "-o", "short-precise"]).stdout)
    assert (done.returncode, report["result"], report["errors"]) == (0, "ok", [])
    return report


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("wanted", MODES)
@pytest.mark.parametrize("state", sorted(start_states("modular")))
def test_every_start_state_reaches_every_mode(system: str, state: str, wanted: str) -> None:
    with Host(system) as host:
        host.chroot(["bash", "-euc", start_states(wanted)[state] or "true"])
        host.boot()
        host.run(["systemctl", "start", "virtlogd.service", "virtlockd.service"])
        before = shared_daemons(host)
        run(host, wanted)
        expect.mode_is(host, wanted)
        assert shared_daemons(host) == before
        assert run(host, wanted)["changed"] == []
        host.reboot()
        expect.mode_is(host, wanted)
        assert run(host, wanted)["changed"] == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_back_and_forth_ten_times_ends_where_it_began(system: str) -> None:
    with Host(system) as host:
        host.boot()
        host.run(["systemctl", "start", "virtlogd.service", "virtlockd.service"])
        shared = shared_daemons(host)
        run(host, "modular")
        began = host.sh("find /etc/systemd/system -type l -printf '%p %l\\n' | sort").stdout
        for _ in range(10):
            run(host, "monolithic")
            expect.mode_is(host, "monolithic")
            run(host, "modular")
            expect.mode_is(host, "modular")
        assert host.sh("find /etc/systemd/system -type l -printf '%p %l\\n' | sort").stdout == began
        assert shared_daemons(host) == shared


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_reload_of_somebody_in_the_middle_leaves_no_socket_behind(system: str) -> None:
    """A socket that systemd knows as masked stops without removing its path, and clients try it."""
    with Host(system) as host:
        host.boot()
        run(host, "modular")
        sockets = " ".join(expect.wanted_sockets("modular"))
        # A run between whose masks and stop jobs somebody reloads systemd.
        host.sh(f"systemctl mask {sockets} 2>&1; systemctl daemon-reload")
        run(host, "monolithic")
        expect.mode_is(host, "monolithic")
        assert not host.exists("/run/libvirt/virtqemud-sock")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("wanted", MODES)
def test_a_reexecution_in_the_middle_leaves_the_path_that_both_modes_own(
    system: str, wanted: str
) -> None:
    """systemd gives a listening socket whose unit is masked to another unit with the same path."""
    owner = {"modular": "virtproxyd", "monolithic": "libvirtd"}
    other = expect.OTHER[wanted]
    with Host(system) as host:
        host.boot()
        run(host, other)
        names = "{0}.socket {0}-ro.socket {0}-admin.socket"
        host.sh(
            # A run between whose masks and stop jobs systemd re-executes.
            f"systemctl --no-reload unmask {names.format(owner[wanted])} 2>&1;"
            f"systemctl --no-reload enable {names.format(owner[wanted])} 2>&1;"
            f"systemctl --no-reload mask {names.format(owner[other])} 2>&1;"
            "systemctl daemon-reexec"
        )
        assert host.units("*")[owner[wanted] + ".socket"].active == "active", "it was not overtaken"
        run(host, wanted)
        expect.mode_is(host, wanted)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_stop_job_that_gives_way_to_a_start_job_is_queued_again(system: str) -> None:
    """As if a client asked for libvirtd while it stops; and its sockets' jobs do when systemd
    itself is just starting it once more (Restart=)."""
    once = "test -e /run/once || { touch /run/once; systemctl start --no-block libvirtd; sleep 1; }"
    path = "/etc/systemd/system/libvirtd.service.d/stop.conf"
    with Host(system, files={path: f"[Service]\nExecStop=/bin/sh -c '{once}'\n"}) as host:
        host.boot()
        run(host, "monolithic")
        host.run(["systemctl", "start", "libvirtd.service"])
        run(host, "modular")
        assert host.exists("/run/once")
        expect.mode_is(host, "modular")


ALONG = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_an_administrator_turned_off_stays_off(system: str) -> None:
    """Enabling a unit again would enable what its Also= names."""
    files = {
        "/usr/lib/systemd/system/along.service": ALONG + "Also=taken.service\n",
        "/usr/lib/systemd/system/taken.service": ALONG,
    }
    with Host(system, files=files) as host:
        host.boot()
        for mode in (expect.MODE_OF[system], expect.OTHER[expect.MODE_OF[system]]):
            section = {"libvirt": {"mode": mode}, "units": ["along.service"]}
            host.write("/root/section.yaml", expect.user_data(section))
            host.run(["kvmhost", "apply", "/root/section.yaml"])
            host.run(["systemctl", "disable", "taken.service"])
        host.write("/root/section.yaml", expect.user_data({"units": ["along.service"]}))
        host.run(["kvmhost", "apply", "/root/section.yaml"])
        assert host.units("along.service")["along.service"].file_state == "enabled"
        assert host.units("taken.service")["taken.service"].file_state == "disabled"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_driver_that_is_installed_later_stays_masked(system: str) -> None:
    """Its package presets it, and its socket would win against libvirtd's at the next boot."""
    with Host(system) as host:
        host.chroot(
            [
                "bash",
                "-euc",
                ALL_OFF + "mkdir /root/package; cd /usr/lib/systemd/system;"
                " mv virtinterfaced* virtproxyd* /root/package/",
            ]
        )
        host.boot()
        assert run(host, "monolithic")["changed"]
        assert run(host, "monolithic")["changed"] == []
        host.sh(
            "mv /root/package/* /usr/lib/systemd/system/; systemctl daemon-reload;"
            " systemctl preset virtinterfaced.socket virtproxyd.socket 2>&1 || true"
        )
        host.reboot()
        expect.mode_is(host, "monolithic")
        assert run(host, "monolithic")["changed"] == []
        run(host, "modular")
        expect.mode_is(host, "modular")
        # Masks of units that are not installed are removed with the mode, too.
        run(host, "monolithic")
        host.sh("rm /usr/lib/systemd/system/virtinterfaced*; systemctl daemon-reload")
        run(host, "modular")
        assert not host.units("virtinterfaced*")


TINY = """<domain type='qemu'><name>tiny</name><memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><console type='pty'/></devices></domain>"""


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("wanted", MODES)
def test_guests_are_sacred(system: str, wanted: str) -> None:
    with Host(system, files={"/root/tiny.xml": TINY}) as host:
        host.boot()
        run(host, expect.OTHER[wanted])
        host.run(["virsh", "define", "/root/tiny.xml"])
        host.run(["virsh", "start", "tiny"])
        qemu = host.run(["cat", "/run/libvirt/qemu/tiny.pid"]).stdout
        shared = shared_daemons(host)
        before = host.units("*")

        host.write("/root/section.yaml", expect.user_data({"libvirt": {"mode": wanted}}))
        status, methods = expect.calls_during(host, ["kvmhost", "apply", "/root/section.yaml"])
        refusal = host.read("/tmp/out")
        assert status == 1
        assert "tiny" in refusal
        assert "--force" in refusal
        assert not set(methods).intersection(expect.CHANGING), methods
        assert host.units("*") == before
        expect.mode_is(host, expect.OTHER[wanted])

        host.run(["kvmhost", "apply", "--force", "/root/section.yaml"])
        expect.mode_is(host, wanted)
        assert host.run(["cat", "/run/libvirt/qemu/tiny.pid"]).stdout == qemu
        assert host.run(["virsh", "list", "--name"]).stdout.split() == ["tiny"]
        assert host.run(["ps", "-o", "comm=", "-p", qemu.strip()]).stdout.startswith("qemu")
        assert shared_daemons(host) == shared


DOWN = {
    "stopped": "systemctl stop {daemon}.service 2>&1",
    "killed": "systemctl kill --signal=KILL --kill-who=main {daemon}.service; sleep 0.5;"
    " systemctl stop {daemon}.service 2>&1; systemctl reset-failed",
    "masked": "systemctl stop {daemon}.service 2>&1; systemctl mask {daemon}.service 2>&1",
    "half switched by a run that was killed": "systemctl --no-reload unmask {other}.socket;"
    " systemctl --no-reload enable {other}.socket 2>&1; systemctl --no-reload mask {daemon}.service;"
    " systemctl stop {daemon}.service 2>&1",
}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("wanted", MODES)
@pytest.mark.parametrize("state", sorted(DOWN))
def test_guests_are_sacred_when_their_daemon_is_down(system: str, wanted: str, state: str) -> None:
    daemon, other = ("libvirtd", "virtqemud") if wanted == "modular" else ("virtqemud", "libvirtd")
    with Host(system, files={"/root/tiny.xml": TINY}) as host:
        host.boot()
        run(host, expect.OTHER[wanted])
        host.run(["virsh", "create", "/root/tiny.xml"])
        qemu = host.run(["cat", "/run/libvirt/qemu/tiny.pid"]).stdout.strip()
        host.sh(DOWN[state].format(daemon=daemon, other=other))
        assert not expect.active(host, f"{daemon}.service")
        assert host.run(["ps", "-o", "comm=", "-p", qemu]).stdout.startswith("qemu")

        host.write("/root/section.yaml", expect.user_data({"libvirt": {"mode": wanted}}))
        status, methods = expect.calls_during(host, ["kvmhost", "apply", "/root/section.yaml"])
        refusal = host.read("/tmp/out")
        assert status == 1, refusal
        assert "tiny" in refusal and f"{daemon}.service" in refusal and "--force" in refusal
        assert not set(methods).intersection(expect.CHANGING), methods
        # The guests' own mode can be repaired; if both modes are half set up, with --force.
        section = expect.user_data({"libvirt": {"mode": expect.OTHER[wanted]}})
        host.write("/root/section.yaml", section)
        force = ["--force"] if state.startswith("half") else []
        host.run(["kvmhost", "apply", *force, "/root/section.yaml"])
        expect.mode_is(host, expect.OTHER[wanted])
        assert host.run(["virsh", "list", "--name"]).stdout.split() == ["tiny"]
        assert host.run(["ps", "-o", "comm=", "-p", qemu]).stdout.startswith("qemu")

        # By force they go on under the other daemon.
        host.sh(DOWN[state].format(daemon=daemon, other=other))
        host.write("/root/section.yaml", expect.user_data({"libvirt": {"mode": wanted}}))
        host.run(["kvmhost", "apply", "--force", "/root/section.yaml"])
        expect.mode_is(host, wanted)
        assert host.run(["virsh", "list", "--name"]).stdout.split() == ["tiny"]
        assert host.run(["ps", "-o", "comm=", "-p", qemu]).stdout.startswith("qemu")
