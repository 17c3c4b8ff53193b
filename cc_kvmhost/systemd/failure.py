"""What systemd knows about a unit that failed."""

from typing import List

from .manager import Manager, UnitState

#: Exit statuses of services that systemd could not start. Source: systemd.exec(5).
_STATUSES = {
    200: "CHDIR",
    203: "EXEC",
    217: "USER",
    226: "NAMESPACE",
    243: "CREDENTIALS",
}


def details(manager: Manager, state: UnitState) -> List[str]:
    """The unit's Result unless it is success, and a service's exit status; only its LoadState if it could not be loaded."""
    kind = state.name.rsplit(".", 1)[1].capitalize()
    if state.load != "loaded":
        return [state.load]
    found = []
    if kind in ("Service", "Socket", "Mount", "Swap"):
        result = manager.property(state.path, kind, "Result", "s").decode()
        if result != "success":  # as of a unit that was never begun to be started
            found.append(result)
    if kind == "Service":
        status = manager.property(state.path, kind, "ExecMainStatus", "i")
        name = f"/{_STATUSES[status]}" if status in _STATUSES else ""
        found.append(f"exit status {status}{name}")
    return found
