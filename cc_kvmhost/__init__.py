"""Kvmhost: makes the machine a KVM host at first boot."""

import logging
from typing import Any

# Nothing that can be missing is imported here: an ImportError at this level would end cloud-init's
# whole stage. What a machine without a section pays for is this file alone.

LOG = logging.getLogger(__name__)

meta = {
    "id": "cc_kvmhost",
    "name": "Kvmhost",
    "title": "Make the machine a KVM host",
    "description": "Runs libvirt in one of its modes, and tuned, as the kvmhost key asks.",
    "distros": ["all"],
    "frequency": "once-per-instance",
    "activate_by_schema_keys": ["kvmhost"],
    "examples": [],
}


# The parameters: five by position up to cloud-init 22.4, four by name since 23.2, which takes
# exactly five declared ones for the old form and says it is deprecated.
def handle(name: str, cfg: Any, cloud: Any, log: Any = None, args: Any = None, *_: Any) -> None:
    """Apply the kvmhost section of this instance's configuration.

    :raises cc_kvmhost.errors.KvmhostError: the section or the host is at fault; nothing is left
        changed
    """
    if "kvmhost" not in cfg:
        LOG.debug("no kvmhost key: nothing to do")
        return
    from cloudinit.reporting import events

    from . import run
    from .errors import KvmhostError

    def event(step: str, description: str) -> Any:
        return events.ReportEventStack("modules-final/config-kvmhost/" + step, description)

    report = run.apply(cfg["kvmhost"], event=event)
    # The steps' descriptions say what is done; this one, for a fleet's collector, what came of it.
    with event("result", " ".join(report.summary().split())):
        if report.errors:
            raise KvmhostError(report.errors)
