"""Checks that this machine hosts guests: libvirt's daemons answer a client, and a guest runs.

A child process makes every call to libvirt and is killed at its deadline.
"""

import contextlib
import json
import os
import signal
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from . import files
from .systemd import failure
from .systemd.manager import Manager
from .virt import guest, level, probe, units, volumes
from .virt.daemons import Endpoint

#: Seconds for the child that checks, and for the child that cleans up after it.
SECONDS = 60.0
SECONDS_TO_CLEAR = 10.0

#: The check that passed last. It is in /run because each boot has to be checked anew.
RECORD = "/run/kvmhost/check.json"

#: Describes the step in cloud-init's reporting.
DESCRIPTION = "wake libvirt's daemons and run a guest"

_CHILD = "cc_kvmhost.virt.probe"


class Check(NamedTuple):
    """A check, as the report shows it. ``accelerator``: the guest's, kvm or tcg; None without a
    guest. ``error``: "" if it passed. ``reused``: an earlier run since boot made it, and nothing was
    changed since. ``networks``, ``pools``: those that the guest had a NIC on, and a volume was made
    in."""

    level: str
    passed: bool
    accelerator: Optional[str] = None
    milliseconds: float = 0.0
    error: str = ""
    reused: bool = False
    networks: Tuple[str, ...] = ()
    pools: Tuple[str, ...] = ()


class Order(NamedTuple):
    """What is to be checked. ``mode``: libvirt's. ``kvm``: the guest is to use KVM. ``stamps``: of
    the files that the answer hangs on. ``failed``: daemons whose service has failed, or is starting
    and may be on its way there again. ``networks``: the guest is to have a NIC on each. ``pools``: a
    volume is to be made in each; name -> directory."""

    level: str
    mode: str
    daemons: Tuple[Endpoint, ...]
    arch: str
    kvm: bool
    stamps: Tuple[Tuple[str, int, int], ...] = ()
    failed: Tuple[str, ...] = ()
    networks: Tuple[str, ...] = ()
    pools: Mapping[str, str] = {}

    def as_usual(self) -> "Order":
        """Without what is checked on demand only."""
        return self._replace(networks=(), pools={})


def reuse(order: Order) -> Optional[Check]:
    """The check that passed last, if it proved at least what this order wants, and libvirt and QEMU
    are those that it was made with."""
    try:
        record = json.loads((files.read(RECORD) or b"null").decode())
        if record:
            check = Check(**record["check"])
            same = not order.failed and record["order"][1:] == json.loads(json.dumps(order))[1:]
            if same and level.LEVELS.index(check.level) >= level.LEVELS.index(order.level):
                return check._replace(reused=True, networks=(), pools=())
    except (ValueError, TypeError, KeyError):  # not of this version's making
        pass
    return None


def forget() -> None:
    """Remove the record, because it does not hold for a host that changes."""
    files.remove(RECORD)


def run(manager: Manager, order: Order) -> Tuple[Check, List[str]]:
    """Check; returns the result, and each problem as a sentence."""
    start = time.monotonic()
    accelerator, problems = _prove(manager, order) if order.level != level.SOCKETS else (None, [])
    milliseconds = round(1000 * (time.monotonic() - start), 1)
    check = Check(order.level, not problems, accelerator, milliseconds, "; ".join(problems))
    if problems:
        forget()
    elif not reuse(order.as_usual()):
        record = {"order": order.as_usual()._replace(failed=()), "check": check._asdict()}
        with contextlib.suppress(OSError):  # then the next run checks again
            files.replace(RECORD, json.dumps(record).encode() + b"\n")
    return check._replace(networks=order.networks, pools=tuple(order.pools)), problems


def _prove(manager: Manager, order: Order) -> Tuple[Optional[str], List[str]]:
    """Let a child wake the daemons and run the guest; returns the accelerator and the problems."""
    from .virt import child

    qemu = _endpoint(order, "qemu")
    nonce = guest.new_nonce()
    name = guest.PREFIX + nonce[:8]
    wanted = _guest(order, qemu.name, nonce) if order.level == level.GUEST and qemu else None
    pools = _pools(order, nonce) if order.pools else None
    question = {"daemons": order.daemons, "guest": wanted, "pools": pools}
    try:
        outcome = child.call(_CHILD, "prove", question, SECONDS)
    except BaseException:  # interrupted
        if wanted or pools:
            _clear(qemu if wanted else None, name, order.pools)
        raise
    said = {each["daemon"]: each["problem"] for each in outcome.said if "daemon" in each}
    silence = f"does not answer within {SECONDS:g} s"
    answers = {
        daemon.name: said.get(daemon.name, silence)
        for daemon in order.daemons
        if daemon.name in said or outcome.overdue
    }
    _forgive_proxy(order, answers)
    problems = list(outcome.problems) + _daemon_problems(manager, answers)
    result = outcome.result or {"accelerator": None, "problems": (), "pools": ()}
    failed = list(result["problems"]) + _overdue(outcome, "guest")
    if wanted and qemu:
        problems += [
            f"the check's guest {wanted['name']}, {each}; see 'journalctl -u {qemu.name}.service -b'"
            for each in failed
        ]
    failed_pools = list(result["pools"] or ()) + _overdue(outcome, "pool")
    if pools:
        log = f"see 'journalctl -u {pools['daemon']}.service -b'"
        problems += [f"{each}; {log}" for each in failed_pools]
        if result["pools"] is None and not problems:
            problems.append(f"the pools were not checked; {log}")
    if (wanted or pools) and (failed or failed_pools or outcome.overdue or outcome.problems):
        # A daemon that was never reached has nothing of ours.
        reached = wanted and qemu and {"daemon": qemu.name, "problem": ""} in outcome.said
        problems += _clear(qemu if reached else None, name, order.pools)
    if outcome.overdue and not problems:
        problems.append(f"the check is not done within {SECONDS:g} s")
    return result["accelerator"], problems


def _endpoint(order: Order, driver: str) -> Optional[Endpoint]:
    return next((each for each in order.daemons if each.driver == driver), None)


def _overdue(outcome: Any, key: str) -> List[str]:
    """What the child was at, of what it says by this key, when its time was over."""
    steps = [each[key] for each in outcome.said if key in each]
    if not outcome.overdue or not steps or steps[-1] == probe.DONE:
        return []
    at = f"a volume in pool {steps[-1]}" if key == "pool" else steps[-1]
    return [f"{at}: not done within {SECONDS:g} s"]


def _forgive_proxy(order: Order, answers: Dict[str, str]) -> None:
    """Leave virtproxyd's silence out if the daemon that it passes questions on to is silent too."""
    proxy = next((each for each in order.daemons if each.name == units.PROXY), None)
    if proxy and proxy.driver:
        behind = next(each for each in order.daemons if each.driver == proxy.driver)
        if behind != proxy and answers.get(behind.name):
            answers.pop(proxy.name, None)


def _guest(order: Order, daemon: str, nonce: str) -> Dict[str, Any]:
    """What guest.run() wants; ``daemon``: which one is to run it."""
    more = {"nonce": nonce, "arch": order.arch, "kvm": order.kvm, "networks": order.networks}
    return {"daemon": daemon, "name": guest.PREFIX + nonce[:8], **more}


def _pools(order: Order, nonce: str) -> Dict[str, Any]:
    """What volumes.prove() wants; ``daemon``: which one has the pools."""
    storage = _endpoint(order, "storage") or _endpoint(order, "qemu")
    assert storage  # a plan with pools has it
    names = list(order.pools)
    return {"daemon": storage.name, "names": names, "volume": volumes.name(nonce[:8])}


def _daemon_problems(manager: Manager, answers: Mapping[str, str]) -> List[str]:
    """A sentence for each daemon that did not answer or has failed since, with what systemd knows.

    :param answers: daemon -> what is wrong with it, "" if nothing
    """
    states = manager.units([daemon + ".service" for daemon in answers])
    problems = []
    for daemon, answer in answers.items():
        service = daemon + ".service"
        if not answer and states[service].active != "active":
            answer = "has answered, and does not run any more"
        if answer:
            details = ", ".join(failure.details(manager, states[service]))
            problems.append(f"{service}: {answer} ({details}); see 'journalctl -u {service} -b'")
    return problems


def _clear(qemu: Optional[Endpoint], name: str, pools: Mapping[str, str]) -> List[str]:
    """Remove what a child left that failed or was killed; returns what is left all the same.

    :param qemu: the daemon that has the guest; None: it was never reached, so it has nothing
    :param pools: those that may have a volume of its; name -> directory
    """
    from .virt import child

    # The daemon may hang, so don't rely on it: kill the guest's process first.
    for pid in guest.processes(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    order = {"daemon": qemu, "directories": list(pools.values())}
    outcome = child.call(_CHILD, "clear", order, SECONDS_TO_CLEAR)
    left = list(outcome.result or outcome.problems)
    left += [f"process {pid}" for pid in guest.processes(name)]
    problems = [f"{name} has left {each}, which the next check removes" for each in left]
    if qemu and outcome.overdue:
        problems.append(
            f"{qemu.name}.service does not answer any more; what it keeps of {name} goes when it does,"
            f" or with the next check; see 'journalctl -u {qemu.name}.service -b'"
        )
    return problems
