"""The certificates that libvirt's TLS sockets need.

Sources: libvirt's docs/tlscerts.rst, and what its daemons check before they start
(src/rpc/virnettlscert.c).
"""

import os
import re
import shutil
import subprocess
from typing import Dict, Iterator, List, Mapping, NamedTuple, Tuple

from .. import files
from .units import MODULAR, MONOLITHIC

_CONFS = {MODULAR: "virtproxyd.conf", MONOLITHIC: "libvirtd.conf"}
_DEFAULTS = {
    "ca_file": "/etc/pki/CA/cacert.pem",
    "cert_file": "/etc/pki/libvirt/servercert.pem",
    "key_file": "/etc/pki/libvirt/private/serverkey.pem",
}
_PEM = re.compile(
    r"-----BEGIN (?:X509 )?CERTIFICATE-----.+?-----END (?:X509 )?CERTIFICATE-----\n?", re.DOTALL
)


class Findings(NamedTuple):
    """``problems``: why the TLS socket can't work. ``warnings``: why some clients will refuse it, and
    what is not known."""

    problems: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()


def look(root: str) -> Dict[str, Findings]:
    """For each mode what is wrong with the files of its TLS socket."""
    return {mode: _look(root, conf) for mode, conf in _CONFS.items()}


def _look(root: str, conf: str) -> Findings:
    try:
        content = files.read(os.path.join(root, "etc/libvirt", conf)) or b""
    except PermissionError:
        return Findings((), (f"not known, because only root may look at /etc/libvirt/{conf}",))
    settings = content.decode(errors="replace")
    paths = {}
    for key, default in _DEFAULTS.items():
        found = re.findall(rf"""^\s*{key}\s*=\s*(["'])(.*?)\1""", settings, re.MULTILINE)
        paths[key] = found[-1][1] if found else default
    problems, unseen = _look_at_files(root, conf, paths)
    if problems or unseen:
        return Findings(tuple(problems), tuple(unseen))
    if not shutil.which("openssl"):
        return Findings((), ("the certificates were not looked into: there is no openssl command",))
    problems = list(_pair_problems(root, paths))
    if problems:
        return Findings(tuple(problems))
    warnings = list(_warnings(root, paths))
    problems = list(_trust_problems(root, paths))
    # libvirt starts with what it was told not to check, and its clients refuse it.
    if re.search(r"^\s*tls_no_sanity_certificate\s*=\s*1", settings, re.MULTILINE):
        return Findings((), tuple(problems + warnings))
    return Findings(tuple(problems), tuple(warnings))


def _look_at_files(root: str, conf: str, paths: Mapping[str, str]) -> Tuple[List[str], List[str]]:
    """Problems, and what this user may not see."""
    problems, unseen = [], []
    for key, path in sorted(paths.items()):
        try:
            mode = os.stat(_under(root, path)).st_mode
            with open(_under(root, path), "rb"):
                pass
        except PermissionError:
            unseen.append(f"not known, because only root may look at {path} ({key} of {conf})")
        except OSError as error:
            problems.append(f"{path}: {error.strerror} ({key} of {conf})")
        else:
            if key == "key_file" and mode & 0o007:
                problems.append(
                    f"{path}: others may use the key (mode {mode & 0o7777:04o}); chmod 0600 it"
                )
    return problems, unseen


def _pair_problems(root: str, paths: Mapping[str, str]) -> Iterator[str]:
    """What no TLS server can start with."""
    cert, key = paths["cert_file"], paths["key_file"]
    of_key = _openssl("pkey", "-in", _under(root, key), "-pubout", "-passin", "pass:")
    if of_key.returncode:
        yield f"{key}: openssl can't read it, or needs a passphrase for it"
    of_certs = [
        _openssl("x509", "-noout", "-pubkey", text=pem) for pem in _certificates(root, cert)
    ]
    if not of_certs or of_certs[0].returncode:
        yield f"{cert}: openssl can't read it"
    elif not of_key.returncode and of_certs[0].stdout != of_key.stdout:
        if any(each.stdout == of_key.stdout for each in of_certs):
            yield f"{cert}: the certificate of {key} must come first in it"
        else:
            yield f"{key} is not the key of {cert}"


def _trust_problems(root: str, paths: Mapping[str, str]) -> Iterator[str]:
    """What libvirt's daemons refuse to start with, unless they are told not to look."""
    ca, cert = paths["ca_file"], paths["cert_file"]
    # Each certificate of ca_file counts as trusted, one in the middle of a chain too.
    verify = ["verify", "-partial_chain", "-CAfile", _under(root, ca)]
    authorities = _certificates(root, ca)
    if not authorities:
        yield f"{ca}: no certificate in it"
        return
    for pem in authorities:
        shown = _openssl("x509", "-noout", "-subject", "-ext", "basicConstraints", text=pem)
        subject = shown.stdout.split("\n")[0].replace("subject=", "", 1).strip()
        # Also those that this server's certificate does not need.
        reasons = _reasons(_openssl(*verify, text=pem))
        if "CA:TRUE" not in shown.stdout:
            reasons.append("its basic constraints do not say that it is a CA's")
        if reasons:
            yield f"{ca}: the certificate of {subject}: {', '.join(reasons)}"
    own = _certificates(root, cert)[0]
    reasons = _reasons(_openssl(*verify, "-purpose", "sslserver", text=own))
    if reasons:
        chained = _openssl(
            *verify, "-purpose", "sslserver", "-untrusted", _under(root, cert), text=own
        )
        if not chained.returncode:
            reasons = [
                f"libvirt looks for those between it and its CA in {ca} only; put them there"
            ]
        yield f"{cert}: {', '.join(reasons)} (by {ca})"
    if "CA:TRUE" in _openssl("x509", "-noout", "-ext", "basicConstraints", text=own).stdout:
        yield f"{cert}: its basic constraints say that it is a CA's, not a server's"
    if _lacks_usage(own, "Digital Signature"):
        yield f"{cert}: its key usage must have Digital Signature"


def _lacks_usage(certificate: str, usage: str) -> bool:
    shown = _openssl("x509", "-noout", "-ext", "keyUsage", text=certificate).stdout
    limits = re.search(r"Key Usage: critical\n(.*)", shown)
    return limits is not None and usage not in limits.group(1)


def _warnings(root: str, paths: Mapping[str, str]) -> Iterator[str]:
    cert = paths["cert_file"]
    own = _certificates(root, cert)[0]
    if _lacks_usage(own, "Key Encipherment"):
        # 9.0 does not, 11.3 does.
        yield f"{cert}: its key usage lacks Key Encipherment: older versions of libvirt don't start"
    if root == "/":  # an image's host has no name yet
        yield from _name_warnings(cert, own)


def _name_warnings(cert: str, own: str) -> Iterator[str]:
    shown = _openssl("x509", "-noout", "-subject", "-ext", "subjectAltName", text=own).stdout
    # The common name counts only where there are no others.
    names = re.findall(r"DNS:([^,\s]+)", shown) or re.findall(r"CN ?= ?([^,/\s]+)", shown)
    host = os.uname()[1]
    short = host.split(".")[0]
    if not any(n in (host, short) or n.startswith((short + ".", "*.")) for n in names):
        yield (
            f"{cert} is for {', '.join(names) or 'no host'}, not for {host}: clients that use this name"
            " refuse it"
        )


def _reasons(done: "subprocess.CompletedProcess[str]") -> List[str]:
    """Why `openssl verify` refuses a certificate."""
    if not done.returncode:
        return []
    return re.findall(r"lookup: ?(.+)", done.stdout) or ["openssl can't verify it"]


def _certificates(root: str, path: str) -> List[str]:
    return _PEM.findall((files.read(_under(root, path)) or b"").decode(errors="replace"))


def _openssl(*words: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """``text``: its standard input."""
    return subprocess.run(
        ("openssl",) + words,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )


def _under(root: str, path: str) -> str:
    return files.inside(root, path)
