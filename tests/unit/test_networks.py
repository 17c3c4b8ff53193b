"""Networks and pools: what is chosen, what is compared, what stands in the way. All pure."""

import sys
import time
from pathlib import Path
from typing import Any, List, Optional, Tuple
from unittest import mock
from xml.etree import ElementTree

import pytest

from cc_kvmhost import config
from cc_kvmhost.config import Network, Pool
from cc_kvmhost.virt import networks, pools
from cc_kvmhost.virt.networks import NetworkState
from cc_kvmhost.virt.pools import Place, PoolState
from cc_kvmhost.virt.routes import Route
from cc_kvmhost.virt.steps import KEPT, Step, back
from cc_kvmhost.virt.volume_groups import Group

TEMPLATE = """<network><name>default</name><bridge name='virbr0'/><forward/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>"""
#: As libvirt writes it once it has had it in its hands.
SAVED = """<network><name>default</name><uuid>5988dcd5-08eb-424b-9445-7327e8b14dbd</uuid>
  <forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/><mac address='52:54:00:5e:42:f5'/>
  <ip address='192.168.124.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.124.2' end='192.168.124.254'/></dhcp></ip></network>"""
NAT = Network("default", "nat")
THERE = NetworkState("default", subnets=("192.168.122.0/24",), bridge="virbr0", xml=SAVED)


def routes(*where: str) -> Tuple[Route, ...]:
    return tuple(Route(each.split()[0], (each.split() + [""])[1]) for each in where)


def decide(
    asked: List[Network], here: Tuple[NetworkState, ...] = (), *where: str, guests: bool = False
) -> Tuple[List[Tuple[str, ...]], List[str], List[str]]:
    """Subnets as they shall be, the steps' verbs, and the problems."""
    wishes, steps, problems = networks.decide(
        asked, {each.name: each for each in here}, routes(*where), guests
    )
    return [each.subnets for each in wishes.values()], [step.verb for step in steps], problems


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ([], "192.168.122.0/24"),
        (["192.168.122.7/32 eth0"], "192.168.123.0/24"),
        (["192.168.122.0/25", "192.168.123.255/32"], "192.168.124.0/24"),
        (["192.168.122.0/23 eth0"], "192.168.124.0/24"),
        (["192.168.0.0/17"], "192.168.128.0/24"),
        (["192.168.124.0/30", "192.168.122.128/25", "192.168.123.7/32"], "192.168.125.0/24"),
        (["192.168.120.0/22", "192.168.124.0/23", "192.168.122.9/32"], "192.168.126.0/24"),
        # Before the beginning.
        (["192.168.0.0/24", "192.168.121.0/24"], "192.168.122.0/24"),
        (["192.168.122.0/24", "192.168.124.0/22", "192.168.128.0/17"], "192.168.123.0/24"),
        (["192.168.0.0/16 vpn"], "10.0.0.0/24"),
        (["192.168.0.0/16 vpn", "10.0.0.0/9 vpn"], "10.128.0.0/24"),
    ],
)
def test_auto_takes_the_first_that_nothing_touches(where: List[str], chosen: str) -> None:
    assert decide([NAT], (), *where) == ([(chosen,)], ["define", "autostart", "start"], [])


def test_auto_among_thousands_of_routes() -> None:
    """As on a host that speaks a routing protocol. The boot waits for it."""
    where = ["192.168.0.0/16", *(f"10.{n >> 8}.{n & 255}.0/24 up" for n in range(20000))]
    started = time.monotonic()
    assert decide([NAT], (), *where)[0] == [("10.78.32.0/24",)]
    assert time.monotonic() - started < 10


def test_auto_keeps_clear_of_other_networks() -> None:
    other = NetworkState("other", "route", ("192.168.122.0/24",), active=False)
    asked = [NAT, Network("b", "nat"), Network("c", "nat", "192.168.123.0/24")]
    found, _, _ = decide(asked, (other,))
    assert found == [("192.168.124.0/24",), ("192.168.125.0/24",), ("192.168.123.0/24",)]


@pytest.mark.parametrize(
    ("more", "asked", "text"),
    [
        # It starts with libvirt's daemon: the run that wakes that would fail.
        ({"active": False}, [], "can't have 192.168.122.0/24: this host has 192.168.122.0/24 on"),
        (
            {"active": False, "autostart": False},
            [NAT],
            "on libvirt's network default; name another",
        ),
        # It may never start.
        ({"active": False, "autostart": False}, [], ""),
        ({"active": False, "subnets": ("192.168.123.0/24",)}, [], ""),
    ],
)
def test_a_subnet_of_another_network(more: Any, asked: List[Network], text: str) -> None:
    mine = Network("b", "nat", "192.168.122.0/24")
    _, verbs, problems = decide([*asked, mine], (THERE._replace(**more),))
    assert text in " ".join(problems) and bool(problems) == bool(text)
    assert ("define" in verbs) == (not text)


def test_no_free_subnet_is_an_error() -> None:
    (problem,) = decide([NAT], (), "192.168.0.0/16 vpn", "10.0.0.0/8 vpn")[2]
    assert "networks[0]: default finds no free /24" in problem


OFF = {"active": False, "autostart": False}


@pytest.mark.parametrize(
    ("asked", "found", "where", "verbs"),
    [
        (NAT, THERE, [], []),
        (NAT, THERE._replace(**OFF), [], ["autostart", "start"]),
        (NAT, THERE._replace(active=False), [], ["start"]),
        (NAT, THERE._replace(subnets=("10.7.7.0/24",)), [], []),
        # Its own route, and a wider one that comes later.
        (NAT, THERE, ["192.168.122.0/24 virbr0", "192.168.0.0/16 vpn"], []),
        (NAT._replace(subnet="192.168.122.0/24"), THERE, [], []),
        (Network("lan", "bridge", bridge="br0"), NetworkState("lan", "bridge", bridge="br0"), [], []),
    ],
)  # fmt: skip
def test_what_is_as_asked_stays(
    asked: Network, found: NetworkState, where: List[str], verbs: List[str]
) -> None:
    found = found._replace(name=asked.name)
    assert decide([asked], (found,), *where)[1:] == (verbs, [])


@pytest.mark.parametrize(
    ("asked", "found", "where", "text"),
    [
        (NAT, THERE._replace(mode="isolated"), [], "its mode is isolated, not nat"),
        (NAT, THERE._replace(persistent=False), [], "it is transient"),
        (NAT, THERE._replace(subnets=("10.0.0.0/8",)), [], "its subnet is 10.0.0.0/8, not a /24"),
        (NAT, THERE._replace(subnets=()), [], "its subnet is none, not a /24"),
        (
            NAT._replace(subnet="10.0.0.0/24"),
            THERE,
            [],
            "its subnet is 192.168.122.0/24, not 10.0.0.0/24; it is left alone: ask for what is there,"
            " or remove it with 'virsh net-undefine default' and 'virsh net-destroy default'",
        ),
        (
            Network("default", "bridge", bridge="br0"),
            NetworkState("default", "bridge", bridge="br1"),
            [],
            "its bridge is br1, not br0",
        ),
        (NAT, THERE, ["192.168.122.0/24 eth0"], "change it with 'virsh net-edit default'"),
        (
            NAT._replace(subnet="10.1.0.0/24"),
            None,
            ["10.1.0.9/32 eth0"],
            "can't have 10.1.0.0/24: this host has 10.1.0.9/32 on eth0",
        ),
    ],
)
def test_what_differs_is_named(
    asked: Network, found: Optional[NetworkState], where: List[str], text: str
) -> None:
    _, verbs, (problem,) = decide([asked], (found,) if found else (), *where)
    assert text in problem and "kvmhost.libvirt.networks[0]: default" in problem
    assert verbs == []


class TestPackaged:
    @pytest.mark.parametrize(
        ("old", "new", "packaged"),
        [
            ("", "", True),
            ("stp='on'", "stp='off'", True),
            ("'nat'/>", "'nat'><nat><port start='1024' end='65535'/></nat></forward>", True),
            ("virbr0", "virbr7", False),
            ("'nat'", "'route'", False),
            ("<dhcp>", "<dhcp><host mac='52:54:00:00:00:01' ip='192.168.124.9'/>", False),
            ("124.254", "124.100", False),
            ("<uuid>", "<domain name='x'/><uuid>", False),
            ("255.255.255.0", "255.255.0.0", False),
        ],
    )
    def test_is_the_packages(self, old: str, new: str, packaged: bool) -> None:
        element = ElementTree.fromstring(SAVED.replace(old, new))
        assert networks.is_packaged(element, ElementTree.fromstring(TEMPLATE)) is packaged

    MINE = THERE._replace(packaged=True)

    def test_moves_if_it_collides(self) -> None:
        idle = self.MINE._replace(**OFF)
        _, steps, _ = networks.decide(
            [NAT], {"default": idle}, routes("192.168.122.9/32 eth0"), True
        )
        assert [step.verb for step in steps] == ["redefine", "autostart", "start"]
        made = ElementTree.fromstring(steps[0].value)
        assert networks.parse(made).subnets == ("192.168.123.0/24",)
        assert made.findtext("uuid") == "5988dcd5-08eb-424b-9445-7327e8b14dbd"
        assert "because this host has 192.168.122.9/32 on eth0" in str(steps[0])

    def test_is_restarted_if_it_is_active(self) -> None:
        _, verbs, problems = decide([NAT], (self.MINE,), "192.168.122.0/24 eth0")
        assert (verbs, problems) == (["stop", "redefine", "start"], [])

    def test_not_under_guests(self) -> None:
        _, verbs, (problem,) = decide([NAT], (self.MINE,), "192.168.122.0/24 eth0", guests=True)
        assert verbs == [] and "guests run: shut them down" in problem


@pytest.mark.parametrize(
    ("ip", "subnet"),
    [
        ("<ip address='192.168.5.1' netmask='255.255.255.0'/>", "192.168.5.0/24"),
        ("<ip address='192.168.5.1' prefix='28'/>", "192.168.5.0/28"),
        ("<ip address='10.5.0.1'/>", "10.0.0.0/8"),
        ("<ip address='172.16.5.1'/>", "172.16.0.0/16"),
    ],
)
def test_subnets_as_libvirt_writes_them(ip: str, subnet: str) -> None:
    element = ElementTree.fromstring(f"<network><name>a</name>{ip}<ip family='ipv6'/></network>")
    assert networks.parse(element).subnets == (subnet,)


POOL = Pool("vms", "dir", "/srv/vms")
ROOM = Place(room=1 << 40)


@pytest.mark.parametrize(
    ("found", "place", "verbs", "text"),
    [
        (None, ROOM, ["define", "autostart", "start"], ""),
        (None, ROOM._replace(missing="/srv"), ["define", "make", "autostart", "start"], ""),
        (PoolState("vms", path="/srv/vms"), Place(room=5), [], ""),
        (PoolState("vms", path="/srv/vms"), Place(missing="/srv"), ["stop", "make", "start"], ""),
        (PoolState("vms", path="/srv/vms", **OFF), ROOM, ["autostart", "start"], ""),
        (PoolState("vms", path="/srv/v"), ROOM, [], "its path is /srv/v, not /srv/vms"),
        (PoolState("vms", "fs", "/srv/vms"), ROOM, [], "its type is fs, not dir"),
        (PoolState("vms", path="/srv/vms", persistent=False), ROOM, [], "it is transient"),
        (PoolState("other", path="/srv/vms"), ROOM, [], "that is pool other's"),
        (None, Place(room=1 << 20), [], "has 1 MiB left, less than 1024"),
        (None, Place("/srv is not a directory"), [], "can't be at /srv/vms: /srv is not a directory"),
    ],
)  # fmt: skip
def test_pools(found: Optional[PoolState], place: Place, verbs: List[str], text: str) -> None:
    here = {found.name: found} if found else {}
    wishes, steps, problems = pools.decide([POOL], here, {POOL.path: place}, {})
    assert [step.verb for step in steps] == verbs
    assert text in " ".join(problems) and bool(problems) == bool(text)
    assert all(wish.active and wish.autostart for wish in wishes.values())


LABEL = "system_u:object_r:virt_image_t:s0"


@pytest.mark.parametrize(
    ("policys", "label", "relabelled"),
    [
        ("system_u:object_r:var_t:s0", LABEL, True),
        (LABEL, LABEL, False),
        # A policy without levels.
        ("system_u:object_r:default_t", "system_u:object_r:virt_image_t", True),
        ("a:b:var_t:s0:c1,c2", "a:b:virt_image_t:s0:c1,c2", True),
        # Without python3-libselinux.
        ("", LABEL, True),
    ],
)
def test_the_label_of_a_directory(policys: str, label: str, relabelled: bool) -> None:
    assert pools.directory_label(policys) == (label, relabelled)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/srv/vms", "'/srv/vms(/.*)?'"),
        ("/srv/a.b+c", r"'/srv/a\.b\+c(/.*)?'"),
        ("/srv/it's (1)", """'/srv/it'"'"'s \\(1\\)(/.*)?'"""),
    ],
)
def test_how_a_label_lasts_is_said(path: str, pattern: str) -> None:
    place = ROOM._replace(missing="/srv", label=LABEL, relabelled=True)
    _, steps, _ = pools.decide([POOL._replace(path=path)], {}, {path: place}, {})
    make = steps[1]
    assert make.label == LABEL
    assert str(make).endswith(f"to keep that: semanage fcontext -a -t virt_image_t {pattern})")
    kept = place._replace(relabelled=False)
    _, steps, _ = pools.decide([POOL._replace(path=path)], {}, {path: kept}, {})
    assert steps[1].label == LABEL and "semanage" not in str(steps[1])


@pytest.mark.parametrize(
    ("path", "selinux", "missing", "label"),
    [
        ("there", True, "", ""),
        ("there/under/it", True, "there/under", LABEL),
        ("there/under/it", False, "there/under", ""),
    ],
)
def test_only_what_is_made_gets_a_label(
    path: str, selinux: bool, missing: str, label: str, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "there").mkdir()
    library = mock.Mock()
    library.matchpathcon.return_value = [0, "system_u:object_r:var_t:s0"]
    monkeypatch.setitem(sys.modules, "selinux", library)
    on = str(tmp_path) if selinux else "/nowhere"
    monkeypatch.setattr(pools.files, "_SELINUX_ON", on)
    place = pools.look(str(tmp_path / path))
    assert place._replace(room=0) == Place(
        missing=str(tmp_path / missing) if missing else "", label=label, relabelled=bool(label)
    )
    assert place.room > 0


GROUP = Pool("vms", "logical", source="vg_vms")
IN_GROUP = PoolState("vms", "logical", "/dev/vg_vms", "vg_vms")


@pytest.mark.parametrize(
    ("found", "group", "verbs", "text"),
    [
        (None, Group(), ["define", "autostart", "start"], ""),
        (None, Group("it is exported"), [], "vms can't be in vg_vms: it is exported"),
        (IN_GROUP, Group(), [], ""),
        (IN_GROUP._replace(**OFF), Group(), ["autostart", "start"], ""),
        (IN_GROUP._replace(**OFF), Group("it is exported"), [], "it is exported"),
        # Where its volumes are is libvirt's to say.
        (IN_GROUP._replace(path="/dev/mapper"), Group(), [], ""),
        (IN_GROUP._replace(source="vg_x"), Group(), [], "its source is vg_x, not vg_vms"),
        (PoolState("vms", path="/srv"), Group(), [], "its type is dir, not logical"),
        (
            IN_GROUP._replace(name="other"),
            Group(),
            [],
            "vms can't be at vg_vms: that is pool other's; ask for that name, or remove it with"
            " 'virsh pool-destroy other' and 'virsh pool-undefine other'",
        ),
        (PoolState("other", path="/srv"), Group(), ["define", "autostart", "start"], ""),
    ],
)  # fmt: skip
def test_pools_in_volume_groups(
    found: Optional[PoolState], group: Group, verbs: List[str], text: str
) -> None:
    here = {found.name: found} if found else {}
    wishes, steps, problems = pools.decide([GROUP], here, {}, {"vg_vms": group})
    assert [step.verb for step in steps] == verbs
    assert text in " ".join(problems) and bool(problems) == bool(text)


def test_a_pool_in_a_volume_group_is_what_it_was_asked_to_be() -> None:
    """What is defined is what a second run finds."""
    wishes, (define, *_), _ = pools.decide([GROUP], {}, {}, {"vg_vms": Group()})
    assert pools.parse(ElementTree.fromstring(define.value)) == IN_GROUP == wishes["vms"]


@pytest.mark.parametrize(
    ("xml", "path", "source"),
    [
        ("<pool type='dir'><target><path>/srv</path></target></pool>", "/srv", ""),
        ("<pool type='logical'><source><name>vg</name></source></pool>", "", "vg"),
        # libvirt takes the pool's name then.
        ("<pool type='logical'><name>a</name></pool>", "", "a"),
        ("<pool type='gluster'><source><name>volume</name></source></pool>", "", ""),
    ],
)
def test_pools_as_libvirt_writes_them(xml: str, path: str, source: str) -> None:
    found = pools.parse(ElementTree.fromstring(xml))
    assert (found.path, found.source) == (path, source)


def test_steps_are_taken_back_in_reverse() -> None:
    done = [Step("redefine", "network", "a", "new", "old"), Step("start", "network", "a")]
    assert [(step.verb, step.value, step.before) for step in back(done)] == [
        ("stop", "", ""),
        ("redefine", "old", "new"),
    ]


def test_volumes_that_were_active_stay_so() -> None:
    """libvirt deactivates all of a group's volumes with its pool."""
    for volumes, verb in ((True, "keep"), (False, "stop")):
        _, steps, _ = pools.decide([GROUP], {}, {}, {"vg_vms": Group(volumes=volumes)})
        assert [step.verb for step in back(steps)] == [verb, "no-autostart", "undefine"]
    assert steps[-1].before != KEPT


def network(**more: Any) -> Any:
    return {"libvirt": {"networks": [dict({"name": "a", "mode": "nat"}, **more)]}}


def pool(**more: Any) -> Any:
    return {"libvirt": {"pools": [dict({"name": "a"}, **more)]}}


@pytest.mark.parametrize(
    ("section", "text"),
    [
        (network(subnet="192.168.5.1/24"), 'networks[0].subnet: "192.168.5.1/24" is an address in'),
        (network(subnet="300.1.1.0/24"), "networks[0].subnet: "),
        (network(subnet="127.0.0.0/24"), "has a special use"),
        (network(subnet="10.0.0.0/8"), "auto, or an IPv4 network of 8 to 65536 addresses"),
        (network(bridge="br0"), "networks[0].bridge: is not for mode nat"),
        (network(mode="bridge"), "networks[0]: needs the key 'bridge', since its mode is bridge"),
        (network(mode="bridge", bridge="br0\n"), "at most 15 characters"),
        (network(name="a/b"), "a name of letters, digits"),
        (network(mode="route"), "nat, bridge"),
        (network(foo=1), "networks[0].foo: unknown key"),
        ({"libvirt": {"networks": [{"mode": "nat"}]}}, "networks[0]: needs the key 'name'"),
        (
            {"libvirt": {"networks": [network()["libvirt"]["networks"][0]] * 2}},
            'networks[1].name: "a" is the name of networks[0] too',
        ),
        (
            {
                "libvirt": {
                    "networks": [
                        {"name": "a", "mode": "nat", "subnet": "10.0.0.0/16"},
                        {"name": "b", "mode": "nat", "subnet": "10.0.5.0/24"},
                    ]
                }
            },
            "networks[1].subnet: 10.0.5.0/24 overlaps with 10.0.0.0/16 of networks[0]",
        ),
        (
            {"libvirt": {"pools": [{"name": "a", "type": "dir", "path": "/srv/"}]}},
            'pools[0].path: "/srv/" is not a plain path; write /srv',
        ),
        ({"libvirt": {"pools": [{"name": "a", "type": "dir", "path": "srv"}]}}, "an absolute path"),
        ({"libvirt": {"pools": [{"name": "a", "type": "dir"}]}}, "pools[0]: needs the key 'path'"),
        (pool(type="logical"), "pools[0]: needs the key 'source', since its type is logical"),
        (pool(type="logical", source="vg", path="/srv"), "pools[0].path: is not for type logical"),
        (pool(type="dir", path="/srv", source="vg"), "pools[0].source: is not for type dir"),
        (pool(type="logical", source=".."), "a volume group's name"),
        (pool(type="logical", source="-a"), "a volume group's name"),
        (pool(type="logical", source="/dev/vg"), "a volume group's name"),
        (pool(type="logical", source="vg\n"), "a volume group's name"),
        (
            {
                "libvirt": {
                    "pools": [
                        {"name": "a", "type": "logical", "source": "vg"},
                        {"name": "b", "type": "logical", "source": "vg"},
                    ]
                }
            },
            "pools[1].source: is the volume group of pools[0] too; a volume group has one pool",
        ),
        ({"libvirt": {"pools": [{"name": "a", "type": "disk"}]}}, "pools[0].type: "),
        (
            {
                "libvirt": {
                    "pools": [
                        {"name": "a", "type": "dir", "path": "/srv"},
                        {"name": "b", "type": "dir", "path": "/srv"},
                    ]
                }
            },
            "pools[1].path: is the directory of pools[0] too",
        ),
    ],
)
def test_wrong_sections(section: Any, text: str) -> None:
    assert text in "\n".join(str(problem) for problem in config.check(section))
