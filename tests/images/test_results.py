"""docs/images.md says of each claim where it has been shown on EL itself: as docs/el-results.tsv has it, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import el
from program import verify

PAGE = el.CHECKOUT / "docs/images.md"
RESULTS = el.CHECKOUT / "docs/el-results.tsv"
NOT_YET = "not yet"


class Result(NamedTuple):
    check: str
    system: str
    date: str
    found: str


def results() -> list[Result]:
    lines = RESULTS.read_text().splitlines()
    assert lines[0].split("\t") == list(Result._fields)
    return [Result._make(line.split("\t")) for line in lines[1:]]


def rows() -> list[list[str]]:
    """The cells of the page's table, without its head."""
    section = PAGE.read_text().split("## What has been shown, and on what\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def checks(cell: str) -> list[str]:
    """The checks that a cell is about."""
    return re.findall("`([^`]+)`", cell)


def shown(names: Iterable[str], found: list[Result]) -> str:
    """What the last column says: the newest of each system, for all of a row's checks together."""
    names = list(names)
    newest: dict[tuple[str, str], Result] = {}
    for result in found:
        if result.check in names:
            newest[result.system, result.check] = result
    told = []
    for system in sorted({system for system, _ in newest}):
        mine = [result for (each, _), result in newest.items() if each == system]
        date = max(result.date for result in mine)
        failed = sorted(result.check for result in mine if result.found != "holds")
        missing = sorted(set(names) - {result.check for result in mine})
        trouble = [f"fails: {name}" for name in failed] + [f"not asked: {name}" for name in missing]
        told.append(f"{system} ({', '.join([date, *trouble])})")
    return "; ".join(told) or NOT_YET


def test_the_table_says_what_the_results_say() -> None:
    for claim, _, where in rows():
        names = checks(where)
        assert names, f"{claim}: its last column names no check"
        expected = f"{', '.join(f'`{name}`' for name in names)}: {shown(names, results())}"
        assert where == expected, claim


def test_the_results_are_of_el() -> None:
    """Results of other systems don't count for EL's column."""
    systems = ("CentOS Stream ", "AlmaLinux ", "Rocky Linux ", "Red Hat Enterprise Linux ")
    assert [result for result in results() if not result.system.startswith(systems)] == []


def test_the_readme_says_so_while_there_is_nothing() -> None:
    text = (el.CHECKOUT / "README.md").read_text()
    assert ("**On EL itself: nothing yet**" in text) == (not results())


def test_every_check_has_its_place() -> None:
    answers: dict[str, Any] = {name: [1, "x"] for name in verify().QUESTIONS}
    asked = set(verify().judge({**answers, "seconds": 1})) - {"seconds"}
    named = {name for _, _, where in rows() for name in checks(where)}
    assert asked <= named
    assert {result.check for result in results()} - {"seconds"} <= named


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], NOT_YET),
        ([("virsh", "EL 9", "2026-12-01", "holds")], "EL 9 (2026-12-01)"),
        (
            [
                ("virsh", "EL 9", "2026-12-01", "holds"),
                ("virsh", "EL 9", "2026-12-02", "fails: no socket"),
                ("virsh", "EL 10", "2026-12-01", "holds"),
                ("tuned", "EL 9", "2026-12-03", "holds"),
            ],
            "EL 10 (2026-12-01); EL 9 (2026-12-02, fails: virsh)",
        ),
    ],
)
def test_shown(found: list[tuple[str, str, str, str]], text: str) -> None:
    assert shown(["virsh"], [Result._make(row) for row in found]) == text


def test_a_check_that_was_not_asked_is_named() -> None:
    found = [Result("virsh", "EL 9", "2026-12-01", "holds")]
    assert shown(["virsh", "tuned"], found) == "EL 9 (2026-12-01, not asked: tuned)"


def test_verify_writes_what_is_read_here(tmp_path: Path) -> None:
    file = tmp_path / "results.tsv"
    release = [0, 'NAME="CentOS Stream"\nPRETTY_NAME="CentOS Stream 9"\n\nANSI_COLOR="0;31"\n']
    rows = {"virsh": (True, "9.0"), "SELinux": (False, "Permissive\tby hand")}
    verify().append(file, [({"os-release": release}, rows)])
    lines = [Result._make(line.split("\t")) for line in file.read_text().splitlines()]
    assert [(line.check, line.system, line.found) for line in lines] == [
        ("virsh", "CentOS Stream 9", "holds"),
        ("SELinux", "CentOS Stream 9", "fails: Permissive by hand"),
    ]
