"""Packit's configuration names what is there; its own validator takes minutes to install (tox run -e packit)."""

import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG: Dict[str, Any] = yaml.safe_load((ROOT / ".packit.yaml").read_text(encoding="utf-8"))
# As https://packit.dev/docs/configuration has them: those that make sense here.
KEYS = {
    "specfile_path",
    "upstream_package_name",
    "downstream_package_name",
    "upstream_tag_template",
    "actions",
    "jobs",
}
JOB_KEYS = {"job", "trigger", "targets", "branch", "tmt_plan"}


def jobs(kind: str) -> List[Dict[str, Any]]:
    return [job for job in CONFIG["jobs"] if job["job"] == kind]


class TestConfiguration:
    def test_keys(self) -> None:
        assert set(CONFIG) <= KEYS
        for job in CONFIG["jobs"]:
            assert set(job) <= JOB_KEYS

    def test_spec(self) -> None:
        assert (ROOT / CONFIG["specfile_path"]).is_file()

    def test_version_is_that_of_setup_py(self) -> None:
        action = CONFIG["actions"]["get-current-version"]
        version = subprocess.check_output(["sh", "-c", action], cwd=str(ROOT)).decode().strip()
        assert f'version="{version}"' in (ROOT / "setup.py").read_text(encoding="utf-8")

    @pytest.mark.parametrize("kind", ["copr_build", "tests"])
    def test_for_pull_requests_and_commits(self, kind: str) -> None:
        assert [job["trigger"] for job in jobs(kind)] == ["pull_request", "commit"]

    def test_what_is_tested_is_built(self) -> None:
        for build, test in zip(jobs("copr_build"), jobs("tests")):
            assert build["targets"] == ["epel-8", "epel-9", "epel-10"]
            assert {target.replace("-x86_64", "") for target in test["targets"]} <= set(
                build["targets"]
            )
            composes = [name for target in test["targets"].values() for name in target["distros"]]
            assert composes == ["CentOS-Stream-9", "CentOS-Stream-10"]

    def test_every_plan_that_changes_a_machine(self) -> None:
        plans = {f"/plans/{path.stem}" for path in (ROOT / "plans").glob("*.fmf")}
        plans -= {"/plans/main"}
        for job in jobs("tests"):
            assert {plan for plan in plans if re.search(job["tmt_plan"], plan)} == plans - {
                "/plans/asked"
            }
