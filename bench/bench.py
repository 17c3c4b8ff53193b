"""Measures a run against systemctl and Ansible, side by side on one throwaway host.

Prints a table and writes results.json, table.md and chart.svg into a directory. Exit status 1 if a
ratio is missed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pygal
import pygal.style

HERE = Path(__file__).parent
CHECKOUT = HERE.parent
sys.path.insert(0, str(CHECKOUT / "tests" / "hosts"))

import inside  # noqa: E402  (beside this file)
import nspawn  # noqa: E402
import roots  # noqa: E402
from host import Host  # noqa: E402

SYSTEM = "el10"
DOCUMENT = CHECKOUT / "docs" / "performance.md"
BEGIN, END = "<!-- made by make bench: begin -->", "<!-- end -->"
ANSIBLE = "apt-get -q update && apt-get -q install --yes --no-install-recommends ansible-core"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=9, help="of each side of a row (9)")
    parser.add_argument(
        "--output", type=Path, default=CHECKOUT / "build" / "bench", help="directory (build/bench)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with TEXT in their name")
    parser.add_argument("--document", action="store_true", help="write docs/performance.* too")
    options = parser.parse_args()

    results = measure(options.samples, options.only)
    table = "\n".join(markdown(results)) + "\n"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.output / "table.md").write_text(table)
    (options.output / "chart.svg").write_bytes(chart(results))
    print(table)
    print(f"results.json, table.md and chart.svg are in {options.output}")
    if options.document:
        document(results, table)
    missed = [row["name"] for row in results["rows"] if row["ratio"] > row["limit"]]
    for name in missed:
        print(f"missed: {name}")
    return int(bool(missed))


def measure(samples: int, only: str) -> dict[str, Any]:
    """Everything that inside.py finds out on a host with Ansible, and when."""
    root = roots.root(SYSTEM, lambda text: print(text, flush=True))
    with Host(SYSTEM, layers=[ansible(root)]) as host:
        for path in ("inside.py", "adr.yaml", "switch", "try-guest"):
            host.write(f"/root/bench/{path}", (HERE / path).read_text(), mode=0o755)
        host.boot()
        host.run(["python3", "-m", "compileall", "-q", "/usr/lib/python3/dist-packages/cc_kvmhost"])
        # What is said on standard error goes on to the terminal: it takes minutes.
        command = ["python3", "/root/bench/inside.py", str(samples), only]
        results: dict[str, Any] = json.loads(host.follow(command))
    if only in FIRST_BOOT:
        results["rows"].append(first_boot(samples))
    if not only:
        results["rows"].append(memory(min(samples, 5)))
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()), **results}


#: Has each cloud-init of a host note the most memory it had, when it ends.
PEAK = """
import atexit, re, sys

def note():
    peak = re.search(r"VmHWM:\\s*([0-9]+) kB", open("/proc/self/status").read()).group(1)
    open("/run/peaks", "a").write(peak + "\\n")

if any(argument.endswith("/cloud-init") for argument in sys.orig_argv):
    atexit.register(note)
"""
PACKAGES = "/usr/lib/python3/dist-packages"
#: EL 9's presets enable the modular daemons, which a run has to stop: the case that baking is for.
FIRST_BOOT = "first boot of EL 9, its section baked in"


def first_boot(samples: int) -> dict[str, Any]:
    """The run in a real first boot of a baked image, against that of the same image without."""
    print(f"{FIRST_BOOT} ...", flush=True)
    section = "#cloud-config\nkvmhost: {check: sockets, kvm: ignore}\n"
    steps: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    started = 0
    for _ in range(samples):
        for baked, taken in steps.items():
            with Host("el9", user_data=section, files={"/root/section": section}) as host:
                if baked:
                    host.chroot(["kvmhost", "apply", "--here", "/root/section"])
                host.boot()
                report = host.report()
                assert report["result"] == "ok", report
                taken.append({step["name"]: step["ms"] for step in report["steps"]})
                if baked:
                    started = sum(change.startswith("start ") for change in report["changed"])
    ours, against = (
        [sum(each.values()) / 1000 for each in steps[baked]] for baked in (True, False)
    )
    names = dict.fromkeys(name for each in steps[True] for name in each)
    return {
        "name": FIRST_BOOT,
        "note": "",
        "against": "the same, not baked",
        "limit": 0.5,
        "wanted": None,
        "ours_ms": inside.spread(ours),
        "against_ms": inside.spread(against),
        "ratio": statistics.median(ours) / statistics.median(against),
        "steps_ms": {
            name: round(statistics.median(each.get(name, 0.0) for each in steps[True]), 1)
            for name in names
        },
        "jobs": started,
        "jobs_ms": {},
    }


def memory(samples: int) -> dict[str, Any]:
    """The peak of cloud-init's processes in first boots with a section, against those without."""
    print("peak memory of first boots ...", flush=True)
    files = {f"{PACKAGES}/note_peak.py": PEAK, f"{PACKAGES}/note_peak.pth": "import note_peak\n"}
    peaks = {}
    for section in ("", "kvmhost: {check: sockets, kvm: ignore}\n"):
        taken = []
        for _ in range(samples):
            with Host(SYSTEM, user_data="#cloud-config\n" + section, files=files) as host:
                host.boot()
                assert host.exists("/run/kvmhost/report.json") == bool(section)
                taken.append(max(map(int, host.read("/run/peaks").split())) / 1024)
        peaks[section] = statistics.median(taken)
    alone, together = peaks.values()
    return {
        "name": "peak memory added to cloud-init, first boot",
        "note": f"{alone:.1f} MiB without, {together:.1f} MiB with a section",
        "against": "first boot without a section",
        "limit": 0.1,
        "wanted": None,
        "ours_mib": round(together - alone, 2),
        "against_mib": round(alone, 2),
        "ratio": (together - alone) / alone,
    }


def ansible(root: Path) -> Path:
    """The layer with ansible-core on top of a host's root, built once."""
    name = f"ansible-{root.parent.name}"
    directory = nspawn.cache() / "layers" / name
    with nspawn.locked(nspawn.cache() / "locks" / "layers"):
        if not directory.is_dir():
            print("installing ansible-core for the host ...", flush=True)
            work = directory.with_suffix(".building")
            with nspawn.overlay([root], work) as merged:
                done = nspawn.run(
                    "kvmhost-build-ansible",
                    merged,
                    ["sh", "-c", ANSIBLE],
                    "--resolv-conf=bind-host",
                    timeout=600,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                if done.returncode:
                    raise nspawn.HarnessError(f"ansible-core can't be installed:\n{done.stdout}")
                (work / "upper").rename(directory)
    return directory


def markdown(results: dict[str, Any]) -> list[str]:
    """The table, and what the figures depend on."""
    lines = [
        "| work | ours, ms (min to max) | against | ms (min to max) | ratio | limit | wanted |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        ours, against = (_cell(row, side) for side in ("ours", "against"))
        ratio = _ratio(row["ratio"]) + ("" if row["ratio"] <= row["limit"] else " **missed**")
        wanted = "" if row["wanted"] is None else _ratio(row["wanted"])
        name = row["name"] + (f" ({row['note']})" if row["note"] else "")
        lines.append(
            f"| {name} | {ours} | {row['against']} | {against} | {ratio} | {_ratio(row['limit'])}"
            f" | {wanted} |"
        )
    lines += [
        "",
        "| run | steps, ms | start jobs | systemd's time for them, ms | the same, by systemctl |",
        "|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        if "steps_ms" in row:
            steps = ", ".join(f"{name} {value:g}" for name, value in row["steps_ms"].items())
            jobs = f"{row['jobs']} jobs" if row["jobs"] else "no jobs"
            times = (f"{row['jobs_ms'].get(side, '')}" for side in ("ours", "against"))
            lines.append(f"| {row['name']} | {steps} | {jobs} | {' | '.join(times)} |")
    facts = results["host"]
    lines += [
        "",
        f"{results['date']}; {facts['processors']} × {facts['processor']}, Linux {facts['kernel']};"
        f" the host: {facts['system']}, {facts['systemd']}, Python {facts['python']}, cloud-init"
        f" {facts['cloud-init']}, {facts['ansible']}. The units that systemctl is given:"
        f" {len(results['units'])}.",
    ]
    return lines


def _cell(row: dict[str, Any], side: str) -> str:
    if f"{side}_mib" in row:
        return f"{row[f'{side}_mib']:g} MiB"
    values = row[f"{side}_ms"]
    if values["samples"] == 1:
        return _number(values["median"])
    low, high = (_number(values[end]) for end in ("min", "max"))
    return f"{_number(values['median'])} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"1/{1 / value:.0f}" if value < 0.05 else f"{value:.2f}"


def chart(results: dict[str, Any]) -> bytes:
    """Both sides of each timed row, as SVG."""
    rows = [row for row in reversed(results["rows"]) if "steps_ms" in row]
    bars = pygal.HorizontalBar(
        title="Milliseconds, medians (logarithmic)",
        logarithmic=True,
        range=(10, 20000),
        y_labels=[10, 100, 1000, 10000],
        print_values=True,
        value_formatter=lambda value: f"{value:.0f}",
        x_labels=[row["name"] for row in rows],
        legend_at_bottom=True,
        width=1100,
        height=80 + 70 * len(rows),
        truncate_label=-1,
        js=(),
        style=pygal.style.CleanStyle(font_family="sans-serif", value_font_size=13),
    )
    bars.add("what it is measured against", [row["against_ms"]["median"] for row in rows])
    bars.add("kvmhost", [row["ours_ms"]["median"] for row in rows])
    svg: bytes = bars.render()
    # Where the library says what made it.
    return re.sub(rb"<!--.*?-->", b"", svg, flags=re.DOTALL)


def document(results: dict[str, Any], table: str) -> None:
    """Put the figures where the documentation has them."""
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN + "\n", 1)
    _, after = rest.split(END, 1)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table}{END}{after}")
    DOCUMENT.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    DOCUMENT.with_suffix(".svg").write_bytes(chart(results))


if __name__ == "__main__":
    sys.exit(main())
