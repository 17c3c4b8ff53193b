"""Pools in LVM's volume groups, with real LVM on a loop device.

These machines' kernel has no device-mapper, so no logical volume can be active here. What needs one is for the
image that is booted (tests/images/test_build.py).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import expect
from host import Host
from test_networks import FILES, apply, asked, listed

SYSTEMS = ("el9", "el10")
on_both = pytest.mark.parametrize("system", SYSTEMS)

#: As tests/hosts share the machine's loop devices: a name that no machine has.
GROUP = "vg_kvmhost_test"
VMS = {"name": "vms", "type": "logical", "source": GROUP}
MAKE_GROUP = f"vgcreate --quiet --yes {GROUP} "


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A block device of 64 MiB."""
    disk = tmp_path / "disk"
    subprocess.run(["truncate", "--size=64M", disk], check=True)
    losetup = ["losetup", "--find", "--show", str(disk)]
    device = subprocess.run(losetup, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@on_both
def test_a_first_boot_brings_a_pool_that_stays(system: str, device: str) -> None:
    make = ["cloud-init-per", "instance", "vg", *MAKE_GROUP.split(), device]
    content = {"kvmhost": {**expect.UNCHECKED, **asked(pools=[VMS])}, "bootcmd": [make]}
    user_data = "#cloud-config\n" + json.dumps(content)
    with Host(system, user_data=user_data, bind=[device]) as host:
        host.boot()
        report = host.report()
        assert report["result"] == "ok", report
        assert report["pools"]["vms"] == {
            "before": None,
            "after": {
                "type": "logical",
                "path": f"/dev/{GROUP}",
                "source": GROUP,
                "autostart": True,
                "active": True,
            },
        }
        # Of networks' files it rewrites the package's.
        storage = FILES.replace("qemu/networks ", "")
        made = host.sh(storage).stdout
        for _ in ("first boot", "reboot"):
            # Before anybody wakes the storage daemon, and after.
            assert apply(host, asked(pools=[VMS]))["changed"] == []
            assert listed(host, "pool")["vms"] == ["active", "yes"]
            assert apply(host, asked(pools=[VMS]))["changed"] == []
            assert host.sh(storage).stdout == made
            if _ == "first boot":
                host.reboot()
        assert host.run(["lvs", "--noheadings"]).stdout == ""
        other = expect.OTHER[expect.MODE_OF[system]]
        assert not [
            change
            for change in apply(host, asked(mode=other, pools=[VMS]))["changed"]
            if "pool" in change
        ]
        # libvirt before 9.7 takes the pool of an empty group for inactive when its daemon starts anew.
        back = {"el9": "inactive", "el10": "active"}[system]
        assert listed(host, "pool")["vms"] == [back, "yes"]


@on_both
def test_what_stands_in_the_way_is_named_before_anything_changes(system: str, device: str) -> None:
    with Host(system, bind=[device]) as host:
        host.boot()
        before = expect.all_units(host), host.sh(FILES).stdout

        def errors(*pools: dict[str, str]) -> str:
            report = apply(host, asked(pools=list(pools)), check=False)
            assert report["changed"] == []
            assert (expect.all_units(host), host.sh(FILES).stdout) == before
            return "\n".join(report["errors"])

        missing = f"vms can't be in {GROUP}: no such volume group on this host, "
        assert missing + "there is none; make it with 'vgcreate" in errors(VMS)
        host.sh(MAKE_GROUP + device)
        other = {**VMS, "source": "vg_other"}
        assert f"no such volume group on this host, there are: {GROUP};" in errors(other)
        host.sh(f"vgexport --quiet {GROUP}")
        assert f"it is exported; 'vgimport {GROUP}' takes it back" in errors(VMS)
        host.sh(f"vgimport --quiet {GROUP}; mv /usr/sbin/vgs /usr/sbin/vgs.away")
        assert "LVM is not installed; install lvm2" in errors(VMS)
        host.sh("mv /usr/sbin/vgs.away /usr/sbin/vgs")
        driver = host.sh("find /usr/lib -name libvirt_storage_backend_logical.so").stdout.strip()
        host.sh(f"mv {driver} {driver}.away")
        assert "install libvirt-daemon-driver-storage-logical (EL's name)" in errors(VMS)
        host.sh(f"mv {driver}.away {driver}")
        # A directory of that name says nothing.
        assert "no such volume group on this host" in errors({**VMS, "source": "net"})


@on_both
def test_a_failure_puts_the_pool_back(system: str, device: str) -> None:
    """But it stays where stopping it would deactivate volumes that somebody else has activated."""
    # The last pool's directory can't be made: there is room, and no inode.
    last = {"name": "last", "type": "dir", "path": "/srv/full/pool"}
    section = asked(pools=[VMS, last])
    with Host(system, bind=[device]) as host:
        host.boot()
        apply(host, {})
        host.sh(f"{MAKE_GROUP} {device}; mkdir /srv/full")
        host.sh("mount -t tmpfs -o size=2g,nr_inodes=1 none /srv/full")
        before = listed(host, "pool"), host.sh(FILES).stdout
        errors = apply(host, section, check=False)["errors"]
        assert len(errors) == 1 and "make pool last" in errors[0], errors
        assert (listed(host, "pool"), host.sh(FILES).stdout) == before
        # Where a volume is active, LVM makes this directory.
        host.sh(f"mkdir /dev/{GROUP}")
        errors = apply(host, section, check=False)["errors"]
        assert len(errors) == 2, errors
        assert "make pool last" in errors[0]
        assert "vms: it stays active, because stopping it would deactivate" in errors[1]
        assert "'virsh pool-destroy vms' does that" in errors[1]
        assert listed(host, "pool") == {**before[0], "vms": ["active", "no"]}
        # It is what was asked for, so the next run takes it on.
        host.sh("umount /srv/full")
        changed = apply(host, section)["changed"]
        assert [each for each in changed if " vms" in each] == ["autostart pool vms"]
