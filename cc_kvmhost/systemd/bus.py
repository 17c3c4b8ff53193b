"""The system bus, through pystemd's binding of libsystemd: the connection, its calls and errors.

Source: org.freedesktop.systemd1(5).
"""

import contextlib
import importlib
import importlib.util
import os
import socket
import sys
import time
from typing import Any, Iterable, Iterator, List, Tuple, TypeVar

from ..errors import KvmhostError

T = TypeVar("T", bound="Bus")

SOCKET = "/run/dbus/system_bus_socket"
NAME = b"org.freedesktop.systemd1"
PATH = b"/org/freedesktop/systemd1"
MANAGER = NAME + b".Manager"

#: Seconds for which a call is repeated while systemd re-executes and is off the bus.
_REEXEC = 5.0


class BusError(Exception):
    """A call failed. ``name``: the D-Bus error; without its namespace if it is well known."""

    def __init__(self, method: str, name: str, text: str) -> None:
        self.name = name
        super().__init__(f"{method}: {text}")

    @property
    def is_absence(self) -> bool:
        """What was asked for does not exist."""
        return self.name.endswith(("NoSuchUnit", "NoSuchJob", "FileNotFound"))

    @property
    def is_interruption(self) -> bool:
        """The service is not on the bus now, or left it before it replied."""
        return self.name.endswith(("NoReply", "ServiceUnknown", "NameHasNoOwner"))


class Bus:
    """A connection to the system bus; a context manager. ``timeout`` (seconds) bounds each call."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._bus: Any = None

    def __enter__(self: T) -> T:
        """:raises KvmhostError: pystemd is missing, or the bus can't be opened"""
        try:
            dbuslib, dbusexc = _import_pystemd()
        except ImportError as error:
            raise KvmhostError(
                [f"systemd can't be reached: {error}; install python3-pystemd (from EPEL on EL)"]
            ) from error
        self._error = dbusexc.DBusBaseError
        self._signature = dbuslib.apply_signature
        _greet(self._timeout)
        self._bus = dbuslib.DBus()
        # libsystemd reads the timeout at the first call of a connection.
        with _default_timeout(self._timeout):
            try:
                self._bus.open()
            except self._error as error:
                raise KvmhostError([f"the system bus can't be opened: {error}"]) from error
            try:
                self.ping()
            except BaseException:
                self._bus.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def ping(self) -> None:
        """:raises BusError: systemd does not answer"""
        self._call("Ping", to=(NAME, PATH, b"org.freedesktop.DBus.Peer"))

    def call(self, name: str, path: str, interface: str, method: str, *strings: str) -> Any:
        """Call any service on the bus; all arguments are strings."""
        to = (name.encode(), path.encode(), interface.encode())
        return self._call(method, "s" * len(strings), *encoded(strings), to=to)

    def _call(
        self,
        method: str,
        signature: str = "",
        *args: Any,
        to: Tuple[bytes, bytes, bytes] = (NAME, PATH, MANAGER),
    ) -> Any:
        message = self._signature(signature.encode(), list(args)) if signature else []
        give_up = time.monotonic() + min(_REEXEC, self._timeout)
        while True:
            try:
                return self._bus.call_method(to[0], to[1], to[2], method.encode(), message).body
            except self._error as error:
                failure = _failure(method, error)
                # Repeating is safe, because each of our calls has the same effect twice as once.
                if not failure.is_interruption or time.monotonic() > give_up:
                    raise failure from error
            time.sleep(0.05)

    def property(self, path: bytes, interface: str, name: str, signature: str) -> Any:
        """One property of a loaded unit by its object path; ``interface``: "Unit", "Service", …"""
        place = (NAME, path, NAME + b"." + interface.encode())
        try:
            return self._bus.get_property(*place, name.encode(), signature.encode())
        except self._error as error:
            raise _failure(name, error) from error

    def wait(self, seconds: float) -> None:
        """Handle one message; if none has arrived, wait for one, at most this long."""
        try:
            self._bus.wait(int(max(seconds, 0) * 1000000))
            self._bus.process()
        except self._error as error:
            raise _failure("waiting", error) from error


def encoded(strings: Iterable[str]) -> List[bytes]:
    return [string.encode() for string in strings]


def _import_pystemd() -> Tuple[Any, Any]:
    """Load pystemd's dbuslib and dbusexc, without the rest of the package.

    pystemd/__init__ loads lxml (4 MiB, 10 ms) for classes that are not used here, so it is not
    run. A later import of pystemd still loads the whole package.

    :raises ImportError: pystemd or one of its dependencies is missing
    """
    spec = None if "pystemd" in sys.modules else importlib.util.find_spec("pystemd")
    if spec is not None:
        sys.modules["pystemd"] = importlib.util.module_from_spec(spec)
    try:
        names = ("pystemd.dbuslib", "pystemd.dbusexc")
        dbuslib, dbusexc = map(importlib.import_module, names)
    finally:
        if spec is not None:
            del sys.modules["pystemd"]
    return dbuslib, dbusexc


def _failure(method: str, error: Any) -> BusError:
    """A BusError. pystemd has a class for each well-known error; of others it knows the name."""
    name = error.err_name or type(error).__name__[len("DBus") : -len("Error")]
    text = error.err_message or os.strerror(abs(error.errno))
    parts = (p.decode(errors="replace") if isinstance(p, bytes) else str(p) for p in (name, text))
    return BusError(method, *parts)


@contextlib.contextmanager
def _default_timeout(seconds: float) -> Iterator[None]:
    """Set the timeout of calls for the next connection, through the environment: pystemd does not
    offer libsystemd's function for it."""
    before = dict(os.environ)
    os.environ["SYSTEMD_BUS_TIMEOUT"] = f"{max(seconds, 1):.0f}s"
    try:
        yield
    finally:
        del os.environ["SYSTEMD_BUS_TIMEOUT"]
        os.environ.update(before)


def _greet(seconds: float) -> None:
    """Check that the system bus answers at all.

    libsystemd waits 90 s for a bus that accepts a connection and then says nothing; no timeout of
    a call shortens that. So this makes the first step of the handshake itself.
    Source: D-Bus specification, authentication protocol.
    """
    uid = str(os.geteuid()).encode().hex().encode()
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(seconds)
            stream.connect(SOCKET)
            stream.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
            if stream.recv(512).startswith(b"OK"):
                return
            reason = "refused the connection"
    except socket.timeout:
        reason = f"did not answer within {seconds:g} s"
    except OSError as error:
        reason = error.strerror or str(error)
    raise KvmhostError([f"the system bus ({SOCKET}): {reason}; see 'systemctl status dbus'"])
