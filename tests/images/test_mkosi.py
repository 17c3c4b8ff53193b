"""The mkosi recipe: CentOS Stream 9 and 10 in the real mirrors' layout, on 127.0.0.1, with stub packages.

And, marked slow, its twin for Debian: a disk image with real packages, booted.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import os
import platform
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import el
import firmware
import nspawn
import oracle
import repositories
import stubs
from nspawn import HarnessError
from stubs import Stub

TOOLS = (
    "mkosi,dnf,rpm,createrepo-c,systemd,python3,bubblewrap,uidmap,distribution-gpg-keys,cpio,zstd,gpg,"
    # for disk images, and Debian's
    "apt,debian-archive-keyring,ca-certificates,systemd-boot,systemd-boot-tools,systemd-repart,systemd-ukify,"
    "dosfstools,mtools,e2fsprogs,kmod,tar,"
    # for labels; the policy, Debian's, stands in for EL's targeted one
    "policycoreutils,selinux-utils,selinux-policy-default"
)
# The release whose image has a section baked in.
BAKED = 9
# What mkosi installs of itself; userland comes as a skeleton tree, from a real Debian.
ITS_OWN = ("basesystem", "filesystem")


def tools() -> Path:
    """A Debian 13 root with mkosi 25, built once."""
    directory = nspawn.cache() / "mkosi" / hashlib.sha256(TOOLS.encode()).hexdigest()[:12]
    with nspawn.locked(nspawn.cache() / "locks" / "mkosi"):
        if not directory.is_dir():
            shutil.rmtree(directory.parent, ignore_errors=True)
            directory.parent.mkdir(parents=True)
            building = directory.with_name("building")
            done = subprocess.run(
                [
                    "mmdebstrap",
                    "--quiet",
                    "--variant=minbase",
                    "--aptopt=APT::Install-Recommends false",
                ]
                + [f"--include={TOOLS}", "trixie", str(building)],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                raise HarnessError(f"no root with mkosi:\n{done.stderr[-2000:]}")
            building.rename(directory)
    return directory


@contextlib.contextmanager
def mirror(directory: Path, distribution: str) -> Iterator[str]:
    """Serve a directory on the loopback interface."""
    handler = functools.partial(QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/{distribution}"
        finally:
            server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def repository(directory: Path, packages: list[Path]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for package in packages:
        shutil.copy(package, directory)
    subprocess.run(["createrepo_c", "--quiet", str(directory)], check=True)


def policy() -> Stub:
    """selinux-policy-targeted, newer than the repositories', with Debian's policy in it."""
    installed = tools() / "etc/selinux/default"
    files: dict[str, str | bytes] = {
        "/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=targeted\n"
    }
    for path in installed.rglob("*"):
        if path.is_file():
            files[f"/etc/selinux/targeted/{path.relative_to(installed)}"] = path.read_bytes()
    return Stub("selinux-policy-targeted", "999-1", files)


class Build:
    """mkosi for one release, with its mirror."""

    def __init__(self, release: el.Release, work: Path) -> None:
        self.release = release
        self.work = work
        self.mirror = work / "mirror"
        self.source = work / "source"
        self.image = work / "out/kvmhost"
        packages = work / "packages"
        packages.mkdir()
        offered = repositories.build(packages, release)
        own = [*map(Stub, ITS_OWN), policy()]
        offered["baseos"] += stubs.build(packages / "own", own)
        stream, arch = f"{release.number}-stream", platform.machine()
        places = {
            "baseos": f"centos/{stream}/BaseOS/{arch}/os",
            "appstream": f"centos/{stream}/AppStream/{arch}/os",
            "crb": f"centos/{stream}/CRB/{arch}/os",
            "extras-common": f"centos/SIGs/{stream}/extras/{arch}/extras-common",
            "epel": f"fedora/epel/{release.number}/Everything/{arch}",
        }
        for name, place in places.items():
            repository(self.mirror / place, offered.get(name, []))
        # Where the others have the same.
        others = {
            "baseos": ("alma/{n}/BaseOS/{arch}/os", "rhel/rhel{n}/{n}/{arch}/baseos/os"),
            "appstream": ("alma/{n}/AppStream/{arch}/os", "rhel/rhel{n}/{n}/{arch}/appstream/os"),
            "crb": ("alma/{n}/CRB/{arch}/os", "rhel/rhel{n}/{n}/{arch}/codeready-builder/os"),
            "extras-common": ("alma/{n}/extras/{arch}/os",),
        }
        for name, paths in others.items():
            for path in paths:
                other = self.mirror / path.format(n=release.number, arch=arch)
                other.parent.mkdir(parents=True)
                other.symlink_to(self.mirror / places[name])
        self.epel = self.mirror / places["epel"]
        shutil.copytree(el.CHECKOUT / "images", self.source / "images")
        el.our_package(self.source / "dist", release)

    def run(self, *options: str, distribution: str = "centos") -> subprocess.CompletedProcess[str]:
        """mkosi, in the tools' root, on a copy of our images/."""
        shutil.rmtree(self.work / "out", ignore_errors=True)
        for name in ("out", "cache", "tmp"):
            (self.work / name).mkdir(exist_ok=True)
        skeleton = self.work / "skeleton"
        skeleton.mkdir(exist_ok=True)
        (skeleton / "macros").write_text(self.macros())
        cache = nspawn.cache() / "mkosi"
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(
                nspawn.overlay([tools()], cache / f"tools-{self.release.number}")
            )
            userland = stack.enter_context(
                nspawn.overlay([el.root("bookworm")], cache / f"userland-{self.release.number}")
            )
            shutil.rmtree(userland / "dev")  # mkosi copies the content of devices
            url = stack.enter_context(mirror(self.mirror, distribution))
            argv = [
                "mkosi",
                "--directory=/stage/source/images/mkosi",
                f"--distribution={distribution}",
                f"--release={self.release.number}",
            ]
            argv += [
                f"--mirror={url}",
                "--repository-key-check=no",
                "--format=directory",
                "--bootable=no",
            ]
            argv += [
                "--output-directory=/stage/out",
                "--workspace-directory=/stage/tmp",
                "--cache-directory=/stage/cache",
            ]
            argv += [
                "--skeleton-tree=/userland",
                "--skeleton-tree=/stage/skeleton/macros:/etc/rpm/macros",
            ]
            return chroot(
                root, [*argv, *options, "build"], {"stage": self.work, "userland": userland}
            )

    def macros(self) -> str:
        """Where mkosi puts the database of packages: where the release's own rpm looks for it."""
        return (
            f"%_dbpath {'/usr/lib/sysimage/rpm' if self.release.number > 9 else '/var/lib/rpm'}\n"
        )


def chroot(
    root: Path, argv: list[str], binds: dict[str, Path], timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command in a root, in mount and process namespaces of its own; mkosi makes further ones."""
    mounts = [f"mount --rbind /{name} {root}/{name}" for name in ("dev", "sys")]
    mounts += [f"mount -t proc proc {root}/proc"]
    for name, path in binds.items():
        (root / name).mkdir(exist_ok=True)
        mounts.append(f"mount --bind {path} {root}/{name}")
    script = " && ".join([*mounts, f'exec chroot {root} "$@"'])
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", *argv],
        env=nspawn.ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(params=[9, 10], scope="module")
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    return Build(el.RELEASES[request.param], tmp_path_factory.mktemp(f"mkosi{request.param}"))


@pytest.fixture(scope="module")
def image(build: Build) -> Path:
    options = []
    if build.release.number == BAKED:
        (build.source / "images/section.yaml").write_text(
            "#cloud-config\nkvmhost: {libvirt: {drivers: [qemu, network]}}\n"
        )
        options = ["--environment=BAKE=section.yaml"]
    done = build.run(*options)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("provision: done") == 2  # in the middle, and of what mkosi made of it
    return build.image


class TestBuilt:
    """One build, looked at from several sides."""

    def test_our_package(self, build: Build, image: Path) -> None:
        sitelib = image / build.release.sitelib.lstrip("/")
        assert (sitelib / "cc_kvmhost/cli.py").stat().st_mode & 0o777 == 0o644
        assert (image / "usr/bin/kvmhost").stat().st_mode & 0o777 == 0o755
        assert (image / "etc/cloud/cloud.cfg.d/zz_kvmhost.cfg").exists()

    def test_packages(self, build: Build, image: Path) -> None:
        listed = (image / "usr/share/kvmhost-image/packages").read_text().split()
        for name in ("qemu-kvm", "libvirt-daemon-kvm", "python3-pystemd"):
            version = oracle.packages(build.release.number)[name].version.rpartition(":")[2]
            assert f"{name}-{version}.noarch" in listed
        assert f"cc_kvmhost-0.1.0-1.el{build.release.number}.noarch" in listed

    def test_cloud_init_is_enabled(self, image: Path) -> None:
        """In what comes out: mkosi presets all units after everything else, and EL's last rule disables them."""
        enabled = {path.name for path in image.glob("etc/systemd/system/*.wants/*")}
        assert set(el.CLOUD_INIT_UNITS) <= enabled

    def test_a_section_baked_in(self, build: Build, image: Path) -> None:
        """In what comes out: mkosi presets all units after it."""
        links = image / "etc/systemd/system"
        if build.release.number == BAKED:
            assert os.readlink(links / "virtqemud.service") == "/dev/null"
            assert (links / "multi-user.target.wants/libvirtd.service").is_symlink()
            assert (image / "etc/tuned/active_profile").read_text() == "virtual-host\n"
            kept = (image / "usr/share/kvmhost-image/baked.yaml").read_text()
            assert (
                kept
                == '#cloud-config\n{"kvmhost": {"libvirt": {"drivers": ["qemu", "network"]}}}\n'
            )
        else:
            assert not (links / "libvirtd.service").is_symlink()
            assert not (image / "usr/share/kvmhost-image/baked.yaml").exists()

    def test_labels(self, build: Build, image: Path) -> None:
        """What provision writes has the label that the policy gives its path, and no relabel is left to the first boot."""
        package = build.source / f"dist/cc_kvmhost-0.1.0-1.el{build.release.number}.noarch.rpm"
        files = subprocess.check_output(["rpm", "-qlp", package], text=True).split()
        written = [
            "/etc/cloud/cloud.cfg.d/zz_kvmhost.cfg",
            "/etc/machine-id",
            "/usr/lib/systemd/system-preset/80-kvmhost-image.preset",
            "/usr/share/kvmhost-image/packages",
            *(path for path in files if (image / path.lstrip("/")).is_file()),
        ]
        assert {"/usr/bin/kvmhost", f"{build.release.sitelib}/cc_kvmhost/cli.py"} <= set(written)
        contexts = "/etc/selinux/default/contexts/files/file_contexts"
        with nspawn.overlay([tools()], nspawn.cache() / "mkosi" / "tools-labels") as root:
            done = chroot(root, ["matchpathcon", "-n", "-f", contexts, *written], {})
        assert done.returncode == 0, done.stdout
        for path, expected in zip(written, done.stdout.split(), strict=True):
            label = os.getxattr(image / path.lstrip("/"), "security.selinux", follow_symlinks=False)
            assert label.decode().rstrip("\0") == expected, path
        assert not (image / ".autorelabel").exists()


def test_others(build: Build) -> None:
    """RHEL has no extras, and its own names for repositories; AlmaLinux and Rocky Linux are alike."""
    distribution, name = {9: ("rhel", "Red Hat"), 10: ("alma", "AlmaLinux")}[build.release.number]
    done = build.run(distribution=distribution)
    assert done.returncode == 0, done.stdout
    assert f'PRETTY_NAME="{name}' in (build.image / "usr/lib/os-release").read_text()
    enabled = {path.name for path in build.image.glob("etc/systemd/system/*.wants/*")}
    assert set(el.CLOUD_INIT_UNITS) <= enabled


def test_labels_left_to_the_first_boot(build: Build) -> None:
    """If mkosi does not set them, the first boot is asked to."""
    done = build.run("--selinux-relabel=no")
    assert done.returncode == 0, done.stdout
    assert (build.image / ".autorelabel").exists()


def test_cloud_init_is_disabled_after_provision(build: Build) -> None:
    """The check comes after mkosi's own last steps, such as its presets."""
    provision = build.source / "images/provision"
    content = provision.read_text()
    provision.write_text(content.replace("'enable %s", "'disable %s"))
    try:
        done = build.run()
    finally:
        provision.write_text(content)
    assert done.returncode != 0
    assert "cloud-init-local.service is not enabled" in done.stdout
    assert not build.image.exists()


def test_epel_not_enabled(build: Build) -> None:
    done = build.run("--repositories=")
    assert done.returncode != 0
    assert "python3-pystemd" in done.stdout
    assert not build.image.exists()


def test_epel_not_reachable(build: Build) -> None:
    aside = build.epel.with_name("aside")
    build.epel.rename(aside)
    try:
        done = build.run()
    finally:
        aside.rename(build.epel)
    assert done.returncode != 0
    assert "epel" in done.stdout and "404" in done.stdout
    assert not build.image.exists()


def test_a_failing_check_stops_the_build(build: Build) -> None:
    cli = build.source / "images/packages" / f"el-{build.release.number}"
    content = cli.read_text()
    cli.write_text(re.sub("^libvirt.*\n", "", content, flags=re.MULTILINE))  # nothing to host with
    try:
        done = build.run()
    finally:
        cli.write_text(content)
    assert done.returncode != 0
    assert "kvmhost plan" in done.stdout
    assert not build.image.exists()


def test_unknown_release(build: Build) -> None:
    build.release, release = el.Release(11, "3.14", "/usr/bin/python3", "sid"), build.release
    try:
        done = build.run()
    finally:
        build.release = release
    assert done.returncode != 0
    assert "no el-11 in images/packages for centos 11" in done.stdout


def debian_mirror() -> str:
    """The one that this machine's own apt takes."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = subprocess.check_output(argv, text=True).split()
    return next(uri for uri in found if uri.startswith("http"))


@pytest.mark.slow
def test_a_disk_boots_by_efi_and_grows(tmp_path: Path, wheel: Path) -> None:
    """The root is as large as its content; on a larger disk the first boot makes it larger."""
    shutil.copytree(el.CHECKOUT / "images", tmp_path / "source/images")
    (tmp_path / "source/dist").mkdir()
    shutil.copy(wheel, tmp_path / "source/dist")
    for name in ("out", "cache", "tmp"):
        (tmp_path / name).mkdir()
    with nspawn.overlay([tools()], nspawn.cache() / "mkosi" / "tools-debian") as root:
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        argv = ["mkosi", "--directory=/stage/source/images/mkosi", "--distribution=debian"]
        # Debian's further repositories (debug, security) are not on every mirror.
        argv += ["--release=trixie", f"--local-mirror={debian_mirror()}"]
        argv += ["--output-directory=/stage/out", "--workspace-directory=/stage/tmp"]
        argv += ["--cache-directory=/stage/cache", "build"]
        done = chroot(root, argv, {"stage": tmp_path}, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:]
    raw, image = tmp_path / "out/kvmhost.raw", tmp_path / "kvmhost.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, image], check=True)
    size = raw.stat().st_size
    raw.unlink()
    assert firmware.firmwares(image) == ["efi"]

    verify: list[str | Path] = [el.CHECKOUT / "images/verify", image]
    verify += ["--size", str(4 * size), "--timeout", "600", "--json"]
    done = subprocess.run(verify, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout)[image.name]
    assert answers["firmware"][0] == 0
    assert json.loads(answers["root"][1])["filesystems"][0]["size"] > 3 * size
    assert json.loads(answers["report.json"][1])["result"] == "ok"
