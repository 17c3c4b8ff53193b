"""The command line: `kvmhost`."""

import argparse
import logging
import os
import sys
from typing import Any, Optional, Sequence

from . import config, document
from .cloud_init import instance
from .errors import KvmhostError
from .report import Report
from .screen import print_changes, print_errors, print_json, print_report, print_status

DONE, FAULT, USAGE = 0, 1, 2


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 the input or the host is at fault, 2 usage."""
    options = _parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        code = int(options.command(options))
        sys.stdout.flush()
        return code
    except KvmhostError as error:
        if getattr(options, "json", False):
            print_json(Report("failed", None, "", errors=error.problems).to_json())
        else:
            print_errors(error.problems)
        return FAULT
    except OSError as error:
        if error.filename is not None:
            raise
        if not isinstance(error, BrokenPipeError):  # there the reader has seen enough
            print_errors([f"the output can't be written: {error.strerror}"])
        # What is left in the buffer would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT


def validate(options: argparse.Namespace) -> int:
    code = DONE
    for name in options.files:
        problems = document.check_file(name)
        if problems:
            print_errors(problems)
            code = FAULT
        else:
            print(f"{name}: valid")
    return code


def plan(options: argparse.Namespace) -> int:
    from . import run

    if options.root is None:
        report = run.preview(_section(options.file), options.force)
    else:
        section = document.read_section(options.file) if options.file else {}
        report = run.preview_tree(section, options.root)
    print_report(report, options.json)
    return DONE


def apply(options: argparse.Namespace) -> int:
    from . import run

    report = run.apply(_section(options.file), force=options.force)
    print_report(report, options.json)
    return FAULT if report.errors else DONE


def status(options: argparse.Namespace) -> int:
    from . import status as question

    report, sockets = question.look(_section(options.file))
    print_status(report, sockets, options.json)
    return FAULT if report.errors else DONE


def schema(_options: argparse.Namespace) -> int:
    print_json(config.load_schema())
    return DONE


def register(options: argparse.Namespace) -> int:
    from .cloud_init import registration

    if options.check:
        missing = registration.check(options.root)
        for line in missing:
            print("missing: " + line)
        return FAULT if missing else DONE
    print_changes(registration.register(options.root), "registered already")
    return DONE


def unregister(options: argparse.Namespace) -> int:
    from .cloud_init import registration

    print_changes(registration.unregister(options.root), "not registered")
    return DONE


def _section(name: Optional[str]) -> Any:
    return instance.section() if name is None else document.read_section(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvmhost",
        description="Makes this machine a KVM host, as the kvmhost key of cloud-config asks.",
        epilog="Exit codes: 0 done, 1 the input or the host is at fault, 2 usage.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    commands.required = True
    commands.dest = "name"

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    sub = add("validate", validate, "Check cloud-config files; each error with file, line and key.")
    sub.add_argument("files", nargs="+", metavar="FILE")

    sub = add("plan", plan, "Show the mode, why, and what would change. Changes nothing.")
    _add_file(sub)
    sub.add_argument(
        "--root",
        metavar="DIR",
        help="plan for the tree of an image, where nothing runs; FILE absent: all defaults",
    )
    _add_force(sub)

    sub = add("apply", apply, "Do what the first boot does.")
    _add_file(sub)
    _add_force(sub)

    sub = add(
        "status",
        status,
        "Show what is chosen, enabled, listening and reachable; exit 0 only if all holds.",
    )
    _add_file(sub)

    add("schema", schema, "Print the JSON Schema of the kvmhost key.")

    sub = add("register", register, "Make the module and its section known to cloud-init.")
    _add_root(sub)
    sub.add_argument("--check", action="store_true", help="only say what is missing (exit 1)")

    sub = add("unregister", unregister, "Undo register.")
    _add_root(sub)
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="cloud-config with a kvmhost key; absent: this instance's own configuration",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="switch modes although guests run; they keep running"
    )


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", metavar="DIR", default="/", help="the tree of an image instead of this system"
    )
