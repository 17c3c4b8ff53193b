"""What people see: the screens of the docs, their width, and colour on a terminal only."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

import model_hosts as hosts
import pytest

from cc_kvmhost import plan, screen
from cc_kvmhost.report import Report, Steps, of_plan

ROOT = Path(__file__).resolve().parents[2]


def the_screens() -> Any:
    spec = importlib.util.spec_from_file_location("screens", str(ROOT / "tools/screens.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def planned(**section: Any) -> Report:
    config, here = hosts.config(**section), hosts.fresh_el10()
    return of_plan(plan.make(config, here), config, here, Steps())


class TestScreens:
    def test_the_docs_have_them(self) -> None:
        made = the_screens()
        assert made.TARGET.read_text(encoding="utf-8") == made.render(), "run tools/screens.py"

    def test_80_columns(self) -> None:
        """Errors and warnings are a line each, however long: they are searched for, and go into logs."""
        for _, text in the_screens().screens_in_a_directory():
            for line in text.splitlines():
                assert (
                    len(line) <= 80
                    or line.startswith(("error: ", "warning: "))
                    or ": kvmhost section" in line
                )

    def test_each_change_once(self, capsys: Any) -> None:
        report = planned(units=["cockpit.socket"])
        screen.print_report(report, False)
        out = capsys.readouterr().out
        table = out[out.index("\n\n") :]
        assert len(table.split()) < len(" ".join(report.changed).split())
        assert out.count("virtual-host") == 1 and out.count("cockpit") == 1


class TestCounts:
    @pytest.mark.parametrize(
        "changes, text",
        [
            ([], "none"),
            (["enable a.socket"], "1 to enable"),
            (["tuned profile x"], "1 profile to set"),
            (["enable a.socket", "enable b.socket", "stop c.service"], "3: 2 to enable, 1 to stop"),
            (["define network default", "enable a.socket"], "2: 1 of networks, 1 to enable"),
            (["make pool a (b)", "start pool a", "rename b, c"], "3: 2 of pools, 1 other"),
        ],
    )
    def test_planned(self, changes: Any, text: str, capsys: Any) -> None:
        screen.print_report(Report("planned", "modular", "so", tuple(changes)), False)
        assert f"\nchanges  {text}\n" in capsys.readouterr().out

    def test_done(self, capsys: Any) -> None:
        screen.print_report(Report("ok", "modular", "so", ("mask a.socket",)), False)
        assert "\nchanges  1 masked\n" in capsys.readouterr().out

    @pytest.mark.parametrize("number, words", [(0, "nothing to change"), (1, "1 change,")])
    def test_the_line_for_logs(self, number: int, words: str) -> None:
        report = Report("ok", "modular", "so", ("mask a.socket",) * number)
        assert words in report.summary()
        assert "2 changes" in report._replace(changed=("a", "b")).summary()


class TestOtherKinds:
    def test_what_is_no_unit_has_a_line_of_its_own(self, capsys: Any) -> None:
        screen.print_report(
            Report("planned", "modular", "so", ("define network default", "start a.socket")), False
        )
        assert capsys.readouterr().out.endswith(
            "\n\na               start  socket\ndefine network default\n"
        )

    def test_a_long_name(self, capsys: Any) -> None:
        name = "dev-disk-by\\x2dlabel-" + "swap" * 20
        screen.print_report(Report("planned", "modular", "so", (f"enable {name}.swap",)), False)
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2:] == [name, " " * 16 + "enable  swap"]

    def test_queued(self, capsys: Any) -> None:
        report = Report("ok", "modular", "so", ("start a.service",), queued=("a.service",))
        screen.print_report(report, False)
        assert "queued   a.service: start when cloud-init is done" in capsys.readouterr().out

    @pytest.mark.parametrize("result", [screen.print_report, screen.print_status])
    def test_failed_without_a_mode(self, result: Any, capsys: Any) -> None:
        words = [{}] if result is screen.print_status else []
        result(Report("failed", None, "", errors=("no libvirt",)), *words, False)
        captured = capsys.readouterr()
        assert captured.err == "error: no libvirt\n" and "None" not in captured.out


class TestColour:
    @pytest.mark.parametrize(
        "terminal, environment, coloured",
        [
            (True, {"TERM": "xterm"}, True),
            (False, {"TERM": "xterm"}, False),
            (True, {"TERM": "dumb"}, False),
            (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ],
    )
    def test_on_a_terminal_only(
        self, terminal: bool, environment: Any, coloured: bool, monkeypatch: Any, capsys: Any
    ) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in environment.items():
            monkeypatch.setitem(os.environ, name, value)
        report = planned()
        screen.print_report(report, False)
        out = capsys.readouterr().out
        assert ("\033[" in out) == coloured
        # Colours take no room: the lines break at the same places.
        monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
        screen.print_report(report, False)
        assert re.sub(r"\033\[[0-9]*m", "", out) == capsys.readouterr().out
