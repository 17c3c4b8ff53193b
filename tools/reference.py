#!/usr/bin/env python3
"""Writes docs/section.md, the reference of the section, from the schema.

Run without arguments after a change of schemas/kvmhost.schema.json; a unit test compares the two.
"""

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "schemas/kvmhost.schema.json"
TARGET = ROOT / "docs/section.md"

TYPES = {
    "array": "list",
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "null": "`null`",
    "object": "mapping",
    "string": "string",
}


def keys(rule: Dict[str, Any], path: Tuple[str, ...] = ()) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """Each key of the schema by its dotted path, mappings before what is in them."""
    for name, sub in rule["properties"].items():
        yield ".".join((*path, name)), sub
        if "properties" in sub:
            yield from keys(sub, (*path, name))


def text(rule: Dict[str, Any]) -> str:
    """A description in Markdown; the schema's has cloud-init's double backticks."""
    return str(rule["description"]).replace("``", "`")


def code(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def kind(rule: Dict[str, Any]) -> str:
    types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    names = " or ".join(TYPES[each] for each in types)
    if types != ["array"]:
        return names
    return f"{names} of {'mappings' if 'properties' in rule['items'] else 'strings'}"


def allowed(rule: Dict[str, Any]) -> str:
    """What values are allowed beyond the type; empty if all are."""
    if "items" in rule:
        parts = [allowed(rule["items"])] if "properties" not in rule["items"] else []
        if "maxItems" in rule:
            parts.append("at most {maxItems}".format(**rule))
        if "minItems" in rule:
            parts.append("at least {minItems}".format(**rule))
        if rule.get("uniqueItems"):
            parts.append("each only once")
        return "; ".join(parts)
    if "enum" in rule:
        return ", ".join(code(each) for each in rule["enum"])
    if "minimum" in rule:
        return "{minimum} to {maximum}".format(**rule)
    return str(rule.get("title", ""))


def details(rule: Dict[str, Any]) -> List[str]:
    """The lines below a key's heading."""
    lines = [text(rule), ""]
    if "default" in rule:
        lines.append("- Type: " + kind(rule))
        lines.append("- Default: " + code(rule["default"]))
        limits = allowed(rule)
        if limits:
            lines.append("- Allowed: " + limits)
        lines.append("")
    if "properties" in rule.get("items", {}):
        lines += [*table(rule["items"]), ""]
    return lines


def table(rule: Dict[str, Any]) -> List[str]:
    """The keys of each mapping of a list."""
    lines = ["| key | | allowed |", "|---|---|---|"]
    for name, sub in rule["properties"].items():
        needed = " Required." if name in rule["required"] else ""
        lines.append(f"| `{name}` | {text(sub)}{needed} | {allowed(sub)} |")
    return lines


def yaml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(yaml(each) for each in value) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def defaults(rule: Dict[str, Any], indent: str = "  ") -> List[str]:
    """The section with every default written out, in YAML."""
    lines = []
    for name, sub in rule["properties"].items():
        if "properties" in sub:
            lines += [f"{indent}{name}:", *defaults(sub, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {yaml(sub['default'])}")
    return lines


def render(schema: Dict[str, Any]) -> str:
    lines = [
        "<!-- Written by tools/reference.py from schemas/kvmhost.schema.json: change that. -->",
        "# The `kvmhost` section",
        "",
        text(schema),
        "",
        "`kvmhost: {}` means the same as every default written out:",
        "",
        "```yaml",
        "#cloud-config",
        "kvmhost:",
        *defaults(schema),
        "```",
        "",
        "A key or value that is not described here is refused before anything changes.",
        "`kvmhost validate FILE` says so beforehand, `kvmhost schema` prints the JSON Schema for an",
        "editor.",
        "",
    ]
    for path, rule in keys(schema):
        lines += [f"{'###' if '.' in path else '##'} `{path}`", "", *details(rule)]
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    TARGET.write_text(render(schema), encoding="utf-8")


if __name__ == "__main__":
    main()
