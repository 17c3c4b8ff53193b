"""The guests that run here."""

import glob
import os
from typing import Tuple

from .. import files
from .guest import PREFIX
from .units import RUN

_DRIVERS = ("qemu", "lxc")


def running() -> Tuple[str, ...]:
    """Names of the guests whose process runs, in whichever mode, whether their daemon runs or not.

    Source: the status file and the pid file that libvirt keeps of each in /run/libvirt/DRIVER.
    """
    names = []
    found = [path for driver in _DRIVERS for path in glob.glob(RUN + driver + "/*.xml")]
    for stem in (path[: -len(".xml")] for path in found):
        pid = (files.read(stem + ".pid") or b"").strip().decode(errors="replace")
        name = os.path.basename(stem)
        # A check's guest, left by a run that was killed, is no reason to refuse anything.
        if pid.isdigit() and os.path.isdir("/proc/" + pid) and not name.startswith(PREFIX):
            names.append(name)
    return tuple(sorted(names))
