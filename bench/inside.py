"""The measuring part of `make bench`: runs as a program inside a test host, as its root.

Each sample of ours is a process that has loaded what cloud-init has loaded when it calls a config
module; what the module imports beyond that is part of its time.

Usage: inside.py SAMPLES [TEXT]; prints the results as JSON, and on standard error what it is at.
With TEXT only the rows that have it in their name.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

REPORT = "/run/kvmhost/report.json"
BENCH = os.path.dirname(os.path.abspath(__file__))
clock = time.monotonic


class Row(NamedTuple):
    """What is measured against what.

    ``prepare``: brings the start state about, before each sample of either side. ``ours``,
    ``against``: take a sample, in seconds. ``limit``: what the medians' ratio must not exceed,
    ``wanted``: what it better is. ``samples``: fewer than asked for, of what takes long.
    """

    name: str
    ours: str
    against: str
    limit: float
    wanted: float | None
    prepare: Callable[[], None]
    run: Callable[[], float]
    compare: Callable[[], float]


def main() -> None:
    samples = int(sys.argv[1])
    state = States()
    units = state.wanted_units()
    text = "".join(sys.argv[2:])
    results = [measure(row, samples) for row in rows(state, units) if text in row.name]
    if not text:
        results += [without_section(samples), linear(state)]
    print(json.dumps({"host": host(), "units": units, "rows": results}))


# The host and its start states


class States:
    """The states that samples start from."""

    def __init__(self) -> None:
        listed = output("systemctl", "list-unit-files", "--no-legend", "virt*", "libvirt*")
        self._units = [line.split()[0] for line in listed.splitlines() if "@." not in line]
        self._units.append("tuned.service")
        self._at_boot = [unit for unit in self._units if unit.endswith(".socket") and active(unit)]

    def wanted_units(self) -> list[str]:
        """The units that a run has running: what systemctl is given to enable and start."""
        self.preset()
        apply()
        units = report()["units"]
        return sorted(
            unit
            for unit, states in units.items()
            if states["after"]["active"] == "active"
            and unit.endswith((".socket", "tuned.service"))  # other services come by their sockets
        )

    def _clean(self) -> None:
        # A service that a socket has started keeps the socket from stopping for good.
        quiet("systemctl", "stop", *self._units)
        quiet("systemctl", "unmask", *self._units)
        quiet("systemctl", "disable", *self._units)
        for name, text in (("active_profile", "balanced"), ("profile_mode", "auto")):
            with open("/etc/tuned/" + name, "w") as stream:
                stream.write(text + "\n")

    def nothing(self) -> None:
        """No unit of libvirt's enabled or running, nor tuned."""
        self._clean()
        quiet("systemctl", "daemon-reload")
        settle()

    def nothing_but_tuned(self) -> None:
        self._clean()
        quiet("systemctl", "enable", "--now", "tuned.service")
        settle()

    def preset(self) -> None:
        """As EL's presets leave a fresh host, after its boot: the sockets listen, tuned runs."""
        self._clean()
        quiet("systemctl", "preset", *self._units)
        quiet("systemctl", "daemon-reload")
        quiet("systemctl", "start", *self._at_boot, "tuned.service")
        settle()

    def monolithic(self) -> None:
        """libvirtd enabled and running, the modular side masked."""
        apply({"libvirt": {"mode": "monolithic"}})
        quiet("systemctl", "start", "libvirtd.service")
        settle()

    def done(self) -> None:
        apply()
        settle()

    def image(self) -> None:
        """Everything enabled, masked and set as asked, but not running; sealed, so without libvirt's key
        for secrets, which an earlier check has had made."""
        apply()
        quiet("systemctl", "stop", *(unit for unit in self._units if unit != "tuned.service"))
        quiet("rm", "--force", "/var/lib/libvirt/secrets/secrets-encryption-key")
        settle()


def settle() -> None:
    """Until systemd has nothing to do, and what it started is at rest."""
    quiet("systemctl", "reset-failed")
    quiet("systemctl", "is-system-running", "--wait")
    time.sleep(0.7)


# What is measured


def rows(state: States, units: list[str]) -> list[Row]:
    def enable() -> float:
        return command("systemctl", "--quiet", "enable", "--now", *units)

    def start() -> float:
        listed = subprocess.list2cmdline(units)
        script = f"systemctl is-enabled {listed} >/dev/null && systemctl start {listed}"
        return command("sh", "-c", script)

    def ansible() -> float:
        return command("ansible-playbook", "-i", "localhost,", f"{BENCH}/adr.yaml", env=LOCALE)

    def enable_and_try() -> float:
        """What a careful administrator does by hand: enable, look, run a guest and end it."""
        return enable() + command(f"{BENCH}/try-guest")

    def switch() -> float:
        return command(f"{BENCH}/switch")

    first, enabling = "first run", "systemctl enable --now, one call"
    return [
        Row(
            f"{first}, EL's presets, tuned running",
            "profile switch and verification included",
            enabling,
            0.5,
            0.3,
            state.preset,
            apply,
            enable,
        ),
        Row(
            f"{first}, no unit of libvirt's enabled, tuned running",
            "profile switch and verification included",
            enabling,
            1.0,
            0.5,
            state.nothing_but_tuned,
            apply,
            enable,
        ),
        Row(
            f"{first}, nothing enabled, tuned not running",
            "tuned's start included",
            enabling,
            1.0,
            None,
            state.nothing,
            apply,
            enable,
        ),
        Row(
            f"{first}, EL's presets, tuned running; Ansible",
            "",
            "ansible-playbook",
            1 / 40,
            None,
            state.preset,
            apply,
            ansible,
        ),
        Row(
            f"{first}, nothing enabled; Ansible",
            "",
            "ansible-playbook",
            1 / 40,
            None,
            state.nothing,
            apply,
            ansible,
        ),
        Row(
            f"{first}, EL's presets, tuned running, with the check",
            "every daemon woken, a guest has written its line",
            "systemctl enable --now, virt-host-validate, virsh create, virsh destroy",
            1.0,
            0.7,
            state.preset,
            apply_and_check,
            enable_and_try,
        ),
        Row(
            "libvirtd to modular on a running host",
            "",
            "libvirt's documented commands",
            0.5,
            None,
            state.monolithic,
            apply,
            switch,
        ),
        Row(
            "second run, nothing to do",
            "",
            enabling,
            0.35,
            0.15,
            state.done,
            apply,
            enable,
        ),
        Row(
            "baked image after its boot, all up",
            "its first run: looks and verifies",
            "systemctl is-enabled, then start",
            0.5,
            None,
            state.done,
            apply,
            start,
        ),
        Row(
            "golden image, nothing to write",
            "",
            "systemctl is-enabled, then start",
            1.0,
            None,
            state.image,
            apply,
            start,
        ),
    ]


LOCALE = {"LC_ALL": "C.UTF-8", "HOME": "/root"}


def measure(row: Row, samples: int) -> dict[str, Any]:
    """Both sides of a row, alternating."""
    print(f"{row.name} ...", file=sys.stderr, flush=True)
    ours: list[float] = []
    against: list[float] = []
    steps: list[dict[str, float]] = []
    jobs: dict[str, list[float]] = {"ours": [], "against": []}
    started: list[str] = []
    for _ in range(samples):
        row.prepare()
        ours.append(row.run())
        content = report()
        steps.append({step["name"]: step["ms"] for step in content["steps"]})
        started = [line.split()[1] for line in content["changed"] if line.startswith("start ")]
        jobs["ours"].append(job_time(started))
        row.prepare()
        against.append(row.compare())
        jobs["against"].append(job_time(started))
    if not row.against.startswith("systemctl"):
        del jobs["against"]  # starts others, or each by itself
    names = list(dict.fromkeys(name for each in steps for name in each))
    return {
        "name": row.name,
        "note": row.ours,
        "against": row.against,
        "limit": row.limit,
        "wanted": row.wanted,
        "ours_ms": spread(ours),
        "against_ms": spread(against),
        "ratio": statistics.median(ours) / statistics.median(against),
        "steps_ms": {
            name: round(statistics.median(each.get(name, 0.0) for each in steps), 1)
            for name in names
        },
        "jobs": len(started),
        "jobs_ms": {
            side: round(1000 * statistics.median(taken), 1)
            for side, taken in jobs.items()
            if started
        },
    }


def without_section(samples: int) -> dict[str, Any]:
    """What every boot of a machine pays that carries the module and asks for nothing."""
    print("no kvmhost section ...", file=sys.stderr, flush=True)
    ours, against = [], []
    for _ in range(3 * samples):
        ours.append(handle({}))
        against.append(command("python3", "-c", "pass"))
    return {
        "name": "no kvmhost section, import included",
        "note": "",
        "against": "python3 -c pass",
        "limit": 0.1,
        "wanted": None,
        "ours_ms": spread(ours),
        "against_ms": spread(against),
        "ratio": statistics.median(ours) / statistics.median(against),
    }


def linear(state: States) -> dict[str, Any]:
    """The cost of one more unit, where there are many, against where there are few."""
    text = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n"
    text += "[Install]\nWantedBy=multi-user.target\n"
    names = [f"bench{number:03}.service" for number in range(500)]
    for name in names:
        with open("/usr/lib/systemd/system/" + name, "w") as stream:
            stream.write(text)
    seconds: dict[int, float] = {}
    for count in (10, 100, 500):
        print(f"{count} further units ...", file=sys.stderr, flush=True)
        taken = []
        for _ in range(3):
            quiet("systemctl", "stop", *names)
            quiet("systemctl", "disable", *names)
            state.done()
            taken.append(apply({"units": names[:count]}))
        seconds[count] = statistics.median(taken)
    quiet("systemctl", "stop", *names)
    quiet("systemctl", "disable", *names)
    for name in names:
        os.unlink("/usr/lib/systemd/system/" + name)
    quiet("systemctl", "daemon-reload")
    few = (seconds[100] - seconds[10]) / 90
    many = (seconds[500] - seconds[100]) / 400
    return {
        "name": "one further unit among 500",
        "note": ", ".join(f"{count}: {1000 * value:.0f} ms" for count, value in seconds.items()),
        "against": "one among 100",
        "limit": 1.5,
        "wanted": None,
        "ours_ms": spread([many]),
        "against_ms": spread([few]),
        "ratio": many / few,
    }


# Samples


def apply(section: dict[str, Any] | None = None) -> float:
    """Seconds from the handler's entry to its return, without a check of what the host can do."""
    return handle({"kvmhost": {"check": "sockets", "kvm": "ignore", **(section or {})}})


def apply_and_check() -> float:
    """The same with the check: a guest runs."""
    return handle({"kvmhost": {"check": "guest", "kvm": "ignore"}})


#: Loads what cloud-init has loaded by the time it calls a module, then is timed.
HANDLE = """
import json, sys, time
import cloudinit.cmd.main, cloudinit.reporting.events, jsonschema, yaml

config = json.loads(sys.argv[1])
before = set(sys.modules)
start = time.monotonic()
import cc_kvmhost

cc_kvmhost.handle("kvmhost", config, None)
seconds = time.monotonic() - start
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
assert config or loaded == {"cc_kvmhost"}, loaded
print(seconds)
"""


def handle(config: dict[str, Any]) -> float:
    """Seconds from the handler's entry to its return, with the module's import, in a process of
    its own."""
    done = subprocess.run(
        [sys.executable, "-c", HANDLE, json.dumps(config)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(done.stdout.splitlines()[-1])


def command(*argv: str, env: dict[str, str] | None = None) -> float:
    """Seconds that a command takes; it must succeed."""
    start = clock()
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )
    seconds = clock() - start
    if done.returncode:
        raise SystemExit(f"{argv[0]}: exit status {done.returncode}\n{done.stdout}")
    return seconds


def job_time(units: list[str]) -> float:
    """Seconds from the first of the units' jobs that did something to the end of the last, by
    systemd's own time stamps."""
    if not units:
        return 0.0
    stamps = ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    shown = output("systemctl", "show", "--property=" + ",".join(stamps), "--", *units)
    values: list[tuple[int, int]] = []
    for block in shown.split("\n\n"):
        pairs = dict(line.split("=", 1) for line in block.splitlines())
        values.append((int(pairs[stamps[0]]), int(pairs[stamps[1]])))
    return (max(end for _, end in values) - min(start for start, _ in values)) / 1e6


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and extremes, in milliseconds."""
    milliseconds = sorted(1000 * value for value in seconds)
    return {
        "median": round(statistics.median(milliseconds), 2),
        "min": round(milliseconds[0], 2),
        "max": round(milliseconds[-1], 2),
        "samples": len(milliseconds),
    }


def report() -> dict[str, Any]:
    with open(REPORT) as stream:
        content: dict[str, Any] = json.load(stream)
    assert content["result"] == "ok", content
    return content


def active(unit: str) -> bool:
    return subprocess.call(["systemctl", "--quiet", "is-active", unit]) == 0


def output(*argv: str) -> str:
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def quiet(*argv: str) -> None:
    subprocess.call(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def host() -> dict[str, Any]:
    """What the figures depend on."""
    with open("/proc/cpuinfo") as stream:
        models = [line.split(":")[1].strip() for line in stream if line.startswith("model name")]
    with open("/etc/os-release") as stream:
        release = dict(line.rstrip().split("=", 1) for line in stream if "=" in line)
    return {
        "processor": models[0] if models else os.uname().machine,
        "processors": os.cpu_count(),
        "kernel": os.uname().release,
        "system": release["PRETTY_NAME"].strip('"'),
        "systemd": output("systemctl", "--version").split("\n")[0],
        "python": sys.version.split()[0],
        "cloud-init": output("cloud-init", "--version").split()[-1],
        "ansible": output("ansible-playbook", "--version").split("\n")[0],
    }


if __name__ == "__main__":
    main()
