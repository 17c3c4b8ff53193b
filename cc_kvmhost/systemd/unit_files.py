"""Unit files on the disk: which exist, and which links lead to them.

systemd reads all of its directories again for each unit that it is asked about: 2 ms for a disabled
unit, 150 ms for all of libvirt's. This module reads every directory once, and answers only for units
whose state is unambiguous: a package's own file, links by its own name, masks. systemd has to
answer for the others, such as units whose drop-ins have an [Install] section.

Source: systemd.unit(5), "Unit File Load Path" and "[Install] Section Options"; systemctl(1),
is-enabled.
"""

import os
import subprocess
from typing import Dict, Iterable, Iterator, List, Optional, Set, Tuple

from ..errors import KvmhostError

ETC = "/etc/systemd/system"
RUN = "/run/systemd/system"
#: Directories of packages.
VENDOR = ("/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_OTHERS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system.attached",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
)
_MASK = "/dev/null"
_WANTS = (".wants", ".requires", ".upholds")
_RULES = ("WantedBy", "RequiredBy", "UpheldBy", "Alias", "DefaultInstance")


def states(names: Iterable[str]) -> Tuple[Dict[str, str], List[str]]:
    """The states of units (not templates), as far as the disk shows them.

    :return: UnitFileState by name, without the units that have no unit file; and the names that
        systemd has to be asked about
    """
    known: Dict[str, str] = {}
    left: List[str] = []
    try:
        links = _Links()
    except PermissionError:
        return known, list(names)
    for name in names:
        if name in links.files:
            try:
                state = links.state(name)
            except PermissionError:
                state = None
            if state is None:
                left.append(name)
            else:
                known[name] = state
    return known, left


def tree_states(root: str, patterns: Iterable[str]) -> Dict[str, str]:
    """UnitFileState of every unit file of an image's tree whose name matches (fnmatch).

    :raises KvmhostError: systemctl is missing, or can't read the tree
    """
    done = _systemctl(root, ["list-unit-files", "--full", "--no-legend"], patterns)
    if done.stderr:
        raise KvmhostError([f"{root}: systemctl: {done.stderr.strip()}"])
    rows = (line.split() for line in done.stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) > 1}


def tree_state(root: str, unit: str) -> str:
    """UnitFileState of one unit of an image's tree, which may be an instance; "" if there is no unit
    file."""
    state = _systemctl(root, ["is-enabled"], [unit]).stdout.strip()
    return "" if state == "not-found" else state


def change_tree(root: str, verb: str, units: Iterable[str]) -> None:
    """Enable, disable, mask or unmask units of an image's tree.

    :param verb: enable, disable, disable-runtime, mask, unmask
    :raises KvmhostError: systemctl failed; the changes that it made before that stay
    """
    name, *options = verb.split("-")
    done = _systemctl(root, [name, "--quiet"] + ["--" + each for each in options], units)
    if done.returncode:
        raise KvmhostError([f"{root}: systemctl {name}: {done.stderr.strip()}"])


def _systemctl(
    root: str, words: List[str], units: Iterable[str]
) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["systemctl", "--root=" + root, "--no-pager"] + words + ["--"] + list(units),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            # Otherwise systemctl calls the distribution's program for units with an init script.
            env=dict(os.environ, SYSTEMCTL_SKIP_SYSV="1"),
            # systemd 247's systemctl makes its directories by the caller's umask.
            preexec_fn=lambda: os.umask(0o022),
        )
    except FileNotFoundError as error:
        raise KvmhostError([f"{root}: its unit files can't be read without systemctl"]) from error


def is_installed(unit: str, root: str) -> bool:
    """Whether a package's unit file exists, even if a mask hides it."""
    return any(os.path.exists(root + os.path.join(where, unit)) for where in VENDOR)


def is_in_etc(unit: str, root: str) -> bool:
    """Whether an administrator's own unit file is where a mask would have to be."""
    path = root + os.path.join(ETC, unit)
    return os.path.lexists(path) and not os.path.islink(path)


class _Links:
    """The contents of all directories of unit files.

    ``files``: unit -> directory -> the file or link of that name there. ``wanted``: unit -> the
    directories that have a link of that name in a .wants or the like. ``drop_ins``: unit -> its
    directories of drop-ins. ``ambiguous``: units with a link between two different names.
    """

    def __init__(self) -> None:
        self.files: Dict[str, Dict[str, os.DirEntry[str]]] = {}
        self.wanted: Dict[str, Set[str]] = {}
        self.drop_ins: Dict[str, List[str]] = {}
        self.ambiguous: Set[str] = set()
        seen = set()
        for directory in (ETC, RUN) + VENDOR + _OTHERS:
            real = os.path.realpath(directory)
            if real not in seen:  # /lib may be a link to /usr/lib
                seen.add(real)
                self._read(directory)

    def _read(self, directory: str) -> None:
        for entry in _entries(directory):
            if entry.name.endswith(".d"):
                self.drop_ins.setdefault(entry.name[: -len(".d")], []).append(entry.path)
            elif entry.name.endswith(_WANTS):
                for link in _entries(entry.path):
                    self.wanted.setdefault(link.name, set()).add(directory)
                    self._compare(link)
            else:
                self.files.setdefault(entry.name, {})[directory] = entry
                self._compare(entry)

    def _compare(self, entry: "os.DirEntry[str]") -> None:
        if entry.is_symlink():
            target = os.readlink(entry.path)
            if target != _MASK and os.path.basename(target) != entry.name:
                self.ambiguous.update((entry.name, os.path.basename(target)))

    def state(self, name: str) -> Optional[str]:
        """UnitFileState of a unit in ``files``; None if only systemd can tell."""
        files, wanted = self.files[name], self.wanted.get(name, set())
        if name in self.ambiguous or not wanted.union(files).isdisjoint(_OTHERS):
            return None
        if any(map(_has_install_section, self.drop_ins.get(name, ()))):
            return None
        for directory, state in ((ETC, "masked"), (RUN, "masked-runtime")):
            if directory in files:
                link = files[directory]
                return state if link.is_symlink() and os.readlink(link.path) == _MASK else None
        (entry, *more) = files.values()
        if more or entry.is_symlink() or not wanted.isdisjoint(VENDOR) or not entry.stat().st_size:
            return None
        if wanted:
            return "enabled" if ETC in wanted else "enabled-runtime"
        keys = set(_install_keys(entry.path))
        if keys.intersection(_RULES):
            return "disabled"
        return "indirect" if "Also" in keys else "static"


def _entries(directory: str) -> "Iterator[os.DirEntry[str]]":
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def _has_install_section(directory: str) -> bool:
    """Whether a drop-in in this directory has an [Install] section or can't be read: such a section
    may add keys or remove them."""
    for entry in _entries(directory):
        try:
            with open(entry.path, encoding="utf-8", errors="replace") as lines:
                if any(line.strip() == "[Install]" for line in lines):
                    return True
        except OSError:
            return True
    return False


def _install_keys(path: str) -> Iterator[str]:
    """The keys of a unit file's [Install] section that have a value."""
    section = ""
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in map(str.strip, lines):
            if line.startswith("["):
                section = line
            elif section == "[Install]" and not line.startswith(("#", ";")):
                key, _, value = line.partition("=")
                if value.strip():
                    yield key.strip()
