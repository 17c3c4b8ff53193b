"""images/provision: on EL's package managers with stub packages, and on Debian up to a first boot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import el
import nspawn
import oracle
import repositories as el_repositories
from host import Host

PROVISION = el.CHECKOUT / "images/provision"
LISTS = el.CHECKOUT / "images/packages"
PLACE = "/root/kvmhost-image"
IDENTITY = {
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/var/lib/cloud/instance/obj.pkl": "of an earlier boot",
    "/etc/ssh/ssh_host_ed25519_key": "secret",
    "/etc/ssh/ssh_host_ed25519_key.pub": "public",
    "/etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.1994-05.com.redhat:1",
    "/etc/nvme/hostnqn": "nqn.2014-08.org.nvmexpress:uuid:1",
    "/root/.bash_history": "passwd",
    "/var/log/cloud-init.log": "of an earlier boot",
    "/var/log/journal/0123456789abcdef0123456789abcdef/system.journal": "of an earlier boot",
}


def payload(root: Path, *packages: Path) -> None:
    """Lay provision, the lists and our package into a root, as the front ends do."""
    place = root / PLACE.lstrip("/")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copy(PROVISION, place)
    shutil.copytree(el.CHECKOUT / "images/packages", place / "packages")
    for package in packages:
        shutil.copy(package, place)


def identity(root: Path) -> None:
    """What a root has that was booted once."""
    for path, content in IDENTITY.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)


def assert_sealed(root: Path) -> None:
    left = [path for path in IDENTITY if (root / path.lstrip("/")).exists()]
    assert left == ["/etc/machine-id"]
    assert (root / "etc/machine-id").read_bytes() == b""
    assert not [path for path in (root / "var/log").rglob("*") if path.is_file()]


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every file's mode, owner and size; that of caches, bytecode and databases aside."""
    found = {}
    for directory, names, files in os.walk(root):
        names[:] = [
            name
            for name in names
            if name not in ("__pycache__", "proc", "sys", "dev", "run", "tmp")
        ]
        for name in files:
            path = Path(directory, name)
            state = path.lstat()
            found[f"/{path.relative_to(root)}"] = (state.st_mode, state.st_uid, state.st_size)
    return {
        path: state
        for path, state in found.items()
        if not path.startswith(("/var/lib/rpm/", "/var/lib/dnf/"))
    }


@pytest.fixture(params=[9, 10], scope="module")
def release(request: pytest.FixtureRequest) -> el.Release:
    return el.RELEASES[request.param]


@pytest.fixture(scope="module")
def output(release: el.Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(f"centos{release.number}")


@pytest.fixture(scope="module")
def repositories(release: el.Release, output: Path) -> dict[str, list[Path]]:
    return el_repositories.build(output, release)


@pytest.fixture(scope="module")
def package(release: el.Release, output: Path) -> Path:
    return el.our_package(output, release)


class TestEl:
    """The same steps as on CentOS Stream: EPEL, CRB, rpm and dnf are real, what they install are stubs."""

    @pytest.fixture
    def system(
        self, release: el.Release, repositories: dict[str, list[Path]], package: Path
    ) -> Iterator[el.System]:
        """A fresh CentOS Stream with its repositories; CRB is there, but not enabled, and EPEL is not known."""
        suite = {9: "bookworm", 10: "trixie"}[
            release.number
        ]  # dnf 4.14 and 4.23; EL9 has 4.14, EL10 4.20
        with el.system(release.number, suite) as system:
            for name, packages in repositories.items():
                system.offer(*packages, repository=name, enabled=name != "crb")
            system.path("/etc/yum.repos.d/epel.repo").unlink()
            system.dnf("install", "centos-stream-release")
            system.path("/etc/selinux").mkdir(exist_ok=True)
            system.path("/etc/selinux/config").write_text("SELINUX=enforcing\n")
            payload(system.root, package)
            yield system

    def provision(self, system: el.System, *arguments: str) -> subprocess.CompletedProcess[str]:
        return system.run(f"{PLACE}/provision", "--here", *arguments, check=False)

    def test_makes_a_kvm_host(self, system: el.System, release: el.Release) -> None:
        identity(system.root)
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        assert f"checking with {release.interpreter} -s" in done.stdout
        installed = system.run(
            "rpm", "--query", "--all", "--queryformat", r"%{NAME}\n"
        ).stdout.split()
        assert {*oracle.listed(LISTS / f"el-{release.number}"), "cc_kvmhost"} <= set(installed)
        system.run("kvmhost", "register", "--check")
        assert_sealed(system.root)
        assert not system.path("/var/cache/dnf").exists()
        assert system.path("/.autorelabel").exists()
        listed = system.path("/usr/share/kvmhost-image/packages").read_text().splitlines()
        assert any(line.startswith("cc_kvmhost-") and line.endswith(".noarch") for line in listed)

        before = snapshot(system.root)
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        assert "are installed" in done.stdout
        assert snapshot(system.root) == before
        enabled = system.run("dnf", "--quiet", "repolist", "--enabled").stdout
        assert "crb" in enabled and "epel" in enabled

    def test_image_mode_is_not_relabelled(self, system: el.System) -> None:
        system.path("/ostree").symlink_to("sysroot/ostree")
        system.path("/sysroot/ostree").mkdir(parents=True)
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        assert not system.path("/.autorelabel").exists()

    def test_no_epel(self, system: el.System) -> None:
        system.offer(repository="extras-common")
        self.assert_stopped(
            system, "No match for argument: epel-release", "dnf --assumeyes install epel-release"
        )

    def test_epel_is_not_enabled(self, system: el.System, output: Path) -> None:
        """A mirror's own epel-release may leave it off."""
        off = {"/etc/yum.repos.d/epel.repo": el.repo_file("epel", enabled=False)}
        (output / "off").mkdir(exist_ok=True)
        system.offer(el.stub(output / "off", "epel-release", "1", off), repository="extras-common")
        self.assert_stopped(system, "the repository epel is not enabled")

    def test_epel_without_pystemd(self, system: el.System) -> None:
        system.offer(repository="epel")
        system.path("/etc/yum.repos.d/epel.repo").unlink()
        self.assert_stopped(system, "No match for argument: python3-pystemd", "python3-pystemd")

    def test_no_crb(self, system: el.System) -> None:
        system.path("/etc/yum.repos.d/crb.repo").unlink()
        self.assert_stopped(system, "dnf config-manager --set-enabled crb")

    def test_a_package_that_cannot_be_installed(self, system: el.System, output: Path) -> None:
        (output / "broken").mkdir(exist_ok=True)
        broken = el.stub(
            output / "broken", "virt-install", "99", scripts="%pre\necho it will not do\nexit 1"
        )
        system.offer(broken, repository="updates")
        self.assert_stopped(system, "it will not do", "dnf --assumeyes", "virt-install")

    def test_another_release(self, system: el.System) -> None:
        system.path("/usr/lib/os-release").write_text("ID=fedora\nVERSION_ID=41\n")
        self.assert_stopped(
            system, "this is fedora (fedora 41)", "centos almalinux rocky rhel", "el-10 el-9"
        )

    def test_no_package_of_ours(self, system: el.System, release: el.Release) -> None:
        payload(system.root)
        self.assert_stopped(
            system, f"one cc_kvmhost-*.el{release.number}.noarch.rpm was expected", "found: none"
        )

    def test_the_running_machine(self, system: el.System) -> None:
        """PID 1 shares this root: sealing it might be a terrible mistake."""
        identity(system.root)
        done = system.run(f"{PLACE}/provision", check=False)
        assert done.returncode == 1
        assert "a running machine would lose its identity" in done.stdout
        assert system.path("/etc/ssh/ssh_host_ed25519_key").exists()

    def test_registration_does_not_hold(self, system: el.System, release: el.Release) -> None:
        """The self-check is the last word: here an administrator's list comes after ours."""
        mine = system.path("/etc/cloud/cloud.cfg.d/zzz_mine.cfg")
        mine.parent.mkdir(parents=True)
        mine.write_text("cloud_final_modules: [scripts_user]\n")
        self.assert_stopped(system, "zzz_mine.cfg", "kvmhost register")

    def assert_stopped(self, system: el.System, *texts: str) -> None:
        identity(system.root)
        done = self.provision(system)
        assert done.returncode == 1, done.stdout
        assert [text for text in texts if text not in done.stdout] == [], done.stdout
        assert done.stdout.splitlines()[-1].startswith("provision: ")
        assert system.path(
            "/etc/ssh/ssh_host_ed25519_key"
        ).exists()  # sealing comes after everything that can fail


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--packages"], "unknown argument '--packages'"), (["--package"], "--package needs a file")],
)
def test_usage(arguments: list[str], message: str) -> None:
    done = subprocess.run([PROVISION, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_help_is_enough() -> None:
    done = subprocess.run([PROVISION, "--help"], capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("--package", "--here", "SELinux", "machine-id"))


class TestDebian:
    """On roots with real packages, then booted: what an image's first boot does."""

    OS_RELEASE = 'ID=debian\nVERSION_ID="{}"\nPRETTY_NAME="Debian {}"\n'
    SECTION = "#cloud-config\nkvmhost:\n  libvirt:\n    mode: modular\n"

    def root(self, host: Host) -> Path:
        """The host's root while it isn't booted."""
        return host.console.parent / "root"

    def provision(self, host: Host) -> subprocess.CompletedProcess[str]:
        """With this machine's network and its certificates, for apt and pip."""
        root = self.root(host)
        trusted = Path(os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"))
        shutil.copy(trusted, root / "root/trusted.crt")
        environment = ["env", "PIP_CERT=/root/trusted.crt"]
        environment += [
            f"{name}={os.environ[name]}" for name in ("PIP_INDEX_URL",) if name in os.environ
        ]
        return nspawn.run(
            f"{host.name}-p",
            root,
            [*environment, f"{PLACE}/provision", "--here"],
            "--resolv-conf=bind-host",
            timeout=400,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def without_pystemd(self, host: Host, wheel: Path) -> None:
        """A packaged pystemd that has nothing for cloud-init's Python."""
        for module in self.root(host).glob("usr/lib/python3/dist-packages/pystemd/*.so"):
            module.unlink()
        payload(self.root(host), wheel)

    def test_first_boot(self, wheel: Path) -> None:
        os_release = self.OS_RELEASE.format(13, 13)
        with Host("el10", self.SECTION, install=False, os_release=os_release) as host:
            identity(self.root(host))
            payload(self.root(host), wheel)
            done = self.provision(host)
            assert done.returncode == 0, done.stdout
            assert_sealed(self.root(host))
            assert not host.exists("/.autorelabel")
            again = self.provision(host)
            assert again.returncode == 0, again.stdout
            assert "are installed" in again.stdout

            host.boot()
            report = host.report()
            assert (report["result"], report["mode"]) == ("ok", "modular")
            status = host.cloud_init_status()
            assert (status["status"], status["errors"]) == ("done", [])
            assert len(host.read("/etc/machine-id").strip()) == 32
            host.run(["virsh", "-c", "qemu:///system", "list"])

    def test_pystemd_does_not_serve_the_interpreter(self, wheel: Path) -> None:
        """As on EL9, should EPEL's be built for another Python: 0.14.0 is built, its build tools go again."""
        os_release = self.OS_RELEASE.format(12, 12)
        with Host("el9", self.SECTION, install=False, os_release=os_release) as host:
            self.without_pystemd(host, wheel)
            done = self.provision(host)
            assert done.returncode == 0, done.stdout
            assert "building pystemd==0.14.0" in done.stdout
            assert not host.exists("/usr/bin/gcc")
            found = host.chroot(["python3", "-c", "import pystemd; print(pystemd.__file__)"]).stdout
            assert found.startswith("/usr/local/lib/")
            host.boot()
            report = host.report()
            assert (report["result"], report["mode"]) == ("ok", "modular")

    def test_pystemd_with_another_hash(self, wheel: Path) -> None:
        with Host("el9", install=False, os_release=self.OS_RELEASE.format(12, 12)) as host:
            self.without_pystemd(host, wheel)
            pinned = host.read(f"{PLACE}/packages/pystemd.txt")
            host.write(f"{PLACE}/packages/pystemd.txt", pinned.replace("sha256:5", "sha256:6"))
            host.write(
                f"{PLACE}/packages/debian-12.pystemd", "python3-setuptools\n"
            )  # it is not built anyway
            done = self.provision(host)
            assert done.returncode == 1
            assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stdout
            assert "provision: exit status 1, output above: /usr/bin/python3 -m pip" in done.stdout
