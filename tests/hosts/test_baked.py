"""The mode baked into the image: what is left of a first boot, on the bus and on the disk."""

from __future__ import annotations

import json
from typing import Any

import pytest

import expect
import watch
from host import Host

on_both = pytest.mark.parametrize("system", ("el9", "el10"))


def bake(host: Host, section: Any) -> dict[str, Any]:
    """As provision does it, in the image's root; the report."""
    host.write("/root/bake.yaml", expect.user_data(section))
    done = host.chroot(["kvmhost", "apply", "--here", "--json", "/root/bake.yaml"])
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@on_both
def test_the_first_boot_changes_no_unit_file_stops_nothing_and_reloads_nothing(system: str) -> None:
    mode = expect.MODE_OF[system]
    with Host(system, user_data=expect.user_data({}), files=watch.FILES) as host:
        host.chroot(["systemctl", "enable", "watch.service"])
        baked = bake(host, {})
        assert (baked["result"], baked["mode"]) == ("ok", mode), baked
        assert f"mask {'virtqemud' if system == 'el9' else 'libvirtd'}.service" in baked["changed"]
        assert bake(host, {})["changed"] == []
        before = watch.links(host)
        host.boot()
        report = host.report()
        assert report["result"] == "ok", report
        assert [change for change in report["changed"] if not change.startswith("start ")] == []
        assert watch.links(host) == before
        called = watch.calls(host)
        assert "ListUnitsByPatterns" in called  # the watch saw the run
        assert not set(called) & {*expect.CHANGING, "Reloading."} - {"StartUnit"}, called
        assert watch.ever_started(host, expect.OTHER[mode]) == []
        expect.mode_is(host, mode)
        expect.tuned_is(host, "virtual-host")


def test_the_watch_sees_what_a_first_boot_does_without() -> None:
    with Host("el9", user_data=expect.user_data({}), files=watch.FILES) as host:
        host.chroot(["systemctl", "enable", "watch.service"])
        host.boot()
        assert {"MaskUnitFiles", "StopUnit", "Reload", "Reloading."} <= set(watch.calls(host))
        assert watch.ever_started(host, "modular")


@on_both
def test_another_section_than_the_baked_one_does_what_it_says(system: str) -> None:
    other = expect.OTHER[expect.MODE_OF[system]]
    section = {"libvirt": {"mode": other}, "tuned": {"profile": "balanced"}}
    with Host(system, user_data=expect.user_data(section)) as host:
        bake(host, {})
        host.boot()
        assert host.report()["result"] == "ok", host.report()
        expect.mode_is(host, other)
        expect.tuned_is(host, "balanced")
        host.reboot()
        expect.mode_is(host, other)


@on_both
def test_presets_that_run_later_change_nothing(system: str) -> None:
    """mkosi's preset-all, and the first boot's own for a machine-id that is "uninitialized"."""
    with Host(system, user_data="#cloud-config\nhostname: plain\n") as host:
        # Debian's own would wait for a network, and ask questions.
        strangers = ("systemd-networkd.service", "systemd-networkd-wait-online.service")
        host.chroot(["systemctl", "mask", *strangers, "systemd-firstboot.service"])
        bake(host, {})
        before = of_libvirt(watch.links(host))
        assert len(before) > 20
        host.chroot(["systemctl", "preset-all"], check=False)
        assert of_libvirt(watch.links(host)) == before
        host.write("/etc/machine-id", "uninitialized\n")
        host.boot()
        assert of_libvirt(watch.links(host)) == before
        # No section: the module has not run, and what was baked holds.
        assert not host.exists("/run/kvmhost")
        expect.mode_is(host, expect.MODE_OF[system])
        expect.tuned_is(host, "virtual-host")


def of_libvirt(text: str) -> list[str]:
    """The lines about units of libvirt's, and about tuned."""
    return [line for line in text.splitlines() if "virt" in line or "tuned" in line]


@on_both
def test_a_running_host_is_no_image(system: str) -> None:
    with Host(system) as host:
        host.boot()
        before = watch.links(host)
        for words in (["--here"], ["--root", "/"], ["--root", "/proc/1/root"]):
            done = host.run(["kvmhost", "apply", *words], check=False)
            assert done.returncode == 1
            assert "the system that runs here" in done.stderr
        assert watch.links(host) == before
