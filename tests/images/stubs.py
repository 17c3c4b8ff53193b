"""Packages with little or nothing in them, built by the real rpmbuild: many at once, in one run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nspawn import HarnessError

HEAD = """\
Name: stubs
Version: 1
Release: 1
Summary: Stands in for others
License: Apache-2.0
BuildArch: noarch
%global __os_install_post %{{nil}}
%description
Stands in for others.
%install
mkdir -p %{{buildroot}}
cp -a {tree}/. %{{buildroot}}/
"""
PACKAGE = """\
%package -n {name}
Summary: Stands in for {name}
{tags}
%description -n {name}
Stands in for {name}.
%files -n {name}
{files}
{scripts}
"""


class Stub(NamedTuple):
    """A noarch package of ``files`` (path to content; those in ``config`` are rpm's config files).

    ``directories``: path to what %attr takes: mode, user, group.
    """

    name: str
    version: str = "1-1"  # or EPOCH:VERSION-RELEASE, VERSION alone is release 1
    files: Mapping[str, str | bytes] = {}
    config: Sequence[str] = ()
    tags: Sequence[str] = ()  # "Requires: systemd"
    scripts: str = ""  # a spec file's sections, each beginning with %post or the like
    directories: Mapping[str, str] = {}


def build(output: Path, packages: Sequence[Stub]) -> list[Path]:
    """Build packages into ``output`` as NAME-VERSION.rpm; two with the same file must agree on its content."""
    output.mkdir(exist_ok=True)
    tree = output / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    spec = HEAD.format(tree=tree)
    for package in packages:
        for path, content in package.files.items():
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content if isinstance(content, bytes) else content.encode())
            place.chmod(0o755 if "bin/" in path or "libexec/" in path else 0o644)
        for path in package.directories:
            (tree / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        spec += _section(package)
    (output / "stubs.spec").write_text(spec)
    argv = ["rpmbuild", "-bb"]
    for macro in (
        f"_topdir {output}/rpmbuild",
        f"_rpmdir {output}",
        "_rpmfilename %%{NAME}-%%{VERSION}.rpm",
        "_binary_payload w1.gzdio",
    ):
        argv += ["--define", macro]
    done = subprocess.run(
        [*argv, str(output / "stubs.spec")],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        raise HarnessError(f"no stubs:\n{done.stdout}{done.stderr}")
    return [output / f"{package.name}-{_evr(package)[1]}.rpm" for package in packages]


def _evr(package: Stub) -> tuple[str, str, str]:
    """Epoch, version and release."""
    epoch, _, rest = package.version.rpartition(":")
    version, _, release = rest.partition("-")
    return epoch or "0", version, release or "1"


def _section(package: Stub) -> str:
    """The part of the spec file that is about one package."""
    epoch, version, release = _evr(package)
    tags = [f"Version: {version}", f"Release: {release}", "AutoReqProv: no", *package.tags]
    if epoch != "0":
        tags.insert(0, f"Epoch: {epoch}")
    files = [
        f"{'%config(noreplace) ' if path in package.config else ''}{path}" for path in package.files
    ]
    files += [f"%dir %attr({attr}) {path}" for path, attr in package.directories.items()]
    named = re.sub(
        r"^%(pre|post|preun|postun|posttrans)$",
        rf"%\1 -n {package.name}",
        package.scripts,
        flags=re.MULTILINE,
    )
    return PACKAGE.format(
        name=package.name, tags="\n".join(tags), files="\n".join(files), scripts=named
    )
