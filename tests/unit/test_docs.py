"""The documents: the reference is the schema's, the examples are valid, the README names what is."""

import importlib.util
import re
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from cc_kvmhost import cli, config, document

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def reference() -> Any:
    spec = importlib.util.spec_from_file_location("reference", str(ROOT / "tools/reference.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examples() -> List[Tuple[str, str]]:
    """Every cloud-config of the documents and of examples/, by where it stands."""
    found = [
        (f"{path.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}", match.group(1))
        for path in DOCUMENTS
        for text in [path.read_text(encoding="utf-8")]
        for match in re.finditer(r"^```ya?ml\n(#cloud-config\n.*?)^```", text, re.M | re.S)
    ]
    for path in sorted((ROOT / "examples").iterdir()):
        text = path.read_text(encoding="utf-8")
        if text.startswith("#cloud-config"):
            found.append((str(path.relative_to(ROOT)), text))
    return found


class TestReference:
    def test_up_to_date(self) -> None:
        made = reference()
        written = made.TARGET.read_text(encoding="utf-8")
        assert written == made.render(config.load_schema()), "run tools/reference.py"

    def test_its_example_is_the_defaults(self) -> None:
        import yaml

        (text,) = [text for where, text in examples() if where.startswith("docs/section.md")]
        defaults = config.parse({})._replace(check="guest")
        assert config.parse(yaml.safe_load(text)["kvmhost"]) == defaults


class TestExamples:
    def test_there_are_some(self) -> None:
        places = {where.split(":")[0] for where, _ in examples()}
        assert places >= {"README.md", "docs/section.md", "examples/kvmhost.yaml"}

    @pytest.mark.parametrize("where, text", examples(), ids=[where for where, _ in examples()])
    def test_valid(self, where: str, text: str, tmp_path: Path) -> None:
        (tmp_path / "user-data").write_text(text, encoding="utf-8")
        assert document.judge(str(tmp_path / "user-data")).config is not None


class TestReadme:
    TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

    def test_every_key_with_its_default(self) -> None:
        rows = dict(re.findall(r"^\| `([a-z.]+)` \| ([^|]*?) \|", self.TEXT, re.M))
        leaves = {
            key: rule for key, rule in reference().keys(config.load_schema()) if "default" in rule
        }
        assert set(rows) == set(leaves)
        for key, rule in leaves.items():
            default = rule["default"]
            if isinstance(default, list):
                assert rows[key] == (", ".join(default) or "none")
            else:
                assert rows[key].strip("`") == str(default).replace("True", "true").replace(
                    "False", "false"
                )

    def test_every_command(self) -> None:
        parser = cli._parser()
        (commands,) = [action for action in parser._actions if action.choices]
        listed = " ".join(re.findall(r"^\| `(.*)` \|", self.TEXT, re.M))
        for name in commands.choices or ():
            assert re.search(rf"\b{name}\b", listed), name

    @pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", TEXT))
    def test_links(self, target: str) -> None:
        assert (ROOT / target).exists()
