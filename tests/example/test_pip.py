"""docs/checking.md's commands for a machine that has nothing of this: pip, from the repository."""

import os
import subprocess
from pathlib import Path

import documents


def test_on_any_machine(tmp_path: Path) -> None:
    script = documents.block("docs/checking.md", "python3 -m venv").replace(
        "REPOSITORY_URL", f"file://{documents.ROOT}"
    )
    (tmp_path / "user-data.yaml").write_text("#cloud-config\nkvmhost: {}\n")
    script += ". kvmhost-only/bin/activate\nkvmhost validate user-data.yaml\n"
    # No compiler: pystemd would want one.
    (tmp_path / "bin").mkdir()
    for name in ("gcc", "cc", "pkg-config"):
        (tmp_path / "bin" / name).symlink_to("/bin/false")
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=str(tmp_path),
        env=dict(os.environ, PATH=f"{tmp_path}/bin:{os.environ['PATH']}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "user-data.yaml: kvmhost section valid" in done.stdout
