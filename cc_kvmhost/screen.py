"""How people read it: reports, changes and errors on the terminal."""

import json
import sys
from typing import Any, Dict, Sequence

from .report import Report


def print_report(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
        return
    if report.errors:
        print_errors(report.errors)
    else:
        print(f"{report.result}: {report.summary()}")
    for change in report.changed:
        print("  " + change)
    for warning in report.warnings:
        print("warning: " + warning, file=sys.stderr)


def print_status(report: Report, sockets: Dict[str, str], as_json: bool) -> None:
    """``sockets``: for each libvirt socket why it can't be reached, "" if it can."""
    if as_json:
        print_json(dict(report.to_json(), sockets=sockets))
        return
    print_report(report, False)
    for unit, reason in sorted(sockets.items()):
        print("  {:<32} {}".format(unit, reason or "reachable"))


def print_changes(changes: Sequence[str], nothing: str) -> None:
    """``nothing``: what to say if there are none."""
    for line in changes or (nothing,):
        print(line)


def print_json(content: Any) -> None:
    json.dump(content, sys.stdout, indent=1, sort_keys=True)
    print()


def print_errors(problems: Sequence[str]) -> None:
    for problem in problems:
        print("error: " + problem, file=sys.stderr)
