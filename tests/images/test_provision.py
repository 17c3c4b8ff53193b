"""images/provision: on EL's package managers with stub packages, and on Debian up to a first boot."""

from __future__ import annotations

import json
import os
import platform
import re
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
    "/etc/lvm/devices/system.devices": "IDTYPE=sys_serial IDNAME=1 DEVNAME=/dev/sda2 PVID=1",
    "/root/.bash_history": "passwd",
    "/var/lib/systemd/credential.secret": "of this machine",
    "/var/lib/libvirt/secrets/secrets-encryption-key": "encrypted with it",
    "/var/lib/libvirt/secrets/secrets-encryption-key.stale-20260101T000000": "of another machine",
    "/var/log/cloud-init.log": "of an earlier boot",
    "/var/log/journal/0123456789abcdef0123456789abcdef/system.journal": "of an earlier boot",
}


# What EL's presets and libvirt's scriptlets make of a fresh installation; the first four come with virtqemud.service.
PRESET = (
    "virtqemud.socket",
    "virtqemud-ro.socket",
    "virtqemud-admin.socket",
    "virtlogd.socket",
    "virtqemud.service",
    "virtproxyd.socket",
    "virtnetworkd.socket",
    "virtstoraged.socket",
    "tuned.service",
)
NOT_PRESET = ("libvirtd.service", "libvirtd.socket", "virtnetworkd.service")


def payload(root: Path, *packages: Path) -> None:
    """Lay provision, the lists and our package into a root, as the front ends do."""
    place = root / PLACE.lstrip("/")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for program in (PROVISION, PROVISION.with_name("declare-state")):
        shutil.copy(program, place)
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
        self,
        request: pytest.FixtureRequest,
        release: el.Release,
        repositories: dict[str, list[Path]],
        package: Path,
    ) -> Iterator[el.System]:
        """A fresh CentOS Stream, or what the test names, with its repositories.

        CRB is there, but not enabled, and EPEL is not known.
        """
        distribution = getattr(request, "param", "centos")
        suite = {9: "bookworm", 10: "trixie"}[
            release.number
        ]  # dnf 4.14 and 4.23; EL9 has 4.14, EL10 4.20
        with el.system(release.number, suite) as system:
            for name, packages in repositories.items():
                system.offer(*packages, repository=name, enabled=name != "crb")
            system.path("/etc/yum.repos.d/epel.repo").unlink()
            system.dnf("install", el_repositories.DISTRIBUTIONS[distribution].release_package)
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
        assert self.states(system, *PRESET) == ["enabled"] * len(PRESET)
        assert self.states(system, *NOT_PRESET) == ["disabled"] * len(NOT_PRESET)

        before = snapshot(system.root)
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        assert "are installed" in done.stdout
        assert snapshot(system.root) == before
        enabled = system.run("dnf", "--quiet", "repolist", "--enabled").stdout
        assert "crb" in enabled and "epel" in enabled

    def states(self, system: el.System, *units: str) -> list[str]:
        """Each unit's state."""
        done = system.run("systemctl", "--root=/", "is-enabled", *units, check=False)
        return done.stdout.split()

    def test_the_rpm_alone(self, system: el.System, package: Path) -> None:
        """dnf install of it, on a system that has EPEL and CRB: all that kvmhost apply uses comes along."""
        system.dnf("config-manager", "--set-enabled", "crb")
        system.dnf("install", "epel-release")
        system.dnf("install", f"{PLACE}/{package.name}")
        for name in (
            "libvirt-daemon",
            "libvirt-daemon-kvm",
            "qemu-kvm",
            "tuned",
            "python3-libvirt",
        ):
            system.run("rpm", "--query", name)
        plan = json.loads(system.run("kvmhost", "plan", "--root", "/", "--json").stdout)
        assert (plan["result"], plan["errors"]) == ("planned", [])
        assert plan["mode"] == ("monolithic" if "el9" in package.name else "modular")

    def test_the_rpm_without_weak_dependencies(self, system: el.System, package: Path) -> None:
        """What is then missing is named, with the packages that have it."""
        system.dnf("config-manager", "--set-enabled", "crb")
        system.dnf("install", "epel-release")
        system.dnf("install", "--setopt=install_weak_deps=False", f"{PLACE}/{package.name}")
        done = system.run("kvmhost", "plan", "--root", "/", check=False)
        assert done.returncode == 1
        assert "libvirt-daemon-kvm" in done.stdout

    @pytest.mark.parametrize("system", ["almalinux", "rocky"], indirect=True)
    def test_rebuilds(self, system: el.System) -> None:
        """AlmaLinux and Rocky Linux use the same list of packages as CentOS Stream."""
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        assert "provision: done" in done.stdout

    def test_default_network(self, system: el.System) -> None:
        """It is removed: libvirt's package chose its subnet for the machine that builds the image."""
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        networks = system.path("/etc/libvirt/qemu/networks")
        assert [path for path in networks.rglob("*") if not path.is_dir()] == []
        assert 'the network "default" is removed from the image' in done.stdout
        assert "libvirt.networks: [{name: default, mode: nat}]" in done.stdout

    def test_a_network_that_somebody_wrote_stays(self, system: el.System) -> None:
        mine = system.path("/etc/libvirt/qemu/networks/default.xml")
        mine.parent.mkdir(parents=True)
        mine.write_text("<network><name>default</name><forward mode='bridge'/></network>\n")
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        assert "forward mode='bridge'" in mine.read_text()
        assert "is removed from the image" not in done.stdout

    def test_image_mode_is_not_relabelled(self, system: el.System) -> None:
        system.path("/ostree").symlink_to("sysroot/ostree")
        system.path("/sysroot/ostree").mkdir(parents=True)
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        assert not system.path("/.autorelabel").exists()

    def test_no_epel(self, system: el.System) -> None:
        system.offer(repository="extras-common")
        self.assert_stopped(
            system, "No match for argument: epel-release", "dnf --assumeyes", "install epel-release"
        )

    def test_epel_is_not_enabled(self, system: el.System, output: Path) -> None:
        """The epel-release of a mirror may not enable it."""
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
        """PID 1 shares this root, so sealing might destroy a running machine's identity: it is refused."""
        identity(system.root)
        done = system.run(f"{PLACE}/provision", check=False)
        assert done.returncode == 1
        assert "a running machine would lose its identity" in done.stdout
        assert system.path("/etc/ssh/ssh_host_ed25519_key").exists()

    def test_registration_does_not_hold(self, system: el.System, release: el.Release) -> None:
        """The check at the end notices that an administrator's module list overrides ours."""
        mine = system.path("/etc/cloud/cloud.cfg.d/zzz_mine.cfg")
        mine.parent.mkdir(parents=True)
        mine.write_text("cloud_final_modules: [scripts_user]\n")
        self.assert_stopped(system, "zzz_mine.cfg", "kvmhost register")

    def test_secrets_that_would_be_lost(self, system: el.System) -> None:
        secrets = system.path("/etc/libvirt/secrets")
        secrets.mkdir(parents=True)
        (secrets / "a.xml").touch()
        self.assert_stopped(system, "/etc/libvirt/secrets has secrets")
        assert system.path("/var/lib/libvirt/secrets/secrets-encryption-key").exists()

    def assert_stopped(self, system: el.System, *texts: str) -> None:
        identity(system.root)
        done = self.provision(system)
        assert done.returncode == 1, done.stdout
        assert [text for text in texts if text not in done.stdout] == [], done.stdout
        assert done.stdout.splitlines()[-1].startswith("provision: ")
        assert system.path(
            "/etc/ssh/ssh_host_ed25519_key"
        ).exists()  # sealing comes after everything that can fail


# Does to a root what the real one does, as far as provision and dnf can see; writes down what it is told. What is in
# /fails fails. RHEL has hundreds of repositories, most of them not enabled.
SUBSCRIPTION_MANAGER = r"""#!/bin/bash
echo "$*" >> /calls
repo=/etc/yum.repos.d/redhat.repo
identity=(/etc/pki/consumer/key.pem /etc/pki/entitlement/1-key.pem /var/lib/rhsm/cache/facts.json)
case $1 in
    register)
        [ "$5" = the-key ] || { echo "Invalid credentials." >&2; exit 70; }
        mkdir -p /etc/pki/consumer /etc/pki/entitlement /var/lib/rhsm/cache
        touch "${identity[@]}"
        for pair in %CRB:crb:0 rhel-baseos:baseos:1 rhel-appstream:appstream:1 rhel-{1..900}-source-rpms:other:0; do
            IFS=: read -r name directory enabled <<< "$pair"
            printf '[%s]\nname=%s\nbaseurl=file:///repositories/%s\ngpgcheck=0\nenabled=%s\n' \
                "$name" "$name" "$directory" "$enabled"
        done > $repo
        ;;
    repos) sed -i "/^\[$3\]/,/^enabled/s/^enabled=.*/enabled=1/" $repo ;;
    unregister) grep -qsx "$1" /fails || rm -f "${identity[0]}" $repo ;;
    clean) rm -f "${identity[@]}" $repo ;;
    *) exit 64 ;;
esac
if grep -qsx "$1" /fails; then
    echo "no connection" >&2
    exit 70
fi
"""
# Interrupts provision and itself while packages are installed.
INTERRUPTING_DNF = """#!/bin/bash
case "$*" in
    *libvirt-daemon-kvm*) kill -s %s 0 && sleep 60 ;;
    *) exec /usr/bin/dnf "$@" ;;
esac
"""
IDENTITY_OF_RHEL = [
    "/etc/pki/consumer/key.pem",
    "/etc/pki/entitlement/1-key.pem",
    "/var/lib/rhsm/cache/facts.json",
    "/etc/yum.repos.d/redhat.repo",
]


class TestRhel:
    """RHEL has packages only while it is registered; subscription-manager is a stub, the rest as in TestEl."""

    @pytest.fixture
    def system(
        self, release: el.Release, repositories: dict[str, list[Path]], package: Path
    ) -> Iterator[el.System]:
        suite = {9: "bookworm", 10: "trixie"}[release.number]
        with el.system(release.number, suite) as system:
            for name, packages in repositories.items():
                system.offer(*packages, repository=name)
            system.dnf("install", "redhat-release")
            for path in system.path("/etc/yum.repos.d").iterdir():
                path.unlink()
            crb = f"codeready-builder-for-rhel-{release.number}-{platform.machine()}-rpms"
            command = system.path("/usr/sbin/subscription-manager")
            command.write_text(SUBSCRIPTION_MANAGER.replace("%CRB", crb))
            command.chmod(0o755)
            payload(system.root, package)
            table = system.path(f"{PLACE}/packages/systems")
            epel = f"file:///repositories/extras-common/epel-release-{release.number}.rpm"
            table.write_text(re.sub(r"https://dl\.fedoraproject\.org/\S+", epel, table.read_text()))
            yield system

    def provision(
        self, system: el.System, subscription: str = ""
    ) -> subprocess.CompletedProcess[str]:
        variable = f"KVMHOST_SUBSCRIPTION={subscription}"
        # A process group of its own, as a terminal gives it: what a signal reaches. PID 1 is the shell.
        script = f'setsid env "$@" {PLACE}/provision --here; exit $?'
        return system.run("sh", "-c", script, "sh", variable, check=False)

    def calls(self, system: el.System) -> list[str]:
        """What subscription-manager was asked for, each call's first word."""
        path = system.path("/calls")
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def assert_nothing_left(self, system: el.System) -> None:
        assert [path for path in IDENTITY_OF_RHEL if system.path(path).exists()] == []
        system.path("/calls").unlink(missing_ok=True)
        system.path("/usr/sbin/subscription-manager").unlink()
        shutil.rmtree(system.path(PLACE))
        found = subprocess.run(
            [
                "grep",
                "-rlF",
                "the-key",
                *(system.path(p) for p in ("/etc", "/var", "/usr", "/root")),
            ],
            capture_output=True,
            text=True,
        )
        assert found.stdout == ""

    def test_registered_for_as_long_as_packages_are_installed(
        self, system: el.System, release: el.Release
    ) -> None:
        done = self.provision(system, "12345 the-key")
        assert done.returncode == 0, done.stdout
        assert "the-key" not in done.stdout
        assert self.calls(system) == ["register", "repos", "unregister", "clean"]
        installed = system.run("rpm", "--query", "python3-pystemd", "libvirt-daemon-kvm")
        assert f".el{release.number}" in installed.stdout
        self.assert_nothing_left(system)

    def test_no_subscription(self, system: el.System) -> None:
        done = self.provision(system)
        assert done.returncode == 1
        assert "Red Hat Enterprise Linux" in done.stdout
        for words in (
            "has no packages without a subscription",
            "KVMHOST_SUBSCRIPTION",
            "--subscription FILE",
        ):
            assert words in done.stdout
        assert self.calls(system) == []

    def test_a_key_that_is_refused(self, system: el.System) -> None:
        """Red Hat refuses it, so there is nothing to unregister."""
        done = self.provision(system, "12345 another-key")
        assert done.returncode == 1
        assert "Invalid credentials." in done.stdout
        assert "another-key" not in done.stdout
        assert self.calls(system) == ["register", "clean"]

    def test_registering_fails_halfway(self, system: el.System) -> None:
        """subscription-manager has written the identity, and exits with an error."""
        system.path("/fails").write_text("register\n")
        done = self.provision(system, "12345 the-key")
        assert done.returncode == 1
        assert "no connection" in done.stdout
        assert self.calls(system) == ["register", "unregister", "clean"]
        self.assert_nothing_left(system)

    def test_a_failure_after_registration(self, system: el.System) -> None:
        """A build that fails later unregisters all the same."""
        shutil.rmtree(system.path("/repositories/epel"))
        done = self.provision(system, "12345 the-key")
        assert done.returncode == 1
        assert "the-key" not in done.stdout
        assert self.calls(system)[-2:] == ["unregister", "clean"]
        self.assert_nothing_left(system)

    @pytest.mark.parametrize("signal", ["INT", "TERM", "HUP"])
    def test_interrupted_while_packages_are_installed(self, system: el.System, signal: str) -> None:
        dnf = system.path("/usr/local/bin/dnf")
        dnf.write_text(INTERRUPTING_DNF % signal)
        dnf.chmod(0o755)
        done = self.provision(system, "12345 the-key")
        assert done.returncode != 0
        assert "the-key" not in done.stdout
        assert self.calls(system) == ["register", "repos", "unregister", "clean"]
        self.assert_nothing_left(system)

    def test_it_can_not_be_given_back(self, system: el.System) -> None:
        """If unregister fails, so does the build; the identity is removed from the root all the same."""
        system.path("/fails").write_text("unregister\n")
        identity(system.root)
        done = self.provision(system, "12345 the-key")
        assert done.returncode == 1
        assert "no connection" in done.stdout
        assert "remove the system kvmhost-image-build at console.redhat.com" in done.stdout
        assert system.path("/etc/ssh/ssh_host_ed25519_key").exists()
        self.assert_nothing_left(system)

    def test_already_subscribed(self, system: el.System) -> None:
        """A container build on a subscribed host has the repositories, so nothing is registered or unregistered."""
        system.run("subscription-manager", "register", "--org", "1", "--activationkey", "the-key")
        system.path("/calls").unlink()
        done = self.provision(system)
        assert done.returncode == 0, done.stdout
        assert self.calls(system) == []


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

    def provision(self, host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run provision in the host's root, with this machine's network and certificates for apt and pip."""
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
            [*environment, f"{PLACE}/provision", "--here", *arguments],
            "--resolv-conf=bind-host",
            timeout=400,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def without_pystemd(self, host: Host, wheel: Path) -> None:
        """Make the packaged pystemd one that cloud-init's Python can't load."""
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

    def test_baked(self, wheel: Path) -> None:
        """Its first boot writes nothing, and provision notices if what was baked no longer holds."""
        secret = self.SECTION + "password: secret\n"
        os_release = self.OS_RELEASE.format(13, 13)
        files = {"/root/section": secret}
        with Host("el10", self.SECTION, install=False, os_release=os_release, files=files) as host:
            payload(self.root(host), wheel)
            done = self.provision(host, "--bake", "/root/section")
            assert done.returncode == 0, done.stdout
            assert "baking what section asks for" in done.stdout
            assert "secret" not in host.read("/usr/share/kvmhost-image/baked.yaml")
            host.chroot(["systemctl", "disable", "virtqemud.socket"])
            again = self.provision(host)
            assert again.returncode == 1
            assert "what was baked does not hold" in again.stdout
            assert self.provision(host, "--bake", "/root/section").returncode == 0
            host.boot()
            report = host.report()
            assert (report["result"], report["mode"]) == ("ok", "modular")
            assert [each for each in report["changed"] if not each.startswith("start ")] == []

    def test_pystemd_does_not_serve_the_interpreter(self, wheel: Path) -> None:
        """pystemd 0.14.0 is built from source, and the build tools are removed again."""
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
