"""libvirt's networks and pools, with real dnsmasq, bridges and routes."""

from __future__ import annotations

import json
import subprocess
import time
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
        # libvirt 9.0 has one backend; 11.3 takes the first of Debian's order that this kernel lets it use.
        backend = report["networks"]["more"]["after"]["firewall"]
        assert backend in {"el9": ["iptables"], "el10": ["iptables", "nftables"]}[system]
        tables = host.run(["nft", "list", "tables"]).stdout
        assert ("libvirt_network" in tables) == (backend == "nftables"), tables
        assert report["pools"]["vms"]["before"] is None
        # A second run changes nothing, and starts no process of its own.
        before = host.sh(FILES).stdout
        again = apply(host, section)
        assert again["changed"] == []
        assert "objects" not in [step["name"] for step in again["steps"]]
        status, calls = expect.calls_during(host, ["kvmhost", "apply", "/root/section.yaml"])
        assert status == 0 and not set(calls).intersection(expect.CHANGING), calls
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
        # The boot ROM of QEMU's network card asks for an address.
        host.sh(
            "virt-install --name address --memory 64 --disk none --pxe --network default"
            " --osinfo detect=off,require=off --graphics none --noautoconsole --virt-type qemu;"
            "until virsh net-dhcp-leases default | grep -F ' 192.168.122.'; do sleep 1; done",
            timeout=120,
        )


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


#: In dnsmasq's place: what it does for the network "bad".
DNSMASQ = """
mv /usr/sbin/dnsmasq /usr/sbin/dnsmasq.real
printf '#!/bin/sh\\ncase "$*" in *bad.conf*) {} ;; esac\\nexec /usr/sbin/dnsmasq.real "$@"\\n' >/usr/sbin/dnsmasq
chmod 755 /usr/sbin/dnsmasq
"""
DNSMASQ_BACK = "mv /usr/sbin/dnsmasq.real /usr/sbin/dnsmasq"
BAD = {"name": "bad", "mode": "nat", "subnet": "10.77.0.0/24"}


@on_both
@pytest.mark.parametrize("start", ["", "virsh net-start default; virsh net-autostart default"])
def test_a_network_that_was_moved_is_put_back(system: str, start: str) -> None:
    with Host(system) as host:
        host.boot()
        apply(host, {})
        host.sh(f"ip link add u0 type veth; ip link set u0 up; {start}")
        host.sh("ip address add 192.168.122.9/32 dev u0")
        host.sh(DNSMASQ.format("exit 3"))
        dump = ["virsh", "net-dumpxml", "default", "--inactive"]
        before = listed(host, "net"), host.run(dump).stdout
        report = apply(host, asked(networks=[NAT, BAD]), check=False)
        (error,) = report["errors"]
        assert error.startswith("start network bad: ") and "exit status 3" in error
        assert (listed(host, "net"), host.run(dump).stdout) == before
        host.sh(DNSMASQ_BACK)
        changed = apply(host, asked(networks=[NAT, BAD]))["changed"]
        verbs = [each.split()[0] for each in changed if " default" in each]
        moved = ["redefine", "autostart", "start"]
        assert verbs == (["stop", "redefine", "start"] if start else moved)
        assert subnet(host, "default") == "192.168.123.0/24"
        assert listed(host, "net")["default"] == ["active", "yes", "yes"]


#: kvmhost with other limits of time: for networks and pools, and for taking them back.
COMMAND = """
import sys
from cc_kvmhost import cli, run, undo
run.OBJECTS_SECONDS, undo._OBJECTS_SECONDS = 5.0, 4.0
sys.exit(cli.main(sys.argv[1:]))
"""


@on_both
def test_a_daemon_that_hangs_does_not_hold_the_run(system: str) -> None:
    service = {"el9": "libvirtd.service", "el10": "virtnetworkd.service"}[system]
    with Host(system) as host:
        host.boot()
        apply(host, {})
        before = listed(host, "net")

        def errors(**objects: Any) -> str:
            host.write("/root/s.yaml", expect.user_data(asked(**objects)))
            started = time.monotonic()
            command = ["python3", "-c", COMMAND, "apply", "--json", "/root/s.yaml"]
            done = host.run(command, check=False)
            assert time.monotonic() - started < 30
            report = json.loads(done.stdout)
            assert report["result"] == "failed"
            return "\n".join(report["errors"])

        def stopped(service: str, **objects: Any) -> str:
            stop = f"systemctl kill --signal=STOP --kill-who=main {service}"
            host.sh(f"systemctl start {service}; {stop}")
            text = errors(**objects)
            host.sh(stop.replace("STOP", "CONT"))
            assert f"not done within 5 s; see 'journalctl -u {service} -b'" in text
            return text

        assert "define network bad (10.77.0.0/24): " in stopped(service, networks=[BAD])
        storage = {"el9": "libvirtd.service", "el10": "virtstoraged.service"}[system]
        assert f"define pool default ({POOL['path']}): " in stopped(storage, pools=[POOL])
        assert listed(host, "net") == before and listed(host, "pool") == {}
        # It answers, and then not any more: what it has begun can't be taken back.
        host.sh(DNSMASQ.format("exec sleep 25"))
        text = errors(networks=[BAD])
        assert f"start network bad: not done within 5 s; see 'journalctl -u {service} -b'" in text
        assert "putting things back: networks and pools: not done within 4 s" in text
        assert "'kvmhost plan' shows what is different now" in text
        host.sh(f"{DNSMASQ_BACK}; pkill -x sleep || true")
        host.sh("while ip link show virbr1 || ip link show virbr0; do sleep 0.2; done 2>/dev/null")
        apply(host, asked(networks=[BAD]))
        assert listed(host, "net") == {**before, "bad": ["active", "yes", "yes"]}


@on_both
def test_a_run_that_is_killed_is_finished_by_the_next(system: str) -> None:
    section = asked(networks=[BAD, NAT], pools=[POOL])
    with Host(system) as host:
        host.boot()
        apply(host, {})
        host.sh(DNSMASQ.format("exec sleep 8"))
        host.write("/root/s.yaml", expect.user_data(section))
        script = "kvmhost apply /root/s.yaml & echo $! >/root/pid; wait"
        with subprocess.Popen(
            [
                "nsenter",
                f"--target={host.leader}",
                *"-m -u -i -n -p -C -r -w -- sh -c".split(),
                script,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ):
            host.sh(
                "until [ -e /run/libvirt/network/bad.xml ] || pgrep -x sleep; do sleep 0.1; done"
            )
            host.sh("kill -KILL $(cat /root/pid)")
        host.sh(DNSMASQ_BACK)
        # It was defined, and not started; nothing else was begun.
        assert listed(host, "net")["bad"][1:] == ["yes", "yes"]
        assert "default" not in listed(host, "pool")
        apply(host, section)
        assert listed(host, "net")["bad"] == ["active", "yes", "yes"]
        assert listed(host, "net")["default"] == ["active", "yes", "yes"]
        assert listed(host, "pool")["default"] == ["active", "yes"]
        assert apply(host, section)["changed"] == []


@on_both
def test_auto_among_routes_of_all_kinds(system: str) -> None:
    """A whole range that is routed elsewhere; rules with tables of their own; networks with IPv6."""
    six = (
        "<network><name>six</name><bridge name='vb6'/><ip family='ipv6' address='fd00:6::1' prefix='64'/>"
        "<ip address='10.0.1.1' netmask='255.255.255.0'/></network>"
    )
    with Host(system) as host:
        host.boot()
        host.sh(
            "ip link add up0 type veth peer name up1; ip address add 172.16.0.1/24 dev up0;"
            "ip link set up0 up; ip link set up1 up;"
            "ip route add 192.168.0.0/16 via 172.16.0.2; ip rule add from 172.16.0.9 table 99;"
            "ip route add unreachable 10.0.0.0/25 table 99; ip route add blackhole 10.0.2.0/24;"
            f'echo "{six}" | virsh net-define /dev/stdin'
        )
        # The package's own default is in the range, so it moves.
        report = apply(host, asked(networks=[NAT, {"name": "b", "mode": "nat"}]))
        assert subnet(host, "default") == "10.0.3.0/24"
        assert subnet(host, "b") == "10.0.4.0/24"
        (moved,) = [each for each in report["changed"] if each.startswith("redefine")]
        assert "because this host has 192.168.0.0/16 on up0" in moved
        assert listed(host, "net")["six"] == ["inactive", "no", "yes"]
        # One with IPv6 is as asked: the section says nothing of that.
        text = host.run(["virsh", "net-dumpxml", "b", "--inactive"]).stdout
        more = "<ip family='ipv6' address='fd00:b::1' prefix='64'/></network>"
        host.write("/root/b.xml", text.replace("</network>", more))
        host.sh("virsh net-destroy b; virsh net-define /root/b.xml")
        assert apply(host, asked(networks=[{"name": "b", "mode": "nat"}]))["changed"] == [
            "start network b"
        ]


@on_both
def test_a_default_that_is_not_asked_for_is_left_alone(system: str) -> None:
    """Even where it collides; there is a warning."""
    with Host(system) as host:
        host.boot()
        host.sh("virsh net-autostart default; ip link add u0 type veth; ip link set u0 up")
        host.sh("ip address add 192.168.122.9/24 dev u0")
        before = (
            listed(host, "net")["default"],
            host.run(["virsh", "net-dumpxml", "default"]).stdout,
        )
        report = apply(host, asked(networks=[{"name": "b", "mode": "nat"}]))
        assert any("libvirt's network default can't start" in text for text in report["warnings"])
        assert subnet(host, "b") == "192.168.123.0/24"
        after = listed(host, "net")["default"], host.run(["virsh", "net-dumpxml", "default"]).stdout
        assert after == before


@on_both
def test_the_label_of_a_directory_that_is_made(system: str) -> None:
    """A kernel without SELinux keeps labels; which one a path gets is the unit tests'."""
    command = (
        "import sys; from cc_kvmhost import cli, files; files._SELINUX_ON = '/etc/hostname';"
        " sys.exit(cli.main(sys.argv[1:]))"
    )
    pools = [{"name": "vms", "type": "dir", "path": "/srv/kvm/vms"}]
    with Host(system) as host:
        host.boot()
        host.write("/root/s.yaml", expect.user_data(asked(pools=pools)))
        done = host.run(["python3", "-c", command, "apply", "/root/s.yaml"])
        words = " ".join(done.stdout.split())
        assert "semanage fcontext -a -t virt_image_t '/srv/kvm/vms(/.*)?'" in words
        found = host.python("import os; print(os.getxattr('/srv/kvm/vms', 'security.selinux'))")
        assert "system_u:object_r:virt_image_t:s0" in found.stdout
        assert host.run(["stat", "-c", "%U %a", "/srv/kvm/vms"]).stdout.split() == ["root", "711"]


#: Keeps what libvirt is asked to start.
HOOK = "#!/bin/sh\ncat >/run/hook.xml.$$\n[ $2 != started ] || mv /run/hook.xml.$$ /run/$1.xml\n"


@on_both
def test_the_check_on_demand(system: str) -> None:
    """A NIC on each NAT network, and on no bridge; a volume in each directory."""
    section = asked(
        networks=[NAT, BAD, {"name": "lan", "mode": "bridge", "bridge": "br0"}],
        pools=[POOL, {"name": "vms", "type": "dir", "path": "/srv/kvm/vms"}],
    )
    with Host(system, files={"/etc/libvirt/hooks/qemu": HOOK}, bind=["/dev/net/tun"]) as host:
        host.chroot(["chmod", "755", "/etc/libvirt/hooks/qemu"])
        host.boot()
        host.sh("ip link add br0 type bridge; ip link set br0 up")
        apply(host, section)
        left = host.sh(LEFT).stdout

        def check(*words: str, file: str = "/root/section.yaml") -> tuple[int, dict[str, Any]]:
            done = host.run(["kvmhost", "check", "--json", *words, file], check=False, timeout=150)
            return done.returncode, json.loads(done.stdout)

        # Not said, not done.
        assert check("--level", "guest")[1]["check"]["networks"] == []
        assert (
            "<interface"
            not in host.sh("cat /run/kvmhost-check-*.xml; rm /run/kvmhost-check-*").stdout
        )
        # Of a check that was killed.
        host.sh("touch /srv/kvm/vms/kvmhost-check-abcdefgh.volume")
        status, report = check("--level", "guest", "--networks", "--pools")
        assert (status, report["errors"]) == (0, [])
        assert report["check"]["networks"] == ["default", "bad"]
        assert report["check"]["pools"] == ["default", "vms"]
        domain = host.sh("cat /run/kvmhost-check-*.xml").stdout
        assert domain.count("<rom enabled='no'/>") == domain.count("<interface") == 2
        assert "network='default'" in domain and "network='bad'" in domain
        assert host.sh(LEFT).stdout == left
        # What it says is true.
        host.sh("virsh net-destroy bad; virsh pool-destroy vms")
        status, report = check("--level", "guest", "--networks", "--pools")
        text = "\n".join(report["errors"])
        assert status == 1 and len(report["errors"]) == 2, text
        assert "network 'bad' is not active" in text
        assert "a volume in pool vms: " in text and "not active" in text
        apply(host, section)
        host.sh("virsh pool-start vms || true; mount -t tmpfs -o size=64k none /srv/kvm/vms")
        status, report = check("--level", "daemons", "--pools")
        assert status == 1 and "a volume in pool vms: " in report["errors"][0], report
        assert host.sh("ls /srv/kvm/vms").stdout == ""
        host.sh("umount /srv/kvm/vms")
        assert check("--level", "guest", "--networks", "--pools")[0] == 0
        assert host.sh(LEFT).stdout == left
        for words, error in (
            (("--networks", "--level", "daemons"), "--networks: needs a guest, and the level is"),
            (("--pools", "--level", "sockets"), "--pools: needs the level daemons or guest"),
        ):
            assert error in check(*words)[1]["errors"][0]
        host.write("/root/none.yaml", expect.user_data({}))
        for word, error in (("networks", "no network with mode nat"), ("pools", "no pool with")):
            assert error in check(f"--{word}", file="/root/none.yaml")[1]["errors"][0]


#: Guests, interfaces, volumes and files.
LEFT = """
virsh list --all --name; ls /sys/class/net; ls /srv/kvm/vms /var/lib/libvirt/images
for pool in default vms; do virsh pool-refresh $pool >/dev/null; virsh vol-list $pool; done
"""
