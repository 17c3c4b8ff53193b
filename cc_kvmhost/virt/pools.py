"""libvirt's storage pools: what is there, what is asked, and what makes the one the other.

Sources: libvirt's docs/formatstorage.rst; the files that its storage driver keeps.
"""

import os
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple
from xml.etree import ElementTree

from ..config import KEY, Pool
from .steps import POOL, Step

#: Bytes: on less, the first image fills the file system.
_LEAST_ROOM = 1 << 30


class PoolState(NamedTuple):
    """A pool. ``persistent``: it has a definition."""

    name: str
    type: str = "dir"
    path: str = ""
    persistent: bool = True
    autostart: bool = True
    active: bool = True

    def shown(self) -> Dict[str, Any]:
        """For the report."""
        return {
            "type": self.type,
            "path": self.path,
            "autostart": self.autostart,
            "active": self.active,
        }


class Place(NamedTuple):
    """A pool's directory. ``problem``: why it can't be one, "" if it can. ``missing``: the highest
    directory of its path that is missing, "" if none is. ``room``: bytes that are free."""

    problem: str = ""
    missing: str = ""
    room: int = 0


def parse(element: Any) -> PoolState:
    """What a <pool> says."""
    return PoolState(
        name=element.findtext("name", ""),
        type=element.get("type", ""),
        path=element.findtext("target/path", ""),
    )


def look(path: str) -> Place:
    """What stands at a path that shall be a pool's directory.

    :raises PermissionError: this user can't tell
    """
    missing, there = "", path
    while not _is_there(there):
        missing, there = there, os.path.dirname(there)
    if not os.path.isdir(there):
        return Place(f"{there} is not a directory", missing)
    file_system = os.statvfs(there)
    if missing and file_system.f_flag & os.ST_RDONLY:
        return Place(f"{there} is on a read-only file system, {missing} can't be made", missing)
    return Place("", missing, file_system.f_bavail * file_system.f_frsize)


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def decide(
    asked: Sequence[Pool], here: Mapping[str, PoolState], places: Mapping[str, Place]
) -> Tuple[Dict[str, PoolState], List[Step], List[str]]:
    """Each pool as it shall be, the steps to it, and what stands in the way."""
    wishes: Dict[str, PoolState] = {}
    steps: List[Step] = []
    problems: List[str] = []
    for number, each in enumerate(asked):
        found, place = here.get(each.name), places[each.path]
        obstacles = list(_obstacles(each, found, here.values(), place))
        where = f"{KEY}.libvirt.pools[{number}]: {each.name}"
        problems += [f"{where} {obstacle}" for obstacle in obstacles]
        if obstacles:
            continue
        wishes[each.name] = PoolState(each.name, each.type, each.path)
        if found is None:
            steps.append(Step("define", POOL, each.name, _xml(each), note=each.path))
        if place.missing:
            if found is not None and found.active:
                steps.append(Step("stop", POOL, each.name))
            note = f"the directory {each.path}"
            steps.append(Step("make", POOL, each.name, each.path, place.missing, note))
        if found is None or not found.autostart:
            steps.append(Step("autostart", POOL, each.name))
        if found is None or not found.active or place.missing:
            steps.append(Step("start", POOL, each.name))
    return wishes, steps, problems


def _obstacles(asked: Pool, found: Any, all_here: Any, place: Place) -> Iterator[str]:
    differences = list(_differences(asked, found)) if found else []
    if differences:
        yield (
            "is there and differs: {}; it is left alone: ask for what is there, or remove it with"
            " {}'virsh pool-undefine {}'".format(
                "; ".join(differences),
                f"'virsh pool-destroy {asked.name}' and " if found.active else "",
                asked.name,
            )
        )
    if place.problem:
        yield f"can't be at {asked.path}: {place.problem}; name another path, or move it away"
    elif found is None and place.room < _LEAST_ROOM:
        yield (
            f"can't be at {asked.path}: its file system has {place.room >> 20} MiB left, less than"
            f" {_LEAST_ROOM >> 20}; make room, or name another path"
        )
    for other in all_here:
        if found is None and other.path == asked.path:
            yield (
                f"can't be at {asked.path}: that is pool {other.name}'s; ask for that name, or"
                f" remove it with 'virsh pool-undefine {other.name}'"
            )


def _differences(asked: Pool, found: PoolState) -> Iterator[str]:
    if not found.persistent:
        yield "it is transient, gone with the next boot"
    if found.type != asked.type:
        yield f"its type is {found.type}, not {asked.type}"
    if found.path != asked.path:
        yield f"its path is {found.path or 'none'}, not {asked.path}"


def _xml(asked: Pool) -> str:
    pool = ElementTree.Element("pool", type=asked.type)
    ElementTree.SubElement(pool, "name").text = asked.name
    target = ElementTree.SubElement(pool, "target")
    ElementTree.SubElement(target, "path").text = asked.path
    return ElementTree.tostring(pool, encoding="unicode")
