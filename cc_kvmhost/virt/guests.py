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
    """The guests whose process runs, in whichever mode, whether their daemon runs or not.

    Source: the status file and the pid file that libvirt keeps of each in /run/libvirt/DRIVER.
    """
    guests = []
    for driver in _DRIVERS:
        for path in sorted(glob.glob(RUN + driver + "/*.xml")):
            stem = path[: -len(".xml")]
            name = os.path.basename(stem)
            # A check's guest, left by a run that was killed, is no reason to refuse anything.
            if _runs(stem + ".pid") and not name.startswith(PREFIX):
                guests.append(Guest(name, driver))
    return tuple(guests)


def _runs(pid_file: str) -> bool:
    try:
        pid = (files.read(pid_file) or b"").strip().decode(errors="replace")
    except PermissionError:  # for all that this user can tell
        return True
    return pid.isdigit() and os.path.isdir("/proc/" + pid)
