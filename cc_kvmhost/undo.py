"""Puts back what a failed run has changed."""

import contextlib
import logging
import os
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
)

from . import files, tuned
from .errors import KvmhostError
from .host import Host
from .plan import Plan
from .systemd import jobs
from .systemd.bus import BusError
from .systemd.manager import Manager
from .systemd.unit_files import ETC, RUN
from .virt import secret_key

if TYPE_CHECKING:
    from .virt.steps import Step

LOG = logging.getLogger(__name__)

#: Seconds for the jobs that put things back, each kind. More than systemd's own 90 s, after which it
#: kills what does not stop.
_SECONDS = 100.0
#: The same for networks and pools.
_OBJECTS_SECONDS = 30.0


class Undo:
    """The host before a run, and how to get back to it.

    ``steps``: the steps of networks and pools that were done or begun.
    """

    steps: Sequence["Step"] = ()

    def __init__(self, before: Host, chosen: Plan) -> None:
        self._before = before
        self._plan = chosen
        self._links: Optional[Dict[str, str]] = None
        self._changed: Set[str] = set()
        self._profile_files = (
            {path: files.read(path) for path in tuned.FILES} if chosen.profile else {}
        )

    @contextlib.contextmanager
    def watching_links(self) -> Iterator[None]:
        """Remember the links that change in here. systemd's answers do not tell them all: a call that
        fails, or whose answer is lost, has made some of them, also for units that the plan does not
        know (Also=, Alias=)."""
        self._links = before = links((ETC, RUN))
        try:
            yield
        finally:
            now = links((ETC, RUN))
            self._changed = {path for path in {*now, *before} if now.get(path) != before.get(path)}

    def put_back(self, manager: Manager) -> List[str]:
        """Put back links, profile, libvirt's key and running units; returns what could not be put back.

        :param manager: the run's connection; if it is broken, a new one is opened
        """
        try:
            with _alive(manager) as connection:
                problems = self._put_back(connection)
        except KvmhostError as error:
            self._put_links_back()
            problems = list(error.problems) + ["only the links of unit files are back"]
        return [
            f"putting things back: {problem}; 'kvmhost plan' shows what is different now"
            for problem in problems
        ]

    def _put_back(self, manager: Manager) -> List[str]:
        problems = self._put_objects_back()
        # Stop first, because systemd forgets how to stop a unit once it is masked.
        for step in (
            self._stop,
            self._put_unit_files_back,
            self._put_profile_back,
            self._put_key_back,
            self._start,
        ):
            try:
                problems += step(manager)
            except (BusError, OSError) as error:
                problems += problems_of(error)
        return problems

    def _put_objects_back(self) -> List[str]:
        if not self.steps:
            return []
        from .virt import child, objects  # not every host pays for their import
        from .virt.steps import back

        order = objects.order(self._plan.mode, back(self.steps), go_on=True)
        outcome = child.call(objects.__name__, "carry_out", order, _OBJECTS_SECONDS)
        late = f"networks and pools: not done within {_OBJECTS_SECONDS:g} s"
        return list(outcome.problems) + ([late] if outcome.overdue else [])

    def _put_unit_files_back(self, manager: Manager) -> List[str]:
        if self._put_links_back():
            manager.reload()
        return []

    def _put_links_back(self) -> bool:
        """Put the links back; True if any was different."""
        before = self._links
        if before is None:  # the run did not come that far
            return False
        now = links((ETC, RUN))

        def is_ours(path: str) -> bool:
            # Those that changed under the run's calls, and after one that systemd was too late for.
            ends = [path, before.get(path, ""), now.get(path, "")]
            names = map(os.path.basename, ends)
            return path in self._changed or any(name in self._plan.wishes for name in names)

        return put_links_back(now, before, is_ours)

    def _put_profile_back(self, manager: Manager) -> List[str]:
        if not self._profile_files:
            return []
        # If tuned was up or starting before the run, it runs on and has to be asked. Otherwise it
        # reads its files when it starts.
        was_up = _is_up(self._before.unit(tuned.SERVICE).active)
        if was_up and manager.units([tuned.SERVICE])[tuned.SERVICE].active == "active":
            refused = tuned.switch(manager, self._before.profile)
            return [f"tuned can't switch back: {refused}"] if refused else []
        for path, content in self._profile_files.items():
            if files.read(path) != content:
                files.restore(path, content)
        return []

    def _put_key_back(self, _manager: Manager) -> List[str]:
        aside = self._plan.key_aside
        if aside is not None and os.path.exists(aside):
            os.rename(aside, secret_key.PATH)
        return []

    def _stop(self, manager: Manager) -> List[str]:
        # This includes units that are still stopping: a start has to wait until they have stopped.
        return self._jobs(
            manager, "stop", lambda was, now: now == "deactivating" or not was and _is_up(now)
        )

    def _start(self, manager: Manager) -> List[str]:
        return self._jobs(manager, "start", lambda was, now: was and not _is_up(now))

    def _jobs(self, manager: Manager, verb: str, is_due: Callable[[bool, str], bool]) -> List[str]:
        """Run a job for each unit that ``is_due`` by whether it was up and its ActiveState now."""
        names = list(self._plan.wishes)
        now = manager.units(names)
        for name in names:
            if now[name].active == "failed" and self._before.unit(name).active != "failed":
                manager.reset_failed(name)
        units = [
            name
            for name in names
            if is_due(_is_up(self._before.unit(name).active), now[name].active)
        ]
        if verb == "start":  # each run that failed before this one has started them, too
            for name in units:
                manager.reset_failed(name)
        done = jobs.run(manager, verb, units, _SECONDS)
        return [f"{verb} {unit}: {result}" for unit, result in done.failures.items()]


@contextlib.contextmanager
def _alive(manager: Manager) -> Iterator[Manager]:
    """This connection if it works, else a new one.

    :raises KvmhostError: a new one can't be opened
    """
    try:
        manager.ping()
    except BusError as error:
        LOG.debug("connecting again: %s", error)
        with Manager(_SECONDS) as another:
            yield another
    else:
        yield manager


def _is_up(active: str) -> bool:
    return active not in ("inactive", "failed", "deactivating")


def links(tops: Iterable[str]) -> Dict[str, str]:
    """Every symbolic link below some directories: path -> target. Such links enable, mask or alias
    units."""
    found = {}
    for top in tops:
        for directory, subdirectories, entries in os.walk(top):
            for entry in entries + subdirectories:
                path = os.path.join(directory, entry)
                if os.path.islink(path):
                    found[path] = os.readlink(path)
    return found


def put_links_back(
    now: Mapping[str, str], before: Mapping[str, str], is_ours: Callable[[str], bool]
) -> bool:
    """Restore the links that are ours; True if any was different."""
    # Link by link, because enabling or disabling a unit would also change the units in its Also=,
    # and would miss links that an administrator made and [Install] does not name.
    different = [
        path
        for path in sorted(set(now).union(before))
        if now.get(path) != before.get(path) and is_ours(path)
    ]
    for path in different:
        files.remove(path)
        if path in before:
            files.make_directory(os.path.dirname(path))
            os.symlink(before[path], path)
    return bool(different)


def problems_of(error: BaseException) -> List[str]:
    return list(error.problems) if isinstance(error, KvmhostError) else [str(error)]
