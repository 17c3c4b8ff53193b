"""systemd's manager: questions and changes, in as few calls as possible.

Source: org.freedesktop.systemd1(5).
"""

import os
import signal
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from .. import files
from .bus import MANAGER, NAME, PATH, Bus, BusError, encoded

RUNNING = "/run/systemd/system"
#: This file is there from a run's first change of unit files until systemd is told to read them again,
#: so that a run after one that was killed in between makes up for it.
RELOAD_DUE = "/run/kvmhost/reload-due"

#: Verb -> method, signature, and the arguments after the units. ``force`` is always False: it would
#: replace unit files that an administrator put into /etc.
UNIT_FILE_CALLS = {
    "disable": ("DisableUnitFiles", "asb", (False,)),
    "disable-runtime": ("DisableUnitFiles", "asb", (True,)),
    "unmask": ("UnmaskUnitFiles", "asb", (False,)),
    "enable": ("EnableUnitFiles", "asbb", (False, False)),
    "mask": ("MaskUnitFiles", "asbb", (False, False)),
}

_JOB_CALLS = {"start": "StartUnit", "stop": "StopUnit"}


class UnitState(NamedTuple):
    """A unit in the manager's memory; the defaults are for a unit that is not there. The values are
    systemd's own, see systemctl(1)."""

    name: str
    load: str = ""
    active: str = "inactive"
    sub: str = "dead"
    path: bytes = b""


def is_reload_due() -> bool:
    """An earlier run has changed unit files, and systemd has not been told to read them again."""
    return os.path.exists(RELOAD_DUE)


def is_running() -> bool:
    """True if systemd is PID 1 here. Source: sd_booted(3)."""
    return os.path.isdir(RUNNING)


class Manager(Bus):
    """A connection to systemd; a context manager.

    ``removed``: number -> result of each job that ended since watch_jobs().
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.removed: Dict[int, str] = {}
        self._on_job_removed: Optional[Callable[..., None]] = None

    # Questions

    def unit_files(self, patterns: Iterable[str]) -> Dict[str, str]:
        """UnitFileState of every unit file whose name matches (fnmatch): name -> state."""
        rows = self._call("ListUnitFilesByPatterns", "asas", [], encoded(patterns))
        return {os.path.basename(path.decode()): state.decode() for path, state in rows}

    def unit_file_state(self, unit: str) -> str:
        """UnitFileState of one unit, which may be an instance; "" if there is no unit file."""
        try:
            return str(self._call("GetUnitFileState", "s", unit.encode()).decode())
        except BusError as error:
            if error.is_absence:
                return ""
            raise

    def units(self, names: Sequence[str]) -> Dict[str, UnitState]:
        """Each unit by the given name; systemd loads it if it has to. Its ``name`` is the unit's own."""
        rows = self._call("ListUnitsByNames", "as", encoded(names)) if names else []
        return dict(zip(names, map(_unit_state, rows)))

    def loaded_units(self, patterns: Iterable[str]) -> Dict[str, UnitState]:
        """Every unit in systemd's memory whose own name matches (fnmatch); none is loaded for this."""
        rows = self._call("ListUnitsByPatterns", "asas", [], encoded(patterns))
        return {state.name: state for state in map(_unit_state, rows)}

    def own_unit(self) -> str:
        """The unit that this process runs in; "" if it runs in none (a container's shell)."""
        try:
            path = self._call("GetUnitByPID", "u", 0)
            return str(self.property(path, "Unit", "Id", "s").decode())
        except BusError:
            return ""

    def jobs_before(self, job: int) -> List[Tuple[int, str]]:
        """The jobs that a job waits for, each with its unit.

        :raises BusError: ``is_absence`` if the job is gone
        """
        rows = self._call("GetJobBefore", "u", job)
        return [(number, unit.decode()) for number, unit, *_ in rows]

    # Changes

    def change_unit_files(self, verb: str, units: Sequence[str]) -> None:
        """Enable, disable, mask or unmask units, all in one call. One that fails may have done a part.

        :param verb: a key of UNIT_FILE_CALLS
        """
        method, signature, flags = UNIT_FILE_CALLS[verb]
        files.make_directory(os.path.dirname(RELOAD_DUE))
        os.close(os.open(RELOAD_DUE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        self._call(method, signature, encoded(units), *flags)

    def reload(self, wait: bool = True) -> None:
        """Make systemd read all unit files again, which takes 0.1 to 0.3 s.

        :param wait: wait for it. Otherwise systemd still reloads before it answers any later
            request, because it handles signals before messages. Source: SIGHUP in systemd(1).
        """
        if wait or not self._signal_reload():
            self._call("Reload")
        files.remove(RELOAD_DUE)

    def _signal_reload(self) -> bool:
        try:
            os.kill(1, signal.SIGHUP)
        except PermissionError:  # SELinux or the like forbids the signal
            return False
        return True

    def reset_failed(self, unit: str) -> None:
        """Make systemd forget that a unit failed and how often it was started."""
        try:
            self._call("ResetFailedUnit", "s", unit.encode())
        except BusError as error:
            if not error.is_absence:  # a unit that is not in memory has nothing to forget
                raise

    def queue_job(self, verb: str, unit: str) -> int:
        """Queue a job ("start" or "stop"); returns its number. systemd begins it at once."""
        path = self._call(_JOB_CALLS[verb], "ss", unit.encode(), b"replace")
        return int(path.rsplit(b"/", 1)[1])

    def cancel_job(self, job: int) -> None:
        self._call("CancelJob", "u", job)

    def watch_jobs(self) -> None:
        """From now on, wait() fills ``removed``."""
        if self._on_job_removed is not None:
            return
        removed = self.removed

        # pystemd sets an attribute on the callback, so it must be a plain function; and keeps no
        # reference to it, so self has to.
        def on_job_removed(message: Any, error: Any = None, userdata: Any = None) -> None:
            message.process_reply(False)
            job, _path, _unit, result = message.body
            removed[job] = result.decode()

        self._on_job_removed = on_job_removed
        self._bus.match_signal(NAME, PATH, MANAGER, b"JobRemoved", on_job_removed)
        self._call("Subscribe")


def _unit_state(row: Sequence[Any]) -> UnitState:
    name, load, active, sub = (row[column].decode() for column in (0, 2, 3, 4))
    return UnitState(name, load, active, sub, row[6])
