"""Whether the host is as asked right now: enabled, listening, reachable."""

from typing import Any, Dict, Tuple

from . import config as configuration
from . import run
from .report import Report
from .virt import sockets


def look(section: Any) -> Tuple[Report, Dict[str, str]]:
    """Compare the host with a section; reads only.

    :return: the report, and a mapping: each libvirt socket that must listen and that this user may
        look at -> why it can't be reached, "" if it can. The report's ``errors`` say what does not
        hold, its ``changed`` what a run would do about it.
    :raises KvmhostError: there is no plan for this host
    """
    report = run.preview(section, force=True)
    wanted = [
        unit for unit, states in report.units.items() if states["after"]["active"] == "active"
    ]
    refused = sockets.refusals(wanted)
    errors = sockets.problems(refused)
    unseen = sockets.hidden(wanted)
    if unseen:
        errors.append(f"only root may look at {', '.join(unseen)}; run this as root")
    if report.kvm and not report.kvm["usable"] and configuration.parse(section).kvm == "require":
        what = "KVM can't be used" if report.kvm["usable"] is False else "not known"
        errors.append(f"kvmhost.kvm: require: {what}: {report.kvm['reason']}")
    errors += [f"not as asked; still to do: {change}" for change in report.changed]
    if report.result == "skipped":
        errors = [report.reason]
    return report._replace(result="failed" if errors else "ok", errors=tuple(errors)), refused
