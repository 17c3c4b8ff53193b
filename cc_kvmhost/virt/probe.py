"""The child's part of the check: wake the daemons and run the guest, or clean up after another child.

child.py calls these functions in a process that is killed at its deadline.
"""

import contextlib
import os
from typing import Any, Callable, Dict, List

from ..errors import KvmhostError
from . import guest, volumes
from .daemons import Endpoint, wake

Say = Callable[[Any], None]

#: Reported when the guest has run and is gone.
DONE = "done"


def prove(order: Dict[str, Any], say: Say) -> Dict[str, Any]:
    """Wake all daemons side by side, run the guest on the one that answers for QEMU, and make volumes
    by the one that answers for storage.

    :param order: ``daemons``: lists of Endpoint's fields; ``guest``: what guest.run() wants and
        ``daemon``, the name of the one that is to run it; or None; ``pools``: ``names``, ``volume``
        and ``daemon``; or None
    :return: the guest's ``accelerator``, ``problems``: why it did not run, and ``pools``: what is wrong
        with the pools, None if they were not asked. The daemons' answers are said: ``daemon``, and its
        ``problem`` or "".
    """
    daemons = [Endpoint(*fields) for fields in order["daemons"]]
    wanted, pools = order["guest"], order["pools"]
    result: Dict[str, Any] = {"accelerator": None, "problems": [], "pools": None}

    def answered(daemon: Endpoint, problem: str) -> None:
        say({"daemon": daemon.name, "problem": problem})

    def use(daemon: Endpoint, connection: Any) -> None:
        if pools and daemon.name == pools["daemon"]:
            result["pools"] = volumes.prove(connection, pools["names"], pools["volume"], say)
            say({"pool": DONE})
        if wanted and daemon.name == wanted["daemon"]:
            try:
                _remove_others(connection)
                result["accelerator"] = guest.run(connection, wanted, say)
            except KvmhostError as error:
                result["problems"] = error.problems
            say({"guest": DONE})

    if any(daemon.driver for daemon in daemons):
        _load_binding()
    wake(daemons, answered, use if wanted or pools else None)
    return result


def clear(order: Dict[str, Any], _say: Say) -> List[str]:
    """Remove what children of this and of killed runs left.

    :param order: ``daemon``: Endpoint's fields, of the one that has QEMU's driver; None: it can't
        be reached; ``directories``: of pools in which volumes were made
    :return: the files that are left all the same
    """
    directories = order["directories"]
    guest.remove(guest.files_of(directories=directories))
    if order["daemon"]:
        _load_binding()
        wake(
            [Endpoint(*order["daemon"])],
            lambda _daemon, _problem: None,
            lambda _daemon, connection: _remove_others(connection),
        )
    return guest.files_of(directories=directories)


def _remove_others(connection: Any) -> None:
    """Destroy the guests of killed runs and remove their files. No other run can have a guest now,
    because this one holds the lock."""
    import libvirt

    for domain in connection.listAllDomains():
        if domain.name().startswith(guest.PREFIX):
            with contextlib.suppress(libvirt.libvirtError):  # it is gone by now
                domain.destroy()
    guest.remove(guest.files_of())


def _load_binding() -> None:
    # This user's settings, such as LIBVIRT_DEFAULT_URI, must not change what is asked.
    for name in [name for name in os.environ if name.startswith("LIBVIRT_")]:
        del os.environ[name]
    try:
        import libvirt
    except ImportError as error:
        raise KvmhostError(
            [f"libvirt's Python binding can't be loaded: {error}; install python3-libvirt"]
        ) from error
    # By default the binding prints every error.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
