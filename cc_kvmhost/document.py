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

#: What YAML takes a plain scalar for.
_SCALARS = {
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:int": "a whole number",
    "tag:yaml.org,2002:timestamp": "a date",
}


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
        place = problem.split(": ", 1)[0]
        # What a merge key (<<) brings has no line of its own here: that of the nearest place above.
        while place and place not in places:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        return f"{self.name}:{self.line(places[place])}: {problem}" if place else problem


class Verdict(NamedTuple):
    """What `kvmhost validate` found in a file. ``config``: None if there is no valid section."""

    problems: Tuple[str, ...]
    config: Optional[Config] = None


def read(name: str) -> Document:
    """Read a cloud-config file; ``-`` is standard input.

    :raises KvmhostError: not readable, not cloud-config for cloud-init, not YAML, not a mapping; no PyYAML
    """
    try:
        import yaml
    except ImportError as error:
        raise KvmhostError(
            [f"no file can be read: {error}; install python3-pyyaml (on Debian python3-yaml)"]
        ) from error

    name, data = _bytes(name)
    text = user_data.cloud_config(name, data)
    try:
        loader = _loader(text)
        node = loader.get_single_node()
        places = _Places(loader)
        places.visit(node)
        content = {} if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        line, what = _yaml_problem(error, text)
        raise KvmhostError([f"{name}:{line}: not YAML: {what}"]) from error
    except RecursionError as error:
        raise KvmhostError([f"{name}: nested too deeply to be read"]) from error
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


def title(name: str) -> str:
    """A file's name in messages."""
    return "<stdin>" if name == STDIN else name


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
        return title(name), _standard_input()
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


def _loader(text: str) -> Any:
    """A YAML loader whose every error says where. A scalar that can't be what it is taken for ends
    PyYAML's own with a ValueError, KeyError or AttributeError."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (yaml.YAMLError, RecursionError):
                raise
            except Exception as error:
                kind = _SCALARS.get(node.tag, "what its tag says")
                what = f"{shown(node.value)} can't be read as {kind}"
                raise yaml.constructor.ConstructorError(
                    None, None, f"{what}; if it is a text, write it in quotes", node.start_mark
                ) from error

    return Loader(text)


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
        if KEY not in content and isinstance(content[key], dict) and KEY in content[key]:
            what = f"{joined((key, KEY))}: stands under {shown(key)}; it belongs at the left margin"
            findings.append(Finding(lines[(key, KEY)], what))
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
        findings.append(Finding(lines[(key,)], f"unknown key {ascii(key)}; {what}"))
    return findings


def _odd_space(character: str) -> str:
    """The name of a character that is invisible and that YAML does not take for a space; else ""."""
    if not character or character == " " or unicodedata.category(character) not in ("Zs", "Cf"):
        return ""
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'invisible').lower()})"


def _yaml_problem(error: Any, text: str) -> Tuple[int, str]:
    """The line and the words for what a YAML parser found."""
    import yaml

    if isinstance(error, yaml.reader.ReaderError):
        line = len(_rows(text[: error.position]))
        return line, f"the character U+{error.character:04X} is not allowed"
    problem, mark = getattr(error, "problem", None) or str(error), error.problem_mark
    opened = _unclosed(text)
    if opened:
        return opened
    if "found another document" in problem:
        return mark.line + 1, "a second document begins here; cloud-init reads one only"
    rows = _rows(text)
    if problem.startswith("found character '\\t'"):
        return mark.line + 1, "a tab, where YAML allows spaces only"
    # What does not fit may be the end of a text that stands a line above.
    for number in (mark.line, mark.line - 1):
        hint = _row_problem(rows[number], number < mark.line) if 0 <= number < len(rows) else ""
        if hint:
            return number + 1, hint
    return mark.line + 1, _in_other_words(problem, rows[mark.line :][:1], mark.column)


def _rows(text: str) -> List[str]:
    """The lines of a text, by YAML's line breaks."""
    return re.split("\r\n|[\r\n\x85\u2028\u2029]", text)


def _row_problem(row: str, above: bool) -> str:
    """What a row has that YAML can't read, if it is a usual mistake.

    :param above: it stands above the one where the parser stopped
    """
    if re.match(r"(<{7}|={7}|>{7})( |$)", row):
        return "a merge conflict that is not resolved"
    if "{{" in row or "{%" in row:
        return f"a jinja template; it needs {user_data.JINJA!r} above {user_data.HEADER}"
    glued = re.match(r"\s*(?:- )?([A-Za-z_]+):[^\s:/]", row)
    if glued:
        return f"a space is missing after '{glued.group(1)}:'"
    stated = re.match(r"\s*([A-Za-z_]+) *= *\S", row)
    if stated:
        return f"write '{stated.group(1)}: ' instead of '{stated.group(1)} ='"
    if above and re.match(r"\s*[A-Za-z_]+\s*$", row):
        return f"a ':' is missing after {row.strip()!r}"
    odd = next(filter(None, map(_odd_space, row)), "")
    if odd and not above:
        return f"{odd}, which is no space for YAML"
    return ""


def _in_other_words(problem: str, row: List[str], column: int) -> str:
    """A parser's problem, said of the row that it stopped in."""
    before = row[0][:column].strip() if row else ""
    stray = re.search(r"expected <block end>, but found '(.*)'", problem)
    if stray and stray.group(1) in "]}":
        return f"the '{stray.group(1)}' closes nothing"
    if stray and stray.group(1) == ":" and not before:
        return "a key is missing before the ':'"
    if stray and stray.group(1) == "<scalar>" and before:
        return "a text behind a value that has ended"
    if problem.startswith("mapping values are not"):
        if re.search(r":\s", before):
            return "a second ':' on one line; a text that has one needs quotes"
        return "indented deeper than the line above allows"
    if stray:
        return "not indented as the lines above"
    if problem.startswith("found unhashable key"):
        return "a mapping or a list in the place of a key"
    if problem.startswith("expected alphabetic"):
        return "* and & begin an alias or an anchor; a text that begins so needs quotes"
    if "cannot start any token" in problem:
        return f"{problem}; a text that begins so needs quotes"
    if problem.startswith("could not determine a constructor"):
        return "a tag or '=' that cloud-init does not know; a text of that kind needs quotes"
    return problem


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
        row = _rows(text)[mark.line]
        return mark.line + 1, f"the {row[mark.column : mark.column + 1]} is not closed"
    if not opened:
        return None
    return opened[0].start_mark.line + 1, f"the {opened[0].id!r} is not closed"
