"""images/Containerfile, built by buildah on bases in image mode's layout, and booted as image mode boots.

The base has EL's release package and repositories: dnf and rpm are real, packages are stubs. What belongs to the
system of libvirt's, tuned's and cloud-init's (units, users, directories in /var) is not in it: the packages bring it,
with the stand-in's own content. Their programs are in it, so that it boots.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import bare
import el
import expect
import lint
import nspawn
import repositories
import roots
import watch
from containers import Storage
from host import Host
from test_provision import snapshot

RELEASES = {"el9": 9, "el10": 10}
# Of what is built: one has its section baked in, the other gets its mode at first boot.
BAKED = {"el9": expect.UNCHECKED, "el10": None}
# The names of images that are kept.
BARE = "localhost/bare-"
IMAGE_MODE = r"""
# Image mode's layout, and its command.
mkdir -p /sysroot/ostree
ln -s sysroot/ostree /ostree
rm -rf /home /root /srv /mnt
mkdir -p /var/home /var/roothome /var/srv /var/mnt
for link in home:home root:roothome srv:srv mnt:mnt; do ln -s var/${link#*:} /${link%:*}; done
printf '#!/bin/sh\n[ "$*" = "container lint" ] || exit 64\n: > /usr/share/bootc-was-asked\n' > /usr/bin/bootc
chmod 755 /usr/bin/bootc
"""


class Image(NamedTuple):
    """What was built, on what, by which context."""

    system: str
    storage: Storage
    base: str
    name: str
    context: Path
    arguments: dict[str, str]
    said: str


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    """The storage, emptied of what a killed run left. One test run uses it at a time."""
    with nspawn.locked(nspawn.cache() / "locks" / "containers"):
        storage = Storage()
        storage.run("rm", "--all")
        storage.remove(*(name for name in storage.images() if not name.startswith(BARE)))
        yield storage


def bare_image(storage: Storage, system: str) -> str:
    """An image of bare's root in image mode's layout; made once."""
    layer = bare.layer(system)
    image = f"{BARE}{layer.name}-{hashlib.sha256(IMAGE_MODE.encode()).hexdigest()[:12]}"
    if image not in storage.images():
        storage.remove(*(name for name in storage.images() if name.startswith(f"{BARE}{system}-")))
        work = storage.directory / f"{system}.building"
        nspawn.unmount_overlay(work)  # what a killed build left
        with nspawn.overlay([layer, roots.root(system)], work) as merged:
            bare.run(f"kvmhost-image-{system}", merged, IMAGE_MODE)
            with storage.tree("scratch", become=image) as tree:
                subprocess.run(["cp", "--archive", f"{merged}/.", tree], check=True)
    return image


@pytest.fixture(scope="module", params=sorted(RELEASES))
def image(
    request: pytest.FixtureRequest, storage: Storage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Image]:
    system: str = request.param
    release = el.RELEASES[RELEASES[system]]
    work = tmp_path_factory.mktemp(system)
    base, name = f"localhost/base-{system}", f"localhost/kvmhost-{system}"
    with storage.tree(bare_image(storage, system), become=base) as tree:
        place = el.System(release, tree, f"kvmhost-image-{system}")
        for repository, packages in repositories.build(work, release, system).items():
            place.offer(*packages, repository=repository, enabled=repository != "crb")
        place.path("/etc/yum.repos.d/epel.repo").unlink()
        place.dnf("install", "centos-stream-release")
    context = work / "context"
    shutil.copytree(el.CHECKOUT / "images", context)
    el.our_package(context, release)
    arguments = {}
    if BAKED[system]:
        (context / "section.yaml").write_text(expect.user_data(BAKED[system], checked=True))
        arguments["BAKE"] = "section.yaml"
    said = storage.build(name, base, context, **arguments)
    yield Image(system, storage, base, name, context, arguments, said)
    storage.remove(name, base)


def test_built(image: Image) -> None:
    assert "provision: done" in image.said
    with image.storage.tree(image.name) as tree:
        assert (tree / "usr/share/bootc-was-asked").exists()
        assert not list(tree.glob("**/kvmhost-image/provision"))  # nothing of the context
        assert (tree / "etc/machine-id").read_bytes() == b""
        baked = tree / "usr/share/kvmhost-image/baked.yaml"
        assert baked.exists() == bool(BAKED[image.system])


def test_nothing_for_bootc_container_lint(image: Image) -> None:
    """Nothing that it does not find in the base already, which is no real bootc image."""
    with image.storage.tree(image.name) as tree, image.storage.tree(image.base) as base:
        before = lint.findings(base)
        assert lint.findings(tree) - before == set()
        # They are there to be found.
        assert (tree / "var/lib/libvirt/images").is_dir()
        declared = [
            tree / f"usr/lib/{kind}/kvmhost-image.conf" for kind in ("tmpfiles.d", "sysusers.d")
        ]
        assert (
            "d /var/lib/libvirt/qemu :0750 :libvirt-qemu :libvirt-qemu - -\n"
            in declared[0].read_text()
        )
        for path in declared:
            path.unlink()
        found = lint.findings(tree) - before
        assert {"var-tmpfiles: /var/lib/libvirt/images", "sysusers: passwd: libvirt-qemu"} <= found


def test_again(image: Image) -> None:
    """Built again on its own result, nothing is different."""
    another = f"{image.name}-again"
    try:
        said = image.storage.build(another, image.name, image.context, **image.arguments)
        assert "are installed" in said
        with image.storage.tree(another) as tree, image.storage.tree(image.name) as first:
            ours, theirs = (
                {
                    path: state
                    for path, state in snapshot(root).items()
                    if "/sysimage/rpm/" not in path
                }
                for root in (tree, first)
            )
            assert ours == theirs
            for kind in ("tmpfiles.d", "sysusers.d"):
                path = f"usr/lib/{kind}/kvmhost-image.conf"
                assert (tree / path).read_text() == (first / path).read_text()
    finally:
        image.storage.remove(another)


def test_first_boot(image: Image) -> None:
    """/ and /usr are read-only. The run does not write again what was baked in."""
    section = BAKED[image.system] or {"kvm": "ignore"}
    user_data = expect.user_data(section, checked=True)
    with (
        image.storage.tree(image.name) as tree,
        Host(image.system, user_data, files=watch.FILES, install=False, image=tree) as host,
    ):
        host.chroot(["systemctl", "enable", "watch.service"])
        before = watch.links(host)
        host.boot()
        assert host.run(["touch", "/usr/x"], check=False).returncode != 0
        assert host.run(["touch", "/x"], check=False).returncode != 0
        report = host.report()
        mode = expect.MODE_OF[image.system]
        assert (report["result"], report["mode"]) == ("ok", mode), report
        if image.arguments:
            assert [each for each in report["changed"] if not each.startswith("start ")] == []
            assert watch.links(host) == before
            assert not set(watch.calls(host)) & {*expect.CHANGING, "Reloading."} - {"StartUnit"}
            assert watch.ever_started(host, expect.OTHER[mode]) == []
        else:
            assert report["check"]["passed"] and report["check"]["level"] == "guest", report
        is_a_kvm_host(host, image.system)
        host.reboot()
        is_a_kvm_host(host, image.system)


def is_a_kvm_host(host: Host, system: str) -> None:
    assert host.run(["systemctl", "--failed", "--no-legend", "--plain"]).stdout == ""
    assert host.cloud_init_status()["errors"] == []
    expect.mode_is(host, expect.MODE_OF[system])
    expect.tuned_is(host, "virtual-host")


def test_a_machine_that_is_updated_to_it(image: Image) -> None:
    """The machine was installed from the base, so its /var is the base's. Its users too, because it added one."""
    with (
        image.storage.tree(image.name) as tree,
        image.storage.tree(image.base) as base,
        Host(image.system, expect.user_data({}), install=False, image=tree) as host,
    ):
        root = host.console.parent / "root"
        seed = root / "var/lib/cloud/seed"
        shutil.copytree(seed, host.console.parent / "seed")
        for path in (root / "var").iterdir():
            subprocess.run(["rm", "-rf", path], check=True)
        subprocess.run(["cp", "--archive", f"{base}/var/.", root / "var"], check=True)
        shutil.copytree(host.console.parent / "seed", seed)
        for name in ("passwd", "group", "shadow", "gshadow"):
            shutil.copy2(base / "etc" / name, root / "etc" / name)
        host.chroot(["useradd", "somebody"])
        assert not host.exists("/var/lib/libvirt")
        assert host.chroot(["id", "libvirt-qemu"], check=False).returncode == 1
        host.boot()
        assert host.report()["result"] == "ok", host.report()
        is_a_kvm_host(host, image.system)
        assert "kvm" in host.run(["id", "--name", "--groups", "libvirt-qemu"]).stdout.split()
        owned = host.run(
            ["stat", "--format=%a %U", "/var/lib/libvirt/qemu", "/var/lib/libvirt/images"]
        ).stdout
        assert owned.split() == ["750", "libvirt-qemu", "711", "root"]
        # What somebody changes stays so.
        host.run(["chmod", "777", "/var/lib/libvirt/images"])
        host.run(["systemd-tmpfiles", "--create"], check=False)
        assert host.run(["stat", "--format=%a", "/var/lib/libvirt/images"]).stdout == "777\n"
