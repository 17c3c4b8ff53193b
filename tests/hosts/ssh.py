"""A host that ssh and rsync can reach, in a network namespace with nothing but its loopback."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import packages
from nspawn import HarnessError


def layer(system: str) -> Path:
    """The directory to stack on the root of ``system``: OpenSSH's server and rsync."""
    return packages.layer(system, "openssh-server", "rsync")


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
