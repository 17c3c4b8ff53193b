"""Whether libvirt's daemons answer, and don't just listen: a client wakes each and asks it something.

Calls to libvirt's binding may block for ever, so a child process makes them (child.py).

Sources: libvirt's docs/uri.rst and docs/kbase/internals/rpc.rst; src/rpc/virkeepalive.c.
"""

import contextlib
import os
import socket
import struct
import threading
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
    Union,
)

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

#: Seconds after which the next daemon is woken, even if the one before it has not answered.
_STAGGER = 0.1


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


def stamps(daemons: Iterable[Endpoint], arch: str) -> Tuple[Tuple[str, int, int], ...]:
    """What daemons and QEMU are made of and set up by: each file that is here, by its inode and the
    time of its last change. Another answer means that something was installed or edited."""
    paths = ["/etc/libvirt/qemu.conf", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm"]
    paths.append("/usr/bin/qemu-system-" + arch)
    for daemon in daemons:
        paths += [f"/etc/libvirt/{daemon.name}.conf", f"/usr/sbin/{daemon.name}"]
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found.append((path, status.st_ino, status.st_ctime_ns))
    return tuple(found)


def uri(daemon: Endpoint) -> str:
    """The URI of exactly this daemon's driver, so that no proxy or default gets in between."""
    return f"{daemon.driver}+unix:///system?socket={daemon.socket}"


class _Driver:
    """A client that asks a daemon's driver by libvirt's binding."""

    def __init__(self, daemon: Endpoint) -> None:
        import libvirt

        assert daemon.driver
        self._question = _QUESTIONS[daemon.driver]
        self._error = libvirt.libvirtError
        with self._in_words():
            self.connection = libvirt.open(uri(daemon))

    def ask(self) -> None:
        with self._in_words():
            self._question(self.connection)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise KvmhostError(str(error.get_error_message()).splitlines()) from error


class _Pinger:
    """A client without the binding: asks for what every server of libvirt's understands.

    :param seconds: for each call; None: no limit
    """

    def __init__(self, path: str, seconds: Optional[float] = None) -> None:
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.settimeout(seconds)
        try:
            self._stream.connect(path)
        except OSError:
            self._stream.close()
            raise

    def ask(self) -> None:
        """:raises OSError: it does not answer"""
        packet = _KEEPALIVE.pack(_KEEPALIVE.size, _PROGRAM, 1, _PING, 2, 0, 0)
        self._stream.sendall(packet)
        answer = b""
        while len(answer) < _KEEPALIVE.size:
            some = self._stream.recv(_KEEPALIVE.size - len(answer))
            if not some:
                raise ConnectionResetError("it closed the connection without an answer")
            answer += some
        if _KEEPALIVE.unpack(answer)[1:4] != (_PROGRAM, 1, _PONG):
            raise OSError("it answered something that is not of libvirt's protocol")


_Client = Union[_Driver, _Pinger]


def wake(
    daemons: Iterable[Endpoint],
    answered: Callable[[Endpoint, str], None],
    work: Optional[Callable[[Endpoint, Any], None]] = None,
) -> None:
    """Wake daemons, wait for all and ask each once more, however long it takes.

    They start side by side. If there is work, they start one after the other, because all at once they
    take the CPUs from the work of the first; but none waits long for one that does not answer.

    A daemon may end just after its first answer, and systemd restarts it before anybody looks. So the
    connections stay open until the end, which also keeps idle daemons from ending by themselves.

    :param answered: called with each daemon and what is wrong with it, "" if nothing; once more
        around the second question, and then the last call counts
    :param work: called with a daemon whose driver has answered, and the connection
    :raises BaseException: what either of them raised, once all threads have ended
    """
    held: List[Tuple[Endpoint, _Client]] = []
    next_one = threading.Event()

    def ask(daemon: Endpoint) -> None:
        client: Optional[_Client] = None
        problem = ""
        try:
            client = _Pinger(daemon.socket) if daemon.driver is None else _Driver(daemon)
            client.ask()
        except (OSError, KvmhostError) as error:
            problem = _words(daemon, error)
        answered(daemon, problem)
        next_one.set()
        if client is not None and not problem:
            held.append((daemon, client))
            if work and isinstance(client, _Driver):
                work(daemon, client.connection)

    faults: List[BaseException] = []

    def ask_and_keep_fault(daemon: Endpoint) -> None:
        # An exception ends with its thread. Without a word of it, a guest that never ran would pass.
        try:
            ask(daemon)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=ask_and_keep_fault, args=(each,)) for each in daemons]
    for thread in threads:
        next_one.clear()
        thread.start()
        if work:
            next_one.wait(_STAGGER)
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    for daemon, client in held:
        answered(daemon, "has answered once, and is silent since")
        try:
            client.ask()
            answered(daemon, "")
        except (OSError, KvmhostError) as error:
            answered(daemon, "has answered once, and not again: " + _words(daemon, error))


def _words(daemon: Endpoint, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{daemon.socket}: {error.strerror or error}"
    return str(error)
