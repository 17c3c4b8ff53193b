"""How far the check of a run goes, decided from what was asked and what is here.

Each level includes those before it. ``sockets``: libvirt's sockets can be reached. ``daemons``: each
daemon starts and answers a client. ``guest``: a guest of a few instructions runs and says so.
"""

import platform
from importlib.util import find_spec
from typing import NamedTuple, Optional, Sequence

from .guest import MACHINES

LEVELS = SOCKETS, DAEMONS, GUEST = "sockets", "daemons", "guest"


class Means(NamedTuple):
    """What a check depends on here. ``arch``: the kernel's, as uname says it. ``binding``: libvirt's
    binding for this Python is installed."""

    arch: str = ""
    binding: bool = False


def means() -> Means:
    return Means(platform.machine(), find_spec("libvirt") is not None)


class Level(NamedTuple):
    """One of LEVELS. ``warning``: why it is less than the default; "" if it is not, or was asked for."""

    name: str
    warning: str = ""


class NotPossible(Exception):
    """The level that was asked for is not possible here; the text says why."""


def choose(asked: Optional[str], drivers: Sequence[str], means: Means) -> Level:
    """Choose the level.

    :param asked: the section's level; None: the highest that is possible here
    :param drivers: the drivers that the mode has
    :raises NotPossible: a guest was asked for and can't be run
    """
    if asked not in (None, GUEST):
        return Level(str(asked))
    if "qemu" not in drivers:
        reason = "kvmhost.libvirt.drivers has no qemu"
    elif means.arch not in MACHINES:
        there = " and ".join(sorted(MACHINES))
        reason = f"there is a guest for {there}, and none for {means.arch}"
    elif not means.binding:
        reason = "libvirt's Python binding is missing; install python3-libvirt"
    else:
        return Level(GUEST)
    if asked:
        raise NotPossible(f"kvmhost.check: guest is not possible: {reason}")
    return Level(
        DAEMONS, f"no guest was run to check this host: {reason}; kvmhost.check: daemons accepts it"
    )
