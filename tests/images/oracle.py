"""What is known of EL's packages, from the tables beside this file: names, versions, repositories, requirements.

No mirror of EL is reachable where this is developed: the tables hold what public sources say, each row with its own.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
UNKNOWN = "?"  # no source says it; the row's source says where was looked
NONE = "-"  # there is no such package in this release
# How a package's name begins, where text names one.
NAMED = re.compile(
    r"(?<![-\w/])(?:libvirt|python3|qemu|guestfs|epel|edk2|swtpm|nmap|passt|selinux|systemd-boot|cloud-utils|kernel|linux)"
    r"-[a-z0-9-]*[a-z0-9]\b"
)
DNF = re.compile(r"\b(?:dnf|yum)\b[^\n;&|`]*?\binstall\b([^\n;&|`)]*)")
ADVICE = re.compile(r"\binstall ([a-z][a-z0-9+.-]*[a-z0-9])")


class Package(NamedTuple):
    """A row of el-packages.tsv."""

    name: str
    release: str
    version: str
    repository: str
    source: str


class Relation(NamedTuple):
    """A row of el-requires.tsv."""

    name: str
    releases: str
    kind: str
    names: str
    source: str


@functools.cache
def packages(release: int) -> dict[str, Package]:
    """Each package of an EL release that the table knows, by name; those that do not exist there are not in it."""
    found = (row for row in map(Package._make, rows("el-packages.tsv")))
    return {row.name: row for row in found if row.release == f"el{release}" and row.version != NONE}


def relations(release: int, kind: str) -> dict[str, list[str]]:
    """What each package requires or recommends of the others."""
    found: dict[str, list[str]] = {}
    for row in map(Relation._make, rows("el-requires.tsv")):
        if row.kind == kind and str(release) in row.releases.split():
            found.setdefault(row.name, []).extend(row.names.split())
    return found


def closure(release: int, names: Iterable[str]) -> set[str]:
    """These packages and all that they require."""
    requires = relations(release, "requires")
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += requires.get(name, [])
    return found


def rows(name: str) -> list[list[str]]:
    """A table's rows, without its head."""
    return [line.split("\t") for line in (HERE / name).read_text().splitlines()[1:]]


def listed(path: Path) -> set[str]:
    """The packages of a list in images/packages."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return {line for line in lines if line}


def installed_by(text: str) -> set[str]:
    """The packages that the commands in a text install by dnf."""
    commands = DNF.findall(text.replace("\\\n", " "))
    words = {word for command in commands for word in command.split()}
    return {word for word in words if re.fullmatch("[a-z][a-z0-9+.-]*[a-z0-9]", word)}


def advised(source: str) -> set[str]:
    """What the messages of a Python source say to install: the word after that one, in each string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            found.update(ADVICE.findall("".join(map(str, parts))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(ADVICE.findall(node.value))
    return found


def named(text: str) -> set[str]:
    """The packages that a text names, by how their names begin."""
    return set(NAMED.findall(text))
