"""What importing the package costs, how cloud-init calls it, and what a missing module means."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cc_kvmhost

HERE = str(Path(cc_kvmhost.__file__).parents[1])
THIRD_PARTY = ("pystemd", "jsonschema", "distro", "yaml", "cloudinit")

#: A stub of cloud-init's reporting. The tests on hosts show what real cloud-init does with the events.
EVENTS = """\
import contextlib
@contextlib.contextmanager
def ReportEventStack(name, description):
    yield
"""

BLOCK = """\
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
"""


def python(script: str, *options: str, path: str = HERE) -> Any:
    """Run a script in a new Python process."""
    lines = f"import sys; sys.path[:0] = {path!r}.split({os.pathsep!r})\n"
    return subprocess.run(
        [sys.executable, *options, "-c", lines + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


@pytest.fixture
def cloudinit(tmp_path: Path) -> str:
    reporting = tmp_path / "cloudinit/reporting"
    reporting.mkdir(parents=True)
    (tmp_path / "cloudinit/__init__.py").write_text("")
    (reporting / "__init__.py").write_text("")
    (reporting / "events.py").write_text(EVENTS)
    return str(tmp_path)


class TestImport:
    @pytest.mark.parametrize("options", [[], ["-S"], ["-I"], ["-I", "-S"], ["-W", "error"]])
    def test_loads_nothing_that_can_be_missing(self, options: Any) -> None:
        script = f"""\
import cc_kvmhost
cc_kvmhost.handle("kvmhost", {{}}, None, None, [])
cc_kvmhost.handle(name="kvmhost", cfg={{"a": 1}}, cloud=None, args=[])
print(sorted(set(name.split(".")[0] for name in sys.modules) & set({THIRD_PARTY!r})))
print(sorted(name for name in sys.modules if name.startswith("cc_kvmhost.")))
"""
        done = python(script, *options)
        assert (done.stdout, done.stderr) == ("[]\n[]\n", "")

    def test_with_all_of_them_missing(self) -> None:
        script = f"""\
BLOCKED = {THIRD_PARTY!r}
{BLOCK}
import cc_kvmhost
cc_kvmhost.handle("kvmhost", {{}}, None, None, [])
"""
        done = python(script, "-S")
        assert (done.returncode, done.stderr) == (0, "")


class TestMeta:
    def test_what_cloud_init_asks_for(self) -> None:
        assert cc_kvmhost.meta["id"] == "cc_kvmhost"
        assert cc_kvmhost.meta["distros"] == ["all"]
        assert cc_kvmhost.meta["frequency"] == "once-per-instance"
        assert cc_kvmhost.meta["activate_by_schema_keys"] == ["kvmhost"]

    def test_no_attribute_named_schema(self) -> None:
        # cloud-init refuses a module that has one; submodules become attributes when they load.
        names = [path.stem for path in Path(cc_kvmhost.__file__).parent.glob("*.py")]
        assert "schema" not in names and not hasattr(cc_kvmhost, "schema")

    def test_handle_is_not_of_the_deprecated_form(self) -> None:
        code = cc_kvmhost.handle.__code__
        assert code.co_varnames[:3] == ("name", "cfg", "cloud")
        assert code.co_flags & 0x04, "exactly five declared parameters are a DEPRECATED warning"


class TestHandle:
    def handle(self, blocked: Any, path: str, call: str) -> Any:
        script = f"""\
BLOCKED = {blocked!r}
{BLOCK}
import cc_kvmhost, cc_kvmhost.run, cc_kvmhost.report, cc_kvmhost.systemd
cc_kvmhost.run.is_running = lambda: True
cc_kvmhost.run.LOCK = {path!r} + "/lock"
cc_kvmhost.report.PATH = {path!r} + "/report.json"
from cc_kvmhost.errors import KvmhostError
try:
    cc_kvmhost.handle({call})
except KvmhostError as error:
    print(len(error.problems), error)
"""
        return python(script, path=os.pathsep.join([path, *filter(None, sys.path), HERE]))

    @pytest.mark.parametrize(
        "call",
        [
            '"kvmhost", {"kvmhost": {}}, None, None, []',
            'name="kvmhost", cfg={"kvmhost": {}}, cloud=None, args=[]',
        ],
    )
    @pytest.mark.parametrize(
        "module, package",
        [("jsonschema", "python3-jsonschema"), ("pystemd", "python3-pystemd (from EPEL on EL)")],
    )
    def test_one_clear_error(self, module: str, package: str, call: str, cloudinit: str) -> None:
        done = self.handle([module], cloudinit, call)
        assert done.stderr == ""
        assert done.stdout.startswith("1 ")
        assert "blocked: " + module in done.stdout and "install " + package in done.stdout

    def test_a_bad_section(self, cloudinit: str) -> None:
        done = self.handle([], cloudinit, '"kvmhost", {"kvmhost": {"timeout": 0, "x": 1}}, None')
        assert done.stderr == ""
        assert done.stdout.startswith("2 kvmhost.timeout: 0 is not allowed")
        assert "; kvmhost.x: unknown key" in done.stdout

    def test_distro(self, tmp_path: Path) -> None:
        script = f"""\
BLOCKED = ["distro"]
{BLOCK}
from cc_kvmhost import host
from cc_kvmhost.errors import KvmhostError
try:
    host.read_system("/nowhere")
except KvmhostError as error:
    print(error)
"""
        done = python(script, path=os.pathsep.join([*filter(None, sys.path), HERE]))
        assert "blocked: distro; install python3-distro" in done.stdout and done.stderr == ""

    def test_yaml(self, tmp_path: Path) -> None:
        """In a clone on a machine that has only Python: validate is what people try first."""
        (tmp_path / "user-data.yaml").write_text("#cloud-config\nkvmhost: {}\n")
        script = f"""\
BLOCKED = ["yaml"]
{BLOCK}
from cc_kvmhost import cli
print(cli.main(["validate", {str(tmp_path / "user-data.yaml")!r}]))
"""
        done = python(script, path=os.pathsep.join([*filter(None, sys.path), HERE]))
        assert done.stdout == "1\n"
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
        assert "blocked: yaml; install python3-pyyaml" in done.stderr
