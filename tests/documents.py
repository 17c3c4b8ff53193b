"""The code blocks of the documents, and who runs their commands."""

import re
import textwrap
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]

#: What each block begins with that tests/hosts/test_documents.py does not run, by document: the test that
#: does run it, or why nobody does.
ELSEWHERE: Dict[Tuple[str, str], str] = {
    ("README.md", "sudo apt-get update"): "tests/hosts/test_documents.py::test_the_demo",
    (
        "README.md",
        "$ kvmhost plan",
    ): "tests/unit/test_docs.py::test_its_screens_are_those_that_are_made",
    (
        "README.md",
        "$ kvmhost status",
    ): "tests/unit/test_docs.py::test_its_screens_are_those_that_are_made",
    ("CONTRIBUTING.md", "make setup"): "not run: CI's own first commands",
    ("CONTRIBUTING.md", "sudo .venv/bin/tox"): "not run: a shell for people, and a test of CI",
    ("CONTRIBUTING.md", "sed -i"): "tests/unit/test_docs.py::test_one_command_fills_in_the_address",
    ("docs/checking.md", "python3 -m venv"): "tests/example/test_pip.py::test_on_any_machine",
    ("docs/editors.md", "curl"): "not run: a download",
    ("docs/getting-started.md", "sudo dnf install -y 'dnf-command"): (
        "tests/images/test_getting_started.py::test_a_host_that_runs_already"
    ),
    ("docs/getting-started.md", "git clone"): (
        "tests/images/test_getting_started.py::test_a_host_that_runs_already"
    ),
    ("docs/getting-started.md", "sudo subscription-manager"): (
        "tests/images/test_getting_started.py::test_on_rhel"
    ),
    ("docs/getting-started.md", "cat > user-data.yaml <<'EOF'"): (
        "tests/hosts/test_recipes.py::test_getting_started"
    ),
    (
        "docs/getting-started.md",
        "kvmhost plan",
    ): "tests/hosts/test_recipes.py::test_getting_started",
    ("docs/getting-started.md", "sudo dnf install -y git"): (
        "not run: it downloads CentOS; tests/images/test_build.py builds from another base"
    ),
    ("docs/getting-started.md", "test -e ~/.ssh"): (
        "tests/hosts/test_recipes.py::test_getting_started_with_an_image"
    ),
    ("docs/getting-started.md", "sudo cp"): (
        "tests/hosts/test_recipes.py::test_getting_started_with_an_image"
    ),
    ("docs/getting-started.md", "ssh admin"): (
        "tests/hosts/test_recipes.py::test_getting_started_with_an_image"
    ),
    ("docs/images.md", "$ images/build"): "not run: it downloads CentOS",
    ("docs/images.md", "$ kvmhost apply --root"): "tests/hosts/test_baked.py",
    ("docs/networks.md", "semanage"): "not run: SELinux is not on the stand-ins",
    ("docs/recipes.md", "cd /etc/pki"): "tests/hosts/test_recipes.py::test_tls",
    ("docs/recipes.md", "kvmhost plan"): "tests/hosts/test_recipes.py::test_moving_a_host",
    ("docs/seeds.md", "mkdir -p seed"): "tests/hosts/test_seeds.py::seed",
    ("docs/seeds.md", "mkisofs"): "tests/hosts/test_seeds.py::test_a_disk",
    ("docs/seeds.md", "mkdir -p /mnt"): "tests/hosts/test_seeds.py::test_the_images_own_directory",
    ("docs/seeds.md", "touch seed"): "tests/hosts/test_seeds.py::test_the_network",
    ("docs/seeds.md", "openstack"): "not run: it needs a cloud",
    ("docs/testing.md", "tmt run"): "tests/hosts/test_tmt.py",
    ("docs/testing.md", "test -w /dev/kvm"): "not run: it downloads CentOS",
    ("docs/testing.md", "tar"): "not run: after a run of tmt on a machine of yours",
}


class Block(NamedTuple):
    """A code block. ``document``: its name from the top of the source tree. ``line``: of its text."""

    document: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def runner(self) -> str:
        """Who runs it instead of tests/hosts/test_documents.py, or why nobody does; "" if that does."""
        found = [
            who
            for (document, start), who in ELSEWHERE.items()
            if document == self.document and self.text.startswith(start)
        ]
        return found[0] if found else ""


def blocks(*documents: str) -> List[Block]:
    """The code blocks of these documents, of all if none is named, in their order."""
    found = []
    for path in [ROOT / name for name in documents] or DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^( *)```([a-z]+)\n(.*?)^\1```$", text, re.M | re.S):
            line = text.count("\n", 0, match.start(3)) + 1
            name = path.relative_to(ROOT).as_posix()
            found.append(Block(name, line, match.group(2), textwrap.dedent(match.group(3))))
    return found


def commands() -> List[Block]:
    """The blocks that are to be typed, and what is printed then. docs/screens.md is made, not written."""
    return [
        block
        for block in blocks()
        if block.language in ("sh", "console") and block.document != "docs/screens.md"
    ]


def block(document: str, start: str) -> str:
    """The text of the one block of a document that begins so."""
    (found,) = [each.text for each in blocks(document) if each.text.startswith(start)]
    return found
