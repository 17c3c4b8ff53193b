"""libvirt's networks: what is there, what is asked for, and the steps from one to the other.

Sources: libvirt's docs/formatnetwork.rst; the files that its network driver keeps.
"""

import ipaddress
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)
from xml.etree import ElementTree

from ..config import KEY, Network
from .routes import Route
from .steps import NETWORK, Step

#: The ranges that ``subnet: auto`` searches, in this order, and the first /24 that it tries in each.
_RANGES = (
    (ipaddress.IPv4Network("192.168.0.0/16"), ipaddress.IPv4Network("192.168.122.0/24")),
    (ipaddress.IPv4Network("10.0.0.0/8"), ipaddress.IPv4Network("10.0.0.0/24")),
)

#: The ports that libvirt uses for NAT if none are given.
_ALL_PORTS = {"start": "1024", "end": "65535"}


class NetworkState(NamedTuple):
    """A network. ``mode``: of <forward>; "isolated" without <forward>. ``subnets``: IPv4, in CIDR
    notation. ``persistent``: it has a definition. ``packaged``: it is ``default``, unchanged since
    libvirt's package installed it. ``firewall``: libvirt's backend; "" if the network is not active or
    needs none.
    """

    name: str
    mode: str = "nat"
    subnets: Tuple[str, ...] = ()
    bridge: str = ""
    persistent: bool = True
    autostart: bool = True
    active: bool = True
    packaged: bool = False
    firewall: str = ""
    xml: str = ""

    def shown(self) -> Dict[str, Any]:
        return {
            "mode": self.mode,
            "subnet": ", ".join(self.subnets),
            "bridge": self.bridge,
            "autostart": self.autostart,
            "active": self.active,
            "firewall": self.firewall,
        }


def parse(element: Any) -> NetworkState:
    """What a <network> says.

    :raises ValueError: an address in it is none
    """
    forward, bridge = element.find("forward"), element.find("bridge")
    return NetworkState(
        name=element.findtext("name", ""),
        mode="isolated" if forward is None else forward.get("mode", "nat"),
        subnets=tuple(_subnet(ip) for ip in element.iterfind("ip") if ip.get("family") != "ipv6"),
        bridge="" if bridge is None else bridge.get("name", ""),
        xml=ElementTree.tostring(element, encoding="unicode"),
    )


def _subnet(ip: Any) -> str:
    address = ip.get("address", "")
    first = int(address.split(".")[0])
    by_class = 8 if first < 128 else 16 if first < 192 else 24
    prefix = ip.get("netmask") or ip.get("prefix") or by_class
    return str(ipaddress.IPv4Network(f"{address}/{prefix}", strict=False))


def firewall(state: Any) -> str:
    """The backend of an active network, from its state (<networkstatus>). libvirt before 10.4 has only
    iptables, and does not name it."""
    rules = state.find("firewall")
    return "iptables" if rules is None else str(rules.get("backend", "iptables"))


def is_packaged(element: Any, template: Any) -> bool:
    """Whether a <network> equals the package's template, apart from what libvirt and the package's
    installation fill in: UUID, MAC address, and the first three numbers of the subnet."""
    return bool(_essence(element) == _essence(template))


def _essence(element: Any) -> Any:
    if element.tag in ("uuid", "mac") or element.tag == "nat" and _is_plain_nat(element):
        return None
    attributes = dict(element.attrib)
    if element.tag == "forward":
        attributes.setdefault("mode", "nat")
    if element.tag == "bridge":
        attributes = {"name": attributes.get("name")}
    for key in ("address", "start", "end"):
        if key in attributes and element.tag in ("ip", "range"):
            attributes[key] = attributes[key].rpartition(".")[2]
    children = [each for each in map(_essence, element) if each]
    text = (element.text or "").strip()
    return (element.tag, sorted(attributes.items()), text, sorted(children, key=repr))


def _is_plain_nat(element: Any) -> bool:
    return [(port.tag, port.attrib) for port in element] == [("port", _ALL_PORTS)]


def decide(
    asked: Sequence[Network],
    here: Mapping[str, NetworkState],
    routes: Sequence[Route],
    guests: bool,
) -> Tuple[Dict[str, NetworkState], List[Step], List[str]]:
    """Each network as it must be, the steps to get there, and the problems.

    :param guests: guests run here
    """
    wishes: Dict[str, NetworkState] = {}
    steps: List[Step] = []
    problems: List[str] = []
    # The subnets that an automatic choice must not touch, besides the host's own.
    taken = [each.subnet for each in asked if each.mode == "nat" and each.subnet != "auto"]
    taken += [subnet for found in here.values() for subnet in found.subnets]
    for number, each in enumerate(asked):
        where = f"{KEY}.libvirt.networks[{number}]: {each.name}"
        found = here.get(each.name)
        try:
            touched = [*routes, *_of_others(each.name, asked, here)]
            if found is None:
                wish, work = _make(each, touched, taken)
            else:
                wish, work = _keep(each, found, touched, taken, guests)
        except _Obstacle as obstacle:
            problems.append(f"{where} {obstacle}")
            continue
        taken += wish.subnets
        wishes[each.name] = wish
        steps += work
    return wishes, steps, problems


def _of_others(
    name: str, asked: Sequence[Network], here: Mapping[str, NetworkState]
) -> Iterator[Route]:
    """The subnets of libvirt's other networks that start as soon as its daemon does, or by this run.
    Until then the host has no route to them."""
    starting = {each.name for each in asked}.union(each for each in here if here[each].autostart)
    for other in sorted(starting.difference([name]).intersection(here)):
        for subnet in here[other].subnets:
            yield Route(subnet, f"libvirt's network {other}")


class _Obstacle(Exception):
    """Why a network can't be as asked."""


def _make(
    asked: Network, routes: Sequence[Route], taken: Sequence[str]
) -> Tuple[NetworkState, List[Step]]:
    subnet = ""
    if asked.mode == "nat":
        subnet = _free(routes, taken) if asked.subnet == "auto" else asked.subnet
        for route in _collisions(subnet, routes):
            raise _Obstacle(
                f"can't have {subnet}: this host has {_shown(route)}; name another subnet, or auto"
            )
    wish = NetworkState(asked.name, asked.mode, (subnet,) if subnet else (), asked.bridge)
    steps = [
        Step("define", NETWORK, asked.name, _xml(asked, subnet), note=subnet or asked.bridge),
        Step("autostart", NETWORK, asked.name),
        Step("start", NETWORK, asked.name),
    ]
    return wish, steps


def _keep(
    asked: Network, found: NetworkState, routes: Sequence[Route], taken: Sequence[str], guests: bool
) -> Tuple[NetworkState, List[Step]]:
    """The steps that a network lacks which is there. Only the untouched ``default`` of libvirt's package
    is ever redefined."""
    steps: List[Step] = []
    wish = found._replace(autostart=True, active=True)
    differences = list(_differences(asked, found))
    if differences:
        raise _Obstacle(
            "is there and differs: {}; it is left alone: ask for what is there, or remove it with"
            " 'virsh net-undefine {}'{}".format(
                "; ".join(differences),
                asked.name,
                f" and 'virsh net-destroy {asked.name}'" if found.active else "",
            )
        )
    collisions = [route for subnet in found.subnets for route in _collisions(subnet, routes, found)]
    if collisions and asked.subnet == "auto" and found.packaged:
        if found.active and guests:
            raise _Obstacle(
                f"has {found.subnets[0]}, and this host has {_shown(collisions[0])}; it would get"
                " another subnet, but guests run: shut them down"
            )
        subnet = _free(routes, taken)
        wish = wish._replace(subnets=(subnet,))
        if found.active:
            steps.append(Step("stop", NETWORK, asked.name))
        note = f"{subnet}, because this host has {_shown(collisions[0])}"
        value = _moved(found.xml, subnet)
        steps.append(Step("redefine", NETWORK, asked.name, value, found.xml, note))
    elif collisions:
        raise _Obstacle(
            "has {}, and this host has {}; change it with 'virsh net-edit {}'".format(
                ", ".join(found.subnets), _shown(collisions[0]), asked.name
            )
        )
    if not found.autostart:
        steps.append(Step("autostart", NETWORK, asked.name))
    if not found.active or steps and steps[0].verb == "stop":
        steps.append(Step("start", NETWORK, asked.name))
    return wish, steps


def _differences(asked: Network, found: NetworkState) -> Iterator[str]:
    if not found.persistent:
        yield "it is transient, gone with the next boot"
    if found.mode != asked.mode:
        yield f"its mode is {found.mode}, not {asked.mode}"
    elif asked.mode == "bridge" and found.bridge != asked.bridge:
        yield f"its bridge is {found.bridge or 'none'}, not {asked.bridge}"
    elif asked.mode == "nat":
        has = ", ".join(found.subnets) or "none"
        if asked.subnet != "auto" and asked.subnet not in found.subnets:
            yield f"its subnet is {has}, not {asked.subnet}"
        if asked.subnet == "auto" and not any(each.endswith("/24") for each in found.subnets):
            yield f"its subnet is {has}, not a /24"


def _collisions(
    subnet: str, routes: Iterable[Route], found: Optional[NetworkState] = None
) -> Iterator[Route]:
    """The routes that overlap with a subnet. Not the network's own; and if the network is active, not a
    wider one, because the network's own route takes precedence."""
    wanted = ipaddress.IPv4Network(subnet)
    for route in routes:
        network = ipaddress.IPv4Network(route.network)
        own = found is not None and found.active and route.interface == found.bridge
        wider = found is not None and found.active and network.prefixlen < wanted.prefixlen
        if network.overlaps(wanted) and not own and not wider:
            yield route


def _free(routes: Sequence[Route], taken: Sequence[str]) -> str:
    """The first /24 that nothing touches. A host may have thousands of routes: each is passed once."""
    used = [ipaddress.IPv4Network(network) for network in [*(r.network for r in routes), *taken]]
    # Networks without overlaps, in order.
    used = list(ipaddress.collapse_addresses(used))
    for whole, start in _RANGES:
        first = int(start.network_address)
        for network in used:
            if int(network.broadcast_address) < first:
                continue
            if int(network.network_address) > first + 255:
                break
            # The next /24 after it.
            first = (int(network.broadcast_address) | 255) + 1
        if first < int(whole.broadcast_address):
            return f"{ipaddress.IPv4Address(first)}/24"
    raise _Obstacle(
        "finds no free /24 in 192.168.0.0/16 and 10.0.0.0/8: all are touched by addresses and"
        " routes of this host; name a subnet"
    )


def _shown(route: Route) -> str:
    return (
        f"{route.network} on {route.interface}"
        if route.interface
        else f"a route to {route.network}"
    )


def _xml(asked: Network, subnet: str) -> str:
    network = ElementTree.Element("network")
    ElementTree.SubElement(network, "name").text = asked.name
    ElementTree.SubElement(network, "forward", mode=asked.mode)
    if asked.mode == "bridge":
        ElementTree.SubElement(network, "bridge", name=asked.bridge)
    else:
        hosts = ipaddress.IPv4Network(subnet)
        ip = ElementTree.SubElement(
            network, "ip", address=str(hosts[1]), netmask=str(hosts.netmask)
        )
        dhcp = ElementTree.SubElement(ip, "dhcp")
        ElementTree.SubElement(dhcp, "range", start=str(hosts[2]), end=str(hosts[-2]))
    return ElementTree.tostring(network, encoding="unicode")


def _moved(xml: str, subnet: str) -> str:
    """The definition of the packaged network, moved to another /24."""
    network = ElementTree.fromstring(xml)
    start = subnet.rpartition(".")[0]
    for element in network.iter():
        for key in ("address", "start", "end"):
            if element.tag in ("ip", "range") and key in element.attrib:
                element.set(key, f"{start}.{element.get(key, '').rpartition('.')[2]}")
    return ElementTree.tostring(network, encoding="unicode")
