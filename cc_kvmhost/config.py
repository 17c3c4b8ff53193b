"""What was asked for: the `kvmhost` section, checked against its schema, with every default."""

import json
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from . import contradictions, problems
from .errors import KvmhostError
from .problems import KEY as KEY
from .problems import Problem

SCHEMA_FILE = os.path.join(os.path.dirname(__file__), "schemas", "kvmhost.schema.json")


class Network(NamedTuple):
    """A libvirt network from the section. ``subnet``: for mode nat; "auto" or in CIDR notation.
    ``bridge``: for mode bridge."""

    name: str
    mode: str
    subnet: str = "auto"
    bridge: str = ""


class Pool(NamedTuple):
    """A libvirt storage pool that is asked for. ``path``: type dir. ``source``: type logical; the
    volume group."""

    name: str
    type: str
    path: str = ""
    source: str = ""


class Config(NamedTuple):
    """A valid section. Types, defaults and limits are the schema's.

    ``check``: None if the section names no level.
    """

    mode: str
    drivers: Tuple[str, ...]
    autostart: bool
    tls: bool
    tuned: bool
    profile: Optional[str]
    units: Tuple[str, ...]
    timeout: int
    kvm: str = "warn"
    check: Optional[str] = None
    networks: Tuple[Network, ...] = ()
    pools: Tuple[Pool, ...] = ()


def load_schema() -> Dict[str, Any]:
    with open(SCHEMA_FILE, encoding="utf-8") as stream:
        return json.load(stream)  # type: ignore[no-any-return]


def check(section: Any) -> List[Problem]:
    """Every problem of a section (any YAML value), in the order of the section."""
    return problems.find(section, load_schema()) or list(contradictions.find(section))


def parse(section: Any) -> Config:
    """Turn a section into a Config.

    :raises KvmhostError: names every key that is wrong, what was found and what is allowed
    """
    wrong = check(section)
    if wrong:
        raise KvmhostError(str(problem) for problem in wrong)
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
        kvm=full["kvm"],
        check=(section or {}).get("check"),
        networks=tuple(Network(**each) for each in full["libvirt"]["networks"]),
        pools=tuple(Pool(**each) for each in full["libvirt"]["pools"]),
    )


def _with_defaults(rule: Dict[str, Any], value: Dict[str, Any]) -> Dict[str, Any]:
    full = {}
    for key, sub in rule["properties"].items():
        if "properties" in sub:
            full[key] = _with_defaults(sub, value.get(key) or {})
        else:
            full[key] = value.get(key, sub["default"])
    return full
