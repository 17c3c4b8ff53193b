"""What was asked: the `kvmhost` section, checked against its schema, with every default filled in."""

import json
import os
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from .errors import KvmhostError

KEY = "kvmhost"
SCHEMA_FILE = os.path.join(os.path.dirname(__file__), "schemas", "kvmhost.schema.json")
HEADER = "#cloud-config"

#: What a JSON type is called in YAML's terms.
_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "object": "a mapping",
    "string": "a string",
}


#: More values than any section has, and a larger whole number: where a validator's time and memory,
#: or Python's limit for the digits it prints, would end. Aliases of aliases reach it with few lines.
_MOST_VALUES = 10000
_LARGEST = 1 << 64


class Config(NamedTuple):
    """A valid section. Source of types, defaults and limits: the schema."""

    mode: str
    drivers: Tuple[str, ...]
    autostart: bool
    tls: bool
    tuned: bool
    profile: Optional[str]
    units: Tuple[str, ...]
    timeout: int


class Problem(NamedTuple):
    """What is wrong with one place of a section."""

    path: Tuple[Any, ...]
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}"


class Document(NamedTuple):
    """A cloud-config file: its mapping and the line (from 1) of each key and item by its path."""

    name: str
    content: Dict[str, Any]
    lines: Dict[Tuple[Any, ...], int]

    def line(self, path: Tuple[Any, ...]) -> int:
        """The line of a path, or of the nearest place above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def load_schema() -> Dict[str, Any]:
    with open(SCHEMA_FILE, encoding="utf-8") as stream:
        return json.load(stream)  # type: ignore[no-any-return]


def check(section: Any) -> List[Problem]:
    """Every problem of a section (any YAML value), in the order of the section's paths."""
    try:
        from jsonschema import Draft4Validator
    except ImportError as error:
        raise KvmhostError(
            [f"the section can't be checked: {error}; install python3-jsonschema"]
        ) from error
    unfit = _unfit(section)
    if unfit:
        return [unfit]
    errors = Draft4Validator(load_schema()).iter_errors(section)
    # A value may break several rules of one place, whose message is the same.
    problems = dict.fromkeys(problem for error in errors for problem in _explain(error))
    return sorted(problems, key=lambda problem: [str(part) for part in problem.path])


def parse(section: Any) -> Config:
    """Turn a section into a Config.

    :raises KvmhostError: names every key that is wrong, what was found and what is allowed
    """
    problems = check(section)
    if problems:
        raise KvmhostError(str(problem) for problem in problems)
    full = _with_defaults(load_schema(), section or {})
    return Config(
        mode=full["libvirt"]["mode"],
        drivers=tuple(full["libvirt"]["drivers"]),
        autostart=full["libvirt"]["autostart"],
        tls=full["libvirt"]["tls"],
        tuned=full["tuned"]["enabled"],
        profile=full["tuned"]["profile"],
        units=tuple(full["units"]),
        timeout=full["timeout"],
    )


def dotted(path: Tuple[Any, ...]) -> str:
    """kvmhost.units[1] for (units, 1)."""
    text = KEY
    for part in path:
        plain = isinstance(part, str) and re.match(r"[A-Za-z0-9_-]+\Z", part)
        text += f".{part}" if plain else f"[{shown(part)}]"
    return text


def read(name: str) -> Document:
    """Read a cloud-config file.

    :raises KvmhostError: not readable, not text, not YAML, not a mapping, or no #cloud-config
    """
    import yaml

    try:
        with open(name, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise KvmhostError([f"{name}: can't be read: {reason}"]) from error
    if text.split("\n", 1)[0].rstrip() != HEADER:
        raise KvmhostError(
            [
                "{}:1: the first line is {}; cloud-init takes the file for cloud-config only if it"
                " is {}".format(name, shown(text.split("\n", 1)[0]), HEADER)
            ]
        )
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
        lines = {} if node is None else _find_lines(node, loader.construct_object)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character #x{error.character:04x} is not allowed"
        raise KvmhostError([f"{name}:{line}: not YAML: {what}"]) from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        what = getattr(error, "problem", None) or str(error)
        raise KvmhostError([f"{name}:{line}: not YAML: {what}"]) from error
    except RecursionError as error:
        raise KvmhostError([f"{name}:1: nested too deeply to be read"]) from error
    if not isinstance(content, dict):
        raise KvmhostError([f"{name}:1: holds {shown(content)}, not a mapping with a {KEY} key"])
    return Document(name, content, lines)


def read_section(name: str) -> Any:
    """The section of a cloud-config file, unchecked.

    :raises KvmhostError: as read() does, or the file has no section
    """
    document = read(name)
    if KEY not in document.content:
        raise KvmhostError([f"{name}: no {KEY} key: nothing is asked for"])
    return document.content[KEY]


def check_file(name: str) -> List[str]:
    """Every problem of a file, with its line, as `kvmhost validate` prints them."""
    try:
        document = read(name)
    except KvmhostError as error:
        return list(error.problems)
    if KEY not in document.content:
        near = _nearest(KEY, [key for key in document.content if isinstance(key, str)])
        if not near:
            return []
        return [f"{name}:{document.line((near,))}: unknown key {near!r}; did you mean {KEY!r}?"]
    return [
        f"{name}:{document.line((KEY,) + problem.path)}: {problem}"
        for problem in check(document.content[KEY])
    ]


def shown(value: Any) -> str:
    """A value as messages show it: one line, at most 80 characters."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _unfit(section: Any) -> Optional[Problem]:
    """What no validator should be given, or None."""
    count = 0
    rest: List[Tuple[Tuple[Any, ...], Any]] = [((), section)]
    while rest:
        path, value = rest.pop()
        count += 1
        if count + len(rest) > _MOST_VALUES:
            what = f"holds more than {_MOST_VALUES} values, or itself, through aliases"
            return Problem((), what)
        if isinstance(value, dict):
            rest += [(path + (key,), each) for key, each in value.items()]
        elif isinstance(value, (list, tuple)):
            rest += [(path + (number,), each) for number, each in enumerate(value)]
        elif isinstance(value, int) and abs(value) > _LARGEST:
            return Problem(path, "a whole number beyond any that is allowed")
    return None


def _explain(error: Any) -> List[Problem]:
    """Problems of one jsonschema ValidationError, in the words of a section's author."""
    path, value, rule = tuple(error.path), error.instance, error.schema
    if error.validator == "additionalProperties":
        known = sorted(rule["properties"])
        problems = []
        for key in value:
            if key not in known:
                near = _nearest(str(key), known)
                hint = f"did you mean {near!r}? " if near else ""
                message = "unknown key; {}Known here: {}".format(hint, ", ".join(known))
                problems.append(Problem(path + (key,), message))
        return problems
    allowed = _allowed(rule)
    if error.validator == "enum" and isinstance(value, str):
        near = _nearest(value, [str(each) for each in rule["enum"]])
        if near:
            allowed += f" (did you mean {near!r}?)"
    if error.validator == "uniqueItems":
        allowed = "each only once"
    return [Problem(path, f"{shown(value)} is not allowed; allowed: {allowed}")]


def _allowed(rule: Dict[str, Any]) -> str:
    if "enum" in rule:
        return ", ".join(str(each) for each in rule["enum"])
    if "pattern" in rule:
        return str(rule["title"])
    if "minimum" in rule:
        return "a whole number from {minimum} to {maximum}".format(**rule)
    if "minItems" in rule:
        return "a list of at least {minItems}".format(**rule)
    types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    return " or ".join(_TYPES[each] for each in types)


def _nearest(word: str, known: List[str]) -> Optional[str]:
    from difflib import get_close_matches

    by_lower_case = {each.lower(): each for each in known}
    found = get_close_matches(word.lower(), list(by_lower_case), 1)
    return by_lower_case[found[0]] if found else None


def _with_defaults(rule: Dict[str, Any], value: Dict[str, Any]) -> Dict[str, Any]:
    full = {}
    for key, sub in rule["properties"].items():
        if "properties" in sub:
            full[key] = _with_defaults(sub, value.get(key, {}))
        else:
            full[key] = value.get(key, sub["default"])
    return full


def _find_lines(root: Any, construct: Callable[[Any], Any]) -> Dict[Tuple[Any, ...], int]:
    """The line of each place, from a YAML node; a node behind an alias counts where it stands.

    :param construct: makes the value of a scalar node
    """
    lines: Dict[Tuple[Any, ...], int] = {}
    seen = set()
    rest: List[Tuple[Tuple[Any, ...], Any]] = [((), root)]
    while rest:
        path, node = rest.pop()
        lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "mapping":
            for key, value in node.value:
                if key.id == "scalar":
                    place = path + (construct(key),)
                    lines[place] = key.start_mark.line + 1
                    rest.append((place, value))
        elif node.id == "sequence":
            rest += [(path + (number,), item) for number, item in enumerate(node.value)]
    return lines
