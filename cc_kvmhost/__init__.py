"""Kvmhost: makes the machine a KVM host at first boot."""

import logging
from typing import Any

# Import nothing here that may be missing: an ImportError ends cloud-init's whole stage. Without a
# kvmhost key, this file is all that gets loaded.

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


# cloud-init up to 22.4 passes five arguments by position, 23.2 and later four by name. The latter
# logs a deprecation for exactly five declared parameters.
def handle(name: str, cfg: Any, cloud: Any, log: Any = None, args: Any = None, *_: Any) -> None:
    """Apply the kvmhost section of this instance's configuration.

    :raises cc_kvmhost.errors.KvmhostError: the section or the host is at fault. The host is as it
        was before, unless everything was applied and what comes then failed: the check, or
        systemd's reload of its unit files.
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
    # cloud-init counts these: its status then says "degraded" and lists them.
    for warning in report.warnings:
        LOG.warning("kvmhost: %s", warning)
    # The other events report the steps; this one reports the result, for a fleet's collector.
    with event("result", " ".join(report.summary().split())):
        if report.errors:
            raise KvmhostError(report.errors)
