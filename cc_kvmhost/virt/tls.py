"""The certificates that libvirt's TLS sockets need. Source: libvirt's docs/tlscerts.rst."""

import os
import re
from typing import Dict, Iterable, Tuple

from .. import files
from .units import MODULAR, MONOLITHIC

_CONFS = {MODULAR: "virtproxyd.conf", MONOLITHIC: "libvirtd.conf"}
_DEFAULTS = {
    "ca_file": "/etc/pki/CA/cacert.pem",
    "cert_file": "/etc/pki/libvirt/servercert.pem",
    "key_file": "/etc/pki/libvirt/private/serverkey.pem",
}


def problems(root: str) -> Dict[str, Tuple[str, ...]]:
    """For each mode what keeps its TLS socket from working: a file is missing, a key is open to
    all."""
    return {mode: tuple(_problems_of(root, conf)) for mode, conf in _CONFS.items()}


def _problems_of(root: str, conf: str) -> Iterable[str]:
    settings = (files.read(os.path.join(root, "etc/libvirt", conf)) or b"").decode(errors="replace")
    for key, default in sorted(_DEFAULTS.items()):
        found = re.findall(rf'^\s*{key}\s*=\s*"([^"]*)"', settings, re.MULTILINE)
        path = found[-1] if found else default
        try:
            mode = os.stat(os.path.join(root, path.lstrip("/"))).st_mode
        except OSError as error:
            yield f"{path}: {error.strerror} ({key} of {conf})"
        else:
            if key == "key_file" and mode & 0o007:
                yield f"{path}: others may use the key (mode {mode & 0o7777:04o}); chmod 0600 it"
