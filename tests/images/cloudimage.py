"""A Debian image like the ones clouds start from (it boots by BIOS), with everything a KVM host needs but our module."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import nspawn
import roots
from nspawn import HarnessError

KERNEL = (
    "linux-image-cloud-amd64 initramfs-tools e2fsprogs grub-pc-bin grub-common "
    "python3-pip python3-lxml python3-psutil"
)
MIB = 1 << 20
SIZE = 4096 * MIB
OS_RELEASE = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13"\n'
INSTALL = f"""set -e
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet update
apt-get --quiet --yes --no-install-recommends install {KERNEL}
# GRUB's image has all it needs in it: its modules and, as its first words, what to boot.
cat > /tmp/words <<EOF
set root=(hd0,msdos1)
linux $(echo /boot/vmlinuz-*) root=/dev/vda1 rw console=ttyS0
initrd $(echo /boot/initrd.img-*)
boot
EOF
grub-mkimage --format i386-pc --output /boot/core.img --config /tmp/words --prefix '(hd0,msdos1)/boot' \\
    biosdisk part_msdos ext2 linux
rm /tmp/words
apt-get clean
rm -rf /var/lib/apt/lists/*
"""


def cloud_image() -> Path:
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
    return directory / "disk.qcow2"


def _build(base: Path, directory: Path) -> None:
    work = nspawn.cache() / "cloud-images" / "root"
    with nspawn.overlay([base], work) as root:
        (root / "usr/lib/os-release").write_text(OS_RELEASE)
        (root / "etc/fstab").write_text("/dev/vda1 / ext4 defaults 0 1\n")
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
        disk = directory / "disk.raw"
        partition(disk, root)
    subprocess.run(
        ["qemu-img", "convert", "-O", "qcow2", disk, directory / "disk.qcow2"], check=True
    )
    disk.unlink()


def partition(disk: Path, root: Path) -> None:
    """Write an MBR with GRUB and a partition with the root into the file. This needs no loop device."""
    subprocess.run(["truncate", f"--size={SIZE}", disk], check=True)
    table = f"label: dos\nstart={MIB // 512}, type=83, bootable\n"
    subprocess.run(["sfdisk", "--quiet", disk], input=table, text=True, check=True)
    blocks = f"{(SIZE - MIB) // 1024}k"
    argv: list[str | Path] = ["mke2fs", "-q", "-t", "ext4", "-E", f"offset={MIB}"]
    argv += ["-d", root, disk, blocks]
    subprocess.run(argv, check=True)
    with disk.open("r+b") as stream:
        # GRUB's first sector, but for the table, finds the rest in the sectors after it.
        stream.write((root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
        stream.seek(512)
        stream.write((root / "boot/core.img").read_bytes())


if __name__ == "__main__":
    print(cloud_image())
