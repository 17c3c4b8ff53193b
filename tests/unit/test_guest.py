"""The guest of the check: its program, its domain, its line. The tests on hosts run it."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from cc_kvmhost.virt import guest, volumes

NONCE = "abcdefghijklmnop"
KVM = b"KVMHOST-CHECK KVMKVMKVM\0\0\0 ABCDEFGHIJKLMNOP\r\n"
TCG = b"KVMHOST-CHECK TCGTCGTCGTCG ABCDEFGHIJKLMNOP\r\n"


class TestProgram:
    def test_x86_64_is_a_boot_sector(self) -> None:
        program = guest.program("x86_64", NONCE)
        assert len(program) == 512
        assert program[510:] == b"\x55\xaa"
        assert program[:2] == b"\xfa\xfc"
        assert program[0x80:0x8E] == b"KVMHOST-CHECK "
        assert program[0x9B:0xAD] == NONCE.encode() + b"\r\n"

    def test_aarch64_is_a_kernel_image(self) -> None:
        program = guest.program("aarch64", NONCE)
        assert program[0x38:0x3C] == b"ARMd"
        assert int.from_bytes(program[0x10:0x18], "little") == len(program)
        assert program[0x100:0x10E] == b"KVMHOST-CHECK "
        assert program[0x11B:0x12D] == NONCE.encode() + b"\r\n"

    @pytest.mark.parametrize("arch", sorted(guest.MACHINES))
    def test_the_answer_is_not_in_it(self, arch: str) -> None:
        assert guest.read_line(arch, guest.program(arch, NONCE) * 2) != guest.Line("tcg", "X")
        assert NONCE.upper().encode() not in guest.program(arch, NONCE)

    def test_nonces_differ_and_have_letters_only(self) -> None:
        nonces = {guest.new_nonce() for _ in range(50)}
        assert len(nonces) == 50
        assert all(len(nonce) == 16 and nonce.isalpha() and nonce.islower() for nonce in nonces)


class TestXml:
    def parse(self, arch: str = "x86_64", kvm: bool = True) -> ElementTree.Element:
        return ElementTree.fromstring(guest.xml(arch, "kvmhost-check-a&b", kvm, "/images/a&b.img"))

    def test_x86_64(self) -> None:
        domain = self.parse()
        assert domain.attrib == {"type": "kvm"}
        assert domain.findtext("name") == "kvmhost-check-a&b"
        kind = domain.find("os/type")
        assert kind is not None and kind.attrib == {"arch": "x86_64", "machine": "q35"}
        disk = domain.find("devices/disk")
        assert disk is not None
        source, target = disk.find("source"), disk.find("target")
        assert source is not None and source.attrib == {"file": "/images/a&b.img"}
        assert target is not None and target.attrib["bus"] == "virtio"
        assert disk.find("readonly") is not None

    def test_aarch64(self) -> None:
        domain = self.parse("aarch64", False)
        assert domain.attrib == {"type": "qemu"}
        assert domain.findtext("os/kernel") == "/images/a&b.img"
        assert domain.find("devices/disk") is None

    @pytest.mark.parametrize(
        "arch, kvm, mode",
        [
            ("x86_64", True, "host-passthrough"),
            ("x86_64", False, None),
            ("aarch64", True, "host-passthrough"),
            ("aarch64", False, "maximum"),
        ],
    )
    def test_its_cpu(self, arch: str, kvm: bool, mode: str) -> None:
        cpu = self.parse(arch, kvm).find("cpu")
        assert (cpu.get("mode") if cpu is not None else None) == mode

    @pytest.mark.parametrize("arch", sorted(guest.MACHINES))
    def test_it_has_no_more_than_it_needs(self, arch: str) -> None:
        devices = self.parse(arch).find("devices")
        assert devices is not None
        kinds = {device.tag: device.attrib for device in devices}
        kinds.pop("disk", None)
        assert kinds == {
            "controller": {"type": "usb", "model": "none"},
            "memballoon": {"model": "none"},
            "serial": {"type": "pty"},
        }


def test_its_nics() -> None:
    """A NIC that can send nothing: the guest has no driver for it, and the firmware gets none."""
    text = guest.xml("x86_64", "kvmhost-check-x", True, "/images/x.img", ["default", "a&b"])
    nics = ElementTree.fromstring(text).findall("devices/interface")
    assert [nic.get("type") for nic in nics] == ["network"] * 2
    assert [nic.find("source").attrib for nic in nics] == [  # type: ignore[union-attr]
        {"network": "default"},
        {"network": "a&b"},
    ]
    for nic in nics:
        assert nic.find("rom").attrib == {"enabled": "no"}  # type: ignore[union-attr]


class TestReadLine:
    @pytest.mark.parametrize(
        "arch, received, accelerator",
        [
            ("x86_64", KVM, "kvm"),
            ("x86_64", TCG, "tcg"),
            ("x86_64", TCG.replace(b"TCGTCGTCGTCG", b"Microsoft Hv"), "Microsoft Hv"),
            ("x86_64", TCG.replace(b"TCGTCGTCGTCG", b"\0" * 12), "no hypervisor's signature"),
            ("aarch64", TCG.replace(b"TCGTCGTCGTCG", b"aaapafba    "), "tcg"),
            ("aarch64", TCG.replace(b"TCGTCGTCGTCG", b"ebapnaib    "), "kvm"),
        ],
    )
    def test_a_whole_line(self, arch: str, received: bytes, accelerator: str) -> None:
        assert guest.read_line(arch, received) == guest.Line(accelerator, NONCE.upper())

    def test_after_something_else_and_before_more(self) -> None:
        received = b"SeaBIOS\r\n\0" + TCG + TCG[:20]
        assert guest.read_line("x86_64", received) == guest.Line("tcg", NONCE.upper())

    @pytest.mark.parametrize("length", range(len(TCG)))
    def test_a_part_is_none(self, length: int) -> None:
        assert guest.read_line("x86_64", TCG[:length]) is None

    def test_any_bytes(self) -> None:
        assert guest.read_line("x86_64", bytes(range(256)) * 4) is None


class TestOfOurs:
    def test_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guest, "DISK_DIRS", (str(tmp_path), str(tmp_path / "missing")))
        monkeypatch.setattr(guest, "LOG_DIR", str(tmp_path))
        for name in ("kvmhost-check-a.img", "kvmhost-check-a.log", "kvmhost-check-b.img", "x.img"):
            (tmp_path / name).touch()
        ours = [str(tmp_path / f"kvmhost-check-{end}") for end in ("a.img", "a.log", "b.img")]
        assert guest.files_of() == ours
        assert guest.files_of("kvmhost-check-a") == ours[:2]
        # Its own check still has it.
        (tmp_path / volumes.name("c")).touch()
        assert guest.files_of() == ours
        (tmp_path / volumes.name("c")).unlink()
        (tmp_path / "pool").mkdir()
        (tmp_path / "pool" / volumes.name("c")).touch()
        more = str(tmp_path / "pool/kvmhost-check-c.volume")
        assert guest.files_of(directories=[str(tmp_path / "pool")]) == [*ours, more]
        guest.remove([more])
        (tmp_path / "pool").rmdir()
        guest.remove([*ours, str(tmp_path / "missing")])
        assert [path.name for path in tmp_path.iterdir()] == ["x.img"]
