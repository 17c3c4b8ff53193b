"""Which firmware an image boots by: asked of partition tables that sfdisk makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import firmware

ESP = "type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, size=1M"
BIOS_BOOT = "type=21686148-6449-6E6F-744E-656564454649, size=1M"
ROOT = "size=1M"


@pytest.mark.parametrize(
    ("table", "code", "expected"),
    [
        (["label: gpt", ESP, ROOT], False, ["efi"]),
        (["label: gpt", BIOS_BOOT, ESP, ROOT], True, ["bios", "efi"]),
        (["label: gpt", BIOS_BOOT, ROOT], True, ["bios"]),
        # What is only set aside for a boot loader boots nothing.
        (["label: gpt", BIOS_BOOT, ROOT], False, []),
        (["label: dos", ROOT], True, ["bios"]),
        (["label: dos", "type=ef, size=1M", ROOT], True, ["bios", "efi"]),
        (["label: dos", ROOT], False, []),
        ([], False, []),
    ],
)
def test_firmwares(tmp_path: Path, table: list[str], code: bool, expected: list[str]) -> None:
    raw, image = tmp_path / "raw", tmp_path / "disk.qcow2"
    subprocess.run(["truncate", "--size=8M", raw], check=True)
    if table:
        words = "\n".join(table)
        subprocess.run(["sfdisk", "--quiet", raw], input=words, text=True, check=True)
    if code:
        with raw.open("r+b") as disk:
            disk.write(b"\xeb\x63")  # a jump, as boot loaders begin
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, image], check=True)
    assert firmware.firmwares(image) == expected


def test_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no disk")
    with pytest.raises(subprocess.CalledProcessError):
        firmware.firmwares(tmp_path / "file")
