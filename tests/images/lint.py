"""What "bootc container lint" says of a tree, as far as it is about what provision does: the same rules, written
anew from the descriptions that it prints (bootc 1.13; its warnings are findings here like its errors)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

EMPTY_AT_BOOT = ("run", "tmp")
INJECTED = ("run/.containerenv", "run/secrets")


def findings(root: Path) -> set[str]:
    """One line each, with the lint's name."""
    return {*_layout(root), *_var(root), *_users(root), *_empty(root), *_owners(root)}


def _layout(root: Path) -> Iterator[str]:
    for name in ("dev", "proc", "sys", "run", "tmp", "var"):
        if (root / name).is_symlink() or not (root / name).is_dir():
            yield f"api-base-directories: {name}"
    if not (root / "sysroot").is_dir() or os.readlink(root / "ostree") != "sysroot/ostree":
        yield "baseimage-root"
    if (root / "usr/etc").exists():
        yield "etc-usretc"
    if os.path.lexists(root / "var/run") and not (root / "var/run").is_symlink():
        yield "var-run"


def _var(root: Path) -> Iterator[str]:
    declared = {words[1] for words in _lines(root, "tmpfiles.d")}
    for path in (root / "var").rglob("*"):
        name = f"/{path.relative_to(root)}"
        if name not in declared:
            yield f"var-tmpfiles: {name}"
        if name.startswith("/var/log/") and path.is_file() and path.stat().st_size:
            yield f"var-log: {name}"


def _users(root: Path) -> Iterator[str]:
    declared = [(words[0].rstrip("!"), words[1]) for words in _lines(root, "sysusers.d")]
    for file, kinds in (("passwd", "u"), ("group", "ug")):
        known = {name for kind, name in declared if kind in kinds}
        for line in (root / "etc" / file).read_text().splitlines():
            if line.split(":")[0] not in known:
                yield f"sysusers: {file}: {line.split(':')[0]}"


def _empty(root: Path) -> Iterator[str]:
    for top in EMPTY_AT_BOOT:
        for path in (root / top).rglob("*"):
            if not str(path.relative_to(root)).startswith(INJECTED):
                yield f"nonempty-run-tmp: /{path.relative_to(root)}"
    for path in (root / "boot").iterdir():
        yield f"nonempty-boot: {path.name}"


def _owners(root: Path) -> Iterator[str]:
    """Of users without a fixed number; tmpfiles.d's z and Z, which would do too, are not looked at."""
    fixed = {0}
    for words in _lines(root, "sysusers.d"):
        fixed |= (
            {int(number) for number in words[2].split(":") if number.isdigit()}
            if len(words) > 2
            else set()
        )
    for path in (root / "etc").rglob("*"):
        state = path.lstat()
        if not path.is_symlink() and not {state.st_uid, state.st_gid} <= fixed:
            yield f"etc-uid-drift: /{path.relative_to(root)}"


def _lines(root: Path, kind: str) -> Iterator[list[str]]:
    for path in (root / "usr/lib" / kind).glob("*.conf"):
        for line in path.read_text().splitlines():
            words = shlex.split(line, comments=True) if line.count('"') % 2 == 0 else line.split()
            if len(words) > 1:
                yield words
