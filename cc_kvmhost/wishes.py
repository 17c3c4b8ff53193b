"""One unit: how it must be, and what has to be done for that."""

from typing import NamedTuple, Optional, Tuple

from .host import Unit

ENABLED = ("enabled", "enabled-runtime")
#: Unit file states that enabling can't change: nothing in [Install], or not a file of its own.
_FIXED = ("static", "indirect", "generated", "transient", "linked", "linked-runtime")


class Wish(NamedTuple):
    """How a unit must be. None: as it is."""

    enabled: Optional[bool] = None
    active: Optional[bool] = None
    masked: bool = False


ON = Wish(enabled=True, active=True)
AT_BOOT = Wish(enabled=True)
NOT_AT_BOOT = Wish(enabled=False)
OFF = Wish(enabled=False, active=False)
#: Not masked, otherwise as it is.
LEFT = Wish()
#: For the other mode's units: if anything can start one, its mode may win at the next boot.
AWAY = Wish(enabled=False, active=False, masked=True)


def unit_file_verbs(state: str, wish: Wish) -> Tuple[str, ...]:
    """What to do with one unit file.

    :param state: its UnitFileState
    :return: of "unmask", "disable", "disable_runtime", "enable", "mask", in the order of the calls
    """
    if wish.masked:
        if state == "masked":
            return ()
        # Disable it too, or the unit is enabled again once somebody removes the mask.
        if state in ENABLED:
            return ("disable" if state == "enabled" else "disable_runtime", "mask")
        return ("mask",)
    if state == "masked":
        if wish.enabled is None:
            return ("unmask",)
        # A mask hides whether the unit is enabled, so say it in either case.
        return ("unmask", "enable" if wish.enabled else "disable")
    if wish.enabled is False and state in ENABLED:
        return ("disable" if state == "enabled" else "disable_runtime",)
    # This includes enabled-runtime: the unit must stay enabled after the next reboot.
    if wish.enabled and state not in _FIXED + ("enabled", "alias"):
        return ("enable",)
    return ()


def job_verbs(unit: Unit, wish: Wish, anew: bool) -> Tuple[str, ...]:
    """Which jobs one unit needs.

    :param anew: it is a socket that clients reach only after it has started again
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
