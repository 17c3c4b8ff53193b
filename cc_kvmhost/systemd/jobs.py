"""Jobs: queued together, followed until all of them end.

Source: org.freedesktop.systemd1(5), JobRemoved.
"""

import logging
import time
from typing import AbstractSet, Dict, NamedTuple, Sequence, Set, Tuple

from .bus import BusError
from .manager import Manager

LOG = logging.getLogger(__name__)

#: Seconds after which a job that has not ended is examined: what does it wait for?
_LOOK_AFTER = 0.25
#: Give up after this many tries when other jobs keep replacing ours.
_TRIES = 3
#: The units of cloud-init's stages. Since 24.3 this process runs in cloud-init-main.service, while
#: other units are ordered after the stages' own units: so those are recognised by name.
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


class JobResults(NamedTuple):
    """How jobs ended. ``results``: unit -> systemd's job result ("done", "failed", "timeout", …).
    ``queued``: the units whose jobs stay in systemd's queue because they wait for this process."""

    results: Dict[str, str]
    queued: Tuple[str, ...]

    @property
    def failures(self) -> Dict[str, str]:
        """The results of the jobs that failed."""
        good = ("done", "skipped", "queued")  # skipped: its conditions kept it from starting
        return {unit: result for unit, result in self.results.items() if result not in good}


def run(manager: Manager, verb: str, units: Sequence[str], seconds: float) -> JobResults:
    """Queue a job ("start" or "stop") for each unit and follow them until they end.

    :param seconds: the limit for all of them together. A job that has not ended by then is
        canceled, and its result is "timeout".
    """
    deadline = time.monotonic() + seconds
    for _ in range(_TRIES):
        jobs = Jobs(manager)
        jobs.queue(verb, units)
        done = jobs.finish(deadline - time.monotonic())
        # Another job replaced ours: a service that starts again (Restart=, or a client) also starts
        # its sockets. Once all of them have stopped, nothing can start them.
        if "canceled" not in done.results.values():
            break
    return done


class Jobs:
    """Jobs in systemd's queue."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._pending: Dict[int, str] = {}
        self._results: Dict[str, str] = {}

    @property
    def units(self) -> Set[str]:
        return set(self._pending.values()).union(self._results)

    def queue(self, verb: str, units: Sequence[str]) -> None:
        """Queue a job for each unit; systemd begins it at once."""
        self._manager.watch_jobs()
        for unit in units:
            try:
                self._pending[self._manager.queue_job(verb, unit)] = unit
            except BusError as error:
                self._results[unit] = str(error)

    def finish(self, seconds: float) -> JobResults:
        """Follow the jobs until they end; ``seconds``: see run()."""
        deadline = time.monotonic() + seconds
        queued: Set[str] = set()
        pause = _LOOK_AFTER
        look = time.monotonic() + pause
        while self._pending and time.monotonic() < deadline:
            self._manager.wait(min(look, deadline) - time.monotonic())
            self._collect()
            if self._pending and time.monotonic() >= look:
                queued |= self._set_aside()
                pause = min(2 * pause, 2.0)
                look = time.monotonic() + pause
        for job, unit in self._pending.items():
            self._results[unit] = "timeout"
            try:
                self._manager.cancel_job(job)
            except BusError as error:
                LOG.debug("job %d: %s", job, error)
        return JobResults(self._results, tuple(unit for unit in self._results if unit in queued))

    def _collect(self) -> None:
        """Move the jobs that have ended from pending to results."""
        removed = self._manager.removed
        for job in [job for job in self._pending if job in removed]:
            self._results[self._pending.pop(job)] = removed[job]

    def _set_aside(self) -> Set[str]:
        """Stop following the jobs that can't end while this process waits for them; returns their
        units.

        Such a job waits, directly or through other jobs, for cloud-init or for the unit that this
        process runs in. It stays in systemd's queue. If a job is gone without a signal, because
        systemd re-executed, its result is read from the unit's state.
        """
        never_before_us = _CLOUD_INIT | {self._manager.own_unit()}
        queued = set()
        for job, unit in list(self._pending.items()):
            try:
                waits_for_us = self._waits_for(job, never_before_us)
            except BusError as error:
                if not error.is_absence:
                    raise
                self._manager.wait(0)
                if job not in self._manager.removed:
                    active = self._manager.units([unit])[unit].active
                    self._manager.removed[job] = "failed" if active == "failed" else "done"
                continue
            if waits_for_us:
                queued.add(self._pending.pop(job))
                self._results[unit] = "queued"
        self._collect()
        return queued

    def _waits_for(self, job: int, units: AbstractSet[str]) -> bool:
        """True if a job waits, directly or through other jobs, for a job of one of the units."""
        seen: Set[int] = set()
        rest = [job]
        while rest:
            current = rest.pop()
            if current not in seen:
                seen.add(current)
                for other, unit in self._manager.jobs_before(current):
                    if unit in units:
                        return True
                    rest.append(other)
        return False
