"""The check of pools: it makes a volume in each, and removes it.

prove() is called in a child process (child.py).
"""

import contextlib
from typing import Any, Callable, List, Sequence

from .guest import PREFIX, VOLUME

#: Bytes. libvirt writes all of them, so a full file system is noticed.
_SIZE = 1 << 20


def name(nonce: str) -> str:
    return PREFIX + nonce + VOLUME


def xml(volume: str) -> str:
    from xml.etree import ElementTree  # takes milliseconds, and the parent asks for names only

    element = ElementTree.Element("volume")
    ElementTree.SubElement(element, "name").text = volume
    ElementTree.SubElement(element, "capacity", unit="bytes").text = str(_SIZE)
    ElementTree.SubElement(element, "allocation", unit="bytes").text = str(_SIZE)
    target = ElementTree.SubElement(element, "target")
    ElementTree.SubElement(target, "format", type="raw")
    return ElementTree.tostring(element, encoding="unicode")


def prove(
    connection: Any, pools: Sequence[str], volume: str, say: Callable[[Any], None]
) -> List[str]:
    """Make a volume in each pool and remove it; returns what is wrong with which.

    :param connection: an open libvirt.virConnect
    :param volume: its name
    :param say: called with ``pool`` before each pool
    """
    import libvirt

    problems = []
    for pool in pools:
        say({"pool": pool})
        try:
            found = connection.storagePoolLookupByName(pool)
            _remove_others(libvirt, found)
            found.createXML(xml(volume), 0).delete(0)
        except libvirt.libvirtError as error:
            message = "; ".join(str(error.get_error_message()).splitlines())
            problems.append(f"a volume in pool {pool}: {message}")
    return problems


def _remove_others(libvirt: Any, pool: Any) -> None:
    """Remove the volumes of killed checks. No other check can run now, because this one holds the lock."""
    pool.refresh(0)
    for volume in pool.listAllVolumes(0):
        if volume.name().startswith(PREFIX) and volume.name().endswith(VOLUME):
            with contextlib.suppress(libvirt.libvirtError):  # it is gone by now
                volume.delete(0)
