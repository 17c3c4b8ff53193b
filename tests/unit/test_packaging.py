"""The wheel and the sdist: what they contain, and what they require."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Dict, List

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "cc_kvmhost/schemas/kvmhost.schema.json"
PACKAGE = ROOT / "cc_kvmhost"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def run(*command: str, cwd: Any = None, **env: str) -> str:
    done = subprocess.run(
        command,
        cwd=str(cwd) if cwd else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        env=dict(os.environ, **env),
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: Any) -> Path:
    """A copy of what git would check out, because building leaves files in the source."""
    copy = tmp_path_factory.mktemp("source") / "cc_kvmhost"
    copy.mkdir()
    for name in ("setup.py", "MANIFEST.in", "README.md", "LICENSE", "pyproject.toml"):
        if (ROOT / name).exists():
            shutil.copy2(str(ROOT / name), str(copy))
    for name in ("cc_kvmhost", "schemas", "share"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(str(ROOT / name), str(copy / name), symlinks=True, ignore=ignore)
    return copy


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: Any) -> Path:
    target = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "setup.py", "-q", "sdist", "-d", str(target), cwd=source)
    (archive,) = target.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module", params=["checkout", "sdist"])
def wheel(request: Any, source: Path, sdist: Path, tmp_path_factory: Any) -> Path:
    """The wheel that pip makes, of a checkout and of the sdist."""
    target = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"),
        *("--no-index", "-w", str(target)),
        str(source if request.param == "checkout" else sdist),
    )
    (archive,) = target.glob("*.whl")
    return archive


class TestSdist:
    def test_carries_the_schema_as_a_file(self, sdist: Path) -> None:
        with tarfile.open(str(sdist)) as archive:
            names = {re.sub(r"^[^/]*/", "", each.name): each for each in archive}
            member = names.get(SCHEMA) or names.get("schemas/kvmhost.schema.json")
            assert member is not None
            stream = archive.extractfile(member)
            assert stream is not None and json.loads(stream.read().decode())["title"] == "kvmhost"
        assert {"setup.py", "README.md", "LICENSE"} <= set(names)
        assert {"cc_kvmhost/" + name for name in MODULES} <= set(names)


class TestWheel:
    def test_pure_and_complete(self, wheel: Path) -> None:
        assert wheel.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(str(wheel)) as archive:
            names = archive.namelist()
            own = (ROOT / SCHEMA).read_text(encoding="utf-8")
            assert archive.read(SCHEMA).decode() == own
            (entries,) = [name for name in names if name.endswith("entry_points.txt")]
            assert "kvmhost = cc_kvmhost.cli:main" in archive.read(entries).decode()
        assert {"cc_kvmhost/" + name for name in MODULES} <= set(names)
        shared = {name.split(".data/data/")[1] for name in names if ".data/data/" in name}
        assert shared == {
            "share/man/man1/kvmhost.1",
            "share/bash-completion/completions/kvmhost",
        }
        assert {name.split("/")[0].split("-")[0] for name in names} == {"cc_kvmhost"}

    def test_installed(self, wheel: Path, tmp_path: Path) -> None:
        run(
            *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index"),
            *("--target", str(tmp_path), str(wheel)),
        )
        path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        script = "import cc_kvmhost.config as c; print(c.SCHEMA_FILE); c.parse({})"
        where = run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=path).strip()
        assert where == str(tmp_path / SCHEMA)
        command = tmp_path / "bin/kvmhost"
        assert os.access(str(command), os.X_OK)
        printed = run(sys.executable, str(command), "schema", cwd=tmp_path, PYTHONPATH=path)
        assert json.loads(printed)["title"] == "kvmhost"


class TestRequirements:
    @pytest.fixture(scope="class")
    def sections(self, source: Path, tmp_path_factory: Any) -> Dict[str, List[Requirement]]:
        """By extra; "" is what everybody gets."""
        target = tmp_path_factory.mktemp("info")
        run(sys.executable, "setup.py", "-q", "egg_info", "-e", str(target), cwd=source)
        text = (target / "cc_kvmhost.egg-info/requires.txt").read_text()
        found: Dict[str, List[Requirement]] = {}
        extra, marker = "", ""
        for line in filter(None, text.splitlines()):
            if line.startswith("["):
                extra, _, marker = line[1:-1].partition(":")
            else:
                asked = Requirement(f"{line}; {marker}" if marker else line)
                found.setdefault(extra, []).append(asked)
        return found

    @pytest.fixture(scope="class")
    def requirements(self, sections: Dict[str, List[Requirement]]) -> List[Requirement]:
        """What a host needs."""
        return sections[""] + sections["apply"]

    def test_validating_needs_nothing_that_pip_compiles(self, sections: Any) -> None:
        assert set(sections) == {"", "apply"}
        assert {each.name for each in sections[""]} == {"distro", "jsonschema", "PyYAML"}
        assert {each.name for each in sections["apply"]} == {"pystemd"}

    @staticmethod
    def by_name(requirements: List[Requirement], python: str) -> Dict[str, Requirement]:
        applying = [
            each
            for each in requirements
            if each.marker is None or each.marker.evaluate({"python_version": python})
        ]
        names = [each.name for each in applying]
        assert len(set(names)) == len(names), "two lines for one package"
        return dict(zip(names, applying))

    @pytest.mark.parametrize(
        "python", ["3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
    )
    def test_nothing_but_these(self, python: str, requirements: List[Requirement]) -> None:
        asked = self.by_name(requirements, python)
        assert set(asked) == {"distro", "jsonschema", "PyYAML", "pystemd"}

    @pytest.mark.parametrize(
        "python, good, bad",
        [
            ("3.6", ["0.11.0", "0.13.2"], ["0.10.0", "0.13.4", "0.14.0", "0.15.3"]),
            ("3.7", ["0.11.0", "0.13.2"], ["0.13.4", "0.15.3"]),
            ("3.8", ["0.13.2", "0.13.4", "0.14.0"], ["0.15.0"]),
            ("3.9", ["0.13.2", "0.14.0"], ["0.10.0", "0.15.0", "0.15.3"]),
            ("3.10", ["0.13.2", "0.14.0"], ["0.15.0", "0.15.3"]),
            ("3.11", ["0.11.0", "0.14.0", "0.15.3"], ["0.10.0"]),
            ("3.13", ["0.13.2", "0.15.3"], ["0.10.0"]),
            ("3.14", ["0.15.3"], ["0.10.0"]),
        ],
    )
    def test_pystemd(
        self, python: str, good: List[str], bad: List[str], requirements: List[Requirement]
    ) -> None:
        allowed = self.by_name(requirements, python)["pystemd"].specifier
        assert [each for each in good if each not in allowed] == []
        assert [each for each in bad if each in allowed] == []

    @pytest.mark.parametrize(
        "python, jsonschema, distro", [("3.6", "2.6.0", "1.4.0"), ("3.9", "3.2.0", "1.5.0")]
    )
    def test_what_el_has(
        self, python: str, jsonschema: str, distro: str, requirements: List[Requirement]
    ) -> None:
        asked = self.by_name(requirements, python)
        assert jsonschema in asked["jsonschema"].specifier
        assert distro in asked["distro"].specifier


@pytest.mark.once
class TestForOthers:
    """What projects that only write user-data take from here."""

    def test_the_hook(self) -> None:
        import yaml

        (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
        assert hook["entry"] == "kvmhost validate" and hook["language"] == "python"
        for name, taken in (
            ("user-data.yaml", True),
            ("hosts/user-data-el9.yml", True),
            ("compose.yaml", False),
        ):
            assert bool(re.search(hook["files"], name)) == taken
        documented = (ROOT / "docs/checking.md").read_text(encoding="utf-8")
        assert f"- id: {hook['id']}\n" in documented

    def test_the_example_project_checks_its_user_data(self, source: Path, tmp_path: Path) -> None:
        """With the package in a virtual environment that has no pystemd, by the command of its tox.ini."""
        project = tmp_path / "project"
        shutil.copytree(str(ROOT / "examples/project"), str(project))
        text = (project / "tox.ini").read_text(encoding="utf-8")
        assert "KVMHOST_SOURCE" in text and "[apply]" not in text
        (command,) = re.findall(r"^commands = kvmhost (.*)$", text, re.M)
        script = (
            "import sys; sys.modules['pystemd'] = None\n"
            "from cc_kvmhost.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        path = os.pathsep.join([str(source), *filter(None, sys.path)])
        said = run(*(sys.executable, "-c", script, *command.split()), cwd=project, PYTHONPATH=path)
        assert "kvmhost section valid" in said
