"""What a run asks of systemd and what it imports, counted: a guard for its speed that is no timing."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")
#: Of all units that are in systemd's memory. Their files are read from the disk.
LOOK = {"ListUnitsByPatterns": 1}
LOOK_TWICE = {"ListUnitsByPatterns": 2}


def calls(host: Host, section: object) -> Counter[str]:
    host.write("/root/section.yaml", expect.user_data(section))
    status, methods = expect.calls_during(host, ["kvmhost", "apply", "/root/section.yaml"])
    assert status == 0, host.read("/tmp/out")
    # The run's way to see that systemd answers, and the test's to see that the watch has begun.
    return Counter(method for method in methods if method != "Ping")


def jobs(host: Host, verb: str) -> int:
    return sum(line.startswith(verb + " ") for line in host.report()["changed"])


@pytest.mark.parametrize("system", SYSTEMS)
def test_calls_are_as_few_as_kinds_of_change(system: str) -> None:
    with Host(system) as host:
        host.boot()
        other = {"libvirt": {"mode": expect.OTHER[expect.MODE_OF[system]]}}
        calls(host, other)
        assert calls(host, other) == LOOK

        switch = calls(host, {})
        assert switch["Reload"] == 1
        for method in ("EnableUnitFiles", "DisableUnitFiles", "MaskUnitFiles", "UnmaskUnitFiles"):
            assert switch[method] == 1, method
        assert switch["StartUnit"] == jobs(host, "start")
        assert switch["StopUnit"] == jobs(host, "stop")
        assert switch["Subscribe"] == 1
        assert switch["ListUnitsByPatterns"] == 2
        assert calls(host, {}) == LOOK


def test_the_first_run_on_el10_waits_for_no_reload() -> None:
    with Host("el10") as host:
        host.boot()
        assert calls(host, {}) == {**LOOK_TWICE, "EnableUnitFiles": 1, "MaskUnitFiles": 1}


def test_the_first_run_where_nothing_is_enabled_waits_for_no_reload() -> None:
    with Host("el10") as host:
        host.enable_nothing()
        host.boot()
        first = calls(host, {})
        # Jobs that take long are asked what they wait for: tuned's.
        for asked in ("GetJobBefore", "GetUnitByPID", "Get"):
            first.pop(asked, None)
        changes = {"EnableUnitFiles": 1, "MaskUnitFiles": 1, "Subscribe": 1}
        assert first == {**LOOK_TWICE, **changes, "StartUnit": jobs(host, "start")}


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_image_that_is_set_up_costs_its_starts(system: str) -> None:
    """Nothing is written, so systemd reads nothing again."""
    with Host(system) as host:
        host.boot()
        calls(host, {})
        host.sh("systemctl stop 'virt*.socket' 'libvirtd*.socket' libvirtd.service 2>&1")
        again = calls(host, {})
        assert jobs(host, "start") > 5
        starts = {"StartUnit": jobs(host, "start"), "Subscribe": 1}
        # A service that was stopped too often in too short a time is reset before its start.
        again.pop("ResetFailedUnit", None)
        assert again == {**LOOK_TWICE, **starts}


@pytest.mark.parametrize("system", SYSTEMS)
def test_further_units_cost_a_start_each_and_nothing_else(system: str) -> None:
    unit = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    names = [f"extra{number}.service" for number in range(60)]
    files = {f"/usr/lib/systemd/system/{name}": unit for name in names}
    with Host(system, files=files) as host:
        host.boot()
        calls(host, {})
        first = calls(host, {"units": names[:10]})
        second = calls(host, {"units": names})
        assert (first.pop("StartUnit"), second.pop("StartUnit")) == (10, 50)
        # While jobs run long they are asked what they wait for; nothing here does.
        assert first == second


IMPORTS = """
import json, sys
import cloudinit.cmd.main, cloudinit.reporting.events, jsonschema, yaml
before = set(sys.modules)
import cc_kvmhost
cc_kvmhost.handle("kvmhost", {config}, None)
new = {{name.split(".")[0] for name in set(sys.modules) - before}}
known = sys.stdlib_module_names
print(json.dumps(sorted(name for name in new - set(known) if not name.startswith("_cython_"))))
"""


def imports(host: Host, config: Any) -> set[str]:
    """The packages that the module loads beyond what cloud-init has loaded, but for Python's own."""
    return set(json.loads(host.python(IMPORTS.format(config=repr(config))).stdout.splitlines()[-1]))


@pytest.mark.parametrize("system", SYSTEMS)
def test_imports(system: str) -> None:
    with Host(system) as host:
        host.boot()
        assert imports(host, {}) == {"cc_kvmhost"}
        assert imports(host, {"users": ["default"]}) == {"cc_kvmhost"}
        for _ in range(2):  # with something to do and without
            assert imports(host, {"kvmhost": {}}) == {"cc_kvmhost", "pystemd", "distro"}
        # What a run has left out of pystemd is there for others.
        whole = (
            "import pystemd; from pystemd.dbuslib import DBus; pystemd.systemd1.Manager(bus=DBus())"
        )
        host.python(IMPORTS.format(config={"kvmhost": {}}) + whole)
        wrong = host.python(IMPORTS.format(config={"kvmhost": {"unit": []}}), check=False)
        assert "kvmhost.unit" in wrong.stderr
