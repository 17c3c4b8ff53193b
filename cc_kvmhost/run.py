"""Carries out a plan: the host ends as the section asks, or as it was before."""

import contextlib
import fcntl
import logging
import os
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import check, files, host, plan, tuned
from . import config as configuration
from .config import Config
from .errors import KvmhostError
from .host import Host
from .plan import Plan
from .report import Event, Report, Steps, of_failure, of_plan, of_run
from .systemd import failure, jobs
from .systemd.bus import BusError
from .systemd.jobs import JobResults, Jobs
from .systemd.manager import Manager, is_running
from .undo import Undo, problems_of
from .virt import level as levels
from .virt import secret_key, sockets
from .virt.daemons import endpoints, stamps
from .virt.mode import Choice
from .virt.units import socket_path

LOG = logging.getLogger(__name__)

LOCK = "/run/kvmhost/lock"
#: Limit for all steps of networks and pools together.
OBJECTS_SECONDS = 60.0
NO_SYSTEMD = "no systemd runs here (a container build or a chroot): nothing was done"


def preview(section: Any, force: bool = False) -> Report:
    """What apply() would do to this host; reads only.

    :raises KvmhostError: as apply() reports
    """
    steps = Steps()
    with steps.step("validate", "check the kvmhost section"):
        config = configuration.parse(section)
    if not is_running():
        return Report("skipped", None, NO_SYSTEMD)
    with _bus_errors(), Manager(config.timeout) as manager:
        with steps.step("inspect", "look at the host"):
            here = host.read(manager, config)
        with steps.step("plan", "choose the mode and what to change"):
            chosen = plan.make(config, here, force)
            report = of_plan(chosen, config, here, steps)
            made = None if chosen.changed else check.reuse(_order(chosen, here))
            return report._replace(check=made._asdict() if made else None)


def apply(section: Any, force: bool = False, event: Optional[Event] = None) -> Report:
    """Make this host as the section asks, or leave it as it was. If the section or the host is at
    fault, the report says "failed" and has the errors; nothing is raised.

    :param section: the value of the ``kvmhost`` key, unchecked
    :param force: switch modes although guests run
    :param event: called for each step
    """
    steps = Steps(event)
    choice: Optional[Choice] = None
    warnings: Tuple[str, ...] = ()
    try:
        with steps.step("validate", "check the kvmhost section"):
            config = configuration.parse(section)
        if not is_running():
            return _published(Report("skipped", None, NO_SYSTEMD, steps=tuple(steps.done)))
        deadline = time.monotonic() + config.timeout
        with _bus_errors(), _lock(deadline), Manager(config.timeout) as manager:
            with steps.step("inspect", "look at the host"):
                here = host.read(manager, config)
            with steps.step("plan", "choose the mode and what to change"):
                chosen = plan.make(config, here, force)
            choice, warnings = Choice(chosen.mode, chosen.reason), chosen.warnings
            starts, undo = Jobs(manager), Undo(here, chosen)
            report = _Run(manager, config, here, chosen, steps, deadline, starts, undo).carry_out()
    except KvmhostError as error:
        choice = error.choice if isinstance(error, plan.NoPlan) else choice
        report = of_failure(error.problems, choice, steps)._replace(warnings=warnings)
    return _published(report)


def _published(report: Report) -> Report:
    report.write()
    LOG.info("kvmhost: %s", report.summary())
    return report


def prove(
    section: Any, level: Optional[str] = None, networks: bool = False, pools: bool = False
) -> Report:
    """Check that this host hosts guests, whatever an earlier check has found. Changes nothing.

    :param level: another one than the section's
    :param networks: give the guest a NIC on each of the section's NAT networks
    :param pools: make a volume in each of the section's dir pools, and remove it
    :raises KvmhostError: as apply() reports
    """
    from .virt import validate  # no run needs it

    steps = Steps()
    with steps.step("validate", "check the kvmhost section"):
        config = configuration.parse(section)
    if level is not None:
        config = config._replace(check=level)
    if not is_running():
        raise KvmhostError([NO_SYSTEMD])
    with _bus_errors(), _lock(time.monotonic() + config.timeout), Manager(
        config.timeout
    ) as manager:
        with steps.step("inspect", "look at the host"):
            here = host.read(manager, config)
        with steps.step("plan", "choose the mode"):
            chosen = plan.make(config, here, force=True)
            order = _order(chosen, here)._replace(
                networks=_networks_to_check(config, chosen) if networks else (),
                pools=_pools_to_check(config, chosen) if pools else {},
            )
        up = [unit for unit, wish in chosen.wishes.items() if wish.active]
        warnings = chosen.warnings + tuple(validate.findings())
        report = Report("ok", chosen.mode, chosen.reason, warnings=warnings)
        report = report._replace(kvm=here.kvm._asdict())
        problems = sockets.problems(sockets.refusals(up))
        with steps.step("check", check.DESCRIPTION):
            made, more = check.run(manager, order)
        problems += more + ([chosen.fault] if chosen.fault else [])
        if chosen.key_aside is not None:
            problems.append(secret_key.useless(here.secret_key))
        if problems:
            made = made._replace(passed=False, error="; ".join(problems))
        report = report._replace(check=made._asdict())
    return report._replace(
        result="failed" if problems else "ok", errors=tuple(problems), steps=tuple(steps.done)
    )


def _order(chosen: Plan, here: Host) -> check.Order:
    """What the check of a plan has to check."""
    listening = [unit for unit, wish in chosen.wishes.items() if wish.active]
    daemons = endpoints(chosen.mode, listening, here.means.binding)
    services = (daemon.name for daemon in daemons)
    failing = ("failed", "activating")
    failed = [name for name in services if here.unit(name + ".service").active in failing]
    return check.Order(
        str(chosen.level),
        chosen.mode,
        daemons,
        here.means.arch,
        bool(here.kvm.usable),
        stamps(daemons, here.means.arch),
        tuple(failed),
    )


def _networks_to_check(config: Config, chosen: Plan) -> Tuple[str, ...]:
    """NAT networks: whatever appears on a bridge, others of its network see."""
    names = tuple(each.name for each in config.networks if each.mode == "nat")
    if not names:
        raise KvmhostError(["--networks: the section asks for no network with mode nat"])
    if chosen.level != levels.GUEST:
        raise KvmhostError([f"--networks: needs a guest, and the level is {chosen.level}"])
    return names


def _pools_to_check(config: Config, chosen: Plan) -> Dict[str, str]:
    """Directories: a volume group may be other hosts' too."""
    names = {each.name: each.path for each in config.pools if each.type == "dir"}
    if not names:
        raise KvmhostError(["--pools: the section asks for no pool with type dir"])
    if chosen.level == levels.SOCKETS:
        raise KvmhostError(["--pools: needs the level daemons or guest, and it is sockets"])
    return names


class _Run(NamedTuple):
    """One run, from the first change to the last look. ``deadline``: for all jobs, in
    time.monotonic() seconds. ``starts``: the start jobs."""

    manager: Manager
    config: Config
    before: Host
    plan: Plan
    steps: Steps
    deadline: float
    starts: Jobs
    undo: Undo

    def carry_out(self) -> Report:
        if not self.plan.is_empty:
            check.forget()
        try:
            self._set_key_aside()
            self._set_profile()
            self._start_tuned()
            self._change_unit_files()
            self._stop()
            self._reload(plan.BEFORE_START)
            started = self._start()
            after = self._verify(started)
            after = self._change_objects(after)
        except (KvmhostError, BusError, OSError) as error:
            problems = problems_of(error)
            with self.steps.step("undo", "put back what was changed"):
                problems += self.undo.put_back(self.manager)
            raise KvmhostError(problems) from error
        except BaseException:
            self.undo.put_back(self.manager)
            raise
        report = of_run(self.plan, self.config, self.before, after, started.queued, self.steps)
        problems = []
        try:
            report, problems = self._check(report)
        finally:
            # While systemd reloads it starts nothing, so the check's daemons would wait for it.
            problems += self._reload_at_last()
        return report._replace(
            result="failed" if problems else "ok",
            errors=tuple(problems),
            changes_kept=bool(problems),
            steps=tuple(self.steps.done),
        )

    def _check(self, report: Report) -> Tuple[Report, List[str]]:
        """Check; returns the report with the check, and the problems. If the check fails, nothing is put
        back: the units are as asked, and putting them back would not make this machine host guests."""
        order = _order(self.plan, self.before)
        made = None if self.plan.changed else check.reuse(order)
        problems: List[str] = []
        waiting = [unit for unit in report.queued if socket_path(unit)]
        if waiting:
            problem = f"not checked: {', '.join(waiting)} wait for cloud-init; run 'kvmhost check'"
            report = report._replace(warnings=report.warnings + (problem,))
        elif made is None:
            try:
                with self.steps.step("check", check.DESCRIPTION):
                    made, problems = check.run(self.manager, order)
            except (KvmhostError, BusError, OSError) as error:
                problems = problems_of(error)
        if self.plan.fault:
            problems.append(self.plan.fault)
        return report._replace(check=made._asdict() if made else None), problems

    def _reload_at_last(self) -> List[str]:
        """A reload that nobody waits for; returns why it failed."""
        try:
            self._reload(plan.AFTER_RUN)
        except (BusError, OSError) as error:
            return problems_of(error)
        return []

    def _set_key_aside(self) -> None:
        if self.plan.key_aside is not None:
            with self.steps.step("secret-key", "rename libvirt's key for secrets"):
                os.rename(secret_key.PATH, self.plan.key_aside)

    def _start_tuned(self) -> None:
        # tuned takes longest to start, so its job is queued first and runs beside the rest. If the
        # start jobs need a reload, tuned waits for it too: before that, its job could start units
        # that are about to be masked.
        early = tuned.SERVICE in set(self.plan.start) - set(self.plan.reset)
        if early and self.plan.reload != plan.BEFORE_START:
            self.starts.queue("start", [tuned.SERVICE])

    def _change_unit_files(self) -> None:
        if self.plan.unit_file_changes:
            with self.steps.step("unit-files", "enable, disable and mask units"):
                with self.undo.watching_links():
                    for verb, units in self.plan.unit_file_changes:
                        self.manager.change_unit_files(verb, units)

    def _stop(self) -> None:
        # Stop before the reload, because systemd forgets how to stop a unit once it is masked.
        if self.plan.stop or self.plan.reset:
            with self.steps.step("stop", "stop the units that are not wanted"):
                done = jobs.run(self.manager, "stop", self.plan.stop, self._seconds_left())
                self._require(done, "stop")
                # A unit that fails while it stops has stopped all the same: make it inactive.
                stopped = self.manager.units(self.plan.stop)
                failed = tuple(unit for unit in stopped if stopped[unit].active == "failed")
                for unit in self.plan.reset + failed:
                    self.manager.reset_failed(unit)
                # If somebody reloaded systemd after the mask and before the stop, the stopped
                # socket's path is still there, and clients would try it. Remove the path only if
                # nobody listens on it: when systemd re-executes, it hands the masked socket's
                # descriptor to the other mode's socket with the same path.
                for unit in self.plan.stop:
                    path = socket_path(unit)
                    if path and sockets.is_deserted(path):
                        files.remove(path)

    def _reload(self, when: str) -> None:
        if self.plan.reload == when:
            with self.steps.step("reload", "have systemd read its unit files again"):
                self.manager.reload(wait=when == plan.BEFORE_START)

    def _set_profile(self) -> None:
        name = self.plan.profile
        if name is None:
            return
        with self.steps.step("profile", "set tuned's profile"):
            if self.before.unit(tuned.SERVICE).active == "active":
                self._switch_profile(name)
            else:
                tuned.write(name)

    def _switch_profile(self, name: str) -> None:
        refused = tuned.switch(self.manager, tuned.Profile(name, True))
        if refused:
            raise KvmhostError(
                [
                    f"kvmhost.tuned.profile: tuned can't switch to {name}: {refused};"
                    f" see 'journalctl -u {tuned.SERVICE} -b'"
                ]
            )

    def _start(self) -> JobResults:
        if not self.plan.start:
            return JobResults({}, ())
        with self.steps.step("start", "start the units"):
            begun = self.starts.units
            self.starts.queue("start", [unit for unit in self.plan.start if unit not in begun])
            done = self.starts.finish(self._seconds_left())
            self._require(done, "start")
        return done

    def _correct_profile(self, after: Host) -> Host:
        """A tuned that was on its way up may have read its files before they were written, by this
        run or by one that was killed, and writes them itself. It can be asked to switch only once it
        is up."""
        name = self.config.profile if self.config.tuned else None
        is_up = after.unit(tuned.SERVICE).active == "active"
        if name is None or not is_up or after.profile == tuned.Profile(name, True):
            return after
        self._switch_profile(name)
        return after._replace(profile=tuned.ask(self.manager))

    def _verify(self, started: JobResults) -> Host:
        """Look again: the host is as asked if a new plan is empty."""
        with self.steps.step("verify", "look at the host again"):
            after = self.before
            if not self.plan.is_empty:
                switched = self.plan.profile is not None or tuned.SERVICE in self.plan.start
                known = None if switched else self.before.profile
                # A unit from ``units`` may change unit files when it starts.
                written = bool(self.plan.unit_file_changes or self.config.units)
                seen = host.read(self.manager, self.config, known, self.before, written)
                after = self._correct_profile(seen)
            choice = Choice(self.plan.mode, self.plan.reason)
            left = plan.make_for(choice, self.config, after, force=True)
            # A service from ``units`` may have ended because its work is done.
            ended = set(self.config.units).intersection(started.results)
            accepted = {"start " + unit for unit in ended.union(started.queued)}
            accepted.update(map(str, left.steps))  # these come next
            up = [unit for unit, wish in left.wishes.items() if wish.active]
            refused = sockets.refusals(set(up).difference(started.queued))
            problems = sockets.problems(refused)
            problems += [
                f"{change}: still to do after the run; see 'systemctl status {change.split()[-1]}'"
                for change in left.changed
                if change not in accepted and not refused.get(change.split()[-1])
            ]
            if problems:
                raise KvmhostError(problems)
        return after

    def _change_objects(self, after: Host) -> Host:
        """Define, change and start networks and pools through their daemons, which can be reached by
        now. Returns the host afterwards."""
        if not self.plan.steps:
            return after
        from .virt import child, objects  # not every host pays for their import

        with self.steps.step("objects", "define and start networks and pools"):
            order = objects.order(self.plan.mode, self.plan.steps)
            self.undo.steps = self.plan.steps  # any of them, if this is interrupted
            outcome = child.call(objects.__name__, "carry_out", order, OBJECTS_SECONDS)
            # How far it got: the step that it was at, and the last one that it has begun.
            got = {key: number for said in outcome.said for key, number in said.items()}
            at = self.plan.steps[got.get("at", 0)]
            self.undo.steps = self.plan.steps[: got.get("begun", -1) + 1]
            problems = list(outcome.problems)
            if outcome.overdue:
                problems.append(f"{at}: not done within {OBJECTS_SECONDS:g} s")
            if not problems:
                seen = host.read_objects(self.config)
                after = after._replace(objects=seen)
                choice = Choice(self.plan.mode, self.plan.reason)
                left = plan.make_for(choice, self.config, after, force=True)
                problems = [f"{step}: still to do after the run" for step in left.steps]
            if problems:
                service = objects.service(self.plan.mode, at.kind)
                raise KvmhostError(f"{each}; see 'journalctl -u {service} -b'" for each in problems)
        return after

    def _require(self, done: JobResults, verb: str) -> None:
        problems = [
            _job_problem(self.manager, verb, unit, result, self.config.timeout)
            for unit, result in done.failures.items()
        ]
        if problems:
            raise KvmhostError(problems)

    def _seconds_left(self) -> float:
        return max(self.deadline - time.monotonic(), 0.0)


def _job_problem(manager: Manager, verb: str, unit: str, result: str, timeout: int) -> str:
    """A sentence about a failed job: the unit's own result, and the command that shows its log."""
    details = []
    if result == "timeout":
        details.append(f"not done within the {timeout} s of kvmhost.timeout")
    details += failure.details(manager, manager.units([unit])[unit])
    known = f" ({', '.join(details)})" if details else ""
    return f"{verb} {unit}: job result {result}{known}; see 'journalctl -u {unit} -b'"


@contextlib.contextmanager
def _bus_errors() -> Iterator[None]:
    """Turn an error of a call before the first change into a KvmhostError."""
    try:
        yield
    except BusError as error:
        raise KvmhostError(
            [f"systemd did not do what it was asked: {error}; see 'journalctl -b'"]
        ) from error


@contextlib.contextmanager
def _lock(deadline: float) -> Iterator[None]:
    """Let one run work at a time. The kernel releases the lock when the process ends, in any way.

    :raises KvmhostError: another run holds it until the deadline (time.monotonic() seconds)
    """
    try:
        files.make_directory(os.path.dirname(LOCK))
        descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KvmhostError(
            [f"{LOCK}: can't be opened: {error.strerror}; a run needs root"]
        ) from error
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise KvmhostError(
                    [f"another kvmhost run is at work (it holds {LOCK}); try again later"]
                )
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
