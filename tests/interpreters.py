"""Run the unit tests on the installed package with the Pythons of RHEL and the newest.

A developer's machine need not have them: which versions are found is printed, and so is which are
not.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
UNIT = CHECKOUT / "tests" / "unit"
#: RHEL 8, 9 and 10 have 3.6, 3.9 and 3.12; 3.11 has the unit environment, and 3.13 a test host.
VERSIONS = ("3.6", "3.9", "3.12", "3.14")
REQUIREMENTS = Path(__file__).with_name("requirements-unit.txt")


def find(version: str) -> Path | None:
    """The interpreter of this version: in PATH, or one of pyenv's."""
    candidates = [shutil.which(f"python{version}")]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.check_output([pyenv, "root"], text=True).strip()
        candidates += map(str, Path(root, "versions").glob(f"{version}.*/bin/python"))
    for candidate in candidates:
        # pyenv's shims are in PATH for versions that are not selected, and fail.
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        if candidate:
            asked = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
            if asked.stdout.strip() == version:
                return Path(candidate)
    return None


def environment(interpreter: Path, wheel: Path, path: Path) -> Path:
    """The Python of a virtual environment with the wheel and the pinned tools; kept between runs."""
    python = path / "bin" / "python"
    made_from = hashlib.sha256(wheel.read_bytes() + REQUIREMENTS.read_bytes()).hexdigest()
    stamp = path / "made-from"
    if not stamp.exists() or stamp.read_text() != made_from:
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", path], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        # 3.6's own pip does not see which releases still run on 3.6.
        pip_for_36 = "pip==21.3.1; python_version == '3.6'"
        subprocess.run([*pip, "--upgrade", pip_for_36], check=True)
        subprocess.run([*pip, "--requirement", str(REQUIREMENTS), f"{wheel}[apply]"], check=True)
        stamp.write_text(made_from)
    return python


def test(python: Path) -> str:
    """Run what this Python can parse of the unit tests; the outcome in words."""
    code = "import sys; compile(open(sys.argv[1], encoding='utf-8').read(), '', 'exec')"
    run: list[str] = []
    left_out: list[str] = []
    for path in map(str, sorted(UNIT.glob("test_*.py"))):
        parsed = subprocess.run([python, "-c", code, path], stderr=subprocess.DEVNULL)
        (left_out if parsed.returncode else run).append(path)
    # -I: or the checkout in the working directory would be tested, not the installed package.
    pytest = [str(python), "-I", "-m", "pytest", "--quiet", "-p", "no:cacheprovider"]
    pytest += ["-m", "not once", *run]
    if not run or subprocess.run(pytest, cwd=CHECKOUT).returncode:
        return "FAILED"
    names = ", ".join(Path(path).name for path in left_out)
    return f"passed, without (newer syntax): {names}" if names else "passed"


def main(wheel: Path, directory: Path) -> int:
    """Test the wheel with each version; 1 if one fails."""
    outcome = {}
    for version in VERSIONS:
        interpreter = find(version)
        if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
            outcome[version] = "tested by the unit environment"
        elif not interpreter:
            outcome[version] = "NOT TESTED: not found on this machine"
        else:
            print(f"Python {version}: {interpreter}", flush=True)
            try:
                outcome[version] = test(environment(interpreter, wheel, directory / version))
            except subprocess.CalledProcessError as error:
                outcome[version] = f"FAILED: {error}"
    for version, text in outcome.items():
        print(f"Python {version:4} {text}")
    return int(any(text.startswith("FAILED") for text in outcome.values()))


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["TOX_PACKAGE"]), Path(sys.argv[1])))
