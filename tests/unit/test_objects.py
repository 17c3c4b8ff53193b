"""Networks and pools as they are read from libvirt's own files."""

from pathlib import Path
from typing import Any, Dict, List

import pytest

from cc_kvmhost.config import Pool
from cc_kvmhost.errors import KvmhostError
from cc_kvmhost.virt import objects, volume_groups
from cc_kvmhost.virt.objects import Objects
from cc_kvmhost.virt.steps import NETWORK, POOL
from cc_kvmhost.virt.volume_groups import Group

NET = "<network><name>a</name><forward mode='nat'/>{}</network>"
IP = "<ip address='192.168.5.1' netmask='255.255.255.0'/>"
STATUS = "<networkstatus>{}{}</networkstatus>"
LIVE = NET.format("<bridge name='virbr3'/>" + IP)
LOGICAL = "<pool type='logical'><name>a</name><source><name>vg</name></source></pool>"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with libvirt's four in it: networks, pools; what is active of both."""
    defined = {NETWORK: str(tmp_path / "networks"), POOL: str(tmp_path / "pools")}
    active = {kind: path + "-active" for kind, path in defined.items()}
    for path in (*defined.values(), *active.values()):
        (Path(path) / "autostart").mkdir(parents=True)
    monkeypatch.setattr(objects, "_DEFINED", defined)
    monkeypatch.setattr(objects, "_ACTIVE", active)
    return tmp_path


def read(root: Path, files: Dict[str, str], pools: List[Pool] = []) -> Objects:  # noqa: B006
    for name, text in files.items():
        (root / name).write_text(text)
    return objects.read([], pools)


def test_a_network_that_is_defined(root: Path) -> None:
    network = read(root, {"networks/a.xml": NET.format(IP)}).networks["a"]
    assert (network.mode, network.subnets, network.firewall) == ("nat", ("192.168.5.0/24",), "")
    assert (network.persistent, network.autostart, network.active) == (True, False, False)


@pytest.mark.parametrize(
    ("rules", "firewall"),
    [("", "iptables"), ("<firewall backend='nftables'/>", "nftables"), ("<firewall/>", "iptables")],
)
def test_a_network_that_is_active(rules: str, firewall: str, root: Path) -> None:
    files = {"networks/a.xml": NET.format(IP), "networks/autostart/a.xml": ""}
    files["networks-active/a.xml"] = STATUS.format(rules, LIVE)
    network = read(root, files).networks["a"]
    assert (network.persistent, network.autostart, network.active) == (True, True, True)
    assert network.firewall == firewall
    # libvirt has chosen it, so the network's own route is not taken for another's.
    assert network.bridge == "virbr3"


def test_a_network_with_ipv6(root: Path) -> None:
    more = "<ip family='ipv6' address='fd00::1' prefix='64'/>"
    six = NET.replace(">a<", ">six<").format(more)
    found = read(root, {"networks/a.xml": NET.format(more + IP), "networks/six.xml": six}).networks
    assert found["a"].subnets == ("192.168.5.0/24",) and found["six"].subnets == ()


def test_a_network_that_is_transient(root: Path) -> None:
    network = read(root, {"networks-active/a.xml": STATUS.format("", LIVE)}).networks["a"]
    assert (network.persistent, network.active) == (False, True)


def test_a_file_with_another_name_is_none(root: Path) -> None:
    """libvirt does not load it."""
    assert read(root, {"networks/b.xml": NET, "pools/b.xml": LOGICAL}) == read(root, {})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        # A file system after a power cut.
        ("networks/a.xml", "", "networks/a.xml: not XML: no element found"),
        ("networks/a.xml", "<domain/>", "networks/a.xml: not a network of libvirt's"),
        ("networks/a.xml", NET.format("<ip/>"), "networks/a.xml: "),
        ("networks/a.xml", NET.format("<ip address='300.0.0.1'/>"), "networks/a.xml: "),
        ("networks-active/a.xml", "<x/>", "networks-active/a.xml: not the status of a network"),
        ("networks-active/a.xml", STATUS.format("", NET.format("<ip/>")), "networks-active/a.xml:"),
        ("pools/a.xml", "<pool", "pools/a.xml: not XML: "),
        ("pools/a.xml", "<network/>", "pools/a.xml: not a pool of libvirt's"),
        ("pools-active/a.xml", "<poolstate/>", "pools-active/a.xml: not the status of a pool"),
    ],
)
def test_files_that_are_something_else(name: str, text: str, words: str, root: Path) -> None:
    with pytest.raises(KvmhostError) as caught:
        read(root, {name: text})
    (problem,) = caught.value.problems
    assert words in problem and "move it away" in problem


ASKED = Pool("a", "logical", source="vg")
STARTED = {"pools-active/a.xml": f"<poolstate>{LOGICAL}</poolstate>"}


@pytest.mark.parametrize(
    ("files", "group", "active"),
    [
        ({}, Group(), False),
        # libvirt starts it with its driver, and then writes no status.
        ({"pools/autostart/a.xml": ""}, Group(), True),
        ({"pools/autostart/a.xml": ""}, Group("it is exported"), False),
        # Not looked at.
        (STARTED, Group("it is exported"), True),
    ],
)
def test_a_pool_in_a_volume_group(
    files: Dict[str, str], group: Group, active: bool, root: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(volume_groups, "look", lambda names: dict.fromkeys(names, group))
    found = read(root, {"pools/a.xml": LOGICAL, **files}, [ASKED])
    assert found.pools["a"].active == active
    assert found.groups == ({} if files == STARTED else {"vg": group})
