"""How user-data gets to a machine: docs/seeds.md, typed as it stands, and booted."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import disks
import documents
import expect
from host import SEED, Host

PAGE = "docs/seeds.md"


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[Path]:
    """The directory that the page begins with; what it is checked with is on the hosts."""
    script = "kvmhost() { :; }\n" + documents.block(PAGE, "mkdir -p seed")
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True)
    yield tmp_path / "seed"


def is_kvm1(host: Host, datasource: str) -> None:
    """cloud-init has taken the seed, and the module its section."""
    assert host.sh("hostname").stdout.strip() == "kvm1"
    assert datasource in host.sh("cat /run/cloud-init/result.json").stdout
    assert host.report()["result"] == "ok", host.report()
    expect.mode_is(host, expect.MODE_OF[host.system])


def without_a_seed(host: Host, datasource: str) -> None:
    """As an image is that does not know yet where its seed comes from. On a list of one, cloud-init's
    generator does not look at the disks, which it can't do in a container.
    """
    host.chroot(["rm", "-r", SEED])
    host.write("/etc/cloud/cloud.cfg.d/95_datasource.cfg", f"datasource_list: [{datasource}]\n")


def has_iso9660() -> bool:
    """Whether this machine's kernel can mount a CD; its hosts have the same."""
    return "\tiso9660\n" in Path("/proc/filesystems").read_text()


def test_a_disk(seed: Path, tmp_path: Path, system: str) -> None:
    """tests/images boots virtual machines from such a disk, whatever this machine's kernel has."""
    subprocess.run(["sh", "-euc", documents.block(PAGE, "mkisofs")], cwd=tmp_path, check=True)
    disk = tmp_path / "seed.iso"
    shown = ["blkid", "--probe", "--output=export", str(disk)]
    assert "LABEL=cidata\n" in subprocess.check_output(shown, text=True)
    listed = subprocess.check_output(["isoinfo", "-R", "-f", "-i", str(disk)], text=True).split()
    assert sorted(listed) == ["/meta-data", "/user-data"]
    if has_iso9660():
        with disks.loop(disk) as device, Host(system, bind=[device]) as host:
            without_a_seed(host, "NoCloud")
            host.boot()
            is_kvm1(host, f"DataSourceNoCloud [seed={device}]")


def test_the_images_own_directory(seed: Path, system: str) -> None:
    with Host(system) as host:
        without_a_seed(host, "NoCloud")
        host.chroot(["sh", "-euc", "rmdir /mnt; ln -s / /mnt"])
        for file in seed.iterdir():
            host.write(f"/root/seed/{file.name}", file.read_text())
        host.chroot(["sh", "-euc", "cd /root\n" + documents.block(PAGE, "mkdir -p /mnt")])
        host.boot()
        is_kvm1(host, "DataSourceNoCloud [seed=/var/lib/cloud/seed/nocloud]")


SERVER = """\
[Unit]
DefaultDependencies=no
Before=cloud-init.service cloud-init-network.service
[Service]
WorkingDirectory=/root
ExecStartPre=ip link set lo up
ExecStart=sh -euc '{typed}'
ExecStartPost=timeout 20 sh -c 'until ss -tlnH | grep -q :8000; do sleep 0.1; done'
"""


def test_the_network(seed: Path, system: str) -> None:
    typed = documents.block(PAGE, "touch seed/vendor-data").strip().replace("\n", "; ")
    (told,) = [
        each.text.strip() for each in documents.blocks(PAGE) if each.text.startswith("ds=nocloud")
    ]
    if system == "el9":  # its cloud-init is 22.4
        told = told.replace("nocloud", "nocloud-net")
    files = {f"/root/seed/{file.name}": file.read_text() for file in seed.iterdir()}
    files["/etc/systemd/system/seed.service"] = SERVER.format(typed=typed)
    cmdline = [told.replace("seed.example", "127.0.0.1")]
    with Host(system, files=files, cmdline=cmdline) as host:
        without_a_seed(host, "NoCloud, None")
        wants = "/etc/systemd/system/sysinit.target.wants"
        host.chroot(["sh", "-euc", f"mkdir -p {wants}; ln -s ../seed.service {wants}/"])
        host.boot()
        is_kvm1(host, "DataSourceNoCloudNet")


def test_openstacks_config_drive(seed: Path, tmp_path: Path, system: str) -> None:
    """The disk as OpenStack makes it, on a file system that this machine's kernel has."""
    latest = tmp_path / "drive/openstack/latest"
    latest.mkdir(parents=True)
    shutil.copy(seed / "user-data", latest / "user_data")
    (latest / "meta_data.json").write_text(
        json.dumps({"uuid": "83679162-1378-4288-a2d4-70e13ec132aa", "hostname": "kvm1"})
    )
    make = "mkfs.ext4 -q -L config-2 -d drive drive.img 8M"
    if has_iso9660():
        make = "mkisofs -quiet -volid config-2 -joliet -rock -output drive.img drive"
    subprocess.run(make.split(), cwd=tmp_path, check=True)
    with disks.loop(tmp_path / "drive.img") as device, Host(system, bind=[device]) as host:
        without_a_seed(host, "ConfigDrive")
        host.boot()
        is_kvm1(host, "DataSourceConfigDrive")
