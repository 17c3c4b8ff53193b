"""The pre-commit hook, by the real pre-commit, in a project that has docs/checking.md's configuration."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import documents


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: Any) -> Path:
    """What is in this tree, as a repository with the tag that the page names."""
    tree = tmp_path_factory.mktemp("hooks") / "cc_kvmhost"
    git("clone", "--quiet", str(documents.ROOT), str(tree))
    git("tag", "--force", "v0.1.0", cwd=tree)
    return tree


@pytest.fixture
def project(hooks: Path, tmp_path: Path) -> Path:
    (configuration,) = [
        block.text
        for block in documents.blocks("docs/checking.md")
        if block.text.startswith("repos:")
    ]
    project = tmp_path / "project"
    project.mkdir()
    git("init", "--quiet", cwd=project)
    (project / ".pre-commit-config.yaml").write_text(
        configuration.replace("REPOSITORY_URL", str(hooks))
    )
    return project


def git(*words: str, **more: Any) -> None:
    subprocess.run(["git", *words], check=True, **more)


def run(project: Path) -> Any:
    git("add", "--all", cwd=project)
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", "--all-files"],
        cwd=str(project),
        env=dict(os.environ, PRE_COMMIT_HOME=str(project.parent / "home")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_wrong_section_is_not_committed(project: Path) -> None:
    user_data = project / "user-data.yaml"
    user_data.write_text("#cloud-config\nkvmhost:\n  libvirt: {mode: modlar}\n")
    (project / "compose.yaml").write_text("services: {}\n")
    done = run(project)
    assert done.returncode == 1, done.stdout
    assert 'user-data.yaml:3: kvmhost.libvirt.mode: "modlar" is not allowed' in done.stdout
    assert "1 error in 1 of 1 file" in done.stdout
    user_data.write_text("#cloud-config\nkvmhost:\n  libvirt: {mode: modular}\n")
    done = run(project)
    assert done.returncode == 0, done.stdout
