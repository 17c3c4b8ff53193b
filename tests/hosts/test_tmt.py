"""tmt runs two of its plans over ssh, on a host that reboots. `make lint` validates all plans."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML  # tmt's

import project
import ssh
from host import Host

TMT = [sys.executable, "-m", "tmt"]
# tmt asks which package has /usr/bin/flock, to install it; here what is installed is all there is.
APT_FILE = (
    '#!/bin/sh\n[ "$1" != search ] || dpkg-query --search "$3" | cut --delimiter=: --fields=1\n'
)
# How often each asks all questions.
PLANS = {"first-boot": 3, "modes": 3}
QUESTIONS = len(list((project.CHECKOUT / "tests/tmt/questions").iterdir()))
PARTS = (".fmf", "plans", "tests/tmt", "images")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what tmt takes to the machine that it tests, without the rest of the checkout."""
    tree = tmp_path_factory.mktemp("tmt")
    for part in PARTS:
        shutil.copytree(project.CHECKOUT / part, tree / part)
    return tree


def test_plans_on_the_stand_in(tree: Path, tmp_path: Path) -> None:
    private, public = ssh.key(tmp_path)
    # The same path on the host, where /tmp does not outlive a reboot. Too long for ssh's sockets: tmt would
    # look for one after each connect, and again half a minute later.
    work = tempfile.TemporaryDirectory(prefix=f"{'tmt-':-<60}", dir="/var/tmp")
    connect = ["provision", "--how", "connect", "--guest", "127.0.0.1", "--user", "root"]
    argv = [
        *TMT,
        "--context",
        "installed=yes",
        "--root",
        str(tree),
        "run",
        "--id",
        f"{work.name}/run",
    ]
    argv += ["--all", *connect, "--key", str(private)]
    argv += [
        "report",
        "--how",
        "display",
        "-vvv",
        "plan",
        "--name",
        f"^/plans/({'|'.join(PLANS)})$",
    ]
    with (
        work,
        ssh.network() as network,
        Host(
            "el10",
            files={"/root/.ssh/authorized_keys": public},
            layers=[ssh.layer("el10")],
            network=network,
        ) as host,
        (tmp_path / "log").open("w+") as log,
    ):
        host.write("/usr/local/bin/apt-file", APT_FILE, 0o755)
        host.boot()
        deadline = time.monotonic() + 600
        with subprocess.Popen(
            ["nsenter", f"--net={network}", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as run:
            while run.poll() is None:
                if host.went_down():
                    host.stop()
                    host.boot()
                if time.monotonic() > deadline:
                    run.kill()
                time.sleep(0.1)
        said = (tmp_path / "log").read_text()
        assert run.returncode == 0, said
        for plan, asked in PLANS.items():
            results = Path(work.name, "run/plans", plan, "execute/results.yaml")
            found = YAML(typ="safe").load(results)
            assert {result["result"] for result in found} == {"pass"}
            answers = [each["result"] for result in found for each in result["subresult"]]
            assert answers == ["pass"] * asked * QUESTIONS
            # What docs/testing.md finds them by.
            lines = [
                line.split("\t")
                for file in Path(work.name, "run/plans", plan).rglob("el-results.tsv")
                for line in file.read_text().splitlines()
            ]
            assert [line[-1] for line in lines] == ["holds"] * asked * QUESTIONS
            assert {line[1] for line in lines} == {"CentOS Stream 10 (Coughlan)"}
