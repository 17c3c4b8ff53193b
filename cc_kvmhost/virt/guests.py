"""The guests that run here."""

import os
from typing import List, NamedTuple, Tuple

from .. import files
from .guest import PREFIX
from .units import RUN

_DRIVERS = ("qemu", "lxc")


class Guest(NamedTuple):
    """A guest by its name and libvirt's driver for it ("qemu", "lxc")."""

    name: str
    driver: str = "qemu"


def running() -> Tuple[Guest, ...]:
    """The guests whose process runs, in either mode, and even if their daemon does not run.

    Source: the status file and the pid file that libvirt keeps for each in /run/libvirt/DRIVER.

    :raises PermissionError: this user may not look
    """
    guests = []
    for driver in _DRIVERS:
        for entry in _entries(RUN + driver):
            name, suffix = os.path.splitext(entry)
            # The guest of a check whose run was killed is no reason to refuse a switch.
            if suffix == ".xml" and not name.startswith(PREFIX) and _runs(driver, name):
                guests.append(Guest(name, driver))
    return tuple(guests)


def _entries(directory: str) -> List[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _runs(driver: str, name: str) -> bool:
    """Its process runs. A guest that ends while its daemon is down leaves its pid file, and another
    process may have the number by now: so look for the guest's name among the process's arguments,
    where QEMU (with each comma doubled) and libvirt_lxc have it."""
    pid = (files.read(f"{RUN}{driver}/{name}.pid") or b"").strip().decode(errors="replace")
    if not pid.isdigit():
        return False
    try:
        arguments = files.read(f"/proc/{pid}/cmdline") or b""
    except ProcessLookupError:  # it ended just now
        return False
    return any(os.fsencode(each) in arguments for each in (name, name.replace(",", ",,")))
