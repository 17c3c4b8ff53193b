"""The guests that run here."""

import glob
import os
from typing import NamedTuple, Tuple

from .. import files
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
            pid = (files.read(stem + ".pid") or b"").strip().decode(errors="replace")
            if pid.isdigit() and os.path.isdir("/proc/" + pid):
                guests.append(Guest(os.path.basename(stem), driver))
    return tuple(guests)
