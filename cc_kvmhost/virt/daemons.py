"""Whether libvirt's daemons answer, and don't just listen: a client wakes each and asks it something.

Calls to libvirt's binding may block for ever, so a child process makes them (child.py).

Sources: libvirt's docs/uri.rst and docs/kbase/internals/rpc.rst; src/rpc/virkeepalive.c.
"""

import socket
import struct
import threading
from typing import Any, Callable, Collection, Dict, Iterable, NamedTuple, Optional, Tuple

from ..errors import KvmhostError
from . import units

#: Driver -> a cheap question to it, through libvirt's binding.
_QUESTIONS: Dict[str, Callable[[Any], int]] = {
    "qemu": lambda connection: connection.numOfDomains(),
    "network": lambda connection: connection.numOfNetworks(),
    "storage": lambda connection: connection.numOfStoragePools(),
    "nodedev": lambda connection: connection.numOfDevices(None),
    "secret": lambda connection: connection.numOfSecrets(),
    "interface": lambda connection: connection.numOfInterfaces(),
    "nwfilter": lambda connection: connection.numOfNWFilters(),
}

#: A packet of libvirt's keepalive protocol: its length, program "keep", version, procedure, type
#: (a message), serial, status.
_KEEPALIVE = struct.Struct(">IIIIIII")
_PROGRAM, _PING, _PONG = 0x6B656570, 1, 2


class Endpoint(NamedTuple):
    """A daemon and how to ask it. ``name``: its service without the suffix. ``socket``: a path.
    ``driver``: the driver to ask through libvirt's binding; None: only ping the daemon."""

    name: str
    socket: str
    driver: Optional[str] = None


def endpoints(mode: str, listening: Collection[str], binding: bool) -> Tuple[Endpoint, ...]:
    """Every daemon of a mode that listens, once.

    :param listening: names of the socket units that listen
    :param binding: libvirt's binding can be used
    """
    asked = {units.LIBVIRTD: "qemu"}
    if mode == units.MODULAR:
        asked = {units.daemon(driver): driver for driver in units.DRIVERS}
        first = next((d for daemon, d in asked.items() if daemon.socket in listening), "qemu")
        # The proxy has no driver of its own and forwards what it is asked.
        asked[units.PROXYD] = first
    found = [
        Endpoint(daemon.name, str(units.socket_path(daemon.socket)), driver if binding else None)
        for daemon, driver in asked.items()
        if daemon.socket in listening
    ]
    shared = [units.Daemon(name) for name in units.SHARED]
    return tuple(found) + tuple(
        Endpoint(daemon.name, str(units.socket_path(daemon.socket)))
        for daemon in shared
        if daemon.socket in listening
    )


def uri(daemon: Endpoint) -> str:
    """The URI of exactly this daemon's driver, so that no proxy or default gets in between."""
    return f"{daemon.driver}+unix:///system?socket={daemon.socket}"


def wake(
    daemons: Iterable[Endpoint],
    answered: Callable[[Endpoint, str], None],
    work: Optional[Callable[[Endpoint, Any], None]] = None,
) -> None:
    """Wake daemons side by side, and wait for all, however long it takes.

    :param answered: called with each daemon and what is wrong with it, "" if nothing
    :param work: called with a daemon whose driver has answered, and the connection
    """

    def ask(daemon: Endpoint) -> None:
        connection = None
        problem = ""
        try:
            if daemon.driver is None:
                ping(daemon.socket)
            else:
                connection = _connect(daemon)
        except OSError as error:
            problem = f"{daemon.socket}: {error.strerror or error}"
        except KvmhostError as error:
            problem = str(error)
        answered(daemon, problem)
        if work and connection is not None:
            work(daemon, connection)

    threads = [threading.Thread(target=ask, args=(daemon,)) for daemon in daemons]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _connect(daemon: Endpoint) -> Any:
    """The connection to a daemon's driver, which has answered a question."""
    import libvirt

    assert daemon.driver
    try:
        connection = libvirt.open(uri(daemon))
        _QUESTIONS[daemon.driver](connection)
    except libvirt.libvirtError as error:
        raise KvmhostError(str(error.get_error_message()).splitlines()) from error
    return connection


def ping(path: str, seconds: Optional[float] = None) -> None:
    """Have a daemon answer without the binding, by what every server of libvirt's understands.

    :param seconds: for each call; None: no limit
    :raises OSError: it does not
    """
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(seconds)
        stream.connect(path)
        packet = _KEEPALIVE.pack(_KEEPALIVE.size, _PROGRAM, 1, _PING, 2, 0, 0)
        stream.sendall(packet)
        answer = b""
        while len(answer) < _KEEPALIVE.size:
            some = stream.recv(_KEEPALIVE.size - len(answer))
            if not some:
                raise ConnectionResetError("it closed the connection without an answer")
            answer += some
    if _KEEPALIVE.unpack(answer)[1:4] != (_PROGRAM, 1, _PONG):
        raise OSError("it answered something that is not of libvirt's protocol")
