"""What is wrong with certificates: real ones, made by openssl, in a tree."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cc_kvmhost.virt import tls
from cc_kvmhost.virt.tls import Findings

pytestmark = pytest.mark.skipif(
    not shutil.which("openssl"), reason="openssl makes the certificates"
)
CERT, KEY = "etc/pki/libvirt/servercert.pem", "etc/pki/libvirt/private/serverkey.pem"
CA = "etc/pki/CA/cacert.pem"


def openssl(*words: str) -> None:
    subprocess.run(
        ["openssl", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def new_key(path: Path) -> None:
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path))


def sign(tree: Path, names: str, days: int = 2) -> None:
    """A server certificate for the tree's key, signed by its CA."""
    request, extensions = tree / "csr", tree / "ext"
    extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
    openssl("req", "-new", "-key", str(tree / KEY), "-subj", "/O=x", "-out", str(request))
    # fmt: off
    openssl(
        "x509", "-req", "-in", str(request), "-days", str(days), "-extfile", str(extensions),
        "-CA", str(tree / CA), "-CAkey", str(tree / "ca.key"), "-CAcreateserial", "-out", str(tree / CERT),
    )
    # fmt: on


def make_ca(tree: Path) -> None:
    new_key(tree / "ca.key")
    command = ["req", "-x509", "-new", "-key", str(tree / "ca.key"), "-subj", "/CN=ca"]
    openssl(*command, "-days", "2", "-out", str(tree / CA))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (CA, CERT, KEY):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    make_ca(tmp_path)
    new_key(tmp_path / KEY)
    (tmp_path / KEY).chmod(0o600)
    sign(tmp_path, "DNS:localhost")
    return tmp_path


def found(tree: Path) -> Findings:
    both = tls.look(str(tree))
    assert both["modular"] == both["monolithic"]
    return both["modular"]


class TestLook:
    def test_nothing(self, tree: Path) -> None:
        assert found(tree) == Findings()

    def test_a_key_of_another(self, tree: Path) -> None:
        new_key(tree / KEY)
        (problem,) = found(tree).problems
        assert problem == f"/{KEY} is not the key of /{CERT}"

    def test_expired(self, tree: Path) -> None:
        sign(tree, "DNS:localhost", days=-1)
        (problem,) = found(tree).problems
        assert problem.startswith(f"/{CERT}: ") and "expired" in problem

    def test_signed_by_another(self, tree: Path) -> None:
        make_ca(tree)
        (problem,) = found(tree).problems
        assert f"(by /{CA})" in problem

    @pytest.mark.parametrize("name", [CERT, KEY])
    def test_no_certificate_or_key(self, name: str, tree: Path) -> None:
        (tree / name).write_text("nonsense")
        assert found(tree).problems == (f"/{name}: openssl can't read it",)

    def test_a_missing_file_and_an_open_key(self, tree: Path) -> None:
        os.unlink(str(tree / CA))
        (tree / KEY).chmod(0o644)
        missing, open_key = tls.look(str(tree))["modular"].problems
        assert f"{CA}: No such file or directory (ca_file of " in missing
        assert "chmod 0600" in open_key

    def test_without_openssl(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        findings = found(tree)
        assert not findings.problems and "no openssl command" in findings.warnings[0]

    @pytest.mark.parametrize(
        "names, warned",
        [
            ("DNS:{host}", False),
            ("DNS:other,DNS:{host}.example.org", False),
            ("DNS:*.example.org", False),
            ("DNS:other", True),
            ("IP:192.0.2.1", True),
        ],
    )
    def test_the_hosts_name(self, names: str, warned: bool, tree: Path) -> None:
        host = os.uname()[1].split(".")[0]
        sign(tree, names.format(host=host))
        paths = {"cert_file": f"/{tree / CERT}"}
        (*warnings,) = tls._name_warnings("/", paths)
        assert bool(warnings) == warned
