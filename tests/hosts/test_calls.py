"""What a run asks of systemd, counted on the bus: a guard for its speed that is no timing."""

from __future__ import annotations

from collections import Counter

import pytest

import expect
from host import Host

SYSTEMS = ("el9", "el10")
#: One to see that systemd answers, one for all unit files, one for all units.
LOOK = {"GetUnitFileState": 1, "ListUnitFilesByPatterns": 1, "ListUnitsByNames": 1}
LOOK_AGAIN = {"ListUnitFilesByPatterns": 1, "ListUnitsByNames": 1}


def calls(host: Host, section: object) -> Counter[str]:
    host.write("/root/section.yaml", expect.user_data(section))
    status, methods = expect.calls_during(host, ["kvmhost", "apply", "/root/section.yaml"])
    assert status == 0, host.read("/tmp/out")
    # The test's own way to see that the watch has begun.
    return Counter(method for method in methods if method != "Ping")


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
        jobs = [line for line in host.report()["changed"] if line.startswith(("start ", "stop "))]
        assert switch["StartUnit"] + switch["StopUnit"] == len(jobs)
        assert switch["Subscribe"] == 1
        assert calls(host, {}) == LOOK


@pytest.mark.parametrize("system", SYSTEMS)
def test_further_units_cost_a_start_each_and_nothing_else(system: str) -> None:
    unit = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    names = [f"extra{number}.service" for number in range(60)]
    files = {f"/etc/systemd/system/{name}": unit for name in names}
    with Host(system, files=files) as host:
        host.boot()
        calls(host, {})
        first = calls(host, {"units": names[:10]})
        second = calls(host, {"units": names})
        assert (first.pop("StartUnit"), second.pop("StartUnit")) == (10, 50)
        # While jobs run long they are asked what they wait for; nothing here does.
        assert first == second
