"""Whether clients can reach libvirt's sockets, found out without waking the daemons behind them."""

import errno
import os
import socket
from typing import Dict, Iterable, List, Mapping, Tuple

from .units import socket_path


def refusals(units: Iterable[str]) -> Dict[str, str]:
    """libvirt socket -> why it can't be reached, "" if it can. Other units, and sockets that are
    hidden(), are left out."""
    return {unit: _refusal(path) for unit, path in _paths(units) if not _is_hidden(path)}


def hidden(units: Iterable[str]) -> Tuple[str, ...]:
    """The libvirt sockets among the units that this user may not look at."""
    return tuple(unit for unit, path in _paths(units) if _is_hidden(path))


def problems(refused: Mapping[str, str]) -> List[str]:
    """A sentence for each socket that can't be reached, from what refusals() found."""
    return [
        f"{unit}: can't be reached: {refusal}; see 'systemctl status {unit}'"
        for unit, refusal in refused.items()
        if refusal
    ]


def is_deserted(path: str) -> bool:
    """Whether there is a socket at this path that nobody listens on."""
    return _connect(path) == errno.ECONNREFUSED


def _paths(units: Iterable[str]) -> List[Tuple[str, str]]:
    paths = [(unit, socket_path(unit)) for unit in sorted(units)]
    return [(unit, path) for unit, path in paths if path]


def _is_hidden(path: str) -> bool:
    return os.geteuid() != 0 and _connect(path) == errno.EACCES


def _refusal(path: str) -> str:
    number = _connect(path)
    if number == errno.EPROTOTYPE:
        return ""
    return f"{path}: {os.strerror(number) if number else 'not a stream socket'}"


def _connect(path: str) -> int:
    """The errno that a datagram client gets. A stream connection would start the daemon. For a datagram
    client the kernel looks up the path, checks the permission and finds the listening socket, and then
    refuses with EPROTOTYPE, because the types differ."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(path)
