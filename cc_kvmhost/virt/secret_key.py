"""libvirt's key for secrets: whether this machine can decrypt it.

Since libvirt 12.1, systemd decrypts a key and hands it to the daemon of the secret driver. Only the
machine that made the key can decrypt it: in a copy of an image that was booted before, the daemon ends
with status 243/CREDENTIALS at every start. virt-secret-init-encryption.service makes a key if there
is none.

Sources: libvirt's docs/secretencryption.rst and src/secret; systemd-creds(1).
"""

import os
import time
from typing import NamedTuple, Tuple

from ..systemd import unit_files

PATH = "/var/lib/libvirt/secrets/secrets-encryption-key"
SECRETS = "/etc/libvirt/secrets"
SERVICE = "virt-secret-init-encryption.service"

_NAME = "secrets-encryption-key"
#: Seconds for systemd-creds: a TPM may be slow.
_SECONDS = 20


class SecretKey(NamedTuple):
    """``fault``: why this machine can't decrypt the key; "" if it can, or there is none.
    ``secrets``: libvirt's files of secrets, which may be encrypted with the key.
    ``aside``: the path that a useless key is renamed to."""

    fault: str = ""
    secrets: Tuple[str, ...] = ()
    aside: str = ""


def read() -> SecretKey:
    """:raises PermissionError: this user can't tell"""
    if not unit_files.is_installed(SERVICE, "/"):
        return SecretKey()
    try:
        os.close(os.open(PATH, os.O_RDONLY))
    except FileNotFoundError:
        return SecretKey()
    fault = _fault()
    if not fault:
        return SecretKey()
    secrets = tuple(sorted(os.listdir(SECRETS))) if os.path.isdir(SECRETS) else ()
    return SecretKey(fault, secrets, PATH + time.strftime(".stale-%Y%m%dT%H%M%S"))


def _fault() -> str:
    import subprocess

    command = ["systemd-creds", "decrypt", "--name=" + _NAME, PATH, "-"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_SECONDS,
        )
    except FileNotFoundError:  # this systemd can't have encrypted the key
        return ""
    except subprocess.TimeoutExpired:
        return f"systemd-creds did not decrypt it within {_SECONDS} s"
    if not done.returncode:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"systemd-creds: exit status {done.returncode}"


def useless(key: SecretKey) -> str:
    """What to say where nothing is to be changed, and a run would set the key aside."""
    return (
        f"{PATH}: this machine can't decrypt libvirt's key ({key.fault}), without which the secret"
        " driver does not start; 'kvmhost apply' renames it, and libvirt makes a new one"
    )


def problem(key: SecretKey) -> str:
    """The error for a key that can't be decrypted but may not be renamed, because there are secrets."""
    return (
        f"{PATH}: this machine can't decrypt libvirt's key ({key.fault}), without which the secret"
        f" driver does not start, and {SECRETS} has secrets that may be encrypted with it:"
        f" {', '.join(key.secrets)}; bring back what decrypts it (this machine's TPM,"
        " /var/lib/systemd/credential.secret), or give the secrets up: move them and the key away,"
        " and define them again"
    )
