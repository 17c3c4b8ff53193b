"""One unit: how it shall be, and what has to be done for that."""

from typing import NamedTuple, Optional, Tuple

from .host import Unit

ENABLED = ("enabled", "enabled-runtime")
#: Unit file states that enabling can't change: nothing in [Install], or not a file of its own.
_FIXED = ("static", "indirect", "generated", "transient", "linked", "linked-runtime")


class Wish(NamedTuple):
    """How a unit shall be. None: left as it is."""

    enabled: Optional[bool] = None
    active: Optional[bool] = None
    masked: bool = False


ON = Wish(enabled=True, active=True)
AT_BOOT = Wish(enabled=True)
NOT_AT_BOOT = Wish(enabled=False)
OFF = Wish(enabled=False, active=False)
#: Not masked, otherwise left as it is.
LEFT = Wish()
#: The other mode's units: they win at the next boot if anything can start them.
AWAY = Wish(enabled=False, active=False, masked=True)


def unit_file_verbs(state: str, wish: Wish) -> Tuple[str, ...]:
    """What becomes of one unit file.

    :param state: its UnitFileState
    :return: of "unmask", "disable", "disable_runtime", "enable", "mask", in the order of the calls
    """
    if wish.masked:
        if state == "masked":
            return ()
        # Disabled too, or removing the mask by hand would bring the unit back.
        if state in ENABLED:
            return ("disable" if state == "enabled" else "disable_runtime", "mask")
        return ("mask",)
    if state == "masked":
        if wish.enabled is None:
            return ("unmask",)
        # Only without its mask a unit shows whether it is enabled.
        return ("unmask", "enable" if wish.enabled else "disable")
    if wish.enabled is False and state in ENABLED:
        return ("disable" if state == "enabled" else "disable_runtime",)
    # A unit that is enabled until the next reboot is enabled for good.
    if wish.enabled and state not in _FIXED + ("enabled", "alias"):
        return ("enable",)
    return ()


def job_verbs(unit: Unit, wish: Wish, anew: bool) -> Tuple[str, ...]:
    """What becomes of one unit in systemd's memory.

    :param anew: a socket that must start again to be reachable
    :return: of "stop", "reset", "start", in the order of a run
    """
    if wish.active is None:
        return ()
    if wish.active:
        if anew:
            return ("stop", "start")
        return () if unit.is_up else ("start",)
    if unit.is_failed:
        return ("reset",)
    return ("stop",) if unit.is_active else ()
