"""libvirt's networks and pools, with real dnsmasq, bridges and routes."""

from __future__ import annotations

import json
from typing import Any

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")
on_both = pytest.mark.parametrize("system", SYSTEMS)

POOL = {"name": "default", "type": "dir", "path": "/var/lib/libvirt/images"}
NAT = {"name": "default", "mode": "nat", "subnet": "auto"}
#: Everything that libvirt keeps of networks and pools: what is asked for must stay byte for byte.
FILES = "cd /etc/libvirt; find qemu/networks storage -type f -o -type l | sort | xargs -r sha256sum"


def asked(**libvirt: Any) -> dict[str, Any]:
    return {"libvirt": libvirt}


def apply(host: Host, section: Any, check: bool = True) -> dict[str, Any]:
    host.write("/root/section.yaml", expect.user_data(section))
    done = host.run(["kvmhost", "apply", "--json", "/root/section.yaml"], check=False, timeout=120)
    report: dict[str, Any] = json.loads(done.stdout)
    assert (report["result"] == "ok") == check, report
    return report


def listed(host: Host, what: str) -> dict[str, list[str]]:
    """What virsh shows: name -> its columns."""
    rows = host.run(["virsh", f"{what}-list", "--all"]).stdout.splitlines()[2:]
    return {row.split()[0]: row.split()[1:] for row in rows if row.strip()}


def subnet(host: Host, name: str) -> str:
    text = host.run(["virsh", "net-dumpxml", name]).stdout
    return text.split("<ip address='")[1].split("'")[0].rpartition(".")[0] + ".0/24"


@on_both
def test_a_first_boot_brings_networks_and_pools_that_stay(system: str) -> None:
    section = asked(
        networks=[NAT, {"name": "more", "mode": "nat"}],
        pools=[POOL, {"name": "vms", "type": "dir", "path": "/srv/kvm/vms"}],
    )
    with Host(system, user_data=expect.user_data(section)) as host:
        host.boot()
        report = host.report()
        assert report["result"] == "ok", report
        for _ in ("first boot", "reboot"):
            assert listed(host, "net") == {
                "default": ["active", "yes", "yes"],
                "more": ["active", "yes", "yes"],
            }
            assert listed(host, "pool") == {"default": ["active", "yes"], "vms": ["active", "yes"]}
            assert subnet(host, "default") == "192.168.122.0/24"
            assert subnet(host, "more") == "192.168.123.0/24"
            if _ == "first boot":
                host.reboot()
        assert host.run(["stat", "-c", "%U %a", "/srv/kvm/vms"]).stdout.split() == ["root", "711"]
        assert report["networks"]["default"]["before"]["active"] is False
        assert report["networks"]["default"]["after"]["active"] is True
        assert report["networks"]["more"]["before"] is None
        assert report["networks"]["more"]["after"]["subnet"] == "192.168.123.0/24"
        assert report["networks"]["more"]["after"]["firewall"] in ("iptables", "nftables")
        assert report["pools"]["vms"]["before"] is None
        # A second run changes nothing, and starts no process of its own.
        before = host.sh(FILES).stdout
        again = apply(host, section)
        assert again["changed"] == []
        assert "objects" not in [step["name"] for step in again["steps"]]
        assert host.sh(FILES).stdout == before
        assert host.run(["kvmhost", "status", "/root/section.yaml"])
        expect.mode_is(host, expect.MODE_OF[system])


@on_both
def test_virt_install_finds_the_network(system: str) -> None:
    with Host(
        system,
        user_data=expect.user_data(asked(networks=[NAT], pools=[POOL])),
        bind=["/dev/net/tun"],
    ) as host:
        host.boot()
        host.sh(
            "virt-install --name tiny --memory 64 --disk size=0.01 --import --network default"
            " --osinfo detect=off,require=off --graphics none --noautoconsole --virt-type qemu",
            timeout=120,
        )
        assert "default" in host.run(["virsh", "domiflist", "tiny"]).stdout
        assert "tiny" in host.run(["virsh", "vol-list", "default"]).stdout
        assert host.run(["virsh", "list", "--name"]).stdout.split() == ["tiny"]


@on_both
def test_auto_keeps_clear_of_addresses_and_routes(system: str) -> None:
    with Host(system) as host:
        host.boot()
        host.sh(
            "ip link add up0 type veth peer name up1; ip address add 192.168.122.7/32 dev up0;"
            "ip link set up0 up; ip link set up1 up; ip route add 192.168.123.128/25 dev up0;"
            "ip link add down0 type dummy || ip link add down0 type bridge;"
            "ip address add 192.168.124.9/28 dev down0; ip route add 0.0.0.0/1 dev up0;"
            "ip route add 192.168.125.0/24 dev up0 table 77"
        )
        section = asked(networks=[NAT, {"name": "wide", "mode": "nat", "subnet": "10.3.0.0/16"}])
        plan = json.loads(
            host.sh(
                f"""echo '{json.dumps({"kvmhost": section})}' | (echo '#cloud-config'; cat) >/root/s
                kvmhost plan --json /root/s"""
            ).stdout
        )
        report = apply(host, section)
        assert plan["changed"] == report["changed"]
        # The package's own default, untouched, had 192.168.122.0/24.
        assert any(
            change.startswith("redefine network default (192.168.126.0/24")
            for change in report["changed"]
        ), report["changed"]
        assert subnet(host, "default") == "192.168.126.0/24"
        assert report["networks"]["default"]["before"]["subnet"] == "192.168.122.0/24"
        assert apply(host, section)["changed"] == []
        host.sh("ip route add 192.168.0.0/16 dev up0")
        assert apply(host, section)["changed"] == []


@on_both
def test_networks_and_pools_are_the_same_in_both_modes(system: str) -> None:
    section = {"networks": [NAT], "pools": [POOL]}
    with Host(system, user_data=expect.user_data(asked(**section))) as host:
        host.boot()
        other = expect.OTHER[expect.MODE_OF[system]]
        host.sh(
            "virsh net-define /dev/stdin <<E\n<network><name>own</name><ip address='10.9.9.1'"
            " netmask='255.255.255.0'/></network>\nE\nvirsh net-start own"
        )
        states = listed(host, "net"), listed(host, "pool"), host.sh(FILES).stdout
        for mode in (other, expect.MODE_OF[system]):
            report = apply(host, asked(mode=mode, **section))
            assert not [change for change in report["changed"] if "network " in change]
            assert (listed(host, "net"), listed(host, "pool"), host.sh(FILES).stdout) == states
            expect.mode_is(host, mode)


@on_both
def test_a_bridge_that_is_there(system: str) -> None:
    with Host(system) as host:
        host.boot()
        host.sh("ip link add br0 type bridge; ip link set br0 up; ip link add v0 type veth")
        section = asked(networks=[{"name": "lan", "mode": "bridge", "bridge": "br0"}])
        report = apply(host, section)
        assert report["networks"]["lan"]["after"]["bridge"] == "br0"
        assert listed(host, "net")["lan"] == ["active", "yes", "yes"]
        assert apply(host, section)["changed"] == []
        text = " ".join(
            apply(host, asked(networks=[{"name": "x", "mode": "bridge", "bridge": "v0"}]), False)[
                "errors"
            ]
        )
        assert (
            "kvmhost.libvirt.networks[0].bridge: v0: it is not a bridge (its driver is veth)"
            in text
        )


@on_both
def test_what_stands_in_the_way_is_named_before_anything_changes(system: str) -> None:
    with Host(system) as host:
        host.boot()
        host.sh("touch /srv/file; mkdir /srv/small; ip link add u0 type veth; ip link set u0 up")
        host.sh("ip address add 10.1.1.1/24 dev u0; mount -t tmpfs -o size=8m none /srv/small")
        host.sh(
            "mkdir -p /etc/libvirt/storage; echo \"<network><name>kept</name><forward mode='route'/>"
            "<ip address='10.8.8.1' netmask='255.255.255.0'/></network>\" >/etc/libvirt/qemu/networks/kept.xml"
        )
        before = expect.all_units(host), host.sh(FILES).stdout
        section = asked(
            networks=[
                {"name": "a", "mode": "bridge", "bridge": "br9"},
                {"name": "b", "mode": "nat", "subnet": "10.1.0.0/16"},
                {"name": "kept", "mode": "nat", "subnet": "10.8.0.0/24"},
            ],
            pools=[
                {"name": "c", "type": "dir", "path": "/srv/file"},
                {"name": "d", "type": "dir", "path": "/srv/file/under"},
                {"name": "e", "type": "dir", "path": "/srv/small/pool"},
                {"name": "f", "type": "dir", "path": "/proc/sys/pool"},
            ],
        )
        report = apply(host, section, check=False)
        assert report["changed"] == []
        errors = "\n".join(report["errors"])
        for text in (
            "networks[0].bridge: br9: there is no such interface on this host",
            "networks[1]: b can't have 10.1.0.0/16: this host has 10.1.1.",
            "networks[2]: kept is there and differs: its mode is route, not nat",
            "'virsh net-undefine kept'",
            "pools[0]: c can't be at /srv/file: /srv/file is not a directory",
            "pools[1]: d can't be at /srv/file/under: /srv/file is not a directory",
            "pools[2]: e can't be at /srv/small/pool: its file system has ",
            "pools[3]: f can't be at /proc/sys/pool: /proc/sys is on a read-only file system",
        ):
            assert text in errors, errors
        assert (expect.all_units(host), host.sh(FILES).stdout) == before


@on_both
def test_a_failure_puts_networks_and_pools_back(system: str) -> None:
    with Host(system) as host:
        host.boot()
        apply(host, {})
        # dnsmasq can't listen: the last network of the list fails after the others are up.
        host.sh("mv /usr/sbin/dnsmasq /usr/sbin/dnsmasq.away")
        section = asked(
            networks=[{"name": "fine", "mode": "bridge", "bridge": "br0"}, NAT],
            pools=[{"name": "vms", "type": "dir", "path": "/srv/kvm/vms"}],
        )
        host.sh("ip link add br0 type bridge")
        before = listed(host, "net"), listed(host, "pool")
        report = apply(host, section, check=False)
        text = " ".join(report["errors"])
        assert "start network default: " in text and "journalctl -u " in text
        assert (listed(host, "net"), listed(host, "pool")) == before
        assert not host.exists("/srv/kvm")
        expect.mode_is(host, expect.MODE_OF[system])
        host.sh("mv /usr/sbin/dnsmasq.away /usr/sbin/dnsmasq")
        apply(host, section)
        assert listed(host, "net")["default"] == ["active", "yes", "yes"]
