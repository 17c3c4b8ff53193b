"""What is wrong with a section, in terms of the YAML that its author wrote."""

import json
import re
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from .errors import KvmhostError

KEY = "kvmhost"

Path = Tuple[Any, ...]

#: What a JSON type is called in YAML's terms.
_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "object": "a mapping",
    "string": "a string",
}
#: No real section has more values or a larger number. A few lines of nested aliases can have: they
#: would take all of the validator's time and memory, or more digits than Python prints.
_MOST_VALUES = 10000
_LARGEST = 1 << 64
#: What word processors make of YAML's " and '.
_TYPOGRAPHIC = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"


class Problem(NamedTuple):
    """What is wrong at one place of a section. ``allowed``: what is allowed there; "" if the message says
    it."""

    path: Path
    message: str
    allowed: str = ""

    def __str__(self) -> str:
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return f"{dotted(self.path)}: {self.message}{allowed}"


def find(section: Any, schema: Dict[str, Any]) -> List[Problem]:
    """Every problem of a section (any YAML value), in the order of the section."""
    try:
        from jsonschema import Draft4Validator
    except ImportError as error:
        raise KvmhostError(
            [f"the section can't be checked: {error}; install python3-jsonschema"]
        ) from error
    unfit = _unfit(section)
    if unfit:
        return [unfit]
    errors = list(Draft4Validator(schema).iter_errors(section))
    if not errors:
        return []
    # A value that breaks several rules would get the same message for each of them.
    problems = dict.fromkeys(problem for error in errors for problem in _explain(error, schema))
    order = {path: number for number, (path, _) in enumerate(_walk(section))}
    return _without_repetition(sorted(problems, key=lambda problem: order[problem.path]))


def dotted(path: Path) -> str:
    """kvmhost.units[1] for (units, 1)."""
    return joined((KEY,) + path)


def joined(path: Path) -> str:
    """a.b[1] for (a, b, 1)."""
    text = ""
    for part in path:
        plain = isinstance(part, str) and re.match(r"[A-Za-z0-9_-]{1,80}\Z", part)
        # In ASCII: a letter of another alphabet may look like the one that belongs there.
        text += f".{part}" if plain else f"[{in_ascii(shown(part))}]"
    return text.lstrip(".")


def shown(value: Any) -> str:
    """A value as messages show it: one line, at most 80 characters."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, set):
        return "a set"
    if isinstance(value, bytes):
        return "binary data"
    text = json.dumps(value, default=str, ensure_ascii=False)
    text = "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
    if len(text) <= 80:
        return text
    return text[:76] + '..."' if text.endswith('"') else text[:77] + "..."


def in_ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")


def nearest(word: str, known: Iterable[str], likeness: float = 0.62) -> Optional[str]:
    """The known word that was probably meant, if any."""
    from difflib import get_close_matches

    by_lower_case = {each.lower(): each for each in known}
    found = get_close_matches(word.lower(), list(by_lower_case), 1, likeness)
    return by_lower_case[found[0]] if found else None


def homes(schema: Dict[str, Any], path: Path = ()) -> Dict[str, Path]:
    """Each key of the schema -> the path of the mapping that it belongs in."""
    found: Dict[str, Path] = {}
    for key, rule in schema["properties"].items():
        found.setdefault(key, path)
        if "properties" in rule:
            for inner, where in homes(rule, path + (key,)).items():
                found.setdefault(inner, where)
    return found


def _walk(section: Any) -> Iterator[Tuple[Path, Any]]:
    """Each path with its value, in order. Never ends for a section that contains itself."""
    rest: List[Iterator[Tuple[Path, Any]]] = [iter([((), section)])]
    while rest:
        place = next(rest[-1], None)
        if place is None:
            rest.pop()
            continue
        yield place
        path, value = place
        if isinstance(value, dict):
            rest.append(iter([(path + (key,), each) for key, each in value.items()]))
        elif isinstance(value, (list, tuple)):
            rest.append(iter([(path + (n,), each) for n, each in enumerate(value)]))


def _unfit(section: Any) -> Optional[Problem]:
    """Why a section can't be given to the validator, or None."""
    for count, (path, value) in enumerate(_walk(section), 1):
        if count > _MOST_VALUES:
            what = f"holds more than {_MOST_VALUES} values, or itself, through aliases"
            return Problem((), what)
        if isinstance(value, int) and abs(value) > _LARGEST:
            return Problem(path, "a whole number beyond any that is allowed")
    return None


def _explain(error: Any, schema: Dict[str, Any]) -> List[Problem]:
    """Problems of one jsonschema ValidationError."""
    path, value, rule = tuple(error.path), error.instance, error.schema
    if error.validator == "additionalProperties":
        known = sorted(rule["properties"])
        return [_unknown(path, key, known, schema) for key in value if key not in known]
    if error.validator == "uniqueItems":
        return _repeated(path, value)
    if error.validator == "minItems":
        what = f"{shown(value)} is not allowed; leave the key out for the default"
        return [Problem(path, what, _allowed(rule))]
    if error.validator == "required":
        missing = [key for key in rule["required"] if key not in value]
        return [Problem(path, f"needs the key {key!r}") for key in missing]
    hint = _hint(value, rule)
    return [Problem(path, f"{shown(value)} is not allowed{hint}", _allowed(rule))]


def _unknown(path: Path, key: Any, known: List[str], schema: Dict[str, Any]) -> Problem:
    name = str(key)
    home = homes(schema).get(name)
    glued = name.split(":")[0]
    if home is not None:
        hint = f"it belongs under {dotted(home)}. "
    elif name == KEY:
        hint = "the section stands in itself: take one of the two away. "
    elif glued != name and glued in known:
        hint = f"a space is missing after '{glued}:'. "
    else:
        near = nearest(name, known) if isinstance(key, str) else None
        hint = f"did you mean {near!r}? " if near else ""
    return Problem(path + (key,), "unknown key; {}Known here: {}".format(hint, ", ".join(known)))


def _repeated(path: Path, items: List[Any]) -> List[Problem]:
    """A problem for each item that repeats an earlier one."""
    problems = []
    for number, item in enumerate(items):
        first = items.index(item)
        if first < number:
            where = dotted(path + (first,))
            what = f"{shown(item)} stands in the list already, at {where}; allowed: each only once"
            problems.append(Problem(path + (number,), what))
    # Python finds 1 equal to True, JSON does not: so there may be no index to name.
    return problems or [Problem(path, "an item stands in the list twice; allowed: each only once")]


def _hint(value: Any, rule: Dict[str, Any]) -> str:
    """What was probably meant by a value that is not allowed, with a space before it; or ""."""
    types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    if value is None and "default" in rule:
        return " (leave the key out for the default)"
    if "object" in types:
        return _mapping_hint(value, rule)
    if "integer" in types and isinstance(value, float) and value.is_integer():
        return f" (write {value:.0f})"
    if not isinstance(value, str):
        return ""
    if any(quote in value for quote in _TYPOGRAPHIC):
        return " (typographic quotes are no quotes in YAML: write \" or ')"
    if re.match(r"[^\s#]+#", value):
        return " (a comment needs a space before its #)"
    if value != value.strip() and _fits(value.strip(), rule):
        return f" (write {value.strip()}, without white space around it)"
    if "array" in types:
        return _list_hint(value, rule["items"])
    if "integer" in types and value.isdigit() or "boolean" in types and value in ("true", "false"):
        return " (write it without quotes)"
    if "boolean" in types and value.lower() in ("yes", "no", "on", "off"):
        return " (write {})".format("true" if value.lower() in ("yes", "on") else "false")
    if "integer" in types and value.strip().isdigit():
        return f" (write {value.strip()}, without white space around it)"
    seconds = re.match(r"([0-9]+) ?s(ec|econds)?\Z", value)
    if "integer" in types and seconds:
        return f" (write {seconds.group(1)}: it counts seconds)"
    if "enum" in rule:
        near = _daemons_word(value, rule["enum"]) or nearest(value, rule["enum"])
        return f" (did you mean {near!r}?)" if near else ""
    instance = re.match(r"([A-Za-z0-9_:.\\-]+)@(\.[a-z]+)\Z", value)
    if "pattern" in rule and instance:
        return " (a template; name an instance: {}@NAME{})".format(*instance.groups())
    return ""


def _mapping_hint(value: Any, rule: Dict[str, Any]) -> str:
    """What was probably meant where a mapping belongs."""
    keys = rule["properties"]
    if value is False:
        return " (write {enabled: false})" if "enabled" in keys else " (leave the key out)"
    if value is True or value in ("", "enabled"):
        return "" if "required" in rule else " (write {} for all defaults)"
    if not isinstance(value, str):
        return ""
    if any(quote in value for quote in _TYPOGRAPHIC):
        return " (typographic quotes are no quotes in YAML: write \" or ')"
    glued = re.match(r"([A-Za-z_]+):", value)
    if glued and glued.group(1) in keys:
        if re.match("[ \n]", value[glued.end() :]):
            return " (a text, by the | or > before it: take that away)"
        return f" (a space is missing after '{glued.group(1)}:')"
    stated = re.match(r"([A-Za-z_]+)[\s=]+(\S.*)\Z", value)
    if stated and stated.group(1) in keys:
        return " (write {}: {})".format(*stated.groups())
    if "required" not in rule:  # where one key is enough
        for key, each in keys.items():
            if _fits(value, each):
                return f" (write {{{key}: {value}}})"
    return ""


def _list_hint(value: str, item: Dict[str, Any]) -> str:
    """What was probably meant where a list belongs."""
    items = [each for each in re.split(r"[,\s]+", value) if each]
    if re.match(r"-\S", value):
        return " (a space is missing after '-')"
    if value[:1] in ("\u2013", "\u2014"):
        return " (a list has hyphens: -)"
    if items and all(_fits(each, item) for each in items):
        return " (write it as a list: [{}])".format(", ".join(items))
    return ""


def _fits(value: str, rule: Dict[str, Any]) -> bool:
    """Whether a rule for one word allows this one."""
    if "enum" in rule:
        return value in rule["enum"]
    return "pattern" in rule and re.match(rule["pattern"], value) is not None


def _daemons_word(value: str, allowed: List[str]) -> Optional[str]:
    """A driver, or the mode, for the name of its daemon."""
    if value.startswith("libvirtd") and "monolithic" in allowed:
        return "monolithic"
    return next((each for each in allowed if value.startswith(f"virt{each}d")), None)


def _allowed(rule: Dict[str, Any]) -> str:
    if "enum" in rule:
        return ", ".join(str(each) for each in rule["enum"])
    if "pattern" in rule:
        return str(rule["title"])
    if "minimum" in rule:
        return "a whole number from {minimum} to {maximum}".format(**rule)
    if "minItems" in rule:
        return "a list of at least {} of {}".format(rule["minItems"], _allowed(rule["items"]))
    types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    most = " of at most {maxItems}".format(**rule) if "maxItems" in rule else ""
    return " or ".join(_TYPES[each] for each in types) + most


def _without_repetition(problems: List[Problem]) -> List[Problem]:
    """Replace a long list of what is allowed by "as above" after its first appearance."""
    said = set()
    shortened = []
    for problem in problems:
        if problem.allowed in said:
            problem = problem._replace(allowed="as above")
        elif len(problem.allowed) > 40:
            said.add(problem.allowed)
        shortened.append(problem)
    return shortened
