"""The certificates that libvirt's TLS sockets need. Source: libvirt's docs/tlscerts.rst."""

import os
import re
import shutil
import subprocess
from typing import Dict, Iterable, Mapping, NamedTuple, Tuple

from .. import files
from .units import MODULAR, MONOLITHIC

_CONFS = {MODULAR: "virtproxyd.conf", MONOLITHIC: "libvirtd.conf"}
_DEFAULTS = {
    "ca_file": "/etc/pki/CA/cacert.pem",
    "cert_file": "/etc/pki/libvirt/servercert.pem",
    "key_file": "/etc/pki/libvirt/private/serverkey.pem",
}


class Findings(NamedTuple):
    """``problems``: why the TLS socket can't work. ``warnings``: why some clients will refuse it."""

    problems: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()


def look(root: str) -> Dict[str, Findings]:
    """Mode -> what is wrong with the files of its TLS socket."""
    return {mode: _look(root, conf) for mode, conf in _CONFS.items()}


def _look(root: str, conf: str) -> Findings:
    settings = (files.read(os.path.join(root, "etc/libvirt", conf)) or b"").decode(errors="replace")
    paths = {}
    for key, default in _DEFAULTS.items():
        found = re.findall(rf'^\s*{key}\s*=\s*"([^"]*)"', settings, re.MULTILINE)
        paths[key] = found[-1] if found else default
    problems = list(_file_problems(root, conf, paths))
    if problems:
        return Findings(tuple(problems))
    if not shutil.which("openssl"):
        return Findings((), ("the certificates were not looked into: there is no openssl command",))
    return Findings(tuple(_content_problems(root, paths)), tuple(_name_warnings(root, paths)))


def _file_problems(root: str, conf: str, paths: Mapping[str, str]) -> Iterable[str]:
    for key, path in sorted(paths.items()):
        try:
            mode = os.stat(_under(root, path)).st_mode
        except PermissionError:
            yield f"{path}: can't be seen by this user ({key} of {conf}); ask as root"
        except OSError as error:
            yield f"{path}: {error.strerror} ({key} of {conf})"
        else:
            if key == "key_file" and mode & 0o007:
                yield f"{path}: others may use the key (mode {mode & 0o7777:04o}); chmod 0600 it"


def _content_problems(root: str, paths: Mapping[str, str]) -> Iterable[str]:
    """Why libvirt's daemons would refuse the certificates."""
    ca, cert, key = (_under(root, paths[name]) for name in ("ca_file", "cert_file", "key_file"))
    of_cert = _openssl("x509", "-in", cert, "-noout", "-pubkey")
    of_key = _openssl("pkey", "-in", key, "-pubout", "-passin", "pass:")
    for path, done in ((paths["cert_file"], of_cert), (paths["key_file"], of_key)):
        if done.returncode:
            yield f"{path}: openssl can't read it"
    if of_cert.returncode or of_key.returncode:
        return
    if of_cert.stdout != of_key.stdout:
        yield f"{paths['key_file']} is not the key of {paths['cert_file']}"
    done = _openssl("verify", "-CAfile", ca, "-purpose", "sslserver", cert)
    if done.returncode:
        reasons = re.findall(r"lookup: ?(.+)", done.stdout) or ["openssl can't verify it"]
        yield f"{paths['cert_file']}: {', '.join(reasons)} (by {paths['ca_file']})"


def _name_warnings(root: str, paths: Mapping[str, str]) -> Iterable[str]:
    cert = _under(root, paths["cert_file"])
    shown = _openssl("x509", "-in", cert, "-noout", "-subject", "-ext", "subjectAltName").stdout
    names = list(dict.fromkeys(re.findall(r"(?:DNS:|CN ?= ?)([^,/\s]+)", shown)))
    host = os.uname()[1]
    short = host.split(".")[0]
    if root == "/" and not any(
        n in (host, short) or n.startswith((short + ".", "*.")) for n in names
    ):
        yield (
            f"{paths['cert_file']} is for {', '.join(names) or 'no host'}, not for {host}: clients that"
            " use this name refuse it"
        )


def _openssl(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ("openssl",) + words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )


def _under(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))
