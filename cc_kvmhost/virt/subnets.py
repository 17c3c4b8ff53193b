"""libvirt's own networks that can't start here: the host is in their subnet already.

Source: networkCheckRouteCollision() of libvirt's network driver, which reads /proc/net/route.
"""

import glob
import ipaddress
import sys
from typing import TYPE_CHECKING, Dict, Iterator, Tuple

from .. import files

if TYPE_CHECKING:
    from xml.etree import ElementTree

_AUTOSTARTED = "/etc/libvirt/qemu/networks/autostart/*.xml"
_ROUTES = "/proc/net/route"


def clashes() -> Tuple[str, ...]:
    """Which networks that are marked autostart can't start, and why. An image's network has a
    subnet that was free where the image was made."""
    definitions = [files.read(path) for path in sorted(glob.glob(_AUTOSTARTED))]
    found = [_clash(text, _routes()) for text in definitions if text]
    return tuple(each for each in found if each)


def _clash(definition: bytes, routes: Dict[str, str]) -> str:
    from xml.etree import ElementTree

    try:
        network = ElementTree.fromstring(definition)
        subnets = list(_subnets(network))
    except (ElementTree.ParseError, ValueError):  # libvirt says so itself
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
    """Subnet -> the device of the host's route to it. Source: proc_net_route."""
    routes = {}
    for line in (files.read(_ROUTES) or b"").decode().splitlines()[1:]:
        device, target, _gateway, _flags, _count, _use, _metric, mask = line.split()[:8]
        address, size = (ipaddress.ip_address(_number(text)) for text in (target, mask))
        routes[str(ipaddress.ip_network(f"{address}/{size}"))] = device
    return routes


def _number(text: str) -> int:
    """The kernel writes addresses in this machine's own byte order."""
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")
