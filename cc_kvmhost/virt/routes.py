"""The IPv4 networks that this host's addresses and routes touch, asked of the kernel (rtnetlink(7))."""

import ipaddress
import socket
import struct
from typing import Dict, Iterator, List, NamedTuple, Tuple

_GETADDR, _GETROUTE, _ERROR, _DONE = 22, 26, 2, 3
_REQUEST, _DUMP = 1, 0x300
#: nlmsghdr: length, type, flags, sequence number, port. rtattr: length, type.
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
#: ifaddrmsg: family, prefix length, flags, scope, interface.
_ADDRESS = struct.Struct("=BBBBI")
_IFA_ADDRESS = 1
#: rtmsg: family, prefix lengths of destination and source, TOS, table, protocol, scope, type, flags.
_ROUTE = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF = 1, 4


class Route(NamedTuple):
    """A network and the interface that leads to it; "" if it has none or several."""

    network: str
    interface: str


def read() -> Tuple[Route, ...]:
    """Every route of every table, and every address, even of interfaces that are down."""
    found: Dict[Route, None] = {}
    for body in _dump(_GETROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        attributes = _attributes(body[_ROUTE.size :])
        index = attributes.get(_RTA_OIF)
        number = struct.unpack("=I", index)[0] if index else 0
        found[_route(attributes.get(_RTA_DST, bytes(4)), body[1], number)] = None
    for body in _dump(_GETADDR, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
        _, prefix, _, _, number = _ADDRESS.unpack_from(body)
        address = _attributes(body[_ADDRESS.size :]).get(_IFA_ADDRESS)
        if address:
            found[_route(address, prefix, number)] = None
    return tuple(route for route in found if _counts(ipaddress.IPv4Network(route.network)))


def _route(address: bytes, prefix: int, interface: int) -> Route:
    network = ipaddress.IPv4Network((address, prefix), strict=False)
    try:
        return Route(str(network), socket.if_indextoname(interface) if interface else "")
    except OSError:  # the interface is gone by now
        return Route(str(network), "")


def _counts(network: ipaddress.IPv4Network) -> bool:
    # A default route says nothing about a network; VPNs write it as two halves.
    return network.prefixlen > 1 and not network.is_loopback and not network.is_multicast


def _dump(kind: int, body: bytes) -> Iterator[bytes]:
    """Each message of the kernel's answer, without its header."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        size = _HEADER.size + len(body)
        netlink.sendall(_HEADER.pack(size, kind, _REQUEST | _DUMP, 1, 0) + body)
        while True:
            for answered, message in _messages(netlink.recv(1 << 18)):
                if answered == _DONE:
                    return
                if answered == _ERROR:
                    number = -struct.unpack_from("=i", message)[0]
                    raise OSError(number, "the kernel did not list its routes")
                yield message


def _messages(data: bytes) -> List[Tuple[int, bytes]]:
    messages = []
    while len(data) >= _HEADER.size:
        length, kind = _HEADER.unpack_from(data)[:2]
        messages.append((kind, data[_HEADER.size : length]))
        data = data[(length + 3) & ~3 :]
    return messages


def _attributes(data: bytes) -> Dict[int, bytes]:
    attributes = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        attributes[kind] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return attributes
