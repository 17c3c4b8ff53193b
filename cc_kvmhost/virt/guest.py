"""The guest of the check: a few instructions that prove on their serial console that they ran.

The guest boots from a disk (x86_64: a boot sector) or as a kernel (aarch64), and writes one line to
its serial console, again and again until it is destroyed. The line has two things that only a guest
that ran can write: this run's nonce in capital letters, and what its CPU says about itself.

A child process calls run() (child.py).

Sources: Intel SDM (CPUID), the kernel's Documentation/virt/kvm/x86/cpuid.rst and
arch/arm64/booting.rst, Arm ARM (MIDR_EL1), QEMU's target/i386 and target/arm, the manuals of the
16550 and the PL011.
"""

import contextlib
import glob
import os
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence

from .. import files
from ..errors import KvmhostError

#: How the names of our domains, disks and logs begin. libvirt's hooks see these names.
PREFIX = "kvmhost-check-"
#: How a volume's name ends. It is no disk of a guest, whose leftovers are removed while it is made.
VOLUME = ".volume"

#: Where libvirt keeps disks. The first belongs to the storage driver, which may be missing.
DISK_DIRS = ("/var/lib/libvirt/images", "/var/lib/libvirt/qemu")
LOG_DIR = "/var/log/libvirt/qemu"

#: The line: this mark, twelve characters from the CPU, a space, the nonce in capitals.
_MARK = b"KVMHOST-CHECK "
_NONCE_LENGTH = 16
_LINE_LENGTH = len(_MARK) + 12 + 1 + _NONCE_LENGTH + 2

# The line stands at 0x7c80.
_X86_CODE = """
fa            cli
fc            cld
31c0          xor ax, ax
8ed8          mov ds, ax
66b800000040  mov eax, 0x40000000   ; the hypervisor's leaf
0fa2          cpuid
66891e8e7c    mov [0x7c8e], ebx     ; its signature, into the line
66890e927c    mov [0x7c92], ecx
668916967c    mov [0x7c96], edx
be9b7c        mov si, 0x7c9b        ; the nonce
b91000        mov cx, 16
803420        xor byte [si], 0x20   ; in capital letters
46            inc si
e2fa          loop -6
be807c        mov si, 0x7c80        ; again: the line
b92d00        mov cx, 45
bafd03        mov dx, 0x3fd
ec            in al, dx
a820          test al, 0x20         ; is there room for a byte?
74fb          jz -5
b2f8          mov dl, 0xf8
ac            lodsb
ee            out dx, al
e2f2          loop -14
ec            in al, dx             ; wait a little
e2fd          loop -3
ebe7          jmp again
"""
_X86_LINE_AT = 0x80

# The header of a kernel image, then the code; the line stands at 0x100. Words are little-endian.
_ARM_CODE = """
10000014  b code
1f2003d5  nop
00000000  .quad 0          ; offset of the text
00000000
00100000  .quad 0x1000     ; size
00000000
0a000000  .quad 0xa        ; little-endian, pages of 4 KiB, anywhere in memory
00000000
00000000  .quad 0, 0, 0
00000000
00000000
00000000
00000000
00000000
41524d64  .ascii "ARMd"
00000000  .long 0
0920a1d2  movz x9, #0x900, lsl #16   ; code: the PL011 of the machine "virt"
23208052  movz w3, #0x101
233100b9  str w3, [x9, #0x30]        ; is to transmit
61060070  adr x1, nonce
020280d2  mov x2, #16
23004039  ldrb w3, [x1]
63001b52  eor w3, w3, #0x20          ; in capital letters
23140038  strb w3, [x1], #1
420400f1  subs x2, x2, #1
81ffff54  b.ne -16
040038d5  mrs x4, midr_el1
01050050  adr x1, midr
020180d2  mov x2, #8
84708413  ror w4, w4, #28            ; its next digit, as a letter from a to p
830c0012  and w3, w4, #15
63840111  add w3, w3, #97
23140038  strb w3, [x1], #1
420400f1  subs x2, x2, #1
61ffff54  b.ne -20
a1030010  adr x1, line               ; again: the line
a20580d2  mov x2, #45
231940b9  ldr w3, [x9, #0x18]
e3ff2f37  tbnz w3, #5, -4            ; is there room for a byte?
23144038  ldrb w3, [x1], #1
23010039  strb w3, [x9]
420400f1  subs x2, x2, #1
81ffff54  b.ne -20
2200a0d2  mov x2, #0x10000           ; wait a little
231940b9  ldr w3, [x9, #0x18]
420400f1  subs x2, x2, #1
c1ffff54  b.ne -8
f4ffff17  b again
"""
_ARM_LINE_AT = 0x100

#: Bytes. SeaBIOS does not read a disk that is smaller than a cylinder.
_DISK_SIZE = 1 << 20

#: What the twelve characters mean. x86_64: CPUID's signature of the hypervisor. aarch64: MIDR_EL1,
#: whose implementer is 0 in QEMU's CPU "max" and never 0 in a real CPU.
_X86_ACCELERATORS = {b"KVMKVMKVM\0\0\0": "kvm", b"TCGTCGTCGTCG": "tcg"}
_ARM_TCG = b"aa"


class Machine(NamedTuple):
    """An architecture's guest. ``type``: libvirt's machine type, an alias that every QEMU has.
    ``cpu``: the CPU model under TCG; None: the default."""

    type: str
    cpu: Optional[str]


MACHINES = {"x86_64": Machine("q35", None), "aarch64": Machine("virt", "maximum")}


def new_nonce() -> str:
    return "".join(chr(ord("a") + byte % 26) for byte in os.urandom(_NONCE_LENGTH))


def program(arch: str, nonce: str) -> bytes:
    """The beginning of the guest's disk, or its kernel."""
    line = _MARK + b" " * 13 + nonce.encode() + b"\r\n"
    if arch == "x86_64":
        return _place(_X86_CODE, line, _X86_LINE_AT, 510) + b"\x55\xaa"
    return _place(_ARM_CODE, line, _ARM_LINE_AT, 4096)


def _place(code: str, line: bytes, line_at: int, size: int) -> bytes:
    binary = bytes.fromhex("".join(row.split()[0] for row in code.split("\n") if row))
    return (binary.ljust(line_at, b"\0") + line).ljust(size, b"\0")


def xml(arch: str, name: str, kvm: bool, path: str, networks: Sequence[str] = ()) -> str:
    """The domain.

    :param kvm: with KVM, or by TCG
    :param path: of the file with its program
    :param networks: libvirt's networks that it gets a NIC on
    """
    from xml.etree import ElementTree

    machine = MACHINES[arch]
    domain = ElementTree.Element("domain", type="kvm" if kvm else "qemu")

    def add(parent: Any, tag: str, text: Optional[str] = None, **attributes: str) -> Any:
        element = ElementTree.SubElement(parent, tag, attributes)
        element.text = text
        return element

    add(domain, "name", name)
    add(domain, "description", "kvmhost's check; gone within a minute")
    add(domain, "memory", "64", unit="MiB")
    add(domain, "vcpu", "1")
    system = add(domain, "os")
    add(system, "type", "hvm", arch=arch, machine=machine.type)
    if kvm:
        cpu = add(domain, "cpu", mode="host-passthrough")
        if arch == "x86_64":
            # In a virtual machine, KVM may refuse to let the guest write this feature's register.
            add(cpu, "feature", policy="disable", name="arch-capabilities")
    elif machine.cpu:
        add(domain, "cpu", mode=machine.cpu)
    add(domain, "on_poweroff", "destroy")
    add(domain, "on_reboot", "destroy")
    add(domain, "on_crash", "destroy")
    devices = add(domain, "devices")
    if arch == "x86_64":
        add(system, "boot", dev="hd")
        disk = add(devices, "disk", type="file", device="disk")
        add(disk, "driver", name="qemu", type="raw")
        add(disk, "source", file=path)
        add(disk, "target", dev="vda", bus="virtio")
        add(disk, "readonly")
    else:
        add(system, "kernel", path)
    for network in networks:
        interface = add(devices, "interface", type="network")
        add(interface, "source", network=network)
        add(interface, "model", type="virtio")
        # Without its ROM it does not boot from there, and sends nothing.
        add(interface, "rom", enabled="no")
    add(devices, "controller", type="usb", model="none")
    add(devices, "memballoon", model="none")
    # A pty, because SELinux would refuse a file in any directory.
    add(devices, "serial", type="pty")
    return ElementTree.tostring(domain, encoding="unicode")


class Line(NamedTuple):
    """What a guest wrote. ``accelerator``: kvm, tcg, or the unknown name in the line."""

    accelerator: str
    nonce: str


def read_line(arch: str, received: bytes) -> Optional[Line]:
    """The first complete line in the console's output; None if there is none yet."""
    start = received.find(_MARK)
    line = received[start : start + _LINE_LENGTH]
    if start < 0 or len(line) < _LINE_LENGTH:
        return None
    cpu, nonce = line[len(_MARK) :][:12], line[len(_MARK) + 13 : -2].decode("latin-1")
    if arch == "x86_64":
        unknown = cpu.rstrip(b"\0 ").decode("latin-1") or "no hypervisor's signature"
        return Line(_X86_ACCELERATORS.get(cpu, unknown), nonce)
    return Line("tcg" if cpu.startswith(_ARM_TCG) else "kvm", nonce)


def run(connection: Any, order: Dict[str, Any], say: Callable[[Any], None]) -> str:
    """Run the guest; returns its accelerator. Blocks for ever if libvirt or the guest hangs.

    :param connection: an open libvirt.virConnect
    :param order: ``name``, ``nonce``, ``arch``, ``kvm``, ``networks``
    :raises KvmhostError: it did not run, or wrote something else
    """
    import libvirt

    name, arch = order["name"], order["arch"]
    path = os.path.join(next(filter(os.path.isdir, DISK_DIRS), DISK_DIRS[0]), name + ".img")
    log = os.path.join(LOG_DIR, name + ".log")
    at = ""

    def now(what: str) -> None:
        nonlocal at
        at = what
        say({"guest": what})

    try:
        now("writing its disk")
        _write(path, program(arch, order["nonce"]))
        now("starting it")
        domain = connection.createXML(
            xml(arch, name, order["kvm"], path, order["networks"]),
            # AUTODESTROY: libvirt ends it when this process ends, however that happens.
            libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY,
        )
        try:
            now("opening its serial console")
            console = connection.newStream(0)
            domain.openConsole(None, console, 0)
            now("resuming it")
            domain.resume()
            now("waiting for its line on the serial console")
            line = _listen(arch, console)
            accelerator = _compare(line, order)
            now("destroying it")
            domain.destroy()
        except BaseException:
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
            raise
    except OSError as error:
        raise KvmhostError([f"{at}: {path}: {error.strerror}"]) from error
    except libvirt.libvirtError as error:
        message = "; ".join(str(error.get_error_message()).splitlines())
        raise KvmhostError([f"{at}: {message}"]) from error
    except KvmhostError as error:
        raise KvmhostError([f"{at}: {error}{_last_words(log)}"]) from error
    finally:
        remove([path, log])
    return accelerator


def _compare(line: Optional[Line], order: Dict[str, Any]) -> str:
    """The accelerator; raises what is wrong with the line."""
    if line is None:
        raise KvmhostError(["it ended without one"])
    if line.nonce != order["nonce"].upper():
        raise KvmhostError([f"it wrote another run's nonce, {line.nonce!r}"])
    wanted = "kvm" if order["kvm"] else "tcg"
    if line.accelerator != wanted:
        raise KvmhostError([f"it runs by {line.accelerator!r}, and was started with {wanted!r}"])
    return wanted


def _write(path: str, content: bytes) -> None:
    # Readable by all: with dynamic_ownership=0 libvirt does not give the file to QEMU's user.
    with open(path, "xb") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.write(content)
        stream.truncate(_DISK_SIZE)
        stream.flush()
        os.fsync(stream.fileno())


def _listen(arch: str, console: Any) -> Optional[Line]:
    """Wait for the guest's line; returns None if the guest ends before it."""
    received = b""
    while True:
        some = console.recv(1024)
        if not some:
            return None
        received = (received + some)[-4096:]
        line = read_line(arch, received)
        if line:
            return line


def _last_words(log: str) -> str:
    """The last line that QEMU wrote to the log, in brackets; "" if there is none."""
    lines = (files.read(log) or b"").decode(errors="replace").strip().splitlines()
    # libvirt's own lines begin with the time, QEMU's with its name.
    words = [line for line in lines if line.startswith("qemu")]
    return f" (QEMU: {words[-1]})" if words else ""


def remove(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def files_of(name: str = PREFIX + "*", directories: Iterable[str] = ()) -> List[str]:
    """The files of one guest, or of all of ours.

    :param directories: of pools that may have a volume of a check
    """
    patterns = [os.path.join(where, name + ".img") for where in DISK_DIRS]
    patterns += [os.path.join(where, name + VOLUME) for where in directories]
    patterns.append(os.path.join(LOG_DIR, name + ".log*"))
    return sorted(path for pattern in patterns for path in glob.glob(pattern))


def processes(name: str) -> List[int]:
    """The processes whose command line names this guest."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            words = (files.read(path) or b"").split(b"\0")
            if any(word.startswith(f"guest={name},".encode()) for word in words):
                found.append(int(path.split("/")[2]))
    return found
