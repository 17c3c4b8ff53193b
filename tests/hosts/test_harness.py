"""The test hosts themselves: what every other host test relies on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import host as host_module
import nspawn
from host import CommandError, Host
from nspawn import HarnessError

GUEST = """
<domain type='qemu'>
  <name>tiny</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
"""


def traces(name: str) -> list[str]:
    """What this machine still has of a host."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{name}*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*.slice/{name}*")]
    found += [str(path) for path in (nspawn.cache() / "hosts").glob(name)]
    found += [str(path) for path in Path("/run/systemd/nspawn").glob(f"*/{name}")]
    return found


def monolithic(host: Host) -> None:
    """Enable libvirtd, and no other mode."""
    host.enable_nothing()
    host.chroot(["systemctl", "--quiet", "enable", "libvirtd.service"])


def modular(host: Host) -> None:
    """The fresh install's own state."""


def test_boots_as_the_system_it_stands_for(system: str) -> None:
    with Host(system, install=False) as host:
        host.write("/tmp/mark", "")  # on the disk: the running host's /tmp is another
        host.boot()
        assert host.read("/proc/1/comm") == "systemd\n"
        assert f'PRETTY_NAME="CentOS Stream {system[2:]}' in host.read("/etc/os-release")
        status = host.cloud_init_status()
        assert status["status"] == "done"
        assert status.get("extended_status", "done") == "done", status
        assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"
        host.sh("touch /tmp/private-to-the-host")
        assert not Path("/tmp/private-to-the-host").exists()
        assert not host.exists("/tmp/mark")


def test_starts_as_a_fresh_install_of_el(system: str) -> None:
    with Host(system, install=False) as host:
        host.boot()
        units = host.units("virt*", "libvirt*", "tuned.service")
        for name in ("virtqemud.socket", "virtproxyd.socket", "virtlogd.socket"):
            assert units[name].file_state == "enabled", name
            assert units[name].active == "active", name
        assert units["tuned.service"] == ("enabled", "active", "running")
        assert {state.file_state for name, state in units.items() if "libvirt" in name} == {
            "disabled"
        }


@pytest.mark.parametrize("mode", [modular, monolithic])
def test_daemons_answer_and_run_a_guest(system: str, mode: Callable[[Host], None]) -> None:
    with Host(system, install=False, files={"/root/guest.xml": GUEST}) as host:
        mode(host)
        host.boot()
        host.sh("virsh --connect qemu:///system list; virsh list")
        daemons = host.units("virtqemud.service", "libvirtd.service")
        assert (daemons["virtqemud.service"].active == "active") == (mode is modular)
        assert (daemons["libvirtd.service"].active == "active") == (mode is monolithic)
        host.sh("virsh define /root/guest.xml; virsh start tiny")
        assert host.sh("virsh domstate tiny").stdout.strip() == "running"
        host.sh("virsh destroy tiny")


@pytest.mark.parametrize("mode", [modular, monolithic])
def test_el10_has_libvirt_12s_key_for_secrets(mode: Callable[[Host], None]) -> None:
    key = "/var/lib/libvirt/secrets/secrets-encryption-key"
    daemon = "virtsecretd" if mode is modular else "libvirtd"
    with Host("el10", install=False) as host:
        mode(host)
        host.boot()
        if mode is modular:
            assert not host.exists(key)
        host.sh("virsh --connect secret:///system secret-list")
        assert host.units("virt-secret-*") == {
            "virt-secret-init-encryption.service": ("static", "inactive", "dead")
        }
        assert host.exists(key)
        host.sh(f"head -c 100 /dev/urandom > {key}; systemctl restart {daemon} || true")
        shown = host.run(["systemctl", "show", "-p", "ExecMainStatus", "--value", daemon])
        assert shown.stdout == "243\n"  # EXIT_CREDENTIALS


def test_reboot_keeps_what_was_written(system: str) -> None:
    with Host(system, install=False) as host:
        host.boot()
        first = (
            host.read("/proc/sys/kernel/random/boot_id"),
            host.leader,
            host.read("/etc/machine-id"),
        )
        host.write("/etc/mark", "kept", 0o600)
        host.write("/run/mark", "lost")
        host.reboot()
        assert host.leader != first[1]
        assert host.read("/etc/machine-id") == first[2]
        assert host.read("/etc/mark") == "kept"
        assert host.sh("stat --format=%a /etc/mark").stdout == "600\n"
        assert not host.exists("/run/mark")


def test_enable_nothing(system: str) -> None:
    with Host(system, install=False) as host:
        host.enable_nothing()
        host.boot()
        states = host.units("virt*", "libvirt*", "tuned.service").values()
        assert "enabled" not in {state.file_state for state in states}
        assert "active" not in {state.active for state in states}


def test_nothing_is_left_after_an_error(system: str) -> None:
    with pytest.raises(ZeroDivisionError), Host(system, install=False) as host:
        host.boot()
        leader = host.leader
        assert traces(host.name)
        raise ZeroDivisionError
    assert not Path(f"/proc/{leader}").exists()
    assert traces(host.name) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_an_interrupted_run(number: signal.Signals) -> None:
    # A shell's background job, and so all that it starts, ignores SIGINT.
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from host import Host\nwith Host('el10', install=False) as host:\n"
    code += (
        "    host.boot()\n    print(host.name, flush=True)\n    host.sh('sleep 1000', timeout=1000)"
    )
    here = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout
        name = run.stdout.readline().strip()
        assert name, run.communicate()[1]
        assert traces(name)
        time.sleep(0.1)
        os.kill(run.pid, number)
        try:
            run.communicate(timeout=60)
        finally:
            run.kill()
    if number == signal.SIGKILL:
        host_module.remove_leftovers.cache_clear()
        host_module.remove_leftovers()
    assert traces(name) == []


def test_a_boot_that_takes_too_long_shows_the_console(system: str) -> None:
    unit = "[Service]\nType=oneshot\nExecStart=sleep infinity\n"
    with Host(system, install=False, files={"/etc/systemd/system/stuck.service": unit}) as host:
        host.chroot(["systemctl", "--quiet", "add-wants", "multi-user.target", "stuck.service"])
        with pytest.raises(HarnessError, match=r"not up after 8 s(.|\n)*Starting stuck.service"):
            host.boot(timeout=8)


def test_a_boot_that_ends_shows_why() -> None:
    with Host("el10", install=False) as host:
        host.chroot(["rm", "/usr/lib/systemd/systemd", "/usr/sbin/init"])
        with pytest.raises(HarnessError, match=r"ended while booting(.|\n)*console"):
            host.boot()


def test_files_and_commands_before_boot() -> None:
    with Host("el9", os_release="ID=fedora\n", install=False) as host:
        assert host.read("/etc/os-release") == "ID=fedora\n"
        host.write("/var/run/../opt/new/file", "text")
        assert host.exists("/opt/new/file")
        with pytest.raises(CommandError, match="exit status 3\nout\nerr\n"):
            host.chroot(["sh", "-c", "echo out; echo err >&2; exit 3"])
        with pytest.raises(HarnessError, match="not running"):
            host.run(["true"])
