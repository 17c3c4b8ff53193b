"""Recipes: a first boot with each example. Getting started: its commands, run on a host."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import disks
import documents
import expect
import packages
import project
import ssh
from host import SEED, Host, has_kvm

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
    """The policy is followed, as far as a guest without a system can: it is asked to shut down."""
    assert expect.active(host, "libvirt-guests.service")
    # Debian's build of it reads another file than EL's. Nobody waits five minutes here.
    host.sh(
        "sed -i s/=300/=2/ /etc/sysconfig/libvirt-guests;"
        "ln -sf /etc/sysconfig/libvirt-guests /etc/default/libvirt-guests"
    )
    host.sh(
        "virt-install --name tiny --memory 64 --disk none --pxe --network none --graphics none"
        " --osinfo detect=off,require=off --noautoconsole --virt-type qemu",
        timeout=120,
    )
    host.run(["systemctl", "stop", "libvirt-guests.service"])
    said = host.sh("journalctl --boot --unit=libvirt-guests.service --output=cat").stdout
    assert "Starting shutdown on guest: tiny" in said, said


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
    """Those with a test of their own stand below; the fleet's pair in test_cloud_init.py."""
    here = Path(__file__).read_text()
    fleet = {"fleet-user-data.yaml", "fleet-vendor-data.yaml"}
    for path in (ROOT / "examples").iterdir():
        if path.is_file() and path.name not in fleet:
            assert f'"{path.name}"' in here, path.name
            assert path.name in (ROOT / "docs/recipes.md").read_text()


def example(name: str) -> str:
    return (ROOT / "examples" / name).read_text()


CARD = """\
[Unit]
DefaultDependencies=no
Before=cloud-init-local.service NetworkManager.service
[Service]
Type=oneshot
ExecStart=ip link add eth0 type veth peer name eth1
ExecStart=ip link set eth1 up
"""


def test_a_bridge(system: str) -> None:
    """By NetworkManager, as on EL. No DHCP server is there: an address stands in its place."""
    bridged = "interfaces: [eth0]\n    "
    network_config = example("bridge.network-config").replace(
        f"{bridged}dhcp4: true", f"{bridged}addresses: [192.0.2.10/24]"
    )
    assert "addresses" in network_config
    renderer = "system_info: {network: {renderers: [network-manager]}}\n"
    files = {
        f"{SEED}/network-config": network_config,
        "/etc/cloud/cloud.cfg.d/95_renderer.cfg": renderer,
        "/etc/NetworkManager/conf.d/95-test.conf": "[main]\nno-auto-default=*\n",
        "/etc/systemd/system/card.service": CARD,
    }
    layers = [packages.layer(system, "network-manager")]
    with Host(system, user_data=example("bridge.yaml"), files=files, layers=layers) as host:
        host.chroot(["systemctl", "add-wants", "sysinit.target", "card.service"])
        host.boot(timeout=120)
        assert host.report()["result"] == "ok", host.report()
        assert "192.0.2.10/24" in host.sh("ip -4 address show dev br0").stdout
        assert "master br0" in host.sh("ip link show dev eth0").stdout
        assert host.report()["networks"]["lan"]["after"]["active"] is True
        assert "<bridge name='br0'/>" in host.run(["virsh", "net-dumpxml", "lan"]).stdout


#: udev's word on a disk, which cloud-init asks (by lsblk) for what is on it: there is no udev in a container.
UDEV = """\
[Unit]
DefaultDependencies=no
Before=cloud-init-local.service
[Service]
Type=oneshot
ExecStart=mkdir -p /run/udev/data
ExecStart=sh -c '(echo I:1; blkid --probe --output=udev /dev/vdb | sed s/^/E:/) > /run/udev/data/b{0}:{1}'
"""


def test_storage_on_a_second_disk(system: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(3 << 30)
    images = "/var/lib/libvirt/images"
    with disks.loop(disk) as device:
        number = os.stat(device).st_rdev
        files = {
            "/etc/systemd/system/udev-data.service": UDEV.format(os.major(number), os.minor(number))
        }
        for machine in ("the first", "one that gets its disk"):
            with Host(
                system,
                user_data=example("second-disk.yaml"),
                files=files,
                bind=[f"{device}:/dev/vdb"],
            ) as host:
                host.chroot(["systemctl", "add-wants", "sysinit.target", "udev-data.service"])
                host.boot()
                assert host.report()["result"] == "ok", host.report()
                assert "ext4" in host.sh(f"findmnt --noheadings {images}").stdout
                found = host.run(["virsh", "vol-list", "default"]).stdout
                assert ("kept" in found) == (machine != "the first"), found
                if machine == "the first":
                    host.run(["virsh", "vol-create-as", "default", "kept", "1M"])
                # Nobody tells systemd of the disk here, so the next boot would not mount it.
                (line,) = [
                    each for each in host.read("/etc/fstab").splitlines() if "/dev/vdb" in each
                ]
                assert line.split()[1:3] == [images, "ext4"], line


def test_hugepages_and_nested(system: str) -> None:
    """What a host has of both is this machine's: its /proc/sys is read-only. So either the recipe's check
    passes, or it says what is missing."""
    kvm = has_kvm()
    with Host(system, user_data=example("hugepages.yaml"), kvm=kvm) as host:
        host.boot()
        report = host.report()
        if kvm:
            assert (report["result"], report["check"]["accelerator"]) == ("ok", "kvm"), report
        else:
            assert report["result"] == "failed" and "require" in report["errors"][0], report
        pages = int(host.read("/proc/sys/vm/nr_hugepages")) >= 1024
        missing = ([] if pages else ["hugepages"]) + ([] if report["kvm"]["nested"] else ["nested"])
        said = host.read("/var/log/cloud-init-output.log")
        assert ("this host has no:" in said) == bool(missing)
        assert not missing or f"this host has no: {' '.join(missing)}\n" in said
        errors = str(host.cloud_init_status()["errors"])
        assert ("scripts_user" in errors or "scripts-user" in errors) == bool(missing), errors
        asked = host.run(["systemd-analyze", "cat-config", "sysctl.d"]).stdout
        assert "\nvm.nr_hugepages = 1024\n" in asked


def test_tls(system: str) -> None:
    with Host(system, user_data=example("tls.yaml")) as host:
        host.boot()
        report = host.report()
        assert report["result"] == "ok", report
        assert not [each for each in report["warnings"] if "certificate" in each], report
        expect.mode_is(host, expect.MODE_OF[system], tls=True)
        key = host.sh("stat --format=%a /etc/pki/libvirt/private/serverkey.pem").stdout.strip()
        assert key == "600"
        # A client, on the host itself.
        host.sh("ip link set lo up; echo 127.0.0.1 localhost $(hostname) >> /etc/hosts")
        host.sh(documents.block("docs/recipes.md", "cd /etc/pki"))
        host.sh(
            "mkdir -p /root/.pki/libvirt; cd /etc/pki; cp CA/cacert.pem client*.pem ~/.pki/libvirt"
        )
        name = host.sh("hostname").stdout.strip()
        listed = host.run(
            [
                "env",
                "HOME=/root",
                "virsh",
                "--connect",
                f"qemu+tls://{name}/system?pkipath=/root/.pki/libvirt",
                "list",
            ]
        )
        assert "Id" in listed.stdout
        certificate = host.sh("sha256sum /etc/pki/libvirt/servercert.pem").stdout
        host.reboot()
        assert host.sh("sha256sum /etc/pki/libvirt/servercert.pem").stdout == certificate
        expect.mode_is(host, expect.MODE_OF[system], tls=True)


def test_moving_a_host() -> None:
    """EL 9, from what its first boot made of it to the modular daemons, by the page's commands."""
    with Host("el9", user_data=example("kvmhost.yaml")) as host:
        host.boot()
        expect.mode_is(host, "monolithic")
        host.write("/root/modular-on-9.yaml", example("modular-on-9.yaml"))
        said = host.sh("cd /root\n" + documents.block("docs/recipes.md", "kvmhost plan")).stdout
        assert said.count("mode     modular") == 3 and said.count("result   ok") == 2
        expect.mode_is(host, "modular")
        host.reboot()
        expect.mode_is(host, "modular")


PAGE = "docs/getting-started.md"
SUDO = 'sudo() { "$@"; }\n'


def test_getting_started(system: str) -> None:
    """Part a, from the file that is written on: all commands, in order, as they stand."""
    typed = [
        documents.block(PAGE, start) for start in ("cat > user-data.yaml <<'EOF'", "kvmhost plan")
    ]
    with Host(system) as host:
        host.boot()
        done = host.sh("cd /root\n" + SUDO + "".join(typed), timeout=120)
        for words in ("kvmhost section valid", "changes ", "result   ok", "check    a guest ran"):
            assert words in done.stdout, done.stdout
        expect.mode_is(host, expect.MODE_OF[system])


def test_getting_started_with_an_image(system: str, tmp_path: Path) -> None:
    """Part b, but for the image, which is this host: its user-data, virt-install's line, and what is
    asked of it over ssh."""
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    (tmp_path / ".ssh").mkdir(mode=0o700)
    script = "kvmhost() { :; }\n" + documents.block(PAGE, "test -e ~/.ssh")
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, env=home, check=True)
    with (
        ssh.network() as network,
        Host(
            system,
            user_data=(tmp_path / "user-data.yaml").read_text(),
            layers=[ssh.layer(system)],
            network=network,
            kvm=has_kvm(),
        ) as host,
    ):
        host.boot()
        typed = documents.block(PAGE, "ssh admin").replace("ADDRESS", "127.0.0.1")
        key = tmp_path / ".ssh/id_ed25519"
        quiet = f"-i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile={tmp_path}/hosts"
        script = f'ssh() {{ command ssh {quiet} "$@" || [ $? = 2 ]; }}\n' + typed
        asked = subprocess.run(
            ["nsenter", f"--net={network}", "sh", "-euc", script],
            env=home,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert asked.returncode == 0, asked.stdout
        # Without KVM cloud-init's own exit status is 2: a warning.
        assert "status: done" in asked.stdout and asked.stdout.count("result   ok") == 2
        # What needs an image and a guest's network: as far as virt-install reads it.
        copy, install, wait = documents.block(PAGE, "sudo cp").replace("\\\n", " ").splitlines()
        host.sh("cd /root; qemu-img create -q -f qcow2 kvmhost-centos-10.qcow2 8M\n" + SUDO + copy)
        host.write("/root/user-data.yaml", (tmp_path / "user-data.yaml").read_text())
        host.sh(
            "virsh net-info default || virsh net-define /usr/share/libvirt/networks/default.xml"
        )
        xml = host.sh("cd /root\n" + SUDO + install + " --print-xml", timeout=120).stdout
        assert (
            'mode="host-passthrough"' in xml and "/kvm1.qcow2" in xml and 'network="default"' in xml
        )
        assert "virsh domifaddr kvm1" in wait


CONTROL = """\
Package: kvmhost
Version: 0.1.0
Architecture: all
Maintainer: the tests
Description: the package, as the distribution's package manager brings it
"""
#: What user-data says, and whether the package is there in time for the same boot.
WAYS = {
    "bootcmd: [[dpkg, --install, /srv/kvmhost.deb]]": True,
    "packages: [kvmhost]": False,
    "runcmd: [[dpkg, --install, /srv/kvmhost.deb]]": False,
}


def package_repository(system: str, directory: Path) -> Path:
    """A layer with a package of this project, which registers it as the RPM does, and apt's only source with it."""
    tree = directory / "package"
    installed = project.layer(system)
    for part in ("usr/bin", "usr/lib/python3/dist-packages/cc_kvmhost"):
        shutil.copytree(installed / part, tree / part)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(CONTROL)
    (tree / "DEBIAN/postinst").write_text("#!/bin/sh\nset -e\nkvmhost register\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    layer = directory / "layer"
    (layer / "srv").mkdir(parents=True)
    (layer / "etc/apt").mkdir(parents=True)
    built = layer / "srv/kvmhost.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(built)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    checksum = hashlib.sha256(built.read_bytes()).hexdigest()
    (layer / "srv/Packages").write_text(
        f"{CONTROL}Filename: ./kvmhost.deb\nSize: {built.stat().st_size}\nSHA256: {checksum}\n"
    )
    (layer / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv ./\n")
    return layer


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.split(":")[0])
def test_the_package_by_user_data(way: str, system: str, tmp_path: Path) -> None:
    """README on user-data that installs the package: bootcmd runs early enough, packages and runcmd do not."""
    text = f"#cloud-config\n{way}\nkvmhost: {{}}\n"
    layers = [package_repository(system, tmp_path)]
    with Host(system, user_data=text, install=False, layers=layers) as host:
        host.boot()
        assert host.run(["kvmhost", "register", "--check"]).stdout == ""
        assert host.exists("/run/kvmhost/report.json") == WAYS[way]
        if not WAYS[way]:
            # The module has not run for this instance yet, so it runs at the next boot.
            host.reboot()
        assert host.report()["result"] == "ok", host.report()
        expect.mode_is(host, expect.MODE_OF[system])
