"""Which interfaces are bridges, by the name of their driver (SIOCETHTOOL, as `ethtool -i` asks)."""

import array
import errno
import fcntl
import socket
import struct
from typing import Optional

_SIOCETHTOOL = 0x8946
_GDRVINFO = 3
#: struct ethtool_drvinfo; the driver's name follows the command.
_SIZE = 196
_NAME = slice(4, 36)


def refusal(name: str) -> str:
    """Why an interface can't be a network's bridge; "" if it can."""
    driver = _driver(name)
    if driver == "bridge":
        return ""
    if driver is None:
        return "there is no such interface on this host; cloud-init's network-config makes bridges"
    if driver == "openvswitch":
        return "it is an Open vSwitch bridge, which is not supported; define the network with virsh"
    return f"it is not a bridge (its driver is {driver or 'unknown'})"


def _driver(name: str) -> Optional[str]:
    """The driver's name; "" if the interface has none; None if there is no such interface."""
    question = array.array("B", struct.pack("=I", _GDRVINFO) + bytes(_SIZE - 4))
    request = struct.pack("16sP", name.encode(), question.buffer_info()[0]).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        try:
            fcntl.ioctl(stream.fileno(), _SIOCETHTOOL, request)
        except OSError as error:
            return None if error.errno == errno.ENODEV else ""
    return question.tobytes()[_NAME].split(b"\0", 1)[0].decode()
