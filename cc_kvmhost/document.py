"""A cloud-config file: its content, and the line of each key and item."""

import os
import re
import stat
import sys
import unicodedata
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import user_data
from .config import KEY, Config, check, load_schema, parse
from .errors import KvmhostError
from .problems import Path, dotted, homes, joined, nearest, shown

STDIN = "-"


class Finding(NamedTuple):
    line: int
    message: str


class Document(NamedTuple):
    """A cloud-config file: its mapping, and the line (from 1) of each key and item by its path.

    ``findings``: what is wrong with its keys, whatever the section holds.
    """

    name: str
    content: Dict[str, Any]
    lines: Dict[Path, int]
    findings: Tuple[Finding, ...]

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest mapping or list around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problems(self) -> List[str]:
        """Every problem of the file, with its line, in the order of lines."""
        findings = list(self.findings)
        if KEY in self.content:
            findings += [
                Finding(self.line((KEY,) + problem.path), str(problem))
                for problem in check(self.content[KEY])
            ]
        findings.sort(key=lambda finding: finding.line)
        return [f"{self.name}:{finding.line}: {finding.message}" for finding in findings]

    def located(self, problem: str) -> str:
        """The problem with file and line before it, if it begins with a key of the section."""
        places = {dotted(path[1:]): path for path in self.lines if path[:1] == (KEY,)}
        path = places.get(problem.split(": ", 1)[0])
        return problem if path is None else f"{self.name}:{self.line(path)}: {problem}"


class Verdict(NamedTuple):
    """What `kvmhost validate` found in a file. ``config``: None if there is no valid section."""

    problems: Tuple[str, ...]
    config: Optional[Config] = None


def read(name: str) -> Document:
    """Read a cloud-config file; ``-`` is standard input.

    :raises KvmhostError: not readable, not cloud-config for cloud-init, not YAML, not a mapping
    """
    import yaml

    name, data = _bytes(name)
    text = user_data.cloud_config(name, data)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        places = _Places(loader)
        places.visit(node)
        content = {} if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        line, what = _yaml_problem(error, text)
        raise KvmhostError([f"{name}:{line}: not YAML: {what}"]) from error
    except RecursionError as error:
        raise KvmhostError([f"{name}:1: nested too deeply to be read"]) from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise KvmhostError(
            [f"{name}:{places.lines[()]}: holds {shown(content)}, not a mapping with a {KEY} key"]
        )
    findings = [*places.findings, *_stray_keys(content, places.lines)]
    return Document(name, content, places.lines, tuple(findings))


def read_section(name: str) -> Document:
    """Read a file that must have a section.

    :raises KvmhostError: as read(), and if there is no section or a key of the file is wrong
    """
    document = read(name)
    if document.findings:
        raise KvmhostError(document.problems())
    if KEY not in document.content:
        raise KvmhostError([f"{document.name}: no {KEY} key: nothing is asked for"])
    return document


def judge(name: str) -> Verdict:
    try:
        document = read(name)
        problems = document.problems()
    except KvmhostError as error:
        return Verdict(error.problems)
    if problems or KEY not in document.content:
        return Verdict(tuple(problems))
    return Verdict((), parse(document.content[KEY]))


def _bytes(name: str) -> Tuple[str, bytes]:
    """A file's name for messages, and its content."""
    if name == STDIN:
        return "<stdin>", _standard_input()
    try:
        # Reading a FIFO, socket or device might never end.
        if stat.S_IFMT(os.stat(name).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise KvmhostError([f"{name}: a FIFO, socket or device, not a file"])
        with open(name, "rb") as stream:
            return name, stream.read()
    except OSError as error:
        raise KvmhostError([f"{name}: can't be read: {error.strerror}"]) from error


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise KvmhostError(["<stdin>: can't be read: it is closed"])
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise KvmhostError([f"<stdin>: can't be read: {error.strerror}"]) from error


class _Places:
    """The line of each place of a YAML node, and what is wrong with its keys. What an alias repeats
    gets the line of the original."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.lines: Dict[Path, int] = {}
        self.findings: List[Finding] = []

    def visit(self, root: Any) -> None:
        seen = set()
        rest: List[Tuple[Path, Any]] = [((), root)] if root else []
        while rest:
            path, node = rest.pop()
            self.lines.setdefault(path, node.start_mark.line + 1)
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.id == "mapping":
                rest += self._entries(path, node)
            elif node.id == "sequence":
                rest += [(path + (number,), item) for number, item in enumerate(node.value)]

    def _entries(self, path: Path, node: Any) -> List[Tuple[Path, Any]]:
        entries = []
        here: Dict[Any, int] = {}
        for key, value in node.value:
            if key.id != "scalar" or key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = self._loader.construct_object(key), key.start_mark.line + 1
            place = path + (name,)
            if name in here:
                self.findings.append(
                    Finding(
                        line,
                        f"{joined(place)}: the key stands here again; the first is on line"
                        f" {here[name]}, and YAML keeps the last",
                    )
                )
            odd = _odd_space(key.value[:1])
            if odd:
                what = f"{odd} before {shown(key.value.strip())}, which YAML takes for a part of it"
                self.findings.append(Finding(line, f"{what}; indent with spaces"))
            here.setdefault(name, line)
            self.lines[place] = line
            entries.append((place, value))
        return entries


def _stray_keys(content: Dict[Any, Any], lines: Dict[Path, int]) -> List[Finding]:
    """Top-level keys that are unknown but look like one of cloud-init's, or belong in the section."""
    ours = homes(load_schema())
    findings = []
    for key in content:
        if not isinstance(key, str) or key == KEY or key in user_data.KEYS or _odd_space(key[:1]):
            continue
        near = nearest(key, user_data.KEYS, 0.8)
        if key in ours:
            what = f"it belongs under {dotted(ours[key])}, indented"
        elif KEY not in content and nearest(key, [KEY]):
            what = f"did you mean {KEY!r}?"
        elif near:
            what = f"did you mean {near!r}?"
        else:
            continue
        findings.append(Finding(lines[(key,)], f"unknown key {key!r}; {what}"))
    return findings


def _odd_space(character: str) -> str:
    """The name of a character that is invisible and that YAML does not take for a space; else ""."""
    if not character or character == " " or unicodedata.category(character) not in ("Zs", "Cf"):
        return ""
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'invisible').lower()})"


def _yaml_problem(error: Exception, text: str) -> Tuple[int, str]:
    """The line and the words for what a YAML parser found."""
    import yaml

    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return line, f"the character #x{error.character:04x} is not allowed"
    problem = getattr(error, "problem", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return 1, problem
    opened = _unclosed(text)
    if opened:
        return opened
    rows = text.split("\n")
    row = rows[mark.line] if mark.line < len(rows) else ""
    if problem.startswith("found character '\\t'"):
        return mark.line + 1, "a tab, where YAML allows spaces only"
    # "timeout:120" is a text, and what follows it does not fit: the text may stand a line above.
    for number in (mark.line, mark.line - 1):
        above = rows[number] if 0 <= number < len(rows) else ""
        glued = re.match(r"\s*(?:- )?([A-Za-z_]+):[^\s:/]", above)
        if glued:
            return number + 1, f"a space is missing after '{glued.group(1)}:'"
    odd = [_odd_space(each) for each in row[: len(row) - len(row.lstrip())]]
    if any(odd):
        return mark.line + 1, f"{next(filter(None, odd))} in the indentation; indent with spaces"
    stray = re.search(r"expected <block end>, but found ('[]}]')", problem)
    if stray:
        return mark.line + 1, f"the {stray.group(1)} closes nothing"
    if problem.startswith(("mapping values are not", "expected <block end>")):
        return mark.line + 1, f"{problem}; is it indented as the lines above?"
    return mark.line + 1, problem


def _unclosed(text: str) -> Optional[Tuple[int, str]]:
    """The line of the bracket or quote that nothing closes, if there is one."""
    import yaml

    opened: List[Any] = []
    try:
        tokens: Iterator[Any] = yaml.scan(text, yaml.SafeLoader)
        for token in tokens:
            if token.id in ("[", "{"):
                opened.append(token)
            elif token.id in ("]", "}") and opened:
                opened.pop()
    except yaml.MarkedYAMLError as error:
        if "quoted scalar" not in str(error.context) or "end of stream" not in str(error.problem):
            return None
        mark: Any = error.context_mark
        row = text.split("\n")[mark.line]
        return mark.line + 1, f"the {row[mark.column : mark.column + 1]} is not closed"
    if not opened:
        return None
    return opened[0].start_mark.line + 1, f"the {opened[0].id!r} is not closed"
