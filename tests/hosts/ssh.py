"""A host that ssh and rsync can reach, in a network namespace with nothing but its loopback."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nspawn
import roots
from nspawn import HarnessError

INSTALL = """\
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet update
apt-get --quiet --yes --no-install-recommends install openssh-server rsync
apt-get clean
find /var/lib/apt/lists -type f -delete
: > /etc/machine-id
"""


def layer(system: str) -> Path:
    """The directory to stack on the root of ``system``: OpenSSH's server and rsync, installed once and cached.

    :raises HarnessError: they can't be installed; with the end of apt's output.
    """
    root = roots.root(system)
    key = f"{root.parent.name}-ssh-{hashlib.sha256(INSTALL.encode()).hexdigest()[:12]}"
    directory = nspawn.cache() / "layers" / key
    with nspawn.locked(nspawn.cache() / "locks" / "ssh"):
        if not directory.is_dir():
            work = directory.with_suffix(".building")
            nspawn.unmount_overlay(work)  # what a killed build left
            with nspawn.overlay([root], work) as merged:
                done = nspawn.run(
                    f"kvmhost-ssh-{system}",
                    merged,
                    ["sh", "-euc", INSTALL],
                    "--resolv-conf=bind-host",
                    timeout=300,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                )
                if done.returncode:
                    raise HarnessError(
                        f"no ssh on {system}:\n{(done.stdout + done.stderr)[-2000:]}"
                    )
                (work / "upper").rename(directory)
    return directory


@contextlib.contextmanager
def network() -> Iterator[Path]:
    """A network namespace with its loopback up: the file that names it. It stays while its hosts reboot."""
    # cat ends when this process does, in any way.
    script = "ip link set lo up && echo up && exec cat"
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdin and holder.stdout
        if holder.stdout.readline() != "up\n":
            raise HarnessError("no network namespace: unshare --net or ip failed; see above")
        yield Path(f"/proc/{holder.pid}/ns/net")
        holder.stdin.close()


def key(directory: Path) -> tuple[Path, str]:
    """A new key pair: the private key's file, and the public key's text."""
    if not shutil.which("ssh-keygen"):
        raise HarnessError("not installed: ssh-keygen; make setup installs what is needed")
    private = directory / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kvmhost-test", "-f", str(private)],
        check=True,
    )
    return private, private.with_suffix(".pub").read_text()
