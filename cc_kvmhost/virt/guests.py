"""The guests that run here."""

import glob
import os
from typing import NamedTuple, Tuple

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
    """
    guests = []
    for driver in _DRIVERS:
        for path in sorted(glob.glob(RUN + driver + "/*.xml")):
            stem = path[: -len(".xml")]
            name = os.path.basename(stem)
            # The guest of a check whose run was killed is no reason to refuse a switch.
            if _runs(stem + ".pid") and not name.startswith(PREFIX):
                guests.append(Guest(name, driver))
    return tuple(guests)


def _runs(pid_file: str) -> bool:
    try:
        pid = (files.read(pid_file) or b"").strip().decode(errors="replace")
    except PermissionError:  # this user can't tell, so assume that it runs
        return True
    return pid.isdigit() and os.path.isdir("/proc/" + pid)
