"""Which firmware a disk boots by, read from its partition table without booting it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from uuid import UUID

BIOS, EFI = "bios", "efi"
SECTOR = 512
SECTORS = 34  # the MBR, the GPT's header and its 128 entries
# Partition types, by the Discoverable Partitions Specification and GRUB's manual.
ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
MBR_ESP, MBR_GPT = 0xEF, 0xEE


def firmwares(image: Path) -> list[str]:
    """The kinds of firmware that find a boot loader on this image (qcow2): bios, efi, both or neither.

    :raises subprocess.CalledProcessError: qemu-img can't read the image; stderr says why.
    """
    with tempfile.NamedTemporaryFile() as head:
        argv = ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={SECTOR}", f"count={SECTORS}"]
        subprocess.run(
            [*argv, f"if={image}", f"of={head.name}"], check=True, capture_output=True, text=True
        )
        return of_table(Path(head.name).read_bytes())


def of_table(head: bytes) -> list[str]:
    """The same, from the first sectors of a disk."""
    head = head.ljust(SECTORS * SECTOR, b"\0")
    mbr = [head[446 + 16 * i + 4] for i in range(4)]
    if head[510:512] != b"\x55\xaa":
        return []
    # BIOS runs the code at the beginning of the disk; if there is only a partition table, it has none.
    code = any(head[:440])
    if MBR_GPT in mbr and head[SECTOR : SECTOR + 8] == b"EFI PART":
        entries = head[2 * SECTOR : SECTORS * SECTOR]
        types = {UUID(bytes_le=entries[i : i + 16]) for i in range(0, len(entries), 128)}
        return [BIOS] * (code and BIOS_BOOT in types) + [EFI] * (ESP in types)
    return [BIOS] * (code and any(mbr)) + [EFI] * (MBR_ESP in mbr)
