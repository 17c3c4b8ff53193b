"""Recipes: a first boot with each example. Getting started: its commands, run on a host."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import expect
from host import Host

ROOT = Path(__file__).parents[2]
SERVICE = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
SOCKET = "[Socket]\nListenStream=/run/{}\n[Install]\nWantedBy=sockets.target\n"
#: What recipes ask for, images have and the stand-ins lack.
IN_THE_IMAGE = {
    "services.yaml": {
        "/usr/lib/systemd/system/NetworkManager.service": SERVICE,
        "/usr/lib/systemd/system/cockpit.service": SERVICE,
        "/usr/lib/systemd/system/cockpit.socket": SOCKET.format("cockpit"),
        "/usr/lib/systemd/system/podman.service": SERVICE,
        "/usr/lib/systemd/system/podman.socket": SOCKET.format("podman"),
    }
}


def plain(host: Host) -> None:
    pass


def services(host: Host) -> None:
    for unit in ("NetworkManager.service", "cockpit.socket", "podman.socket"):
        state = host.units(unit)[unit]
        assert (state.file_state, state.active) == ("enabled", "active"), unit


def cloud_user(host: Host) -> None:
    assert "libvirt" in host.run(["id", "--name", "--groups", "admin"]).stdout.split()
    virsh = ["setpriv", "--reuid=admin", "--init-groups", "virsh", "-c", "qemu:///system", "list"]
    assert "Id" in host.run(virsh).stdout
    assert host.read("/home/admin/.ssh/authorized_keys").startswith("ssh-ed25519 ")


def shutdown(host: Host) -> None:
    assert expect.active(host, "libvirt-guests.service")
    assert "ON_SHUTDOWN=shutdown" in host.read("/etc/sysconfig/libvirt-guests")


def networks(host: Host) -> None:
    assert host.run(["virsh", "net-list", "--name"]).stdout.split() == ["default"]
    assert host.run(["virsh", "pool-list", "--name"]).stdout.split() == ["default"]


RECIPES: list[tuple[str, str, str, Callable[[Host], None]]] = [
    ("kvmhost.yaml", "el10", "modular", plain),
    ("services.yaml", "el10", "modular", services),
    ("cloud-user.yaml", "el10", "modular", cloud_user),
    ("shutdown.yaml", "el9", "monolithic", shutdown),
    ("networks.yaml", "el10", "modular", networks),
    ("modular-on-9.yaml", "el9", "modular", plain),
]


@pytest.mark.parametrize(
    ("name", "system", "mode", "check"), RECIPES, ids=[recipe[0] for recipe in RECIPES]
)
def test_a_recipe(name: str, system: str, mode: str, check: Callable[[Host], None]) -> None:
    text = (ROOT / "examples" / name).read_text()
    with Host(system, user_data=text, files=IN_THE_IMAGE.get(name, {})) as host:
        host.boot()
        assert host.report()["result"] == "ok", host.report()
        expect.mode_is(host, mode)
        host.run(["kvmhost", "status"])
        check(host)


def test_every_example_is_one() -> None:
    """The fleet's pair has a test of its own, in test_cloud_init.py."""
    names = {path.name for path in (ROOT / "examples").glob("*.yaml")}
    assert names == {recipe[0] for recipe in RECIPES} | {
        "fleet-user-data.yaml",
        "fleet-vendor-data.yaml",
    }


@pytest.mark.parametrize("system", ["el9", "el10"])
def test_getting_started(system: str) -> None:
    """Part a, from where the file is written: all commands, in order, unchanged."""
    text = (ROOT / "docs/getting-started.md").read_text()
    part = text[text.index("## a. ") : text.index("### What registering means")]
    blocks = re.findall(r"^   ```sh\n(.*?)^   ```", part, re.M | re.S)
    typed = [re.sub(r"^   ", "", block, flags=re.M) for block in blocks]
    mine = [block for block in typed if "kvmhost validate" in block or "kvmhost plan" in block]
    assert len(mine) == 2
    script = 'cd /root; sudo() { "$@"; }\n' + "".join(mine)
    with Host(system) as host:
        host.boot()
        done = host.sh(script)
        for words in ("kvmhost section valid", "changes ", "result   ok"):
            assert words in done.stdout, done.stdout
        expect.mode_is(host, expect.MODE_OF[system])


@pytest.mark.parametrize("system", ["el9", "el10"])
def test_registered_by_what_user_data_runs(system: str) -> None:
    """README on user-data that installs the package: bootcmd runs early enough, runcmd does not."""
    for key, found in (("bootcmd", True), ("runcmd", False)):
        text = f"#cloud-config\n{key}: [[kvmhost, register]]\nkvmhost: {{}}\n"
        with Host(system, user_data=text) as host:
            host.chroot(["kvmhost", "unregister"])
            host.boot()
            assert host.exists("/run/kvmhost/report.json") == found
            if not found:
                # The module has not run for this instance yet, so it runs at the next boot.
                host.reboot()
                assert host.report()["result"] == "ok"
            expect.mode_is(host, expect.MODE_OF[system])
