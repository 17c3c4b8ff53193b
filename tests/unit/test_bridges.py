"""Which interfaces can be a network's bridge. Real bridges and veths are for the hosts."""

from typing import Optional

import pytest

from cc_kvmhost.virt import bridges


@pytest.mark.parametrize(
    ("driver", "text"),
    [
        ("bridge", ""),
        (None, "there is no such interface on this host"),
        ("openvswitch", "it is an Open vSwitch bridge, which is not supported; define the network"),
        # Open vSwitch's bridges without the kernel's part.
        ("tun", "it is not a bridge (its driver is tun)"),
        ("", "it is not a bridge (its driver is unknown)"),
    ],
)
def test_refusals(driver: Optional[str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridges, "_driver", lambda _: driver)
    refusal = bridges.refusal("br0")
    assert text in refusal and bool(text) == bool(refusal)


def test_the_kernel_is_asked() -> None:
    assert "it is not a bridge (its driver is " in bridges.refusal("lo")
    assert "there is no such interface" in bridges.refusal("none-such-here")
