"""LVM's volume groups for pools: which are there, asked of LVM itself.

Only LVM knows. /dev has no directory for a group without active volumes, /etc/lvm/backup tells what
was, and the labels on the disks say nothing of LVM's filters and its list of devices. libvirt asks
LVM too, when it starts a pool; but its storage daemon is not to be woken before the first change.
LVM has no library any more, so this runs its program.

ask() is called in a child process (child.py): a disk that hangs takes its readers along.

Sources: vgs(8), lvmreport(7); libvirt's src/storage/storage_backend_logical.c.
"""

import glob
import json
import os
import subprocess
from typing import Any, Collection, Dict, List, Mapping, NamedTuple

from ..errors import KvmhostError
from . import child

#: Seconds that LVM may take to read its disks.
SECONDS = 20.0

#: libvirt's driver for them: EL's places, Debian's.
_DRIVERS = (
    "/usr/lib64/libvirt/storage-backend/libvirt_storage_backend_logical.so",
    "/usr/lib/*/libvirt/storage-backend/libvirt_storage_backend_logical.so",
)
#: --readonly takes no locks, which another host of a shared group might hold.
_COMMAND = ["vgs", "--readonly", "--reportformat", "json", "--options", "vg_name,vg_attr"]
#: Where in vg_attr the letter stands.
_EXPORTED, _PARTIAL = 2, 3


class Group(NamedTuple):
    """A volume group that a pool wants. ``problem``: why it can't be one, "" if it can.
    ``volumes``: some of its volumes are active."""

    problem: str = ""
    volumes: bool = False


def look(names: Collection[str]) -> Dict[str, Group]:
    """What is known of each of these groups."""
    if not names:
        return {}
    problem = _driver_problem()
    found: Dict[str, str] = {}
    if not problem:
        outcome = child.call(__name__, "ask", None, SECONDS)
        found = outcome.result or {}
        problem = "; ".join(outcome.problems)
        if outcome.overdue:
            problem = f"LVM does not answer within {SECONDS:g} s; see 'vgs'"
    return {
        name: Group(
            problem or refusal(name, found),
            # LVM makes a directory as long as there is an active volume.
            name in found and os.path.isdir("/dev/" + name),
        )
        for name in names
    }


def _driver_problem() -> str:
    if any(map(glob.glob, _DRIVERS)):
        return ""
    return (
        "libvirt's storage driver for volume groups is missing; install"
        " libvirt-daemon-driver-storage-logical (EL's name)"
    )


def refusal(name: str, found: Mapping[str, str]) -> str:
    """Why a group can't be a pool; "" if it can.

    :param found: every group's attributes, as ask() returns them
    """
    if name not in found:
        there = f"there are: {', '.join(sorted(found))}" if found else "there is none"
        return f"no such volume group on this host, {there}; make it with 'vgcreate {name} DEVICE'"
    letters = found[name].ljust(6)
    if letters[_EXPORTED] == "x":
        return f"it is exported; 'vgimport {name}' takes it back"
    if letters[_PARTIAL] == "p":
        return "some of its physical volumes are missing; see 'vgs' and 'pvs'"
    return ""


def ask(_order: Any, _say: child.Say) -> Dict[str, str]:
    """Each volume group of this host and its attributes (vg_attr).

    :raises KvmhostError: LVM does not tell
    """
    # Not this user's, and nothing about descriptors that the parent has left open.
    environment = dict(os.environ, LC_ALL="C", LVM_SUPPRESS_FD_WARNINGS="1")
    try:
        done = subprocess.run(
            _COMMAND,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except FileNotFoundError as error:
        raise KvmhostError(["LVM is not installed; install lvm2"]) from error
    try:
        return parse(done.stdout.decode(errors="replace"))
    except (ValueError, LookupError, TypeError) as error:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise KvmhostError(
            [f"'vgs' ends with exit status {done.returncode}: {words[-1]}"]
        ) from error


def parse(output: str) -> Dict[str, str]:
    """What vgs prints.

    :raises ValueError, LookupError, TypeError: it is something else
    """
    rows: List[Dict[str, str]] = json.loads(output)["report"][0]["vg"]
    return {row["vg_name"]: row["vg_attr"] for row in rows}
