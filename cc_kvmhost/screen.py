"""Prints reports, verdicts and errors for people, on a terminal of 80 columns."""

import json
import os
import re
import sys
import textwrap
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from .config import Config, parse
from .document import Verdict
from .report import PATH, Report

WIDTH = 80
_GREEN, _RED, _BOLD = "32", "31", "1"

#: The verb of a change to a unit -> its past participle.
_VERBS = {
    "unmask": "unmasked",
    "disable": "disabled",
    "enable": "enabled",
    "mask": "masked",
    "stop": "stopped",
    "start": "started",
}
#: How a change begins that the facts above the table already show.
_PROFILE = "tuned profile "
_OBJECT = re.compile(r"\S+ (network|pool) ")
_UNIT = re.compile(r"(?P<daemon>.+?)(?P<socket>-(?:ro|admin|tcp|tls))?\.(?P<kind>[a-z]+)\Z")


class _Row(NamedTuple):
    """A row of a table: daemon, what is done to its units, and which units."""

    name: str
    words: str
    units: Tuple[str, ...]


def print_report(report: Report, as_json: bool, in_file: bool = True) -> None:
    """Print a plan or a run. ``in_file``: the report file has it too."""
    if as_json:
        print_json(report.to_json())
        return
    if report.result == "skipped":
        print("skipped: " + report.reason)
        return
    planned = report.result == "planned"
    facts = _choice(report)
    if not report.errors:
        facts.append(("changes", _counted(report.changed, planned)))
    facts += _tuned(report)
    if report.queued:
        facts.append(("queued", ", ".join(report.queued) + ": start when cloud-init is done"))
    if planned:
        _print_facts(facts)
        _print_changes(report.changed)
        print_warnings(report.warnings)
        return
    facts += _found(report)
    milliseconds = sum(ms for _, ms in report.steps)
    kept = "; the changes stay" if report.changes_kept else ""
    where = f"; all of it: {PATH}" if in_file else ""
    facts.append(("result", f"{_result(report.result)}, {milliseconds:.0f} ms{kept}{where}"))
    _print_facts(facts)
    _print_changes(report.changed)
    print_warnings(report.warnings)
    print_errors(report.errors)


def print_check(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
        return
    milliseconds = sum(ms for _, ms in report.steps)
    result = ("result", f"{_result(report.result)}, {milliseconds:.0f} ms")
    _print_facts(_choice(report) + _found(report) + [result])
    print_warnings(report.warnings)
    print_errors(report.errors)


def print_status(report: Report, sockets: Dict[str, str], as_json: bool) -> None:
    """``sockets``: for each libvirt socket why it can't be reached, "" if it can."""
    if as_json:
        print_json(dict(report.to_json(), sockets=sockets))
        return
    facts = _choice(report) + _tuned(report)
    refused = {unit: reason for unit, reason in sockets.items() if reason}
    if sockets:
        reachable = len(sockets) - len(refused)
        facts.append(("sockets", f"{reachable} of {len(sockets)} reachable"))
    if report.changed:
        facts.append(("to do", _counted(report.changed, True)))
    facts += _found(report)
    facts.append(("result", _result(report.result)))
    if report.changed or refused:
        facts.append(("next", "kvmhost apply"))
    _print_facts(facts)
    _print_changes(report.changed)
    if refused:
        print()
    for unit, reason in sorted(refused.items()):
        _print_wrapped(f"{unit}: ", f"can't be reached: {reason}", 2)
    print_warnings(report.warnings)
    if not report.mode:
        print_errors(report.errors)


def print_verdicts(verdicts: Dict[str, Verdict], as_json: bool) -> None:
    errors = [problem for verdict in verdicts.values() for problem in verdict.problems]
    if as_json:
        files = {
            name: {"section": verdict.config is not None, "errors": list(verdict.problems)}
            for name, verdict in verdicts.items()
        }
        result = Report("failed" if errors else "ok", None, "", errors=tuple(errors))
        print_json(dict(result.to_json(), files=files))
        return
    for name, verdict in verdicts.items():
        if verdict.problems:
            print_errors(verdict.problems)
        elif verdict.config is None:
            print(f"{name}: no kvmhost section")
        else:
            print(f"{name}: kvmhost section valid: {_section(verdict.config)}")
    total = _number(len(verdicts), "file")
    if errors:
        wrong = sum(bool(verdict.problems) for verdict in verdicts.values())
        print(f"{_number(len(errors), 'error')} in {wrong} of {total}", file=sys.stderr)
    elif len(verdicts) > 1:
        print(f"{total}, no errors")


def print_changes(changes: Sequence[str], nothing: str) -> None:
    """Print changes of files. ``nothing``: the text to print if there are none."""
    for line in changes or (nothing,):
        print(line)


def print_json(content: Any) -> None:
    json.dump(content, sys.stdout, indent=1, sort_keys=True)
    print()


def print_errors(problems: Sequence[str], kind: str = "error") -> None:
    sys.stdout.flush()
    for problem in problems:
        print(f"{kind}: {problem}", file=sys.stderr)


def print_warnings(warnings: Sequence[str]) -> None:
    print_errors(warnings, "warning")


def _choice(report: Report) -> List[Tuple[str, str]]:
    if report.mode is None:
        return []
    return [("mode", _painted(report.mode, _BOLD)), ("because", report.reason)]


def _tuned(report: Report) -> List[Tuple[str, str]]:
    if not report.tuned:
        return []
    before, after = report.tuned["before"] or "no profile", report.tuned["after"] or "no profile"
    return [("tuned", after if before == after else f"{before} -> {after}")]


def _found(report: Report) -> List[Tuple[str, str]]:
    """What KVM can do, and how far the check went."""
    words = {True: "can be used", False: "can't be used", None: "not known"}
    facts = [("KVM", words[report.kvm["usable"]])] if report.kvm else []
    if report.check:
        facts.append(("check", report.check_in_words or "failed"))
    return facts


def _section(config: Config) -> str:
    """A section in words: its mode, its profile and every key that is not the default."""
    usual = parse({})
    words = ["mode by release" if config.mode == "auto" else config.mode]
    if config.drivers != usual.drivers:
        words.append("drivers " + " ".join(config.drivers))
    if config.tls:
        words.append("TLS")
    if not config.autostart:
        words.append("no autostart")
    for key in ("networks", "pools"):
        names = [each.name for each in getattr(config, key)]
        words += [f"{key} " + " ".join(names)] if names else []
    profile = config.profile or "with its own profile"
    words.append(f"tuned {profile}" if config.tuned else "tuned left alone")
    if config.units:
        words.append("units " + " ".join(config.units))
    if config.timeout != usual.timeout:
        words.append(f"timeout {config.timeout} s")
    if config.kvm != usual.kvm:
        words.append(f"KVM: {config.kvm}")
    if config.check != usual.check:
        words.append(f"check: {config.check}")
    return ", ".join(words)


def _counted(changes: Sequence[str], planned: bool) -> str:
    """43: 36 to enable, 6 to mask, 1 to stop. What no verb of a unit says is counted as "other"."""
    if not changes:
        return "none"
    numbers: Dict[str, int] = {}
    for change in changes:
        if _unit_of(change):
            verb = change.split()[0]
            words = f"to {verb}" if planned else _VERBS[verb]
        elif change.startswith(_PROFILE):
            words = "profile to set" if planned else "profile set"
        elif _OBJECT.match(change):
            words = f"of {change.split()[1]}s"
        else:
            words = "other"
        numbers[words] = numbers.get(words, 0) + 1
    counts = [f"{number} {words}" for words, number in numbers.items()]
    total = f"{len(changes)}: " if len(counts) > 1 else ""
    return total + ", ".join(counts)


def _print_changes(changes: Sequence[str]) -> None:
    """Print a table of the changes to each daemon's units, and the other changes below it."""
    verbs: Dict[str, List[str]] = {}
    for change in changes:
        unit = _unit_of(change)
        if unit:
            verbs.setdefault(unit, []).append(change.split()[0])
    rows = _rows((unit, ", ".join(done)) for unit, done in verbs.items())
    others = [each for each in changes if not (_unit_of(each) or each.startswith(_PROFILE))]
    if rows or others:
        print()
    width = max([len(row.words) for row in rows] or [0])
    previous = ""
    for row in rows:
        name = "" if row.name == previous else row.name
        previous = row.name
        # A long name, such as a device's, has a line of its own.
        if len(name) > 15:
            print(_painted(name, _BOLD))
            name = ""
        start = _painted(name.ljust(16), _BOLD) + row.words.ljust(width) + "  "
        _print_wrapped(start, " ".join(row.units), 18 + width)
    for change in others:
        print(change)


def _rows(units: Iterable[Tuple[str, str]]) -> List[_Row]:
    """Units with the same words of one daemon in one row, the daemons in the order of the units."""
    table: Dict[str, Dict[str, List[str]]] = {}
    for unit, words in units:
        found = _UNIT.match(unit)
        daemon = found.group("daemon") if found else unit
        label = (found.group("socket") or found.group("kind")) if found else ""
        table.setdefault(daemon, {}).setdefault(words, []).append(label)
    return [
        _Row(daemon, words, tuple(labels))
        for daemon, rows in table.items()
        for words, labels in rows.items()
    ]


def _unit_of(change: str) -> str:
    """The unit that a change is about, or "" if it is about something else."""
    words = change.split()
    return words[1] if len(words) == 2 and words[0] in _VERBS else ""


def _print_facts(facts: Sequence[Tuple[str, str]]) -> None:
    for name, text in facts:
        _print_wrapped(name.ljust(9), text)


def _print_wrapped(start: str, text: str, column: int = 9) -> None:
    """``column``: where each further line begins."""
    indent = " " * len(re.sub(r"\033\[[0-9]*m", "", start))
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * column,
        break_long_words=False,
        break_on_hyphens=False,
    )
    print((start + "\n".join(lines)[len(indent) :]).rstrip())


def _result(result: str) -> str:
    return _painted(result, _RED if result == "failed" else _GREEN)


def _painted(text: str, colour: str) -> str:
    """The text in colour if standard output is a terminal, else as it is."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    if plain or not sys.stdout.isatty() or not text.strip():
        return text
    return f"\033[{colour}m{text}\033[0m"


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
