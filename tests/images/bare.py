"""The stand-ins' roots with rpm and dnf, and without what EL's packages bring, which stubs then do (repositories)."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import nspawn
import roots
from nspawn import HarnessError

SCRIPT = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet update
apt-get --quiet --yes --no-install-recommends install rpm dnf dnf-plugins-core
apt-get clean
find /var/lib/apt/lists /var/log -type f -delete
rm -f /etc/dnf/plugins/local.conf
mkdir -p /etc/rpm
# No namespaces for scripts of packages: rpm 4.20's, which a container build may not make. EL 10 has 4.19.
printf '%%_dbpath /usr/lib/sysimage/rpm\n%%__transaction_unshare %%{nil}\n' > /etc/rpm/macros

# What packages bring.
rm -f /usr/lib/systemd/system/virt*.service /usr/lib/systemd/system/virt*.socket /usr/lib/systemd/system/virt*.target
rm -f /usr/lib/systemd/system/libvirt*.service /usr/lib/systemd/system/libvirt*.socket /usr/lib/systemd/system/cloud-*.*
rm -f /usr/lib/systemd/system/tuned.service /usr/lib/systemd/system-preset/80-el.preset
find /etc/systemd/system -type l '(' -name 'virt*' -o -name 'libvirt*' -o -name 'cloud-*' -o -name tuned.service ')' -delete
rm -rf /usr/bin/cloud-init /usr/bin/cloud-id /etc/cloud
rm -rf /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
userdel libvirt-qemu
for group in libvirt libvirt-qemu; do ! getent group $group > /dev/null || groupdel $group; done
: > /etc/machine-id
"""


def layer(system: str) -> Path:
    """The directory to stack on the root of ``system``, made once."""
    root = roots.root(system)
    key = f"{root.parent.name}-bare-{hashlib.sha256(SCRIPT.encode()).hexdigest()[:12]}"
    directory = nspawn.cache() / "layers" / key
    with nspawn.locked(nspawn.cache() / "locks" / "bare"):
        if not directory.is_dir():
            work = directory.with_suffix(".building")
            nspawn.unmount_overlay(work)  # what a killed build left
            with nspawn.overlay([root], work) as merged:
                run(f"kvmhost-bare-{system}", merged, SCRIPT, "--resolv-conf=bind-host")
                (work / "upper").rename(directory)
    return directory


def run(name: str, root: Path, script: str, *options: str) -> str:
    """A shell script in a root; its output.

    :raises HarnessError: it fails; with the end of what it said.
    """
    done = nspawn.run(
        name,
        root,
        ["sh", "-euc", script],
        *options,
        timeout=300,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise HarnessError(f"{name}: exit status {done.returncode}\n{done.stdout[-5000:]}")
    return done.stdout
