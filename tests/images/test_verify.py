"""images/verify: which QEMU it starts and how, and what it makes of what comes back; QEMU is a stub."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

import el
from program import verify

VERIFY = el.CHECKOUT / "images/verify"
# Says which networks it has, or writes down how it was started and answers over the second serial port.
QEMU = """#!/bin/bash
directory=$(dirname "$0")
if [ "$1" = -netdev ]; then
    cat "$directory/networks"
    exit
fi
printf '%s\\n' "$@" > "$directory/argv"
mapfile -t ports < <(printf '%s\\n' "$@" | sed -n 's/^file:\\(\\/.*\\)$/\\1/p')
echo "the console's last words" > "${ports[0]}"
cat "$directory/answer" > "${ports[1]}"
"""
ANSWERS = {
    "packages": [0, "700 /usr/share/kvmhost-image/packages"],
    "root": [0, '{"filesystems": [{"size": 900}]}'],
    "disk": [0, '{"blockdevices": [{"size": 1000}]}'],
    "firmware": [1, ""],
    "os-release": [0, "PRETTY_NAME=x"],
}


class TestBoot:
    @pytest.fixture
    def qemu(self, tmp_path: Path) -> Path:
        path = tmp_path / "qemu"
        path.write_text(QEMU)
        path.chmod(0o755)
        (tmp_path / "networks").write_text("Available netdev backend types:\nsocket\nuser\ntap\n")
        answers = {**{name: [0, "held"] for name in verify().PROGRAMS}, **ANSWERS}
        (tmp_path / "answer").write_text(f"UEFI's noise\n{json.dumps(answers)}\n")
        return path

    def boot(self, qemu: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        image = qemu.with_name("image.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True)
        argv: list[str | Path] = [VERIFY, image]
        argv += ["--qemu", shlex.quote(str(qemu)), "--firmware", "bios", *arguments]
        return subprocess.run(argv, capture_output=True, text=True)

    def test_holds(self, qemu: Path) -> None:
        done = self.boot(qemu)
        assert done.returncode == 0, done.stderr
        assert "900" not in done.stdout and "FAIL" not in done.stdout
        assert "user,model=virtio-net-pci,restrict=on" in qemu.with_name("argv").read_text()

    def test_without_user_networking(self, qemu: Path) -> None:
        """The guest has nobody to talk to anyway."""
        qemu.with_name("networks").write_text("Available netdev backend types:\nsocket\ntap\n")
        assert self.boot(qemu).returncode == 0
        argv = qemu.with_name("argv").read_text().splitlines()
        assert argv[argv.index("-nic") + 1] == "none"

    def test_a_root_that_did_not_grow(self, qemu: Path) -> None:
        answer = qemu.with_name("answer")
        answer.write_text(answer.read_text().replace('"size\\": 900', '"size\\": 700'))
        done = self.boot(qemu)
        assert done.returncode == 1
        assert "FAIL 0 of 0 MiB" in done.stdout

    def test_no_answer(self, qemu: Path) -> None:
        qemu.with_name("answer").write_text("half an ans")
        done = self.boot(qemu)
        assert done.returncode == 1
        assert "no answer after 0 s; its console ends:" in done.stderr
        assert "the console's last words" in done.stderr

    def test_no_such_qemu(self, qemu: Path) -> None:
        qemu.unlink()
        done = self.boot(qemu)
        assert (done.returncode, "No such file" in done.stderr) == (1, True)
        assert "Traceback" not in done.stderr


class TestInstalledQemu:
    """EL's is in no PATH."""

    @pytest.mark.parametrize("there", ["qemu-system-x86_64", "/usr/libexec/qemu-kvm"])
    def test_found(self, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
        module = verify()
        monkeypatch.setattr(module.shutil, "which", lambda name: name == there)
        assert module.installed_qemu() == there

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = verify()
        monkeypatch.setattr(module.shutil, "which", lambda name: None)
        with pytest.raises(module.VerifyError, match="install qemu-kvm, on Debian"):
            module.installed_qemu()
