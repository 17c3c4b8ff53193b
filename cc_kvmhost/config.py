"""What was asked: the `kvmhost` section, checked against its schema, every default filled in."""

import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .errors import KvmhostError

KEY = "kvmhost"
SCHEMA_FILE = os.path.join(os.path.dirname(__file__), "schemas", "kvmhost.schema.json")

#: What a JSON type is called in YAML's terms.
_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "object": "a mapping",
    "string": "a string",
}


#: No section has that many values or such a number. Aliases of aliases reach both with few lines, and
#: would cost the validator all its time and memory, or exceed the digits that Python prints.
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
    # A value that breaks several rules of one place gets the same message for each.
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


def shown(value: Any) -> str:
    """A value as messages show it: one line, at most 80 characters."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(word: str, known: List[str]) -> Optional[str]:
    """The known word that was probably meant, if any."""
    from difflib import get_close_matches

    by_lower_case = {each.lower(): each for each in known}
    found = get_close_matches(word.lower(), list(by_lower_case), 1)
    return by_lower_case[found[0]] if found else None


def _unfit(section: Any) -> Optional[Problem]:
    """What keeps a section from being given to a validator, or None."""
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
                near = nearest(str(key), known)
                hint = f"did you mean {near!r}? " if near else ""
                message = "unknown key; {}Known here: {}".format(hint, ", ".join(known))
                problems.append(Problem(path + (key,), message))
        return problems
    allowed = _allowed(rule)
    if error.validator == "enum" and isinstance(value, str):
        near = nearest(value, [str(each) for each in rule["enum"]])
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


def _with_defaults(rule: Dict[str, Any], value: Dict[str, Any]) -> Dict[str, Any]:
    full = {}
    for key, sub in rule["properties"].items():
        if "properties" in sub:
            full[key] = _with_defaults(sub, value.get(key, {}))
        else:
            full[key] = value.get(key, sub["default"])
    return full
