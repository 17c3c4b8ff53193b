"""docs/getting-started.md on EL: its commands, typed as they stand, with real dnf and rpm on stub packages."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import documents
import el
import repositories
import stubs

PAGE = "docs/getting-started.md"
#: Who types is root. git, which the root lacks, copies.
SHELL = """\
set -e
cd /root
sudo() { "$@"; }
git() { test "$1" = clone; cp -a "$2" "$3"; }
"""


@pytest.mark.parametrize("number", sorted(repositories.SUITES))
def test_a_host_that_runs_already(number: int, tmp_path: Path) -> None:
    release = el.RELEASES[number]
    tools = stubs.build(tmp_path / "tools", [stubs.Stub(name) for name in ("git", "rpm-build")])
    offered = {"tools": tools, **repositories.build(tmp_path, release)}
    with repositories.fresh_centos(release, offered) as system:
        ignored = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
        shutil.copytree(el.CHECKOUT, system.path("/source"), symlinks=True, ignore=ignored)
        starts = ("sudo dnf install -y 'dnf-command", "git clone", "cat > user-data.yaml <<'EOF'")
        typed = "".join(documents.block(PAGE, start) for start in starts)
        said = system.run("sh", "-c", SHELL + typed.replace("REPOSITORY_URL", "/source")).stdout
        assert "user-data.yaml: kvmhost section valid" in said
        installed = system.run(
            "rpm", "--query", "cc_kvmhost", "libvirt-daemon", "virt-install"
        ).stdout
        assert f"cc_kvmhost-0.1.0-1.el{number}.noarch" in installed
        system.run("kvmhost", "register", "--check")
        # Nothing runs here, in a root: what would be done is what this release's first boot does.
        planned = system.run(
            "sh", "-c", "cd /root/cc_kvmhost && kvmhost plan user-data.yaml --root /"
        ).stdout
        assert f"mode     {'modular' if number == 10 else 'monolithic'}" in planned


def test_on_rhel() -> None:
    """No RHEL is here: the names are those that images/provision takes, which is tried with stubs."""
    text = documents.block(PAGE, "sudo subscription-manager")
    systems = (el.CHECKOUT / "images/packages/systems").read_text()
    (crb, epel) = re.findall(r"^rhel +el +(\S+) +(\S+)$", systems, re.M)[0]
    told = text.replace("$(rpm -E %rhel)", "%N").replace("$(arch)", "%A")
    assert f'--enable "{crb}"\n' in told and f'install -y "{epel}"\n' in told
