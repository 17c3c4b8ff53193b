"""libvirt's storage pools: which there are, which are asked for, and the steps between.

Sources: libvirt's docs/formatstorage.rst; the files that its storage driver keeps.
"""

import os
import re
import shlex
import stat
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)
from xml.etree import ElementTree

from .. import files
from ..config import KEY, Pool
from .steps import KEPT, POOL, Step
from .volume_groups import Group

LOGICAL = "logical"

#: SELinux's type for guests' disks (virt_selinux(8)), and a whole label with it.
_TYPE = "virt_image_t"
_LABEL = f"system_u:object_r:{_TYPE}:s0"

#: Bytes. With less, the first image would fill the file system.
_LEAST_ROOM = 1 << 30


class PoolState(NamedTuple):
    """A pool. ``path``: its directory, or that of its volumes' devices. ``source``: type logical; its
    volume group. ``persistent``: it has a definition."""

    name: str
    type: str = "dir"
    path: str = ""
    source: str = ""
    persistent: bool = True
    autostart: bool = True
    active: bool = True

    def shown(self) -> Dict[str, Any]:
        """For the report."""
        return {
            "type": self.type,
            "path": self.path,
            "source": self.source,
            "autostart": self.autostart,
            "active": self.active,
        }


class Place(NamedTuple):
    """A pool's directory. ``problem``: why it can't be one, "" if it can. ``missing``: the highest
    directory of its path that is missing, "" if none is. ``room``: bytes that are free. ``label``:
    the SELinux label that the directory is to get when it is made, "" without SELinux;
    ``relabelled``: the policy has another one for it."""

    problem: str = ""
    missing: str = ""
    room: int = 0
    label: str = ""
    relabelled: bool = False


def parse(element: Any) -> PoolState:
    """What a <pool> says."""
    kind, name = element.get("type", ""), element.findtext("name", "")
    # libvirt takes the pool's name where a volume group is not named.
    group = element.findtext("source/name") or name
    return PoolState(
        name=name,
        type=kind,
        path=element.findtext("target/path", ""),
        source=group if kind == LOGICAL else "",
    )


def look(path: str) -> Place:
    """What is at a path that is to be a pool's directory.

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
    room = file_system.f_bavail * file_system.f_frsize
    if missing and files.has_selinux():
        label, relabelled = directory_label(files.label_of_policy(path, stat.S_IFDIR))
        return Place("", missing, room, label, relabelled)
    return Place("", missing, room)


def directory_label(policys: str) -> Tuple[str, bool]:
    """The SELinux label of a directory for guests' disks, and whether a relabel would change it.

    :param policys: what the policy has for its path; "" if that is not known
    """
    user, role, kind, *level = (policys or _LABEL).split(":")
    relabelled = not policys or kind != _TYPE
    return ":".join([user, role, _TYPE, *level]), relabelled


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def decide(
    asked: Sequence[Pool],
    here: Mapping[str, PoolState],
    places: Mapping[str, Place],
    groups: Mapping[str, Group],
) -> Tuple[Dict[str, PoolState], List[Step], List[str]]:
    """Each pool as it must be, the steps to it, and what stands in the way.

    :param groups: the volume groups of pools that are not active
    """
    wishes: Dict[str, PoolState] = {}
    steps: List[Step] = []
    problems: List[str] = []
    for number, each in enumerate(asked):
        found = here.get(each.name)
        place, group = places.get(each.path, Place()), groups.get(each.source, Group())
        obstacles = list(_differences(each, found)) if found else list(_takers(each, here.values()))
        obstacles += (
            _group_obstacles(each, group) if each.source else _obstacles(each, found, place)
        )
        where = f"{KEY}.libvirt.pools[{number}]: {each.name}"
        problems += [f"{where} {obstacle}" for obstacle in obstacles]
        if obstacles:
            continue
        wish = found or PoolState(each.name, each.type, _path(each), each.source)
        wishes[each.name] = wish._replace(autostart=True, active=True)
        if found is None:
            steps.append(Step("define", POOL, each.name, _xml(each), note=each.path or each.source))
        if place.missing:
            if found is not None and found.active:
                steps.append(Step("stop", POOL, each.name))
            note = f"the directory {each.path}{_lasting_label(each.path, place)}"
            make = Step("make", POOL, each.name, each.path, place.missing, note, place.label)
            steps.append(make)
        if found is None or not found.autostart:
            steps.append(Step("autostart", POOL, each.name))
        if found is None or not found.active or place.missing:
            # Stopping a pool deactivates its group's volumes, also those that others activated.
            before = KEPT if group.volumes else ""
            steps.append(Step("start", POOL, each.name, before=before))
    return wishes, steps, problems


def _lasting_label(path: str, place: Place) -> str:
    """How to make a directory's SELinux label last, for people."""
    if not place.relabelled:
        return ""
    # semanage takes a regular expression, and the shell a word.
    pattern = re.sub(r"([][.^$*+?{}()|\\])", r"\\\1", path) + "(/.*)?"
    return (
        f", labelled {_TYPE} until SELinux's policy is applied to it; to keep that:"
        f" semanage fcontext -a -t {_TYPE} {shlex.quote(pattern)}"
    )


def _differences(asked: Pool, found: PoolState) -> Iterator[str]:
    """A sentence of how the pool that is there differs; none if it does not."""
    differences = []
    if not found.persistent:
        differences.append("it is transient, gone with the next boot")
    if found.type != asked.type:
        differences.append(f"its type is {found.type}, not {asked.type}")
    elif found.source != asked.source:
        differences.append(f"its source is {found.source}, not {asked.source}")
    elif asked.path and found.path != asked.path:
        differences.append(f"its path is {found.path or 'none'}, not {asked.path}")
    if differences:
        yield (
            f"is there and differs: {'; '.join(differences)}; it is left alone: ask for what is"
            f" there, or remove it with {_removal(found)}"
        )


def _takers(asked: Pool, all_here: Iterable[PoolState]) -> Iterator[str]:
    """Which other pools already use the directory or volume group of the pool that is asked for."""
    for other in all_here:
        if other.path == asked.path if asked.path else other.source == asked.source:
            yield (
                f"can't be at {asked.path or asked.source}: that is pool {other.name}'s; ask for"
                f" that name, or remove it with {_removal(other)}"
            )


def _removal(pool: PoolState) -> str:
    """The virsh commands."""
    stop = f"'virsh pool-destroy {pool.name}' and " if pool.active else ""
    return f"{stop}'virsh pool-undefine {pool.name}'"


def _group_obstacles(asked: Pool, group: Group) -> Iterator[str]:
    if group.problem:
        yield f"can't be in {asked.source}: {group.problem}"


def _obstacles(asked: Pool, found: Optional[PoolState], place: Place) -> Iterator[str]:
    if place.problem:
        yield f"can't be at {asked.path}: {place.problem}; name another path, or move it away"
    elif found is None and place.room < _LEAST_ROOM:
        yield (
            f"can't be at {asked.path}: its file system has {place.room >> 20} MiB left, less than"
            f" {_LEAST_ROOM >> 20}; make room, or name another path"
        )


def _path(asked: Pool) -> str:
    return asked.path or "/dev/" + asked.source


def _xml(asked: Pool) -> str:
    pool = ElementTree.Element("pool", type=asked.type)
    ElementTree.SubElement(pool, "name").text = asked.name
    if asked.source:
        source = ElementTree.SubElement(pool, "source")
        ElementTree.SubElement(source, "name").text = asked.source
        ElementTree.SubElement(source, "format", type="lvm2")
    target = ElementTree.SubElement(pool, "target")
    ElementTree.SubElement(target, "path").text = _path(asked)
    return ElementTree.tostring(pool, encoding="unicode")
