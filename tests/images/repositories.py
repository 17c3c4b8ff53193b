"""The repositories of an EL release as the oracle knows them, for the real dnf and the real mkosi.

Every package is there with its version, its requirements and recommendations. Those that a KVM host's state
depends on have their files (libvirt's and tuned's units are real ones, EL's preset rules) and do at their
installation what the real ones do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import el
import oracle
import roots
import stubs
from stubs import Stub

UNITS = "/usr/lib/systemd/system"
# With dnf's plugins.
SUITES = {9: "bookworm", 10: "trixie"}
# Which package has which of libvirt's units, from libvirt 9.5 on: by the beginning of their names.
LIBVIRT: dict[str, str | tuple[str, ...]] = {
    "libvirt-daemon": "libvirtd",
    "libvirt-daemon-proxy": "virtproxyd",
    "libvirt-daemon-log": "virtlogd",
    "libvirt-daemon-lock": "virtlockd",
    "libvirt-daemon-common": ("libvirt-guests", "virt-guest-shutdown"),
    "libvirt-daemon-driver-qemu": "virtqemud",
    "libvirt-daemon-driver-storage-core": "virtstoraged",
    "libvirt-daemon-driver-network": "virtnetworkd",
    "libvirt-daemon-driver-nodedev": "virtnodedevd",
    "libvirt-daemon-driver-nwfilter": "virtnwfilterd",
    "libvirt-daemon-driver-interface": "virtinterfaced",
    "libvirt-daemon-driver-secret": ("virtsecretd", "virt-secret-init"),
}
# The rules that EL9's release package ships, as far as they concern a KVM host; EL10's were not seen.
PRESETS = {
    "90-default": """\
enable virtqemud.service
enable virtproxyd.socket
enable virtinterfaced.socket
enable virtnetworkd.socket
enable virtnodedevd.socket
enable virtnwfilterd.socket
enable virtsecretd.socket
enable virtstoraged.socket
enable virtlogd.socket
enable tuned.service
enable sshd.service
enable NetworkManager.service
""",
    "99-default-disable": "disable *\n",
}
# libvirt's %pre and %posttrans: what was not there before gets its preset, an upgrade changes nothing. Services come
# last: what they name in Also= is enabled with them, whatever the presets say of it.
PRESET_NEW = """\
%pre
mkdir -p /var/lib/rpm-state/libvirt
for unit in {units}; do
    [ -e /usr/lib/systemd/system/$unit ] || : > /var/lib/rpm-state/libvirt/$unit
done
%posttrans
for unit in {units}; do
    [ ! -e /var/lib/rpm-state/libvirt/$unit ] || systemctl --root=/ --quiet preset $unit
    rm -f /var/lib/rpm-state/libvirt/$unit
done
"""
# %post of libvirt-daemon-config-network on a machine where something else uses 192.168.122.0/24.
DEFAULT_NETWORK = """\
%post
if [ $1 -eq 1 ] && [ ! -e /etc/libvirt/qemu/networks/default.xml ]; then
    mkdir -p /etc/libvirt/qemu/networks/autostart
    sed -e s/122/124/g -e 's,</name>,</name><uuid>a3a1a0ec-7ec1-4c5b-8f0b-0123456789ab</uuid>,' \\
        /usr/share/libvirt/networks/default.xml > /etc/libvirt/qemu/networks/default.xml
    ln -s ../default.xml /etc/libvirt/qemu/networks/autostart/default.xml
fi
"""
# The package that stands for all of libvirt's that have something in /var, and its %pre.
STATE_IN = "libvirt-daemon-driver-qemu"
USERS = """\
%pre
getent group libvirt > /dev/null || groupadd --system libvirt
getent group libvirt-qemu > /dev/null || groupadd --system libvirt-qemu
getent passwd libvirt-qemu > /dev/null || useradd --system --no-create-home --home-dir /var/lib/libvirt \\
    --shell /usr/sbin/nologin --gid libvirt-qemu --groups kvm --comment "qemu user" libvirt-qemu
"""


class Distribution(NamedTuple):
    """An EL by its os-release."""

    release_package: str
    os_release: str


DISTRIBUTIONS = {
    "centos": Distribution(
        "centos-stream-release",
        'ID="centos"\nVERSION_ID="{0}"\nID_LIKE="rhel fedora"\nPRETTY_NAME="CentOS Stream {0}"\n',
    ),
    "almalinux": Distribution(
        "almalinux-release",
        'ID="almalinux"\nVERSION_ID="{0}.1"\nID_LIKE="rhel centos fedora"\nPRETTY_NAME="AlmaLinux {0}.1"\n',
    ),
    "rocky": Distribution(
        "rocky-release",
        'ID="rocky"\nVERSION_ID="{0}.1"\nID_LIKE="rhel centos fedora"\nPRETTY_NAME="Rocky Linux {0}.1"\n',
    ),
    "rhel": Distribution(
        "redhat-release",
        'ID="rhel"\nVERSION_ID="{0}.1"\nID_LIKE="fedora"\nPRETTY_NAME="Red Hat Enterprise Linux {0}.1"\n',
    ),
}


def os_release(distribution: str, number: int) -> str:
    """The file of that name."""
    text = DISTRIBUTIONS[distribution].os_release + 'PLATFORM_ID="platform:el{0}"\n'
    return text.format(number)


def build(output: Path, release: el.Release, stand_in: str = "") -> dict[str, list[Path]]:
    """Every package that exists in this release, by repository: baseos, appstream, crb, extras-common, epel.

    ``stand_in``: for the root of this host (bare), which is to boot with them: el9 or el10.
    """
    found: dict[str, list[Stub]] = {
        name: [] for name in ("baseos", "appstream", "crb", "extras-common", "epel")
    }
    release_packages = {each.release_package for each in DISTRIBUTIONS.values()}
    for package in oracle.packages(release.number).values():
        if package.name not in release_packages:
            found[place(package)].append(whole(package, release, stand_in))
    built = {name: stubs.build(output / name, packages) for name, packages in found.items()}
    # EPEL has its own package, too: RHEL has no extras (file id 16913065043).
    built["epel"] += [path for path in built["extras-common"] if "epel-release" in path.name]
    # One by one: each has the same files, with other content.
    for distribution in DISTRIBUTIONS:
        stub = release_package(distribution, release.number)
        built["baseos"] += stubs.build(output / distribution, [stub])
    return built


def whole(package: oracle.Package, release: el.Release, stand_in: str = "") -> Stub:
    """A package with its version, its requirements and recommendations, and its content."""
    requires = oracle.relations(release.number, "requires").get(package.name, [])
    recommends = oracle.relations(release.number, "recommends").get(package.name, [])
    stub = content(package.name, release, stand_in)
    tags = [*stub.tags]
    tags += [f"Requires: {name}" for name in requires]
    tags += [f"Recommends: {name}" for name in recommends]
    version = package.version if package.version != oracle.UNKNOWN else "0-0"
    return stub._replace(version=version, tags=tags)


@contextlib.contextmanager
def fresh_centos(release: el.Release, offered: Mapping[str, Sequence[Path]]) -> Iterator[el.System]:
    """A machine's root just installed: the release package, and these repositories, crb switched off and
    EPEL unknown.

    :param offered: as build() makes them, and more
    """
    with el.system(release.number, SUITES[release.number]) as system:
        for name, packages in offered.items():
            system.offer(*packages, repository=name, enabled=name != "crb")
        system.path("/etc/yum.repos.d/epel.repo").unlink()
        system.dnf("install", "centos-stream-release")
        yield system


def place(package: oracle.Package) -> str:
    """The repository that a package is in; where that is not known, AppStream stands in."""
    name = package.repository.rstrip("?").lower()
    return {"": "appstream", "extras": "extras-common"}.get(name, name)


def content(name: str, release: el.Release, stand_in: str) -> Stub:
    """A package's files and what its installation does; most have neither."""
    if name in LIBVIRT:
        units = dict(debian(f"{UNITS}/", LIBVIRT[name], stand_in or "el10"))
        if release.number < 10:  # of libvirt 12
            units.pop(f"{UNITS}/virt-secret-init-encryption.service", None)
        names = [path.rpartition("/")[2] for path in units]
        names.sort(key=lambda unit: unit.endswith(".service"))
        stub = Stub(name, files=units, scripts=PRESET_NEW.format(units=" ".join(names)))
        return with_state(stub, stand_in) if stand_in and name == STATE_IN else stub
    if name == "cloud-init":
        if stand_in:
            return cloud_init(stand_in)
        return el.cloud_init(release, "0", *el.real_cloud_init())
    if name == "python3":
        return el.python(release)
    if name == "tuned":
        source = stand_in or "el10"
        files = {**debian(f"{UNITS}/", "tuned", source), **debian("/usr/lib/tuned/", "", source)}
        files |= {f"/etc/tuned/{name}": b"" for name in ("active_profile", "profile_mode")}
        preset = "%post\n[ $1 -gt 1 ] || systemctl --root=/ --quiet preset tuned.service"
        return Stub(name, files=files, scripts=preset)
    if name == "libvirt-daemon-config-network":
        template = debian("/usr/share/libvirt/networks/", "default.xml", stand_in or "el10")
        return Stub(name, files=template, scripts=DEFAULT_NETWORK)
    if name == "qemu-kvm-core":
        return Stub(name, files={"/usr/libexec/qemu-kvm": "#!/bin/sh\n"})
    if name == "dnf-plugins-core":
        return Stub(name, tags=["Provides: dnf-command(config-manager)"])
    if name == "epel-release":
        return Stub(name, files={"/etc/yum.repos.d/epel.repo": el.repo_file("epel")})
    return Stub(name)


def with_state(stub: Stub, stand_in: str) -> Stub:
    """With the users that EL's libvirt makes in %pre, under the names that the stand-in's daemons know, and with
    the directories in /var that the stand-in has."""
    root = roots.root(stand_in)
    directories = {}
    for place in ("lib", "cache", "log"):
        for path in [
            root / "var" / place / "libvirt",
            *(root / "var" / place).glob("libvirt/**/*/"),
        ]:
            state = path.stat()
            owner = "libvirt-qemu" if state.st_uid else "root"
            directories[f"/{path.relative_to(root)}"] = (
                f"{state.st_mode & 0o7777:o},{owner},{owner}"
            )
    return stub._replace(
        directories=directories, scripts=USERS + stub.scripts.replace("%pre\n", "")
    )


def cloud_init(stand_in: str) -> Stub:
    """What of the stand-in's cloud-init belongs to the system; its Python modules are in the root."""
    files = dict(debian(f"{UNITS}/", "cloud-", stand_in))
    services = " ".join(Path(path).name for path in files if path.endswith(".service"))
    files.update(debian("/usr/bin/", ("cloud-init", "cloud-id"), stand_in))
    files.update(debian("/etc/cloud/", "", stand_in))
    config = [path for path in files if path.startswith("/etc/")]
    scripts = f"%post\n[ $1 -gt 1 ] || systemctl --root=/ --quiet enable {services}"
    return Stub(
        "cloud-init", files=files, config=config, tags=["Requires: systemd"], scripts=scripts
    )


def release_package(distribution: str, number: int) -> Stub:
    """What makes a root this distribution: os-release and the presets."""
    files = {
        "/usr/lib/os-release": os_release(distribution, number),
        "/usr/lib/rpm/macros.d/macros.dist": f"%rhel {number}\n%dist .el{number}\n",
    }
    for name, rules in PRESETS.items():
        files[f"/usr/lib/systemd/system-preset/{name}.preset"] = rules
    tags = [
        f"Provides: system-release = {number}",
        f"Provides: system-release(releasever) = {number}",
        "Conflicts: system-release",
    ]
    name = DISTRIBUTIONS[distribution].release_package
    return Stub(name, oracle.packages(number)[name].version, files, tags=tags)


def debian(
    directory: str, beginning: str | tuple[str, ...], stand_in: str = "el10"
) -> Mapping[str, bytes]:
    """The files below a directory of a stand-in's root whose names begin so."""
    root = roots.root(stand_in)
    return {
        f"/{path.relative_to(root)}": path.read_bytes()
        for path in sorted((root / directory.strip("/")).rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name.startswith(beginning)
    }
