"""The man page and the completion agree with the parser, and can be used."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Any, List

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.once  # argparse words its usage differently from version to version


@pytest.fixture(scope="module")
def manual() -> Any:
    spec = importlib.util.spec_from_file_location("manual", str(ROOT / "tools/manual.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_up_to_date(manual: Any) -> None:
    assert manual.MAN.read_text(encoding="utf-8") == manual.man(), "run tools/manual.py"
    assert manual.COMPLETION.read_text(encoding="utf-8") == manual.completion(), (
        "run tools/manual.py"
    )


def test_the_man_page_has_each_command_and_option(manual: Any) -> None:
    from cc_kvmhost import cli

    text = manual.man()
    for name, sub in manual.commands(cli._parser()).items():
        assert f"\n.SS {name}\n" in text
        for action in sub._actions:
            for option in set(action.option_strings) - {"-h", "--help"}:
                assert manual.escaped(option) in text
    # A line that troff would take for a request has to be one that it knows.
    requests = set(re.findall(r"^[.'](\S*)", text, re.M))
    assert requests <= {'\\"', "TH", "SH", "SS", "TP", "nf", "fi"}


def complete(*words: str, cwd: Any = None) -> List[str]:
    script = (
        f'source {ROOT}/share/bash-completion/completions/kvmhost; COMP_WORDS=("$@");'
        " COMP_CWORD=$(($# - 1)); _kvmhost; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", "kvmhost", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        cwd=cwd,
        env=dict(os.environ),
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    "words, offered",
    [
        (["va"], ["validate"]),
        (["un"], ["unregister"]),
        (["plan", "--r"], ["--root"]),
        (["-v", "plan", "--f"], ["--force"]),
        (["apply", "--d"], ["--dry-run"]),
        (["apply", "us"], ["user-data"]),
        (["validate", "user-data", "us"], ["user-data"]),
        (["plan", "--root", ""], ["tree"]),
        (["help", "reg"], ["register"]),
        (["schema", "--c"], ["--cloud-config"]),
        (["nonsense", "--x"], []),
    ],
    ids=str,
)
def test_completion(words: List[str], offered: List[str], tmp_path: Path) -> None:
    (tmp_path / "user-data").write_text("#cloud-config\n")
    (tmp_path / "tree").mkdir()
    assert complete(*words, cwd=str(tmp_path)) == offered
