"""Disks for hosts: files, as this machine's loop devices."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def loop(image: Path) -> Iterator[str]:
    """The device node of a loop device on a file."""
    attach = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(attach, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
