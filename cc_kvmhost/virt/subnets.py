"""libvirt's networks that can't start here, because the host already has a route to their subnet.

Source: networkCheckRouteCollision() of libvirt's network driver, which reads /proc/net/route.
"""

import ipaddress
import os
import sys
from typing import TYPE_CHECKING, Dict, Iterator, List, Tuple

from .. import files

if TYPE_CHECKING:
    from xml.etree import ElementTree

_AUTOSTARTED = "/etc/libvirt/qemu/networks/autostart"
_ROUTES = "/proc/net/route"


def clashes() -> Tuple[str, ...]:
    """A sentence for each network that is marked autostart and can't start. An image's network has a
    subnet that was free on the machine where the image was made, which need not be free here.

    :raises PermissionError: this user may not look
    """
    definitions = [files.read(path) for path in _autostarted()]
    found = [_clash(text, _routes()) for text in definitions if text]
    return tuple(each for each in found if each)


def _autostarted() -> List[str]:
    try:
        names = sorted(os.listdir(_AUTOSTARTED))
    except FileNotFoundError:
        return []
    return [os.path.join(_AUTOSTARTED, name) for name in names if name.endswith(".xml")]


def _clash(definition: bytes, routes: Dict[str, str]) -> str:
    from xml.etree import ElementTree

    try:
        network = ElementTree.fromstring(definition)
        subnets = list(_subnets(network))
    except (ElementTree.ParseError, ValueError):  # libvirt reports that itself
        return ""
    own = getattr(network.find("bridge"), "attrib", {}).get("name")
    name = network.findtext("name")
    for subnet in subnets:
        device = routes.get(subnet, own)
        if device != own:
            return (
                f"libvirt's network {name} can't start: its subnet {subnet} is {device}'s here;"
                f" choose another with 'virsh net-edit {name}'"
            )
    return ""


def _subnets(network: "ElementTree.Element") -> Iterator[str]:
    for ip in network.findall("ip"):
        address, size = ip.get("address", ""), ip.get("prefix") or ip.get("netmask")
        if size and ip.get("family", "ipv4") == "ipv4":
            yield str(ipaddress.ip_interface(f"{address}/{size}").network)


def _routes() -> Dict[str, str]:
    """Subnet -> the device of the host's route to it."""
    routes = {}
    for line in (files.read(_ROUTES) or b"").decode().splitlines()[1:]:
        device, target, _gateway, _flags, _count, _use, _metric, mask = line.split()[:8]
        address, size = (ipaddress.ip_address(_number(text)) for text in (target, mask))
        routes[str(ipaddress.ip_network(f"{address}/{size}"))] = device
    return routes


def _number(text: str) -> int:
    """The kernel writes each address as a hexadecimal number in this machine's byte order."""
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")
