"""images/declare-state on trees of a few files; the real tools read what it writes in test_containerfile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import el

PROGRAM = el.CHECKOUT / "images/declare-state"
PASSWD = """\
root:x:0:0:root:/root:/bin/bash
qemu:x:107:107:qemu user:/:/sbin/nologin
known:x:300:300::/:/sbin/nologin
somebody:x:1000:1000::/home/somebody:/bin/bash
nobody:x:65534:65534:Kernel Overflow User:/:/sbin/nologin
"""
GROUP = """\
root:x:0:
kvm:x:36:qemu,somebody
qemu:x:107:
known:x:300:
libvirt:x:987:
somebody:x:1000:
nobody:x:65534:
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for directory in ("usr/lib/tmpfiles.d", "usr/lib/sysusers.d", "etc", "var"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    (tmp_path / "usr/lib/sysusers.d/others.conf").write_text(
        'u root 0 "Super User"\nu known 300 - -\n'
    )
    return tmp_path


def declared(root: Path, kind: str) -> list[str]:
    subprocess.run([sys.executable, PROGRAM, root], check=True)
    return (root / f"usr/lib/{kind}/kvmhost-image.conf").read_text().splitlines()[1:]


def test_directories_and_links(root: Path) -> None:
    (root / "var/lib/libvirt").mkdir(parents=True)
    (root / "var/lib/libvirt").chmod(0o711)
    (root / "var/lib/libvirt/a file").write_text("")
    (root / "var/with space").mkdir(mode=0o755)
    (root / "var/100%").mkdir(mode=0o755)
    (root / "var/run").symlink_to("../run")
    others = root / "usr/lib/tmpfiles.d/others.conf"
    others.write_text("# d /var/run\nd /var/lib 0755 - - -\nd /var/nothing\n")
    assert sorted(declared(root, "tmpfiles.d")) == [
        "L /var/run - - - - ../run",
        'd "/var/100%%" :0755 :root :root - -',
        'd "/var/with space" :0755 :root :root - -',
        "d /var/lib/libvirt :0711 :root :root - -",
    ]
    others.write_text(
        'L /var/run\nd /var/lib\nd /var/lib/libvirt\nd "/var/with space"\nd /var/100%%\n'
    )
    assert declared(root, "tmpfiles.d") == []


def test_users(root: Path) -> None:
    assert declared(root, "sysusers.d") == [
        "g kvm 36",
        "g qemu 107",
        "g libvirt 987",
        'u qemu 107:107 "qemu user" / /sbin/nologin',
        "m qemu kvm",
    ]


def test_a_second_time_says_the_same(root: Path) -> None:
    (root / "var/lib").mkdir()
    for kind in ("tmpfiles.d", "sysusers.d"):
        first = declared(root, kind)
        assert first and declared(root, kind) == first
