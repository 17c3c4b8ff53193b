"""Values of a section that are each allowed but don't go together; a JSON Schema can't find these."""

import os
from typing import Any, Dict, Iterator, List, Tuple

from .problems import Problem, shown

#: Mode of a network, or type of a pool -> the key that says where it is.
_PLACES = {
    "networks": {"nat": "subnet", "bridge": "bridge"},
    "pools": {"dir": "path", "logical": "source"},
}


def find(section: Any) -> Iterator[Problem]:
    """The contradictions within networks and pools.

    :param section: valid by the schema
    """
    libvirt = (section or {}).get("libvirt") or {}
    for key, kind in (("networks", "mode"), ("pools", "type")):
        names: Dict[str, int] = {}
        places: Dict[str, int] = {}
        for number, each in enumerate(libvirt.get(key, [])):
            path = ("libvirt", key, number)
            first = names.setdefault(each["name"], number)
            if first != number:
                what = f"{shown(each['name'])} is the name of {key}[{first}] too; give it another"
                yield Problem(path + ("name",), what)
            wanted = _PLACES[key][each[kind]]
            for place in set(_PLACES[key].values()) - {wanted}:
                if place in each:
                    what = f"is not for {kind} {each[kind]}, which has {wanted!r}; take it out"
                    yield Problem(path + (place,), what)
            if wanted not in each and wanted != "subnet":
                yield Problem(path, f"needs the key {wanted!r}, since its {kind} is {each[kind]}")
            if key == "pools" and wanted in each:
                place = each[wanted]
                first = places.setdefault(place, number)
                plain = os.path.normpath(place)
                if wanted == "path" and plain != place:
                    what = f"{shown(place)} is not a plain path; write {plain}"
                    yield Problem(path + (wanted,), what)
                elif first != number:
                    noun = {"path": "directory", "source": "volume group"}[wanted]
                    what = f"is the {noun} of {key}[{first}] too; a {noun} has one pool"
                    yield Problem(path + (wanted,), what)
    if libvirt.get("networks"):
        yield from _subnet_problems(libvirt["networks"])


def _subnet_problems(networks: List[Dict[str, Any]]) -> Iterator[Problem]:
    """Subnets that are malformed, reserved for a special use, or overlap."""
    import ipaddress

    seen: List[Tuple[int, ipaddress.IPv4Network]] = []
    for number, each in enumerate(networks):
        text = each.get("subnet", "auto")
        if text == "auto":
            continue
        path = ("libvirt", "networks", number, "subnet")
        try:
            subnet = ipaddress.IPv4Network(text, strict=False)
        except ValueError as error:
            yield Problem(path, f"{shown(text)} is not an IPv4 network: {error}")
            continue
        if str(subnet) != text:
            yield Problem(
                path, f"{shown(text)} is an address in a network; the network is {subnet}"
            )
        if (
            subnet.is_loopback
            or subnet.is_multicast
            or subnet.is_link_local
            or subnet.is_reserved
            or subnet.is_unspecified
            or subnet.network_address in ipaddress.IPv4Network("0.0.0.0/8")
        ):
            yield Problem(
                path, f"{text} has a special use; take one of 10.0.0.0/8 or 192.168.0.0/16"
            )
        for other, taken in seen:
            if subnet.overlaps(taken):
                yield Problem(path, f"{text} overlaps with {taken} of networks[{other}]")
        seen.append((number, subnet))
