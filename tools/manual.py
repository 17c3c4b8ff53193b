#!/usr/bin/env python3
"""Writes the man page and the completion for bash, from the parser of the command line.

Run without arguments after a change of cc_kvmhost/cli.py; a unit test compares the two.
"""

import argparse
import sys
from pathlib import Path
from typing import Dict, FrozenSet, List

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cc_kvmhost import cli, report  # noqa: E402

MAN = ROOT / "share/man/man1/kvmhost.1"
COMPLETION = ROOT / "share/bash-completion/completions/kvmhost"

FILES = (
    (report.PATH, "What the last run found and changed, as JSON. It is gone after a reboot."),
    ("/etc/cloud/cloud.cfg.d/zz_kvmhost.cfg", "cloud-init's module list, written by register."),
    ("/var/log/cloud-init.log", "The log of the first boot."),
)
SEE_ALSO = "cloud-init(1), systemctl(1), tuned-adm(8), libvirtd(8), virtqemud(8)"

COMPLETE = """\
# Completion of kvmhost for bash. Written by tools/manual.py: change cc_kvmhost/cli.py.
_kvmhost() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command='' word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ $word == -* ]] || {{ command=$word; break; }}
    done
    local options='{common}' words=''
    case $command in
        '') words='{commands}' ;;
{cases}
    esac
    COMPREPLY=()
    if [[ $previous == --root ]]; then
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
    elif [[ $current == -* || $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options $words" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}}
complete -o filenames -F _kvmhost kvmhost
"""


def commands(parser: argparse.ArgumentParser) -> Dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise ValueError("no commands")


def escaped(text: str) -> str:
    """Text for troff; a line of it must not begin with a dot or a quote."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def entries(parser: argparse.ArgumentParser, common: FrozenSet[str] = frozenset()) -> List[str]:
    """Each argument with its help, but not the help option itself, nor those said before."""
    lines = []
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        if common.intersection(action.option_strings):
            continue
        value = "" if action.nargs == 0 else str(action.metavar)
        if action.option_strings:
            options = ", ".join(f"\\fB{escaped(each)}\\fR" for each in action.option_strings)
            optional = f" [\\fI{value}\\fR]" if action.nargs == "?" else f" \\fI{value}\\fR"
            name = options + (optional if value else "")
        else:
            name = f"\\fI{value}\\fR"
        lines += [".TP", name, escaped(str(action.help))]
    return lines


def usage(parser: argparse.ArgumentParser) -> str:
    """The line after "usage: ", unwrapped."""
    return " ".join(parser.format_usage().split()[1:])


def man() -> str:
    parser = cli._parser()
    lines = [
        '.\\" Written by tools/manual.py from cc_kvmhost/cli.py: change that.',
        f'.TH KVMHOST 1 "" "cc_kvmhost {cli.VERSION}" "User Commands"',
        ".SH NAME",
        "kvmhost \\- make this machine a KVM host, as cloud\\-config asks",
        ".SH SYNOPSIS",
        ".nf",
        *(escaped(usage(sub)) for sub in commands(parser).values()),
        ".fi",
        ".SH DESCRIPTION",
        escaped(str(parser.description)),
        "At first boot cloud\\-init runs the same code as \\fBkvmhost apply\\fR.",
        ".SH OPTIONS",
        *entries(parser),
        ".SH COMMANDS",
    ]
    for name, sub in commands(parser).items():
        common = frozenset(each for action in parser._actions for each in action.option_strings)
        lines += [f".SS {name}", escaped(str(sub.description)), *entries(sub, common)]
    lines += [".SH EXIT STATUS"]
    for code, meaning in (
        ("0", "done; for status: all that was asked for holds"),
        ("1", "the input or the host is at fault; standard error says what and where"),
        ("2", "usage"),
    ):
        lines += [".TP", code, meaning]
    lines.append(".SH FILES")
    for path, meaning in FILES:
        lines += [".TP", f"\\fI{escaped(path)}\\fR", escaped(meaning)]
    lines += [".SH SEE ALSO", escaped(SEE_ALSO)]
    return "\n".join(lines) + "\n"


def completion() -> str:
    parser = cli._parser()
    cases = []
    for name, sub in commands(parser).items():
        options = [each for action in sub._actions for each in action.option_strings]
        words = " ".join(commands(parser)) if name == "help" else ""
        also = f" words='{words}'" if words else ""
        cases.append(f"        {name}) options='{' '.join(options)}'{also} ;;")
    return COMPLETE.format(
        common=" ".join(each for action in parser._actions for each in action.option_strings),
        commands=" ".join(commands(parser)),
        cases="\n".join(cases),
    )


def main() -> None:
    for path, text in ((MAN, man()), (COMPLETION, completion())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
