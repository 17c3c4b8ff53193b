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
            (["define network default", "enable a.socket"], "2: 1 for networks, 1 to enable"),
            (["autostart pool vms", "start pool vms"], "2 for pools"),
            (["polish the machine", "enable a.socket"], "2: 1 other, 1 to enable"),
            (["make pool a (b)", "start pool a", "rename b, c"], "3: 2 for pools, 1 other"),
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
    def test_a_row_for_each_network_and_pool(self, capsys: Any) -> None:
        changes = (
            "define network default (192.168.122.0/24)",
            "start a.socket",
            "start network default",
            "define pool vms (/srv/vms)",
            "make pool vms (the directory /srv/vms)",
            "stop pool a-name-of-many-letters",
        )
        screen.print_report(Report("planned", "modular", "so", changes), False)
        assert capsys.readouterr().out.endswith(
            "\n\n"
            "a               start          socket\n"
            "network default define, start  192.168.122.0/24\n"
            "pool vms        define, make   /srv/vms\n"
            "pool a-name-of-many-letters\n"
            "                stop\n"
        )

    def test_what_is_neither_has_a_line_of_its_own(self, capsys: Any) -> None:
        changes = ("polish the machine", "start a.socket")
        screen.print_report(Report("planned", "modular", "so", changes), False)
        assert capsys.readouterr().out.endswith(
            "\n\na               start  socket\npolish the machine\n"
        )

    def test_units_with_the_same_changes_stand_together(self, capsys: Any) -> None:
        changes = tuple(f"{verb} {name}.socket" for name in "abc" for verb in ("enable", "start"))
        report = Report("planned", "modular", "so", changes[:5] + ("mask d.service",))
        screen.print_report(report, False)
        assert capsys.readouterr().out.endswith(
            "\n\n"
            "a, b            enable, start  socket\n"
            "c               enable         socket\n"
            "d               mask           service\n"
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


class TestStatus:
    """Each error once: in the tables, or in words."""

    @pytest.mark.parametrize(
        "errors, words",
        [
            (("not as asked; still to do: enable a.socket",), ""),
            (("b.socket: can't be reached: nobody listens; see 'journalctl'",), ""),
            (("kvmhost.kvm: require: no KVM",), "error: kvmhost.kvm: require: no KVM\n"),
            (("only root may look at c.socket",), "error: only root may look at c.socket\n"),
        ],
    )
    def test_errors(self, errors: Any, words: str, capsys: Any) -> None:
        report = Report("failed", "modular", "so", ("enable a.socket",), errors=errors)
        screen.print_status(report, {"b.socket": "nobody listens"}, False)
        assert capsys.readouterr().err == words

    def test_the_next_step_names_the_file(self, capsys: Any) -> None:
        report = Report("failed", "modular", "so", ("enable a.socket",))
        screen.print_status(report, {}, False, "kvmhost apply 'my file'")
        assert "\nnext     kvmhost apply 'my file'\n" in capsys.readouterr().out


class TestKvm:
    REASON = "no /dev/kvm"

    @pytest.mark.parametrize(
        "usable, warnings, words",
        [
            (True, (), "can be used"),
            (False, (), "can't be used: no /dev/kvm"),
            (False, ("guests are emulated: no /dev/kvm; buy one",), "can't be used"),
        ],
    )
    def test_why_not_once(self, usable: bool, warnings: Any, words: str, capsys: Any) -> None:
        kvm = {"usable": usable, "reason": "" if usable else self.REASON}
        report = Report("planned", "modular", "so", warnings=warnings, kvm=kvm)
        screen.print_report(report, False)
        assert f"\nKVM      {words}\n" in capsys.readouterr().out


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
