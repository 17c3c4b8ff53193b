"""libvirt is upgraded on a host that a run has set up. EL 9 went from 9.0 to 11.10, EL 10 from 10.10 to 12."""

from __future__ import annotations

from pathlib import Path

import pytest

import expect
import libvirt_versions as versions
import roots
from host import Host

UNIT_FILES = Path("/usr/lib/systemd/system")
KEY_FOR_SECRETS = (versions.KEY, "virtsecretd.service.d", "libvirtd.service.d")


def unit_files(system: str) -> Path:
    return roots.root(system) / UNIT_FILES.relative_to("/")


@pytest.mark.parametrize(("system", "version"), [("el9", "9.0"), ("el10", "12.1")])
def test_the_table_of_libvirts_units_is_right(system: str, version: str) -> None:
    """The tables that tests/unit uses agree with the real unit files."""
    table = versions.units(version)
    if system == "el10":
        table = versions.as_debian_has_them(table)
    assert versions.read(unit_files(system)) == table


def newer(system: str) -> dict[str, str]:
    """The unit files after the upgrade, by their path below UNIT_FILES."""
    directory = unit_files("el10")
    found = [path for pattern in ("virt*", "libvirt*") for path in directory.glob(pattern)]
    if system == "el9":
        found = [path for path in found if path.name not in KEY_FOR_SECRETS]
    files = [path for each in found for path in ([each] if each.is_file() else each.iterdir())]
    assert len(files) > 40
    texts = {str(path.relative_to(directory)): path.read_text() for path in files}
    if system == "el9":  # its systemd does not know this Type=
        texts = {name: text.replace("notify-reload", "notify") for name, text in texts.items()}
    return texts


def upgrade(host: Host) -> None:
    """Do what libvirt's packages do: apply presets to new units, restart the services that run."""
    before = set(host.sh(f"ls {UNIT_FILES}").stdout.split())
    after = newer(host.system)
    for name, text in after.items():
        host.write(str(UNIT_FILES / name), text)
    added = sorted(name for name in after if "/" not in name and name not in before)
    assert added == ([versions.KEY] if host.system == "el10" else [])
    for unit in added:
        host.run(["systemctl", "--no-reload", "preset", unit])
    host.run(["systemctl", "daemon-reload"])
    daemons = [name for name in after if name.endswith("d.service")]
    host.run(["systemctl", "try-reload-or-restart", "virtlogd.service", "virtlockd.service"])
    host.run(["systemctl", "try-restart", *daemons])


@pytest.mark.parametrize("mode", ["modular", "monolithic"])
def test_the_mode_holds_when_libvirt_is_upgraded(system: str, mode: str) -> None:
    with Host(system, user_data=expect.user_data({"libvirt": {"mode": mode}})) as host:
        if system == "el10":  # older than its own: 12 added these
            host.chroot(["rm", "-r", *(str(UNIT_FILES / name) for name in KEY_FOR_SECRETS)])
        host.boot()
        assert host.report()["result"] == "ok", host.report()
        expect.mode_is(host, mode)

        upgrade(host)
        host.run(["kvmhost", "status"])
        host.reboot()
        expect.mode_is(host, mode)
        host.run(["kvmhost", "status"])
        host.run(["kvmhost", "apply"])
        assert host.report()["changed"] == []
        if system == "el10":
            host.run(["virsh", "-c", "secret:///system", "secret-list"])
            assert host.units(versions.KEY)[versions.KEY].file_state == "static"
            assert host.exists("/var/lib/libvirt/secrets/secrets-encryption-key")
