"""How far a check goes."""

from typing import Optional, Sequence

import pytest

from cc_kvmhost.virt.level import Level, Means, NotPossible, choose

ALL = Means("x86_64", True)


@pytest.mark.parametrize(
    "asked, drivers, means, name, words",
    [
        (None, ["qemu"], ALL, "guest", ""),
        (None, ["qemu"], Means("aarch64", True), "guest", ""),
        ("guest", ["qemu", "network"], ALL, "guest", ""),
        ("daemons", ["qemu"], ALL, "daemons", ""),
        ("daemons", ["storage"], Means("s390x", False), "daemons", ""),
        ("sockets", ["storage"], Means("s390x", False), "sockets", ""),
        (None, ["qemu"], Means("x86_64", False), "daemons", "install python3-libvirt"),
        (None, ["qemu"], Means("s390x", True), "daemons", "aarch64 and x86_64, and none for s390x"),
        (None, ["storage"], ALL, "daemons", "kvmhost.libvirt.drivers has no qemu"),
    ],
)
def test_level(
    asked: Optional[str], drivers: Sequence[str], means: Means, name: str, words: str
) -> None:
    level = choose(asked, drivers, means)
    assert level.name == name
    assert words in level.warning and bool(level.warning) == bool(words)
    assert level == Level(name) or "kvmhost.check: daemons accepts it" in level.warning


@pytest.mark.parametrize(
    "drivers, means",
    [(["storage"], ALL), (["qemu"], Means("s390x", True)), (["qemu"], Means("x86_64", False))],
)
def test_a_guest_that_was_asked_for_is_no_less(drivers: Sequence[str], means: Means) -> None:
    with pytest.raises(NotPossible, match="^kvmhost.check: guest is not possible: "):
        choose("guest", drivers, means)
