"""Certificates for TLS, good and bad, made by openssl: what libvirt's daemons start with, and what not.

tests/unit/test_tls.py compares what kvmhost says of them, tests/hosts/test_tls.py what libvirt does.
"""

import subprocess
from pathlib import Path
from typing import Dict, NamedTuple, Sequence

_CA = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"
_SERVER = "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
_USAGE = "keyUsage=critical,digitalSignature,keyEncipherment\n"


class Kind(NamedTuple):
    """The three files; ``problem``: what is to be said of them, "" if libvirt starts with them.
    ``warning``: some versions of libvirt do.
    """

    ca: str
    cert: str
    key: str
    problem: str = ""
    warning: str = ""


class Workshop:
    """Makes keys and certificates in a directory."""

    def __init__(self, directory: Path) -> None:
        self._at = directory
        self._number = 0

    def key(self, name: str) -> str:
        path = self._at / (name + ".key")
        if not path.exists():
            _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path))
        return path.read_text()

    def certificate(
        self, name: str, issuer: str, extensions: str, subject: str = "/O=x", days: int = 2
    ) -> str:
        """Of the key of that name, signed by the key and certificate of ``issuer``, or by itself."""
        self.key(name)
        request, extras, path = (self._at / (name + end) for end in (".csr", ".ext", ".pem"))
        extras.write_text(extensions)
        key = str(self._at / (name + ".key"))
        _openssl("req", "-new", "-key", key, "-subj", subject, "-out", str(request))
        by = ["-signkey", key]
        if issuer != name:
            keys = ["-CAkey", str(self._at / (issuer + ".key"))]
            self._number += 1
            by = ["-CA", str(self._at / (issuer + ".pem")), *keys, "-set_serial", str(self._number)]
        command = ["x509", "-req", "-in", str(request), "-extfile", str(extras), *by]
        command += ["-out", str(path)]
        try:
            _openssl(*command, "-days", str(days))
        except subprocess.CalledProcessError:
            if days > 0:
                raise
            # OpenSSL 3.6 takes no negative number of days; before 3.4 it has no such options.
            times = ["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"]
            _openssl(*command, *times)
        return path.read_text()

    def encrypted(self, name: str) -> str:
        path = self._at / (name + ".encrypted")
        words = ["ec", "-in", str(self._at / (name + ".key")), "-aes128", "-passout", "pass:secret"]
        _openssl(*words, "-out", str(path))
        return path.read_text()


def kinds(directory: Path) -> Dict[str, Kind]:
    shop = Workshop(directory)
    root = shop.certificate("root", "root", _CA, "/CN=root")
    key = shop.key("server")
    between = shop.certificate("between", "root", _CA, "/CN=between")
    of_between = shop.certificate("server", "between", _SERVER)
    good = shop.certificate("server", "root", _SERVER + _USAGE)

    def server(extensions: str = _SERVER, days: int = 2) -> str:
        return shop.certificate("server", "root", extensions, days=days)

    old = shop.certificate("old", "old", _CA, "/CN=old", days=-1)
    lax = shop.certificate("lax", "lax", "subjectKeyIdentifier=hash\n", "/CN=lax")
    of_lax = shop.certificate("server", "lax", _SERVER)
    other = shop.certificate("other", "other", _CA, "/CN=other")
    signs = _SERVER + "keyUsage=digitalSignature\n"
    no_match = "the certificate of /etc/pki/libvirt/private/serverkey.pem must come first in it"
    return {
        "good": Kind(root, good, key),
        "two CAs": Kind(other + root, good, key),
        "the chain in the CA's file": Kind(root + between, of_between, key),
        "a CA in the middle alone": Kind(between, of_between, key),
        "the chain in the server's file": Kind(
            root, of_between + between, key, "looks for those between it and its CA in"
        ),
        "the chain in the wrong order": Kind(root + between, between + of_between, key, no_match),
        "expired": Kind(root, server(days=-1), key, "expired"),
        "a CA that expired, and is not needed": Kind(
            root + old, good, key, "old: certificate has expired"
        ),
        "the key of another": Kind(root, good, shop.key("other"), "is not the key of"),
        "a key with a passphrase": Kind(root, good, shop.encrypted("server"), "a passphrase"),
        "nonsense for a key": Kind(root, good, "nonsense\n", "can't read it"),
        "nonsense for a certificate": Kind(root, "nonsense\n", key, "can't read it"),
        "signed by another": Kind(other, good, key, "(by /etc/pki/CA/cacert.pem)"),
        "no CA": Kind("", good, key, "no certificate in it"),
        "a CA that does not say it is one": Kind(
            lax, of_lax, key, "its basic constraints do not say that it is a CA's"
        ),
        "a server that says it is a CA": Kind(
            root,
            server("basicConstraints=critical,CA:TRUE\nextendedKeyUsage=serverAuth\n"),
            key,
            "say that it is a CA's",
        ),
        "a key that may not encipher": Kind(
            root,
            server(_SERVER + "keyUsage=critical,digitalSignature\n"),
            key,
            warning="its key usage lacks Key Encipherment",
        ),
        "a key that may not sign": Kind(
            root,
            server(_SERVER + "keyUsage=critical,keyEncipherment\n"),
            key,
            "its key usage must have Digital Signature",
        ),
        "a key that should not encipher": Kind(root, server(signs), key),
    }


def _openssl(*words: str) -> None:
    command: Sequence[str] = ("openssl",) + words
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
