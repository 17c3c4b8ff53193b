"""For every unit file of a host, the state that we read from the disk is the one that systemd reports."""

from __future__ import annotations

import json

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")
ASK = """
import json
from cc_kvmhost import tuned
from cc_kvmhost.systemd import unit_files
from cc_kvmhost.systemd.manager import Manager
from cc_kvmhost.virt import units as libvirt
with Manager(30) as manager:
    asked = {n: s for n, s in manager.unit_files(["*"]).items() if "@" not in n}
known, left = unit_files.states(asked)
own = [unit for unit in libvirt.UNITS + (tuned.SERVICE,) if unit in asked]
print(json.dumps({"asked": asked, "known": known, "left": left, "own": own}))
"""
UNIT = "[Service]\\nExecStart=sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n"
ODD = f"""
cd /etc/systemd/system
printf '{UNIT}' >own.service
printf '{UNIT}Alias=other-name.service\\n' >/usr/lib/systemd/system/aliased.service
printf '{UNIT}' >/usr/lib/systemd/system/runtime.service
printf '{UNIT}' >/usr/lib/systemd/system/vendor.service
printf '{UNIT}' >/usr/lib/systemd/system/hidden.service
printf '{UNIT}' >/usr/lib/systemd/system/twice.service
printf '{UNIT}' >/usr/local/lib/systemd/system/twice.service
printf '{UNIT}' >/root/linked.service
printf '[Service]\\nExecStart=sleep infinity\\n' >/usr/lib/systemd/system/dropped.service
printf '[Service]\\nExecStart=true\\n' >/usr/lib/systemd/system/wanted.service
printf '[Service]\\nExecStart=true\\n[Install]\\n# WantedBy=x.target\\nWantedBy=\\n' >/usr/lib/systemd/system/nothing.service
printf '[Service]\\nExecStart=true\\n[Install]\\nAlso=own.service\\n' >/usr/lib/systemd/system/also.service
: >empty.service; : >/usr/lib/systemd/system/empty-too.service
mkdir -p dropped.service.d multi-user.target.wants other.target.requires
printf '[Install]\\nWantedBy=multi-user.target\\n' >dropped.service.d/install.conf
for name in reset nice broken; do
    printf '{UNIT}' >/usr/lib/systemd/system/$name.service; mkdir $name.service.d
done
printf '[Install]\\nWantedBy=\\n' >reset.service.d/install.conf
printf '[Service]\\nNice=1\\n' >nice.service.d/nice.conf
ln -s /nowhere/gone.conf broken.service.d/gone.conf
mkdir -p /usr/lib/systemd/system/multi-user.target.wants
ln -s ../vendor.service /usr/lib/systemd/system/multi-user.target.wants/
ln -s /usr/lib/systemd/system/wanted.service other.target.requires/
ln -s /nowhere/dangling.service multi-user.target.wants/
ln -s /nowhere/gone.service gone.service
systemctl link /root/linked.service; systemctl enable aliased.service
systemctl enable --runtime runtime.service; systemctl mask --runtime hidden.service
systemctl mask not-installed.service virtsecretd.socket
systemctl enable --runtime virtnodedevd-ro.socket || true
systemctl set-property tuned.service CPUWeight=50
systemd-run --unit=transient sleep infinity
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_disk_tells_what_systemd_tells(system: str) -> None:
    with Host(system) as host:
        host.boot()
        host.sh("mkdir -p /usr/local/lib/systemd/system")
        agree(host)
        for mode in ("modular", "monolithic"):
            section = {"libvirt": {"mode": mode}}
            host.write("/root/section.yaml", expect.user_data(section))
            host.run(["kvmhost", "apply", "/root/section.yaml"])
            left = agree(host)
            assert not left.intersection(expect.all_units(host)), "libvirt's units leave no doubt"
        host.sh(ODD)
        left = agree(host)
        assert {"own.service", "twice.service", "dropped.service", "linked.service"} <= left
        assert {"reset.service", "broken.service"} <= left
        assert "nice.service" not in left


def agree(host: Host) -> set[str]:
    """Compare the states from the disk with systemd's; returns the units that systemd has to answer for."""
    result = json.loads(host.python(ASK).stdout)
    asked, known = result["asked"], result["known"]
    different = {
        unit: (state, asked[unit]) for unit, state in known.items() if asked[unit] != state
    }
    assert not different, "unit: (the disk's, systemd's)"
    assert set(known) | set(result["left"]) == set(asked)
    assert len(known) > 150
    return set(result["left"])
