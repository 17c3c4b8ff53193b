"""systemd refuses to start a unit that was started too often; a run works however often one ran before."""

from __future__ import annotations

import json
import secrets

import pytest

import expect
import test_switching
from host import Host
from test_bad_input import everything
from test_faults import DIR, FILES, KILLED

SYSTEMS = ("el9", "el10")
SWITCHES = 20
#: systemd counts the starts of ten seconds. However slow this machine is, all of a test's shall count.
COUNTS = {"/etc/systemd/system.conf.d/counts.conf": "[Manager]\nDefaultStartLimitIntervalSec=1h\n"}

#: Arguments: a seed, how many switches. Prints as JSON what went wrong, the seconds, and how many runs were killed.
ENDURE = """
import json, random, subprocess, sys, time
def run(*argv):
    return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
dice, wrong, killed = random.Random(sys.argv[1]), [], 0
start = time.monotonic()
for number in range(int(sys.argv[2])):
    section = "/root/" + ("modular", "monolithic")[number % 2] + ".yaml"
    subprocess.call(["cp", section, "/root/section.yaml"])
    at = dice.randrange(1, 40)
    done = run("python3", "/root/killed.py", str(at))
    killed += done.returncode == -9
    if done.returncode not in (0, -9):
        wrong.append([number, at, done.stderr.decode()[-500:]])
    done = run("kvmhost", "apply", section)
    if done.returncode:
        wrong.append([number, at, done.stderr.decode()[-500:]])
    done = run("virsh", "list")
    if done.returncode:
        wrong.append([number, at, done.stderr.decode()[-500:]])
print(json.dumps([wrong, time.monotonic() - start, killed]))
"""
LOAD = "for n in 1 2 3 4; do (while :; do :; done) >/dev/null 2>&1 & done; echo $! >/run/load"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("load", [False, True], ids=["idle", "loaded"])
def test_switching_back_and_forth_ten_times_with_runs_killed_in_between(
    system: str, load: bool
) -> None:
    seed = secrets.token_hex(4)
    files = {**COUNTS, "/root/killed.py": KILLED, "/root/endure.py": ENDURE}
    with Host(system, files=files) as host:
        for mode in ("modular", "monolithic"):
            section = {"libvirt": {"mode": mode}}
            host.write(f"/root/{mode}.yaml", expect.user_data(section))
        host.boot()
        if load:
            host.sh(LOAD)
        out = host.run(["python3", "/root/endure.py", seed, str(SWITCHES)], timeout=300).stdout
        wrong, seconds, killed = json.loads(out)
        print(f"seed {seed}: {seconds:.0f} s, {killed} killed")
        assert not wrong, f"seed {seed}, {seconds:.0f} s"
        assert killed > 3, "the runs were not killed"
        expect.mode_is(host, "monolithic")


@pytest.mark.parametrize("system", SYSTEMS)
def test_however_often_a_run_fails_all_is_put_back(system: str) -> None:
    fails = f"{DIR}/fails.service"
    with Host(system, files={**COUNTS, fails: FILES[fails]}) as host:
        host.boot()
        test_switching.run(host, "monolithic")
        before = everything(host)
        section = {"libvirt": {"mode": "modular"}, "units": ["fails.service"]}
        host.write("/root/section.yaml", expect.user_data(section))
        for number in range(10):
            done = host.run(["kvmhost", "apply", "/root/section.yaml"], check=False)
            assert "start fails.service: job result failed" in done.stderr, number
            assert "putting things back" not in done.stderr, (number, done.stderr)
            assert everything(host) == before, number
        expect.mode_is(host, "monolithic")
