"""The command line: exit codes, what it prints, the one JSON shape."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Sequence
from unittest import mock

import pytest

from cc_kvmhost import cli, run

REPORT_KEYS = {
    "result",
    "mode",
    "reason",
    "changed",
    "queued",
    "units",
    "tuned",
    "networks",
    "pools",
    "steps",
    "errors",
    "warnings",
    "kvm",
    "check",
    "changes_kept",
}
GOOD = "#cloud-config\nkvmhost: {}\n"
VALID = "kvmhost section valid: mode by release, tuned virtual-host"
BAD = "#cloud-config\nkvmhost:\n  timeout: 0\n  typo: 1\n"
UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
SOCKET = "[Socket]\nListenStream=/run/x\n[Install]\nWantedBy=sockets.target\n"
NAMES = ("virtqemud", "virtnetworkd", "virtstoraged", "virtnodedevd", "virtsecretd", "virtproxyd")


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path / "good", GOOD)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    return write(tmp_path / "bad", BAD)


@pytest.fixture
def no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the machine runs: a place without systemd, and a report file of our own."""
    from cc_kvmhost import report

    monkeypatch.setattr(run, "is_running", lambda: False)
    monkeypatch.setattr(report, "PATH", str(tmp_path / "run/report.json"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The tree of an EL 10 image with both modes' main units, tuned and its profile."""
    root = tmp_path / "root"
    system = root / "usr/lib/systemd/system"
    write(root / "usr/lib/os-release", 'ID="centos"\nVERSION_ID="10"\nPRETTY_NAME="An EL 10"\n')
    (root / "etc/systemd/system").mkdir(parents=True)
    for name in (*NAMES, "libvirtd"):
        write(system / (name + ".service"), UNIT)
    for name in (*NAMES, "libvirtd", "virtlogd", "virtlockd", "cockpit"):
        write(system / (name + ".socket"), SOCKET)
    write(system / "tuned.service", UNIT)
    write(root / "usr/lib/tuned/profiles/virtual-host/tuned.conf", "[main]\n")
    return root


def json_of(text: str) -> Any:
    content = json.loads(text)
    assert set(content) >= REPORT_KEYS
    return content


class TestUsage:
    @pytest.mark.parametrize(
        "words",
        [
            [],
            ["nonsense"],
            ["validate"],
            ["plan", "a", "b"],
            ["apply", "--root", "/x", "--here"],
            ["apply", "--forc"],
            ["apply", "--dry"],
            ["plan", "--js"],
            ["--vers"],
            ["help", "nonsense"],
            ["schema", "x"],
            ["status", "--force"],
            ["--nonsense"],
        ],
        ids=" ".join,
    )
    def test_exit_2(self, words: Sequence[str], capsys: Any) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 2
        assert "usage: kvmhost" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "command", ["", "validate", "plan", "apply", "status", "schema", "register", "unregister"]
    )
    def test_help(self, command: str, capsys: Any) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main([command, "--help"] if command else ["--help"])
        assert caught.value.code == 0
        assert "usage: kvmhost " + command in capsys.readouterr().out


class TestOptions:
    def test_version(self, capsys: Any) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(["--version"])
        setup = (Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
        assert caught.value.code == 0
        version = capsys.readouterr().out.split()[1]
        assert f'version="{version}",' in setup

    @pytest.mark.parametrize("words, usage", [([], "kvmhost [-h]"), (["plan"], "kvmhost plan")])
    def test_help(self, words: Sequence[str], usage: str, capsys: Any) -> None:
        assert cli.main(["help", *words]) == 0
        assert capsys.readouterr().out.startswith("usage: " + usage)

    @pytest.mark.parametrize("words", [["-v", "plan"], ["plan", "-v"], ["--verbose", "plan"]])
    def test_verbose(self, words: Sequence[str], tree: Path) -> None:
        done = TestProcess().call(*words, "--root", str(tree))
        assert "DEBUG: plan (" in done.stderr or "DEBUG: inspect (" in done.stderr, done.stderr
        assert TestProcess().call("plan", "--root", str(tree)).stderr == ""

    @pytest.mark.usefixtures("no_systemd")
    def test_dry_run(self, good: str, tmp_path: Path, capsys: Any) -> None:
        assert cli.main(["apply", "--dry-run", good]) == 0
        dry = capsys.readouterr().out
        assert cli.main(["plan", good]) == 0
        assert capsys.readouterr().out == dry
        assert not (tmp_path / "run/report.json").exists()

    @pytest.mark.parametrize("command", ["plan", "register", "unregister"])
    def test_no_such_root(self, command: str, capsys: Any) -> None:
        assert cli.main([command, "--root", "nosuch"]) == 1
        assert capsys.readouterr().err == "error: --root nosuch: no such directory\n"


class TestValidate:
    def test_valid(self, good: str, capsys: Any) -> None:
        assert cli.main(["validate", good]) == 0
        captured = capsys.readouterr()
        assert captured.out == f"{good}: {VALID}\n" and captured.err == ""

    def test_each_problem_of_each_file(self, good: str, bad: str, capsys: Any) -> None:
        assert cli.main(["validate", bad, good, "/nonexistent"]) == 1
        captured = capsys.readouterr()
        assert captured.out == f"{good}: {VALID}\n"
        lines = captured.err.splitlines()
        assert len(lines) == 4
        assert lines[0].startswith(f"error: {bad}:3: kvmhost.timeout: 0 is not allowed")
        assert lines[1].startswith(f"error: {bad}:4: kvmhost.typo: unknown key")
        assert lines[2] == "error: /nonexistent: can't be read: No such file or directory"
        assert lines[3] == "3 errors in 2 of 3 files"

    def test_json(self, good: str, bad: str, capsys: Any) -> None:
        assert cli.main(["validate", bad, good, "--json"]) == 1
        captured = capsys.readouterr()
        content = json_of(captured.out)
        assert captured.err == "" and content["result"] == "failed"
        assert content["files"][good] == {"section": True, "errors": []}
        assert content["files"][bad]["errors"] == content["errors"]
        assert content["errors"][0].startswith(f"{bad}:3: kvmhost.timeout")


class TestSchema:
    def test_is_the_schema_and_valid_draft_04(self, capsys: Any) -> None:
        from jsonschema import Draft4Validator

        assert cli.main(["schema"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["$schema"] == "http://json-schema.org/draft-04/schema#"
        Draft4Validator.check_schema(printed)
        own = Path(__file__).parents[2] / "schemas/kvmhost.schema.json"
        assert printed == json.loads(own.read_text())

    def test_of_a_whole_file(self, tmp_path: Path, capsys: Any) -> None:
        from jsonschema import Draft4Validator

        own = {"$defs": {"all_modules": {"enum": []}}, "allOf": [], "properties": {"packages": {}}}
        own["additionalProperties"] = False
        name = write(tmp_path / "schema.json", json.dumps(own))
        assert cli.main(["schema", "--cloud-config", name]) == 0
        whole = Draft4Validator(json.loads(capsys.readouterr().out))
        assert whole.is_valid({"packages": [], "kvmhost": {}})
        assert not whole.is_valid({"packages": [], "kvmhost": {"timeout": 0}})
        assert not whole.is_valid({"packges": []})

    @pytest.mark.parametrize(
        "text, words", [("{}", "no $defs object"), ("nothing", "not JSON"), (None, "no such file")]
    )
    def test_not_of_cloud_init(self, text: Any, words: str, tmp_path: Path, capsys: Any) -> None:
        path = tmp_path / "schema.json"
        if text is not None:
            path.write_text(text)
        assert cli.main(["schema", "--cloud-config", str(path)]) == 1
        assert words in capsys.readouterr().err

    def test_without_cloud_init(self, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        from cc_kvmhost.cloud_init import schema

        monkeypatch.setattr(schema, "_schemas", lambda root: [])
        assert cli.main(["schema", "--cloud-config"]) == 1
        assert "name its schema file" in capsys.readouterr().err


@pytest.mark.usefixtures("no_systemd")
class TestWithoutSystemd:
    @pytest.mark.parametrize("command", ["plan", "apply"])
    def test_skipped(self, command: str, good: str, capsys: Any) -> None:
        assert cli.main([command, good]) == 0
        assert capsys.readouterr().out.startswith("skipped: ")

    @pytest.mark.parametrize("command", ["plan", "apply"])
    def test_skipped_as_json(self, command: str, good: str, capsys: Any) -> None:
        assert cli.main([command, good, "--json"]) == 0
        content = json_of(capsys.readouterr().out)
        assert set(content) == REPORT_KEYS
        assert content["result"] == "skipped" and content["mode"] is None
        assert "no systemd runs here" in content["reason"]
        assert content["changed"] == content["errors"] == []

    def test_status_does_not_hold(self, good: str, capsys: Any) -> None:
        assert cli.main(["status", good, "--json"]) == 1
        content = json_of(capsys.readouterr().out)
        assert content["errors"] and content["sockets"] == {}

    @pytest.mark.parametrize("command", ["plan", "apply", "status"])
    @pytest.mark.parametrize("as_json", [False, True])
    def test_a_bad_section(self, command: str, as_json: bool, bad: str, capsys: Any) -> None:
        assert cli.main([command, bad] + ["--json"] * as_json) == 1
        captured = capsys.readouterr()
        if as_json:
            content = json_of(captured.out)
            assert content["result"] == "failed" and len(content["errors"]) == 2
        else:
            assert "kvmhost.timeout: 0 is not allowed" in captured.err
            assert "kvmhost.typo: unknown key" in captured.err

    @pytest.mark.parametrize("command", ["plan", "apply", "status"])
    @pytest.mark.parametrize("as_json", [False, True])
    def test_a_file_without_a_section(
        self, command: str, as_json: bool, tmp_path: Path, capsys: Any
    ) -> None:
        name = write(tmp_path / "none", "#cloud-config\na: 1\n")
        assert cli.main([command, name] + ["--json"] * as_json) == 1
        captured = capsys.readouterr()
        assert "no kvmhost key" in (captured.out if as_json else captured.err)

    def test_the_report_file(self, bad: str, tmp_path: Path) -> None:
        cli.main(["apply", bad])
        path = tmp_path / "run/report.json"
        content = json_of(path.read_text())
        assert content["result"] == "failed" and len(content["errors"]) == 2
        assert path.stat().st_mode & 0o777 == 0o644

    def test_a_skipped_run_has_one_too(self, good: str, tmp_path: Path, caplog: Any) -> None:
        caplog.set_level("INFO")
        cli.main(["apply", good])
        assert json_of((tmp_path / "run/report.json").read_text())["result"] == "skipped"
        assert "kvmhost: skipped: no systemd runs here" in caplog.text


class TestPlanRoot:
    """systemctl --root only reads the tree: nothing of this machine is asked or changed."""

    def plan(self, capsys: Any, tree: Path, *words: str) -> Any:
        assert cli.main(["plan", "--root", str(tree), "--json", *words]) == 0
        content = json_of(capsys.readouterr().out)
        assert set(content) == REPORT_KEYS and content["result"] == "planned"
        return content

    def test_defaults(self, tree: Path, capsys: Any) -> None:
        content = self.plan(capsys, tree)
        assert content["mode"] == "modular"
        assert content["reason"] == "An EL 10: EL 10 and up run the modular daemons"
        changed = content["changed"]
        assert "enable virtqemud.socket" in changed and "mask libvirtd.service" in changed
        assert "tuned profile virtual-host" in changed
        assert not [change for change in changed if change.startswith(("start", "stop"))]
        assert content["units"]["libvirtd.service"] == {
            "before": {"file_state": "disabled", "active": "inactive"},
            "after": {"file_state": "masked", "active": "inactive"},
        }
        assert content["tuned"] == {"before": "", "after": "virtual-host"}

    def test_a_file(self, tree: Path, tmp_path: Path, capsys: Any) -> None:
        text = "#cloud-config\nkvmhost: {libvirt: {mode: monolithic}, units: [cockpit.socket]}\n"
        content = self.plan(capsys, tree, write(tmp_path / "user-data", text))
        assert content["mode"] == "monolithic"
        assert "enable cockpit.socket" in content["changed"]
        assert "mask virtqemud.service" in content["changed"]

    def test_for_people(self, tree: Path, capsys: Any) -> None:
        assert cli.main(["plan", "--root", str(tree)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "mode     modular"
        assert lines[1] == "because  An EL 10: EL 10 and up run the modular daemons"
        assert lines[5] == "virtqemud, virtnetworkd, virtstoraged, virtnodedevd, virtsecretd"
        assert lines[6] == "                enable  socket service"

    def test_the_tree_stays_as_it_is(self, tree: Path, capsys: Any) -> None:
        def look() -> List[str]:
            return sorted(str(path) for path in tree.rglob("*"))

        before = look()
        self.plan(capsys, tree)
        assert look() == before

    def test_nothing_installed(self, tmp_path: Path, capsys: Any) -> None:
        (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
        assert cli.main(["plan", "--root", str(tmp_path)]) == 1
        assert "libvirt-daemon" in capsys.readouterr().err

    def test_no_such_tree(self, tmp_path: Path, capsys: Any) -> None:
        assert cli.main(["plan", "--root", str(tmp_path / "absent"), "--json"]) == 1
        content = json_of(capsys.readouterr().out)
        assert content["result"] == "failed" and content["mode"] is None

    def test_without_systemctl(
        self, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        monkeypatch.setenv("PATH", str(tree))
        assert cli.main(["plan", "--root", str(tree)]) == 1
        assert "can't be read without systemctl" in capsys.readouterr().err


class TestProcess:
    def call(self, *words: str, **more: Any) -> Any:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        script = "import sys; from cc_kvmhost.cli import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", script, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            env=environment,
            **more,
        )

    def test_exit_codes(self, good: str, bad: str) -> None:
        assert self.call("validate", good).returncode == 0
        assert self.call("validate", bad).returncode == 1
        assert self.call("validate").returncode == 2

    def test_the_reader_left(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        script = "import sys; from cc_kvmhost.cli import main; sys.exit(main(['schema']))"
        with os.fdopen(writing, "wb") as closed:
            done = subprocess.run(
                [sys.executable, "-c", script],
                stdout=closed,
                stderr=subprocess.PIPE,
                env=environment,
            )
        assert b"Traceback" not in done.stderr


def kvmhost(
    *words: str, stdout: Any = subprocess.PIPE, redirections: str = ""
) -> "subprocess.CompletedProcess[str]":
    """``redirections``: as a shell has them."""
    code = "import sys; from cc_kvmhost import cli; sys.exit(cli.main())"
    return subprocess.run(
        ["sh", "-c", 'exec "$@" ' + redirections, "sh", sys.executable, "-c", code, *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=30,
        # Where Python does not buffer, less can go wrong.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )


class TestOutput:
    @pytest.mark.parametrize(
        "words",
        [
            ("schema",),
            ("validate", "GOOD"),
            ("plan", "GOOD", "--json"),
            ("plan", "/nonexistent", "--json"),
            ("--version",),
            ("plan", "--help"),
            ("help",),
        ],
    )
    def test_a_full_disk(self, words: Any, good: str) -> None:
        with open("/dev/full", "w") as full:
            done = kvmhost(*(good if word == "GOOD" else word for word in words), stdout=full)
        error = "error: the output can't be written: No space left on device\n"
        assert (done.returncode, done.stderr) == (1, error)

    @pytest.mark.parametrize("redirections", ["2>/dev/full", ">/dev/full 2>/dev/full"])
    @pytest.mark.parametrize("words", [("validate", "/nonexistent"), ("nonsense",), ("schema",)])
    def test_errors_to_a_full_disk(self, words: Any, redirections: str) -> None:
        done = kvmhost(*words, redirections=redirections)
        fine = words == ("schema",) and redirections == "2>/dev/full"
        assert (done.returncode, done.stderr) == (0 if fine else 1, "")

    @pytest.mark.parametrize(
        "redirections, errors",
        [(">&-", "error: standard output is closed\n"), ("2>&-", ""), (">&- 2>&-", "")],
    )
    @pytest.mark.parametrize("words", [("schema",), ("validate", "/nonexistent")])
    def test_nothing_to_write_to(self, words: Any, redirections: str, errors: str) -> None:
        done = kvmhost(*words, redirections=redirections)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", errors)

    @pytest.mark.parametrize("more", [[], ["--json"]])
    def test_a_file_that_may_not_be_read(self, more: Any, capsys: Any) -> None:
        """Wherever that was not thought of."""
        error = PermissionError(13, "Permission denied", "/etc/libvirt/qemu.conf")
        with mock.patch("cc_kvmhost.document.read_section", side_effect=error):
            assert cli.main(["plan", "x", *more]) == 1
        out, err = capsys.readouterr()
        problem = "/etc/libvirt/qemu.conf: Permission denied"
        if more:
            assert json.loads(out)["errors"] == [problem]
        else:
            assert err == f"error: {problem}\n"

    def test_a_reader_that_has_seen_enough(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as stream:
            done = kvmhost("schema", stdout=stream)
        assert (done.returncode, done.stderr) == (1, "")


class TestInput:
    @pytest.mark.parametrize("command", ["validate", "plan", "apply", "status"])
    def test_what_never_ends_is_refused_at_once(self, command: str, tmp_path: Path) -> None:
        os.mkfifo(str(tmp_path / "fifo"))
        for name in (str(tmp_path / "fifo"), "/dev/zero"):
            done = kvmhost(command, name)
            assert done.returncode == 1
            assert done.stderr.startswith(f"error: {name}: a FIFO, socket or device, not a file\n")

    def test_no_standard_input(self) -> None:
        done = kvmhost("validate", "-", redirections="<&-")
        assert done.returncode == 1
        assert done.stderr.startswith("error: <stdin>: can't be read: it is closed\n")
