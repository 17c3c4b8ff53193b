"""What of the tmt plans needs dnf, on booted stand-ins whose packages are dnf's: installation, an older and a newer
cloud-init and libvirt, removal. The packages are stubs with the stand-ins' own content."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import bare
import el
import oracle
import repositories
import stubs
from host import Host

RELEASES = {"el9": 9, "el10": 10}
SECTION = "#cloud-config\nkvmhost: {kvm: ignore}\n"


@pytest.mark.parametrize("system", sorted(RELEASES))
def test_the_programs_of_the_plans(system: str, tmp_path: Path) -> None:
    """In the order of the plans upgrade and removal; their reboots are done here instead of by tmt."""
    release = el.RELEASES[RELEASES[system]]
    with Host(system, SECTION, layers=[bare.layer(system)], install=False) as host:
        place = el.System(release, host.console.parent / "root", host.name)
        offer(place, system, tmp_path)
        ignored = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
        shutil.copytree(el.CHECKOUT, place.path("/tree"), symlinks=True, ignore=ignored)
        place.run("sh", "-c", "cd /tree && tests/tmt/install")
        newest = versions(host)
        host.write("/usr/local/bin/tmt-reboot", "", 0o755)
        host.boot()
        assert_holds(host)

        program(host, "older")
        assert set(versions(host).values()) == {"0.1"}
        program(host, "upgrade")
        assert versions(host) == newest
        host.run(["cp", "/var/tmp/kvmhost-after", "/var/tmp/kvmhost-before"])
        assert "installing the same again" in program(host, "upgrade")

        program(host, "new-instance")
        host.reboot()
        program(host, "new-instance", reboots=1)
        assert_holds(host)

        # Of the stand-in's Python, which is not the release's: the package does not know them.
        for path in place.path(release.sitelib).glob("cc_kvmhost/**/*.pyc"):
            if f"cpython-{release.python.replace('.', '')}." not in path.name:
                path.unlink()
        program(host, "remove")
        host.reboot()
        program(host, "remove", reboots=1)
        assert not host.exists("/usr/bin/kvmhost")


def offer(place: el.System, system: str, output: Path) -> None:
    """EL's repositories, with an older cloud-init and libvirt too."""
    release = place.release
    older = [
        repositories.whole(package, release, system)._replace(version="0.1-1")
        for package in oracle.packages(release.number).values()
        if package.name.startswith(("cloud-init", "libvirt"))
    ]
    offered = {
        "tools": stubs.build(output / "tools", [stubs.Stub("rpm-build"), stubs.Stub("audit")]),
        "older": stubs.build(output / "older", older),
        **repositories.build(output, release, system),
    }
    for name, packages in offered.items():
        place.offer(*packages, repository=name, enabled=name != "crb")
    place.path("/etc/yum.repos.d/epel.repo").unlink()
    place.dnf("install", "centos-stream-release", "epel-release")


def versions(host: Host) -> dict[str, str]:
    """Of cloud-init's and libvirt's packages, where the older ones differ."""
    argv = [
        "rpm",
        "--query",
        "--all",
        "--queryformat",
        r"%{NAME} %{VERSION}\n",
        "cloud-init",
        "libvirt*",
    ]
    lines = (host.run if host.leader else host.chroot)(argv).stdout.splitlines()
    return dict(line.split() for line in lines)


def program(host: Host, name: str, reboots: int = 0) -> str:
    # No more bytecode of a Python whose the package does not know.
    words = ["env", "PYTHONDONTWRITEBYTECODE=1", f"TMT_REBOOT_COUNT={reboots}"]
    argv = [*words, f"/tree/tests/tmt/{name}"]
    return host.run(argv, timeout=300).stdout


def assert_holds(host: Host) -> None:
    """Every question, the one about our RPM among them."""
    done: subprocess.CompletedProcess[str] = host.run(
        ["/tree/tests/tmt/ask"], check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert "PASS rpm\ncc_kvmhost-" in done.stdout
    assert done.stdout.count("PASS ") == len(list((el.CHECKOUT / "tests/tmt/questions").iterdir()))
