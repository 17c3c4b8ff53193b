"""What KVM can do here: whether guests can use it, and if not, why and what to do.

/dev/kvm itself is asked, as QEMU does. The CPU's flags only explain a failure: in a virtual machine
they may be missing although KVM works.

Sources: the kernel's Documentation/virt/kvm/api.rst; libvirt's qemu.conf.
"""

import errno
import fcntl
import glob
import grp
import os
import platform
import pwd
import re
import stat
from typing import Callable, Dict, NamedTuple, Optional, Tuple

from . import files

DEVICE = "/dev/kvm"

_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_API_VERSION = 12

#: The users that QEMU runs as if qemu.conf names none: EL's package makes the first, Debian's the
#: second.
_DEFAULT_USERS = ("qemu", "libvirt-qemu")
_NESTED = "/sys/module/{}/parameters/nested"
#: Lists the drivers behind devices such as /dev/kvm.
_MISC = "/proc/misc"


class Kvm(NamedTuple):
    """``usable``: a guest under libvirt can use KVM; None: this user may not look. ``reason``: why
    not, or who may look; "" if it can. ``nested``: guests can be KVM hosts themselves; None if the
    kernel does not say. ``iommu``: the number of IOMMU groups; 0: no device can be assigned to a
    guest."""

    usable: Optional[bool]
    reason: str = ""
    nested: Optional[bool] = None
    iommu: int = 0


def read() -> Kvm:
    usable: Optional[bool]
    try:
        reason = _refusal() or _refusal_to_libvirt()
        usable = not reason
    except PermissionError as error:
        usable, reason = None, f"only root may look at {error.filename}"
    return Kvm(usable, reason, _nested(), len(glob.glob("/sys/kernel/iommu_groups/*")))


def _refusal() -> str:
    """Why root can't use KVM; "" if it can.

    :raises PermissionError: this user can't tell
    """
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if isinstance(error, PermissionError) and os.geteuid():
            raise
        return _explain_open(error)
    try:
        try:
            if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
                raise OSError(errno.ENOTTY, "")
            version = fcntl.ioctl(descriptor, _KVM_GET_API_VERSION, 0)
        except OSError:
            return f"{DEVICE} is not KVM's device; remove it and load KVM's module ({_module()})"
        if version != _API_VERSION:
            return f"{DEVICE} speaks version {version} of KVM's API, not {_API_VERSION}"
        try:
            os.close(fcntl.ioctl(descriptor, _KVM_CREATE_VM, 0))
        except OSError as error:
            return _explain_create(error)
    finally:
        os.close(descriptor)
    return ""


def _explain_open(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{DEVICE} can't be opened: {error.strerror}; a container must be allowed the device"
    if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return f"{DEVICE} can't be opened: {error.strerror}"
    missing = error.errno == errno.ENOENT
    what = "there is no /dev/kvm" if missing else "no driver behind /dev/kvm"
    if missing and _has_driver():
        return (
            f"{what}, although the kernel has KVM: a container must be given the device, elsewhere"
            " udev makes it; see 'systemctl status systemd-udevd'"
        )
    return f"{what}: {_why_no_driver(platform.machine(), _cpu_flags())}"


def _has_driver() -> bool:
    text = (files.read(_MISC) or b"").decode(errors="replace")
    return re.search(r"^\s*\d+ kvm$", text, re.MULTILINE) is not None


def _why_no_driver(arch: str, flags: Tuple[str, ...]) -> str:
    if arch == "x86_64":
        if not {"vmx", "svm"}.intersection(flags):
            if "hypervisor" in flags:
                return (
                    "this is a virtual machine, and its CPU has neither vmx nor svm; have nested"
                    " virtualization turned on for it"
                )
            return (
                "the CPU shows neither vmx nor svm; turn on virtualization (VT-x, AMD-V) in the"
                " firmware's setup"
            )
    elif arch == "s390x":
        if "sie" not in flags:
            return "the CPU shows no sie; this LPAR or virtual machine may not run guests"
    elif arch == "aarch64":
        return (
            "the kernel has no KVM here: it was started at EL1, in a virtual machine without nested"
            " virtualization or by firmware that keeps EL2"
        )
    return f"KVM's module is not loaded; 'modprobe {_module(arch, flags)}', and see 'journalctl -k'"


def _explain_create(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return (
            "another hypervisor holds the CPU's virtualization (VirtualBox, VMware, …); stop it and"
            " unload its module"
        )
    return f"{DEVICE} creates no virtual machine: {error.strerror}; see 'journalctl -k'"


def _module(arch: str = "", flags: Tuple[str, ...] = ()) -> str:
    if (arch or platform.machine()) != "x86_64":
        return "kvm"
    return "kvm_amd" if "svm" in (flags or _cpu_flags()) else "kvm_intel"


class User(NamedTuple):
    """The user that libvirt runs QEMU as, with all its groups."""

    name: str
    uid: int
    gids: Tuple[int, ...]


def _refusal_to_libvirt() -> str:
    """The same for the user that libvirt runs QEMU as.

    :raises PermissionError: this user can't tell who that is
    """
    # Where everybody may use the device, it does not matter.
    return "" if os.stat(DEVICE).st_mode & 0o666 == 0o666 else _refusal_to(_qemu_user())


def _refusal_to(user: Optional[User]) -> str:
    """Why QEMU's user can't use the device although root can; "" if it can."""
    # libvirt gives QEMU a /dev of its own, with a copy of the device that has the same owner and mode.
    if user is None or user.uid == 0:
        return ""
    status = os.stat(DEVICE)
    if _may(status, user):
        return ""
    group = _name(lambda: grp.getgrgid(status.st_gid).gr_name, status.st_gid)
    owner = _name(lambda: pwd.getpwuid(status.st_uid).pw_name, status.st_uid)
    return (
        f"{user.name}, the user that libvirt runs QEMU as, may not use {DEVICE} ({owner}:{group},"
        f" mode {stat.S_IMODE(status.st_mode):04o}); 'chmod 0666 {DEVICE}' lets it until the next"
        """ boot, a udev rule for good: KERNEL=="kvm", MODE="0666\""""
    )


def _may(status: os.stat_result, user: User) -> bool:
    """Whether the mode lets a user other than root read and write."""
    if status.st_uid == user.uid:
        bits = status.st_mode >> 6
    elif status.st_gid in user.gids:
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    return bits & 0o6 == 0o6


def _qemu_user() -> Optional[User]:
    """The user that qemu.conf names, or else the default that exists; None if neither does."""
    settings = _settings((files.read("/etc/libvirt/qemu.conf") or b"").decode(errors="replace"))
    for name in [settings["user"]] if "user" in settings else _DEFAULT_USERS:
        try:
            entry = (
                pwd.getpwuid(int(name[1:])) if re.match(r"\+\d+\Z", name) else pwd.getpwnam(name)
            )
        except KeyError:
            continue
        groups = os.getgrouplist(entry.pw_name, _gid(settings.get("group", ""), entry.pw_gid))
        return User(entry.pw_name, entry.pw_uid, tuple(groups))
    return None


def _gid(name: str, default: int) -> int:
    if re.match(r"\+?\d+\Z", name):
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return default


def _settings(text: str) -> Dict[str, str]:
    """``user`` and ``group``, if the text of qemu.conf sets them."""
    return dict(re.findall(r'^\s*(user|group)\s*=\s*"([^"]*)"', text, re.MULTILINE))


def _name(ask: Callable[[], str], number: int) -> str:
    try:
        return ask()
    except KeyError:
        return str(number)


def _cpu_flags() -> Tuple[str, ...]:
    text = (files.read("/proc/cpuinfo") or b"").decode(errors="replace")
    found = re.search(r"^(?:flags|[Ff]eatures)\s*:(.*)$", text, re.MULTILINE)
    return tuple(found.group(1).split()) if found else ()


def _nested() -> Optional[bool]:
    for module in ("kvm_intel", "kvm_amd", "kvm"):
        value = files.read(_NESTED.format(module))
        if value is not None:
            return value.strip() in (b"Y", b"1")
    return None
