"""A Debian image like the ones clouds start from, with everything a KVM host needs but our module."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import nspawn
import roots
from nspawn import HarnessError

KERNEL = "linux-image-cloud-amd64 initramfs-tools e2fsprogs python3-pip python3-lxml python3-psutil"
OS_RELEASE = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13"\n'
INSTALL = f"""set -e
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet update
apt-get --quiet --yes --no-install-recommends install {KERNEL}
apt-get clean
rm -rf /var/lib/apt/lists/*
"""


class CloudImage(NamedTuple):
    """A disk without boot loader, and what boots it."""

    disk: Path
    kernel: Path
    initrd: Path


def cloud_image() -> CloudImage:
    """The image (qcow2), built once, some two minutes; never written to."""
    root = roots.root("el10")
    key = hashlib.sha256(
        f"{root}{INSTALL}{OS_RELEASE}{Path(__file__).read_text()}".encode()
    ).hexdigest()[:12]
    directory = nspawn.cache() / "cloud-images" / key
    with nspawn.locked(nspawn.cache() / "locks" / "cloud-image"):
        if not directory.is_dir():
            shutil.rmtree(directory.parent, ignore_errors=True)
            building = directory.with_name("building")
            building.mkdir(parents=True)
            _build(root, building)
            building.rename(directory)
    return CloudImage(directory / "disk.qcow2", directory / "vmlinuz", directory / "initrd.img")


def _build(base: Path, directory: Path) -> None:
    work = nspawn.cache() / "cloud-images" / "root"
    with nspawn.overlay([base], work) as root:
        (root / "usr/lib/os-release").write_text(OS_RELEASE)
        (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
        done = nspawn.run(
            "kvmhost-cloud-image",
            root,
            ["sh", "-c", INSTALL],
            "--resolv-conf=bind-host",
            timeout=300,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise HarnessError(f"no cloud image:\n{done.stdout[-3000:]}")
        for name in ("vmlinuz", "initrd.img"):
            shutil.copy(next((root / "boot").glob(f"{name}-*")), directory / name)
        disk = directory / "disk.raw"
        subprocess.run(["truncate", "--size=4G", disk], check=True)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk], check=True)
    subprocess.run(
        ["qemu-img", "convert", "-O", "qcow2", disk, directory / "disk.qcow2"], check=True
    )
    disk.unlink()


if __name__ == "__main__":
    print(cloud_image())
