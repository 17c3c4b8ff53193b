"""The commands of the documents, typed on a host as they stand. tests/documents.py says which are not."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import documents
import expect
from host import Host, has_kvm

#: As the shell is that types. cloud-init's exit status is 2 where a warning says that KVM is missing, diff's 1 where
#: there is a difference.
SHELL = """\
cd /root
ssh() { shift; "$@"; }
diff() { command diff "$@" || [ $? = 1 ]; }
cloud-init() { command cloud-init "$@" || [ $? = 2 ]; }
"""
#: What there is before a block is typed: by document, or by its first line.
BEFORE = {
    "docs/cloud-init.md": "kvmhost register",
    "systemctl stop virtsecretd.service libvirtd.service": (
        "systemctl start virt-secret-init-encryption.service"
    ),
    "virsh net-autostart default": (
        "virsh net-info default || virsh net-define /usr/share/libvirt/networks/default.xml"
    ),
    "kvmhost schema --cloud-config schema-cloud-config-v1.json > cloud-config.schema.json": (
        "cp /usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json ."
    ),
}
TYPED = [block for block in documents.commands() if not block.runner]


@pytest.mark.parametrize("document", sorted({block.document for block in TYPED}))
def test_every_command(document: str) -> None:
    section = expect.user_data({})
    with Host("el10", user_data=section, kvm=has_kvm()) as host:
        host.boot()
        for name in ("user-data.yaml", "vendor-data.yaml"):
            host.write(f"/root/{name}", section)
        for block in [block for block in TYPED if block.document == document]:
            first = block.text.splitlines()[0]
            before = [BEFORE[key] for key in (document, first) if key in BEFORE]
            script = "\n".join([SHELL, *before, "set -x", block.text])
            done = host.run(["bash", "-euc", script], check=False, timeout=120)
            assert done.returncode == 0, f"{block.where}\n{done.stdout}{done.stderr}"


#: What brings about each text that docs/troubleshooting.md has as a heading; run on a host in modular mode.
SYMPTOMS = {
    "Failed to connect socket to '/var/run/libvirt/virtqemud-sock'": (
        "systemctl stop virtqemud.socket virtqemud-ro.socket virtqemud-admin.socket virtqemud.service;"
        " virsh --connect qemu:///system list; kvmhost apply >&2"
    ),
    "Unit libvirtd.service is masked": "systemctl start libvirtd",
    "Additional properties are not allowed ('kvmhost' was unexpected)": (
        "kvmhost unregister; cloud-init schema --config-file /root/user-data.yaml; kvmhost register"
    ),
    "network 'default' is not active": (
        "virsh net-info default || virsh net-define /usr/share/libvirt/networks/default.xml;"
        " virsh net-destroy default; virt-install --name tiny --memory 64 --disk none --pxe"
        " --network default --osinfo detect=off,require=off --graphics none --noautoconsole"
        " --virt-type qemu"
    ),
    "KVM can't be used, so guests are emulated": (
        "(echo '#cloud-config'; echo 'kvmhost: {}') | kvmhost plan -"
    ),
}


def test_the_texts_that_people_search_for() -> None:
    headings = "\n".join(
        line
        for line in (documents.ROOT / "docs/troubleshooting.md").read_text().splitlines()
        if line.startswith("## ")
    )
    with Host("el10", user_data=expect.user_data({})) as host:
        host.boot()
        host.write("/root/user-data.yaml", expect.user_data({}))
        for text, script in SYMPTOMS.items():
            assert text in headings
            done = host.run(["sh", "-uc", script], check=False, timeout=120)
            assert text in done.stdout + done.stderr, done.stdout + done.stderr


def test_the_demo(tmp_path: Path) -> None:
    """README's first commands, but for apt-get, on a clone of what is committed here, by sudo."""
    typed = documents.block("README.md", "sudo apt-get").replace(
        "REPOSITORY_URL", str(documents.ROOT)
    )
    script = 'sudo() { "$@"; }\napt-get() { :; }\n' + typed
    keep = ("PATH", "HOME", "KVMHOST_CACHE", "XDG_CACHE_HOME")
    env = {key: os.environ[key] for key in keep if key in os.environ}
    env["SUDO_UID"] = "7"

    def run(argv: list[str], directory: Path, typed: str = "") -> str:
        done = subprocess.run(
            argv,
            cwd=directory,
            env=env,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    shown = run(["bash", "-euc", script], tmp_path)
    for words in (
        "=== el9: CentOS Stream 9, which Debian bookworm stands in for ===",
        "=== el10: CentOS Stream 10 (Coughlan), which Debian trixie stands in for ===",
        "$ kvmhost check",
        "virsh list --all",
    ):
        assert words in shown, shown
    # Nothing is in the way of what this user runs without sudo afterwards.
    clone = tmp_path / "cc_kvmhost"
    assert (clone / ".venv").stat().st_uid == 7
    assert not (clone / ".tox").exists()

    # CONTRIBUTING's shell: what it reads may be a script.
    (typed,) = re.findall(
        r"^sudo (make shell.*)", (documents.ROOT / "CONTRIBUTING.md").read_text(), re.M
    )
    script = "kvmhost status\ntest -e /dev/kvm && echo with KVM\necho $((6 * 7)) from inside\n"
    shown = run(typed.split(), clone, script)
    assert "mode     modular" in shown and "42 from inside" in shown, shown
    assert ("\nwith KVM\n" in shown) == has_kvm(), shown

    # On a terminal, which script(1) gives it, the last command's exit status is not make's affair.
    on_terminal = ["script", "--quiet", "--return", "--command", typed, "/dev/null"]
    shown = run(on_terminal, clone, "false\nexit\n")
    assert "el10 is up" in shown, shown
