"""What is wrong with certificates: real ones, made by openssl, in a tree."""

import os
import shutil
from pathlib import Path
from typing import Dict

import pytest

import certificates
from cc_kvmhost.virt import tls
from cc_kvmhost.virt.tls import Findings
from certificates import Kind, Workshop

pytestmark = pytest.mark.skipif(
    not shutil.which("openssl"), reason="openssl makes the certificates"
)
CA, CERT, KEY = tls._DEFAULTS["ca_file"], tls._DEFAULTS["cert_file"], tls._DEFAULTS["key_file"]
NAMES = (
    "good",
    "two CAs",
    "the chain in the CA's file",
    "a CA in the middle alone",
    "the chain in the server's file",
    "the chain in the wrong order",
    "expired",
    "a CA that expired, and is not needed",
    "the key of another",
    "a key with a passphrase",
    "nonsense for a key",
    "nonsense for a certificate",
    "signed by another",
    "no CA",
    "a CA that does not say it is one",
    "a server that says it is a CA",
    "a key that may not encipher",
    "a key that may not sign",
    "a key that should not encipher",
)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Kind]:
    return certificates.kinds(tmp_path_factory.mktemp("certificates"))


def write(tree: Path, kind: Kind) -> None:
    for path, text in ((CA, kind.ca), (CERT, kind.cert), (KEY, kind.key)):
        where = tree / path.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)
        where.chmod(0o600)


@pytest.fixture
def tree(tmp_path: Path, kinds: Dict[str, Kind]) -> Path:
    """With all as it should be."""
    write(tmp_path, kinds["good"])
    return tmp_path


def found(tree: Path) -> Findings:
    both = tls.look(str(tree))
    assert both["modular"] == both["monolithic"]
    return both["modular"]


class TestLook:
    @pytest.mark.parametrize("name", NAMES)
    def test_what_libvirt_starts_with(
        self, name: str, kinds: Dict[str, Kind], tmp_path: Path
    ) -> None:
        assert set(kinds) == set(NAMES)
        write(tmp_path, kinds[name])
        findings = found(tmp_path)
        assert all(kinds[name].warning in each for each in findings.warnings)
        assert len(findings.warnings) == (1 if kinds[name].warning else 0)
        if kinds[name].problem:
            assert kinds[name].problem in findings.problems[0]
        else:
            assert findings.problems == ()

    def test_a_missing_file_and_an_open_key(self, tree: Path) -> None:
        os.unlink(str(tree / CA.lstrip("/")))
        (tree / KEY.lstrip("/")).chmod(0o644)
        missing, open_key = tls.look(str(tree))["modular"].problems
        assert missing == f"{CA}: No such file or directory (ca_file of virtproxyd.conf)"
        assert open_key == f"{KEY}: others may use the key (mode 0644); chmod 0600 it"

    def test_without_openssl(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        findings = found(tree)
        assert not findings.problems and "no openssl command" in findings.warnings[0]

    def test_libvirts_check_is_turned_off(self, kinds: Dict[str, Kind], tmp_path: Path) -> None:
        """Then the daemons start with certificates that their clients refuse; the rest stays."""
        for name in ("libvirtd.conf", "virtproxyd.conf"):
            path = tmp_path / "etc/libvirt" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#x = 1\ntls_no_sanity_certificate = 1\n")
        write(tmp_path, kinds["expired"])
        findings = found(tmp_path)
        assert not findings.problems and "expired" in findings.warnings[0]
        write(tmp_path, kinds["the key of another"])
        assert "is not the key of" in found(tmp_path).problems[0]

    @pytest.mark.parametrize("quote", ["'", '"'])
    def test_files_that_are_somewhere_else(self, quote: str, tree: Path) -> None:
        elsewhere = tree / "etc/pki/elsewhere.pem"
        (tree / CERT.lstrip("/")).rename(elsewhere)
        # As in an image: its links lead to its own files.
        (tree / "etc/pki/link.pem").symlink_to("/etc/pki/elsewhere.pem")
        conf = tree / "etc/libvirt/libvirtd.conf"
        conf.parent.mkdir()
        conf.write_text(f"#cert_file = 'x'\ncert_file = {quote}/etc/pki/link.pem{quote} # here\n")
        findings = tls.look(str(tree))
        assert findings["monolithic"] == Findings()
        assert "(cert_file of virtproxyd.conf)" in findings["modular"].problems[0]


class TestName:
    HOST = os.uname()[1].split(".")[0]

    @pytest.mark.parametrize(
        "subject, names, warned",
        [
            ("/CN={host}", "", False),
            ("/CN=other", "DNS:{host}", False),
            ("/O=x", "DNS:other,DNS:{host}.example.org", False),
            ("/O=x", "DNS:*.example.org", False),
            ("/O=x", "DNS:other", True),
            ("/O=x", "IP:192.0.2.1", True),
            # The common name counts only where there are no others.
            ("/CN={host}", "DNS:other", True),
        ],
    )
    def test_the_hosts(self, subject: str, names: str, warned: bool, tmp_path: Path) -> None:
        shop = Workshop(tmp_path)
        extensions = f"subjectAltName={names}\n" if names else "subjectKeyIdentifier=hash\n"
        subject, extensions = (text.format(host=self.HOST) for text in (subject, extensions))
        shop.certificate("server", "server", extensions, subject)
        (*warnings,) = tls._warnings("/", {"cert_file": str(tmp_path / "server.pem")})
        assert ["refuse it" in each for each in warnings] == ([True] if warned else [])
