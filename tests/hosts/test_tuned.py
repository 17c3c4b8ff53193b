"""tuned while it starts: it reads its files, tunes, and only then accepts requests."""

from __future__ import annotations

import pytest

import expect
from host import Host

#: Up to 2.22 tuned looks for profiles in the first, later in the second.
DIRS = ("/etc/tuned/slow", "/etc/tuned/profiles/slow")
#: A profile that takes five seconds to start.
PROFILE = "[main]\nsummary=slow\n[slow]\ntype=script\nscript=${i:PROFILE_DIR}/slow.sh\n"
SCRIPT = "#!/bin/sh\n[ $1 != start ] || { touch /run/slow; sleep 5; }\n"
FAILS = {
    "/etc/systemd/system/fails.service": "[Service]\nType=oneshot\nExecStart=false\n"
    "[Install]\nWantedBy=multi-user.target\n",
}
SLOW = {
    **{f"{directory}/tuned.conf": PROFILE for directory in DIRS},
    **{f"{directory}/slow.sh": SCRIPT for directory in DIRS},
    **FAILS,
}

PPD_CONF = """[main]
# The default PPD profile
default=balanced
[profiles]
power-saver=powersave
balanced=virtual-host
performance=throughput-performance
"""


def bring_up(host: Host) -> None:
    """Start tuned, and return when it has read its files and is tuning."""
    host.sh("""
        systemctl stop tuned; chmod 755 /etc/tuned/slow/slow.sh /etc/tuned/profiles/slow/slow.sh
        echo slow >/etc/tuned/active_profile; echo manual >/etc/tuned/profile_mode
        systemctl start --no-block tuned
        for wait in $(seq 200); do [ ! -e /run/slow ] || break; sleep 0.05; done
    """)
    shown = host.run(["systemctl", "show", "-p", "ActiveState", "--value", "tuned"])
    assert shown.stdout.strip() == "activating"


@pytest.mark.parametrize("system", ["el9", "el10"])
@pytest.mark.parametrize("written", [False, True], ids=["fresh", "written-by-a-killed-run"])
def test_the_profile_is_set_while_tuned_starts(system: str, written: bool) -> None:
    with Host(system, files=SLOW) as host:
        host.boot()
        host.write("/root/section.yaml", expect.user_data({}))
        bring_up(host)
        if written:
            host.sh("echo virtual-host >/etc/tuned/active_profile")
        host.run(["kvmhost", "apply", "/root/section.yaml"])
        expect.tuned_is(host, "virtual-host")
        host.reboot()
        expect.tuned_is(host, "virtual-host")


@pytest.mark.parametrize("system", ["el9", "el10"])
def test_who_else_sets_profiles_is_named(system: str) -> None:
    ppd = {"/usr/lib/systemd/system/tuned-ppd.service": "[Service]\nExecStart=sleep infinity\n"}
    with Host(system, user_data=expect.user_data({}), files={**ppd, **FAILS}) as host:
        host.boot()
        assert "tuned-ppd.service" in host.report()["warnings"][0]
        for command in ("plan", "status"):
            done = host.run(["kvmhost", command])
            assert "warning: tuned-ppd.service sets a profile of its own" in done.stderr
        # A run that fails warns too: it may be why.
        host.write("/root/section.yaml", expect.user_data({"units": ["fails.service"]}))
        done = host.run(["kvmhost", "apply", "/root/section.yaml"], check=False)
        assert done.returncode == 1 and "warning: tuned-ppd.service" in done.stderr
        assert "tuned-ppd.service" in host.report()["warnings"][0]
        # What the warning says to do, one or the other, ends it.
        host.write("/etc/tuned/ppd.conf", PPD_CONF)
        assert not host.run(["kvmhost", "status"]).stderr
        host.write("/etc/tuned/ppd_base_profile", "performance\n")
        assert "sets throughput-performance each time" in host.run(["kvmhost", "status"]).stderr
        host.run(["systemctl", "mask", "--now", "tuned-ppd.service"])
        assert not host.run(["kvmhost", "status"]).stderr


@pytest.mark.parametrize("system", ["el9", "el10"])
def test_a_failed_run_leaves_the_profile_that_tuned_starts_with(system: str) -> None:
    with Host(system, files=SLOW) as host:
        host.boot()
        host.write("/root/section.yaml", expect.user_data({"units": ["fails.service"]}))
        bring_up(host)
        done = host.run(["kvmhost", "apply", "/root/section.yaml"], check=False)
        assert done.returncode == 1
        assert "start fails.service" in done.stderr and "putting things back" not in done.stderr
        expect.tuned_is(host, "slow")
