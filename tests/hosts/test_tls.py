"""TLS if asked for: the right socket for each mode, refused without its files. Plain TCP never."""

from __future__ import annotations

from pathlib import Path

import pytest

import certificates
import expect
import test_switching
from host import Host

CERTIFICATES = """
mkdir -p /etc/pki/CA /etc/pki/libvirt/private /root/pki; cd /root/pki
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out cacert.pem
for who in server client; do
    openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout $who.key -out $who.csr
    printf 'subjectAltName=DNS:localhost\\nkeyUsage=digitalSignature,keyEncipherment\\n' >$who.ext
    printf 'extendedKeyUsage=serverAuth,clientAuth\\n' >>$who.ext
    openssl x509 -req -days 2 -in $who.csr -CA cacert.pem -CAkey ca.key -CAcreateserial -extfile $who.ext -out $who.pem
done
cp cacert.pem /etc/pki/CA/; cp server.pem /etc/pki/libvirt/servercert.pem
cp server.key /etc/pki/libvirt/private/serverkey.pem; chmod 600 /etc/pki/libvirt/private/serverkey.pem
cp client.pem clientcert.pem; cp client.key clientkey.pem
ip link set lo up; grep -q localhost /etc/hosts || echo 127.0.0.1 localhost >>/etc/hosts
"""
KEY = "/etc/pki/libvirt/private/serverkey.pem"


@pytest.mark.parametrize("system", ["el9", "el10"])
@pytest.mark.parametrize("mode", ["modular", "monolithic"])
def test_tls_is_offered_when_asked_for(system: str, mode: str) -> None:
    with Host(system) as host:
        host.boot()
        host.sh(CERTIFICATES)
        section = {"libvirt": {"mode": mode, "tls": True}}
        host.write("/root/section.yaml", expect.user_data(section))

        # Refused before any change: a key that others may read, and a file that is missing.
        host.run(["chmod", "644", KEY])
        host.sh("mv /etc/pki/CA/cacert.pem /root/")
        status, methods = expect.calls_during(host, ["kvmhost", "apply", "/root/section.yaml"])
        errors = host.read("/tmp/out")
        assert status == 1
        assert f"{KEY}: others may use the key (mode 0644)" in errors
        assert "/etc/pki/CA/cacert.pem: No such file or directory" in errors
        assert not set(methods).intersection(expect.CHANGING), methods

        host.run(["chmod", "600", KEY])
        host.sh("mv /root/cacert.pem /etc/pki/CA/")
        # A certificate with which the daemon would not start is refused, too.
        host.sh(f"cp {KEY} /root/; cp /root/pki/client.key {KEY}")
        status, methods = expect.calls_during(host, ["kvmhost", "apply", "/root/section.yaml"])
        assert status == 1
        assert f"{KEY} is not the key of /etc/pki/libvirt/servercert.pem" in host.read("/tmp/out")
        assert not set(methods).intersection(expect.CHANGING), methods
        host.sh(f"cp /root/serverkey.pem {KEY}")
        test_switching.run(host, mode, tls=True)
        expect.mode_is(host, mode, tls=True)
        (warning,) = host.report()["warnings"]
        assert f"is for localhost, not for {system}" in warning
        uri = "qemu+tls://localhost/system?pkipath=/root/pki"
        assert "Id" in host.run(["virsh", "-c", uri, "list", "--all"]).stdout
        # Its exit status says how the server hung up on a client that shows no certificate.
        command = "openssl s_client -connect localhost:16514 -CAfile /root/pki/cacert.pem"
        hello = host.run(command.split(), check=False)
        assert "Verify return code: 0 (ok)" in hello.stdout
        host.reboot()
        expect.mode_is(host, mode, tls=True)

        # Once TLS is not asked for, nothing listens.
        test_switching.run(host, mode)
        expect.mode_is(host, mode)
        assert ":16514 " not in host.run(["ss", "-tlnH"]).stdout


PATHS = {"ca": "/etc/pki/CA/cacert.pem", "cert": "/etc/pki/libvirt/servercert.pem", "key": KEY}


@pytest.mark.parametrize("system", ["el9", "el10"])
def test_what_is_refused_is_what_libvirt_would_not_start_with(system: str, tmp_path: Path) -> None:
    with Host(system) as host:
        host.boot()
        test_switching.run(host, "monolithic")
        section = {"libvirt": {"mode": "monolithic", "tls": True}}
        host.write("/root/section.yaml", expect.user_data(section))
        wrong = {}
        for name, kind in certificates.kinds(tmp_path).items():
            for field, path in PATHS.items():
                host.write(path, getattr(kind, field), 0o600)
            plan = host.run(["kvmhost", "plan", "/root/section.yaml"], check=False)
            assert kind.problem in plan.stderr, name
            done = host.sh(
                "systemctl stop libvirtd.service 'libvirtd*.socket'; systemctl reset-failed;"
                "systemctl start libvirtd-tls.socket libvirtd.service",
                check=False,
            )
            if (plan.returncode == 0) != (done.returncode == 0) and not kind.warning:
                log = host.run(["journalctl", "-u", "libvirtd", "-n", "5", "-o", "cat"]).stdout
                wrong[name] = (plan.stderr, done.stderr, log)
        assert not wrong
