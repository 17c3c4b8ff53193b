"""The command line: `kvmhost`."""

import argparse
import contextlib
import logging
import os
import shlex
import sys
from typing import Any, Dict, Optional, Sequence, TextIO

from . import config, document, screen
from .cloud_init import instance
from .document import Document
from .errors import KvmhostError
from .report import Report

VERSION = "0.1.0"
DONE, FAULT, USAGE = 0, 1, 2


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 the input or the host is at fault, 2 usage."""
    if sys.stdout is None or sys.stderr is None:
        # The next file to be opened would take its place, and be written to.
        if sys.stderr is not None:
            print("error: standard output is closed", file=sys.stderr)
        return FAULT
    if hasattr(sys.stdout, "reconfigure"):  # since 3.7
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(argv)
        finally:
            # argparse's help too, after which it exits.
            sys.stdout.flush()
            sys.stderr.flush()
    except OSError as error:
        _drop_what_cant_be_written(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # there the reader has seen enough
            with contextlib.suppress(OSError):  # what fails may be standard error itself
                screen.print_errors([f"the output can't be written: {error.strerror}"])
        _drop_what_cant_be_written(sys.stderr)
        return FAULT


def _drop_what_cant_be_written(stream: TextIO) -> None:
    """What is left in its buffer would fail once more when Python ends, with another exit code."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(argv: Optional[Sequence[str]]) -> int:
    options = _parser().parse_args(argv)
    level = logging.DEBUG if options.verbose else logging.WARNING
    logging.basicConfig(format="%(levelname)s: %(message)s", level=level)
    try:
        return int(options.command(options))
    except KvmhostError as error:
        problems = error.problems
    except OSError as error:
        if error.filename is None:
            raise
        problems = (f"{error.filename}: {error.strerror}",)
    if getattr(options, "json", False):
        screen.print_json(Report("failed", None, "", errors=problems).to_json())
    else:
        screen.print_errors(problems)
    return FAULT


def validate(options: argparse.Namespace) -> int:
    # Each once: standard input can be read only once.
    files = dict.fromkeys(options.files)
    verdicts = {document.title(name): document.judge(name) for name in files}
    screen.print_verdicts(verdicts, options.json)
    return FAULT if any(verdict.problems for verdict in verdicts.values()) else DONE


def plan(options: argparse.Namespace) -> int:
    from . import offline, run

    if options.root is not None:
        _require_directory(options.root)
    asked = _Asked(options.file, default={} if options.root is not None else None)
    with asked:
        if options.root is None:
            report = run.preview(asked.section, options.force)
        else:
            report = offline.preview(asked.section, options.root)
    screen.print_report(report, options.json)
    return DONE


def apply(options: argparse.Namespace) -> int:
    from . import offline, run

    root = "/" if options.here else options.root
    if root is not None:
        _require_directory(root)
    asked = _Asked(options.file, default={} if root is not None else None)
    with asked:
        if root is not None:
            if options.dry_run:
                report = offline.preview(asked.section, root)
            else:
                report = offline.apply(asked.section, root, options.here)
        elif options.dry_run:
            report = run.preview(asked.section, options.force)
        else:
            report = run.apply(asked.section, force=options.force)
    # With --json, print exactly what the report file holds.
    screen.print_report(
        report if options.json else asked.located(report), options.json, root is None
    )
    return FAULT if report.errors else DONE


def status(options: argparse.Namespace) -> int:
    from . import status as question

    asked = _Asked(options.file)
    with asked:
        report, sockets = question.look(asked.section)
    more = " " + shlex.quote(options.file) if options.file else ""
    screen.print_status(
        report if options.json else asked.located(report),
        sockets,
        options.json,
        f"kvmhost apply{more}",
    )
    return FAULT if report.errors else DONE


def check(options: argparse.Namespace) -> int:
    from . import run

    asked = _Asked(options.file)
    with asked:
        report = run.prove(asked.section, options.level, options.networks, options.pools)
    screen.print_check(report if options.json else asked.located(report), options.json)
    return FAULT if report.errors else DONE


def schema(options: argparse.Namespace) -> int:
    if options.cloud_config is None:
        screen.print_json(config.load_schema())
        return DONE
    from .cloud_init import schema as cloud_inits

    screen.print_json(cloud_inits.whole(options.cloud_config))
    return DONE


def register(options: argparse.Namespace) -> int:
    from .cloud_init import registration

    _require_directory(options.root)
    if options.check:
        missing = registration.check(options.root)
        for line in missing:
            print("missing: " + line)
        return FAULT if missing else DONE
    screen.print_changes(registration.register(options.root), "registered already")
    return DONE


def unregister(options: argparse.Namespace) -> int:
    from .cloud_init import registration

    _require_directory(options.root)
    screen.print_changes(registration.unregister(options.root), "not registered")
    return DONE


class _Asked:
    """The section that a command works on. Used as a context, it adds FILE's name and the line to
    errors that name a key of FILE's section.

    :param name: FILE; None: this instance's own configuration
    :param default: without FILE, take this section instead of the instance's
    """

    def __init__(self, name: Optional[str], default: Optional[Dict[str, Any]] = None) -> None:
        self._document: Optional[Document] = None
        if name is not None:
            self._document = document.read_section(name)
            self.section = self._document.content[config.KEY]
        elif default is not None:
            self.section = default
        else:
            self.section = instance.section()

    def located(self, report: Report) -> Report:
        if self._document is None:
            return report
        return report._replace(errors=tuple(map(self._document.located, report.errors)))

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: Any, _trace: Any) -> None:
        if isinstance(error, KvmhostError) and self._document is not None:
            raise KvmhostError(map(self._document.located, error.problems)) from error


def _require_directory(path: str) -> None:
    if not os.path.isdir(path):
        raise KvmhostError([f"--root {path}: no such directory"])


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviated options, because an abbreviation may become ambiguous in a later version."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kvmhost",
        description="Makes this machine a KVM host, as the kvmhost key of cloud-config asks.",
        epilog="Exit codes: 0 done, 1 the input or the host is at fault, 2 usage.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"kvmhost {VERSION}",
        help="say which version this is",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is done, and when")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    commands.required = True
    commands.dest = "name"

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        # -v may also follow the command. SUPPRESS, so that its absence there does not undo a -v before.
        sub.add_argument(
            *("-v", "--verbose"),
            action="store_true",
            default=argparse.SUPPRESS,
            help="log what is done, and when",
        )
        sub.set_defaults(command=command)
        return sub

    sub = add("validate", validate, "Check cloud-config files; each error with file, line and key.")
    sub.add_argument("files", nargs="+", metavar="FILE", help="a cloud-config file, - for stdin")
    _add_json(sub)

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
    sub.add_argument("--dry-run", action="store_true", help="the same as kvmhost plan")
    tree = sub.add_mutually_exclusive_group()
    tree.add_argument(
        "--root",
        metavar="DIR",
        help="change the tree of an image, where nothing runs; FILE absent: all defaults",
    )
    tree.add_argument(
        "--here",
        action="store_true",
        help="as --root, for the root that this command runs in: a chroot, a container build",
    )

    sub = add(
        "status",
        status,
        "Show what is chosen, enabled, listening and reachable; exit 0 only if all holds.",
    )
    _add_file(sub)

    sub = add(
        "check",
        check,
        "Check that this host hosts guests: wake libvirt's daemons and run a guest; exit 0 only if"
        " that passed.",
    )
    _add_file(sub)
    sub.add_argument(
        "--level", choices=("guest", "daemons", "sockets"), help="instead of kvmhost.check"
    )
    sub.add_argument(
        "--networks",
        action="store_true",
        help="give the guest a NIC on each of the section's networks with mode nat",
    )
    sub.add_argument(
        "--pools",
        action="store_true",
        help="make a volume in each of the section's pools with type dir, and remove it",
    )

    sub = add("schema", schema, "Print the JSON Schema of the kvmhost key.")
    sub.add_argument(
        "--cloud-config",
        nargs="?",
        const="",
        metavar="SCHEMA",
        help="of a whole cloud-config file, for editors: cloud-init's own schema with the key in"
        " it; SCHEMA: cloud-init's schema file, where cloud-init is not installed",
    )

    sub = add("register", register, "Make the module and its section known to cloud-init.")
    _add_root(sub)
    sub.add_argument("--check", action="store_true", help="only say what is missing (exit 1)")

    sub = add("unregister", unregister, "Undo register.")
    _add_root(sub)

    def show_help(options: argparse.Namespace) -> int:
        (commands.choices[options.about] if options.about else parser).print_help()
        return DONE

    sub = add("help", show_help, "Show this help, or that of a command.")
    sub.add_argument(
        "about", nargs="?", metavar="COMMAND", choices=list(commands.choices), help="a command"
    )
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="cloud-config with a kvmhost key, - for stdin; absent: this instance's own"
        " configuration",
    )
    _add_json(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="switch modes although guests run; they keep running"
    )


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", metavar="DIR", default="/", help="the tree of an image instead of this system"
    )
