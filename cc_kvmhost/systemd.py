"""systemd's manager over D-Bus, by pystemd: as few calls as there are questions and changes.

Source: org.freedesktop.systemd1(5). Everything but the wait for jobs is one call and its reply.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import time
from typing import (
    AbstractSet,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from .errors import KvmhostError

LOG = logging.getLogger(__name__)

RUNNING = "/run/systemd/system"
BUS_SOCKET = "/run/dbus/system_bus_socket"

_NAME = b"org.freedesktop.systemd1"
_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"

#: Seconds until a job that has not ended is asked what it waits for.
_LOOK_AT_JOBS_AFTER = 0.25
#: How often jobs are queued at most, if other jobs take their place.
_TRIES = 3
#: Seconds for which calls are tried again while systemd is off the bus: it re-executes.
_REEXEC = 5.0
#: The units of cloud-init's stages. By name: since 24.3 its process is in none of those that wait
#: for it (cloud-init-main.service runs the stages, the others hear from it through sockets).
_CLOUD_INIT = frozenset(
    [
        "cloud-init-main.service",
        "cloud-init-local.service",
        "cloud-init-network.service",
        "cloud-init.service",
        "cloud-config.service",
        "cloud-final.service",
        "cloud-init.target",
    ]
)


class UnitState(NamedTuple):
    """A unit as the manager has it in memory, or not. Values: systemd's own, see systemctl(1)."""

    name: str
    load: str = ""
    active: str = "inactive"
    sub: str = "dead"
    path: bytes = b""


class Jobs(NamedTuple):
    """Jobs on their way: number -> unit; and those that could not be queued: unit -> why."""

    pending: Dict[int, str]
    results: Dict[str, str]


class JobResults(NamedTuple):
    """How jobs ended: unit -> systemd's job result ("done", "failed", "timeout", …), and the
    units whose jobs were left in the queue because they wait for this very process."""

    results: Dict[str, str]
    queued: Tuple[str, ...]

    @property
    def failures(self) -> Dict[str, str]:
        """The results that mean that a unit is not as asked."""
        good = ("done", "skipped", "queued")  # skipped: its conditions kept it from starting
        return {unit: result for unit, result in self.results.items() if result not in good}


class BusError(Exception):
    """A call failed; ``name``: the D-Bus error without its namespace where it is a known one."""

    def __init__(self, method: str, name: str, text: str) -> None:
        self.name = name
        super().__init__(f"{method}: {text}")

    @property
    def is_absence(self) -> bool:
        """What was asked for does not exist."""
        return self.name.endswith(("NoSuchUnit", "NoSuchJob", "FileNotFound"))

    @property
    def is_interruption(self) -> bool:
        """Nobody has the name on the bus now, or lost it before replying."""
        return self.name.endswith(("NoReply", "ServiceUnknown", "NameHasNoOwner"))


def is_running() -> bool:
    """True if systemd is PID 1 here. Source: sd_booted(3)."""
    return os.path.isdir(RUNNING)


#: Verb -> method, signature, and its arguments after the units. No force: it would replace
#: unit files that an administrator has put in /etc.
UNIT_FILE_CALLS = {
    "disable": ("DisableUnitFiles", "asb", (False,)),
    "disable-runtime": ("DisableUnitFiles", "asb", (True,)),
    "unmask": ("UnmaskUnitFiles", "asb", (False,)),
    "enable": ("EnableUnitFiles", "asbb", (False, False)),
    "mask": ("MaskUnitFiles", "asbb", (False, False)),
}

_JOB_CALLS = {"start": "StartUnit", "stop": "StopUnit"}


class Manager:
    """The connection; a context manager. ``timeout`` (seconds) bounds each call."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._bus: Any = None
        self._removed: Dict[int, str] = {}
        self._on_job_removed: Optional[Callable[..., None]] = None

    def __enter__(self) -> "Manager":
        try:
            dbuslib, dbusexc = _import_pystemd()
        except ImportError as error:
            raise KvmhostError(
                [f"systemd can't be reached: {error}; install python3-pystemd (from EPEL on EL)"]
            ) from error
        self._error = dbusexc.DBusBaseError
        self._signature = dbuslib.apply_signature
        _greet_bus(self._timeout)
        self._bus = dbuslib.DBus()
        # Within it the connection and its first call, by which it takes the timeout.
        with _bus_timeout(self._timeout):
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
        """See that systemd answers.

        :raises BusError: it does not
        """
        self._call("Ping", to=(_NAME, _PATH, b"org.freedesktop.DBus.Peer"))

    # What is here

    def unit_files(self, patterns: Iterable[str]) -> Dict[str, str]:
        """UnitFileState of every unit file whose name matches (fnmatch): name -> state."""
        rows = self._call("ListUnitFilesByPatterns", "asas", [], _encoded(patterns))
        return {os.path.basename(path.decode()): state.decode() for path, state in rows}

    def unit_file_state(self, unit: str) -> str:
        """UnitFileState of one unit, instances of templates too; "" if there is no unit file."""
        try:
            return str(self._call("GetUnitFileState", "s", unit.encode()).decode())
        except BusError as error:
            if error.is_absence:
                return ""
            raise

    def units(self, names: Sequence[str]) -> Dict[str, UnitState]:
        """Each unit, loaded for it, by the name asked for; ``name`` in it is the unit's own."""
        rows = self._call("ListUnitsByNames", "as", _encoded(names)) if names else []
        return dict(zip(names, map(_unit_state, rows)))

    def loaded_units(self, patterns: Iterable[str]) -> Dict[str, UnitState]:
        """Every unit in systemd's memory whose own name matches (fnmatch); loads none."""
        rows = self._call("ListUnitsByPatterns", "asas", [], _encoded(patterns))
        return {state.name: state for state in map(_unit_state, rows)}

    def property(self, path: bytes, interface: str, name: str, signature: str) -> Any:
        """One property of a loaded unit by its object path; ``interface``: "Unit", "Service", …"""
        try:
            return self._bus.get_property(
                _NAME,
                path,
                _NAME + b"." + interface.encode(),
                name.encode(),
                signature.encode(),
            )
        except self._error as error:
            raise _failure(name, error) from error

    # What to change

    def change_unit_files(self, verb: str, units: Sequence[str]) -> List[str]:
        """Enable, disable, mask or unmask units, all in one call.

        :param verb: a key of UNIT_FILE_CALLS
        :return: the paths of the links that systemd made or removed
        """
        method, signature, flags = UNIT_FILE_CALLS[verb]
        reply = self._call(method, signature, _encoded(units), *flags)
        changes = reply[1] if method == "EnableUnitFiles" else reply
        return [path.decode() for _, path, _ in changes]

    def reload(self, wait: bool = True) -> None:
        """Have systemd read all unit files again, which takes it 0.1 to 0.3 s.

        :param wait: for its end. If not, it still comes before all that systemd is asked for next:
            it takes up signals before messages. Source: SIGHUP in systemd(1).
        """
        if not wait:
            with contextlib.suppress(PermissionError):  # a security module's
                os.kill(1, signal.SIGHUP)
                return
        self._call("Reload")

    def reset_failed(self, unit: str) -> None:
        """Forget that a unit failed, and how often it was started."""
        try:
            self._call("ResetFailedUnit", "s", unit.encode())
        except BusError as error:
            if not error.is_absence:  # not in memory: nothing to forget
                raise

    def run_jobs(self, verb: str, units: Sequence[str], seconds: float) -> JobResults:
        """Queue a job for each unit and follow them side by side until they end.

        :param verb: "start" or "stop"
        :param seconds: what all of them together may take; a job that has not ended by then is
            canceled and its result is "timeout"
        """
        deadline = time.monotonic() + seconds
        for _ in range(_TRIES):
            jobs = Jobs({}, {})
            self.queue_jobs(verb, units, jobs)
            done = self.finish_jobs(jobs, deadline - time.monotonic())
            # By a job that took its place: a service that is on its way up again (Restart=, or for
            # a client) starts its sockets too. Once they have all stopped, nothing brings them back.
            if "canceled" not in done.results.values():
                break
        return done

    def queue_jobs(self, verb: str, units: Sequence[str], jobs: Jobs) -> None:
        """Queue a job for each unit and add it to ``jobs``; systemd is at them from now on."""
        self._subscribe()
        for unit in units:
            try:
                path = self._call(_JOB_CALLS[verb], "ss", unit.encode(), b"replace")
            except BusError as error:
                jobs.results[unit] = str(error)
            else:
                jobs.pending[int(path.rsplit(b"/", 1)[1])] = unit

    def finish_jobs(self, jobs: Jobs, seconds: float) -> JobResults:
        """Follow queued jobs until they end; ``seconds`` as for run_jobs()."""
        deadline = time.monotonic() + seconds
        pending, results = jobs
        queued: Set[str] = set()
        pause = _LOOK_AT_JOBS_AFTER
        look = time.monotonic() + pause
        while pending and time.monotonic() < deadline:
            self._wait(min(look, deadline) - time.monotonic())
            self._collect(pending, results)
            if pending and time.monotonic() >= look:
                queued |= self._set_aside(pending, results)
                pause = min(2 * pause, 2.0)
                look = time.monotonic() + pause
        for job, unit in pending.items():
            results[unit] = "timeout"
            self._cancel(job)
        return JobResults(results, tuple(unit for unit in results if unit in queued))

    # Calls of other services

    def call(self, name: str, path: str, interface: str, method: str, *strings: str) -> Any:
        """One call of another service on the bus; its arguments, if any, are strings."""
        to = (name.encode(), path.encode(), interface.encode())
        return self._call(method, "s" * len(strings), *_encoded(strings), to=to)

    # Inside

    def _call(
        self,
        method: str,
        signature: str = "",
        *args: Any,
        to: Tuple[bytes, bytes, bytes] = (_NAME, _PATH, _MANAGER),
    ) -> Any:
        message = self._signature(signature.encode(), list(args)) if signature else []
        give_up = time.monotonic() + min(_REEXEC, self._timeout)
        while True:
            try:
                return self._bus.call_method(to[0], to[1], to[2], method.encode(), message).body
            except self._error as error:
                failure = _failure(method, error)
                # While systemd re-executes it is off the bus; every call of ours may be repeated.
                if not failure.is_interruption or time.monotonic() > give_up:
                    raise failure from error
            time.sleep(0.05)

    def _subscribe(self) -> None:
        if self._on_job_removed is not None:
            return
        removed = self._removed

        # pystemd keeps no reference to its callback and sets an attribute on it: a plain function
        # that this object holds.
        def on_job_removed(message: Any, error: Any = None, userdata: Any = None) -> None:
            message.process_reply(False)
            job, _path, _unit, result = message.body
            removed[job] = result.decode()

        self._on_job_removed = on_job_removed
        self._bus.match_signal(_NAME, _PATH, _MANAGER, b"JobRemoved", on_job_removed)
        self._call("Subscribe")

    def _wait(self, seconds: float) -> None:
        """Take in a message; wait for it if there is none yet."""
        try:
            self._bus.wait(int(max(seconds, 0) * 1000000))
            self._bus.process()
        except self._error as error:
            raise _failure("JobRemoved", error) from error

    def _collect(self, pending: Dict[int, str], results: Dict[str, str]) -> None:
        """Move jobs that have ended from pending to results."""
        for job in [job for job in pending if job in self._removed]:
            results[pending.pop(job)] = self._removed[job]

    def _set_aside(self, pending: Dict[int, str], results: Dict[str, str]) -> Set[str]:
        """Take out of pending what will not end while this process waits for it.

        A job that, through whatever chain, waits for cloud-init or for the unit this process runs
        in ends only after us: it stays queued in systemd. A job that is gone
        although no signal came (systemd re-executed) has the unit's state as its result.
        """
        never_before_us = _CLOUD_INIT | {self._own_unit()}
        queued = set()
        for job, unit in list(pending.items()):
            try:
                waits_for_us = self._waits_for(job, never_before_us)
            except BusError as error:
                if not error.is_absence:
                    raise
                self._wait(0)
                if job not in self._removed:
                    active = self.units([unit])[unit].active
                    self._removed[job] = "failed" if active == "failed" else "done"
                continue
            if waits_for_us:
                queued.add(pending.pop(job))
                results[unit] = "queued"
        self._collect(pending, results)
        return queued

    def _own_unit(self) -> str:
        """The unit that this process runs in; "" if there is none."""
        try:
            path = self._call("GetUnitByPID", "u", 0)
            return str(self.property(path, "Unit", "Id", "s").decode())
        except BusError:
            return ""  # a container's shell: nothing waits for it

    def _waits_for(self, job: int, units: AbstractSet[str]) -> bool:
        """True if a job can't run before one of the units has done its own, through any chain."""
        seen: Set[int] = set()
        rest = [job]
        while rest:
            current = rest.pop()
            if current not in seen:
                seen.add(current)
                for other, unit, *_ in self._call("GetJobBefore", "u", current):
                    if unit.decode() in units:
                        return True
                    rest.append(other)
        return False

    def _cancel(self, job: int) -> None:
        try:
            self._call("CancelJob", "u", job)
        except BusError as error:
            LOG.debug("job %d: %s", job, error)


def _import_pystemd() -> Tuple[Any, Any]:
    """pystemd's bindings of libsystemd, dbuslib and dbusexc, without the rest of the package.

    Its __init__ loads lxml for classes that are not used here: 4 MiB and 10 ms. So it is not run;
    whoever imports pystemd later gets all of it.

    :raises ImportError: pystemd, or what it is made of, is missing
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


def _unit_state(row: Sequence[Any]) -> UnitState:
    name, load, active, sub = (row[column].decode() for column in (0, 2, 3, 4))
    return UnitState(name, load, active, sub, row[6])


def _encoded(strings: Iterable[str]) -> List[bytes]:
    return [string.encode() for string in strings]


def _failure(method: str, error: Any) -> BusError:
    """pystemd has a class per well-known error and the name in an attribute for all others."""
    name = error.err_name or type(error).__name__[len("DBus") : -len("Error")]
    text = error.err_message or os.strerror(abs(error.errno))
    return BusError(method, *(_text(part) for part in (name, text)))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def _bus_timeout(seconds: float) -> Iterator[None]:
    """Have libsystemd's next connection use this timeout for each call.

    It takes it from the environment, once, at a connection's first call; pystemd has no other way.
    """
    name = "SYSTEMD_BUS_TIMEOUT"
    before = os.environ.get(name)
    os.environ[name] = f"{max(seconds, 1):.0f}s"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _greet_bus(seconds: float) -> None:
    """See that the system bus answers at all.

    libsystemd waits 90 s for a bus that accepts a connection and then says nothing, which no
    timeout of a call shortens. So its first line is asked for here, by the same handshake.
    Source: D-Bus specification, authentication protocol.
    """
    uid = str(os.geteuid()).encode().hex().encode()
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(seconds)
            stream.connect(BUS_SOCKET)
            stream.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
            if stream.recv(512).startswith(b"OK"):
                return
            reason = "refused the connection"
    except socket.timeout:
        reason = f"did not answer within {seconds:g} s"
    except OSError as error:
        reason = error.strerror or str(error)
    raise KvmhostError([f"the system bus ({BUS_SOCKET}): {reason}; see 'systemctl status dbus'"])
