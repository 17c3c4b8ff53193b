"""The report of a run: the same shape in the report file, and from apply, plan and status."""

import contextlib
import json
import logging
import os
import time
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

from . import files
from .config import Config
from .host import Host
from .plan import Plan
from .virt.mode import Choice

LOG = logging.getLogger(__name__)

PATH = "/run/kvmhost/report.json"

#: Called with a step's name and description; the step runs in the context that it returns.
Event = Callable[[str, str], ContextManager[Any]]


class Steps:
    """The steps of a run; each is also an event for cloud-init's reporters.

    ``done``: name and duration in milliseconds of each step, in order. A failed step is the last.
    """

    def __init__(self, event: Optional[Event] = None) -> None:
        self._event = event
        self.done: List[Tuple[str, float]] = []

    @contextlib.contextmanager
    def step(self, name: str, description: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            with self._event(name, description) if self._event else contextlib.ExitStack():
                yield
        finally:
            self.done.append((name, round(1000 * (time.monotonic() - start), 1)))
            LOG.debug("%s (%s): %.1f ms", name, description, self.done[-1][1])


class Report(NamedTuple):
    """What a run did, or what a plan would do.

    ``result``: ok, failed, skipped, planned. ``mode``: None if none could be chosen. ``changed``: one
    sentence per change. ``queued``: units whose start waits for cloud-init. ``units``: name ->
    {"before", "after"}, each {"file_state", "active"}. ``tuned``: {"before", "after"}, the profiles;
    empty if tuned is left alone. ``networks``, ``pools``: those from the section, name -> {"before",
    "after"}; null where it does not exist. ``warnings``: what the user should know although the run
    did not fail. ``kvm``: the fields of kvm.Kvm; None if nobody looked. ``check``: the fields of
    check.Check; None if there was no check. ``changes_kept``: the run failed after it had made all
    changes, and they stay.
    """

    result: str
    mode: Optional[str]
    reason: str
    changed: Tuple[str, ...] = ()
    queued: Tuple[str, ...] = ()
    units: Dict[str, Dict[str, Dict[str, str]]] = {}
    tuned: Dict[str, str] = {}
    networks: Dict[str, Dict[str, Any]] = {}
    pools: Dict[str, Dict[str, Any]] = {}
    steps: Tuple[Tuple[str, float], ...] = ()
    errors: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()
    kvm: Optional[Dict[str, Any]] = None
    check: Optional[Dict[str, Any]] = None
    changes_kept: bool = False

    def to_json(self) -> Dict[str, Any]:
        """As JSON values; ``steps`` become {"name", "ms"}."""
        steps = [{"name": name, "ms": ms} for name, ms in self.steps]
        content = dict(self._asdict(), steps=steps)
        return json.loads(json.dumps(content))  # type: ignore[no-any-return]

    def write(self) -> None:
        """Write the report file. A full or read-only /run is logged, not an error."""
        try:
            files.make_directory(os.path.dirname(PATH))
            text = json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n"
            files.replace(PATH, text.encode())
        except OSError as error:
            LOG.warning("%s can't be written: %s", PATH, error.strerror)

    def summary(self) -> str:
        """The report in one line, for logs."""
        if self.result == "failed":
            number = len(self.changed)
            changes = f"{number} changes are" if number != 1 else "1 change is"
            kept = f" ({changes} kept)" if self.changes_kept else ""
            return f"failed{kept}: " + "; ".join(self.errors)
        if self.result == "skipped":
            return "skipped: " + self.reason
        total = sum(ms for _, ms in self.steps)
        number = len(self.changed)
        changes = f"{number} change{'s' * (number > 1)}" if number else "nothing to change"
        waiting = ", queued: " + ", ".join(self.queued) if self.queued else ""
        findings = "".join(f", {each}" for each in (self.kvm_in_words, self.check_in_words) if each)
        return f"{self.mode} mode ({self.reason}), {changes}{waiting}{findings}, {total:.0f} ms"

    @property
    def kvm_in_words(self) -> str:
        if not self.kvm:
            return ""
        return {True: "KVM can be used", False: "KVM can't be used"}.get(self.kvm["usable"], "")

    @property
    def check_in_words(self) -> str:
        """How far the check went, if it passed."""
        if not self.check or not self.check["passed"]:
            return ""
        accelerator = str(self.check["accelerator"]).upper()
        proof = {"guest": f"a guest ran by {accelerator}", "daemons": "all daemons answer"}
        if self.check["level"] not in proof:
            return "all sockets can be reached"
        words = proof[self.check["level"]]
        if self.check["networks"]:
            words += f" with a NIC on {', '.join(self.check['networks'])}"
        if self.check["pools"]:
            words += f", a volume was made in {', '.join(self.check['pools'])}"
        earlier = " by an earlier run" if self.check["reused"] else ""
        return f"{words} (checked in {self.check['milliseconds']:.0f} ms{earlier})"


def of_plan(plan: Plan, config: Config, host: Host, steps: Steps) -> Report:
    """The report of a plan: its states "after" are those that the run is to reach."""
    units = {}
    for name, wish in plan.wishes.items():
        before = _state(host, name)
        after = dict(before)
        if wish.masked:
            after["file_state"] = "masked"
        elif name in plan.enable:
            after["file_state"] = "enabled"
        elif name in plan.disable + plan.disable_runtime:
            after["file_state"] = "disabled"
        if name in plan.start:
            after["active"] = "active"
        elif name in plan.stop + plan.reset:
            after["active"] = "inactive"
        units[name] = {"before": before, "after": after}
    after_profile = host.profile.name if plan.profile is None else plan.profile
    return Report(
        "planned",
        plan.mode,
        plan.reason,
        tuple(plan.changed),
        units=units,
        tuned=_profiles(config, host.profile.name, after_profile),
        networks=_objects(plan.networks, host.objects and host.objects.networks, plan.networks),
        pools=_objects(plan.pools, host.objects and host.objects.pools, plan.pools),
        steps=tuple(steps.done),
        warnings=plan.warnings,
        kvm=host.kvm._asdict() if host.running else None,
    )


def of_run(
    plan: Plan, config: Config, before: Host, after: Host, queued: Tuple[str, ...], steps: Steps
) -> Report:
    units = {
        name: {"before": _state(before, name), "after": _state(after, name)} for name in plan.wishes
    }
    return Report(
        "ok",
        plan.mode,
        plan.reason,
        tuple(plan.changed),
        queued,
        units,
        _profiles(config, before.profile.name, after.profile.name),
        _objects(
            plan.networks, *(host.objects and host.objects.networks for host in (before, after))
        ),
        _objects(plan.pools, *(host.objects and host.objects.pools for host in (before, after))),
        tuple(steps.done),
        warnings=plan.warnings,
        kvm=before.kvm._asdict() if before.running else None,
    )


def of_failure(problems: Iterable[str], choice: Optional[Choice], steps: Steps) -> Report:
    """The report of a run that failed. ``choice``: the mode, if one was chosen."""
    return Report(
        "failed",
        choice.mode if choice else None,
        choice.reason if choice else "",
        steps=tuple(steps.done),
        errors=tuple(problems),
    )


def _objects(names: Iterable[str], before: Any, after: Any) -> Dict[str, Dict[str, Any]]:
    """Networks or pools; ``before`` and ``after``: by name, or None."""

    def shown(name: str, states: Any) -> Any:
        return states[name].shown() if states and name in states else None

    return {name: {"before": shown(name, before), "after": shown(name, after)} for name in names}


def _state(host: Host, name: str) -> Dict[str, str]:
    unit = host.unit(name)
    return {"file_state": unit.file_state, "active": unit.active}


def _profiles(config: Config, before: str, after: str) -> Dict[str, str]:
    return {"before": before, "after": after} if config.tuned else {}
