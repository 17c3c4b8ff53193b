"""The documents: the reference is the schema's, the examples are valid, the README names what is."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any, List, Set, Tuple

import pytest

from cc_kvmhost import cli, config, document

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]


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
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        found.append((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
    return found


class TestArchitecture:
    def test_every_module_has_a_room(self) -> None:
        text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
        rooms = set(re.findall(r"`(\w+)(?:\.py)?`", text))
        modules = {path.stem for path in (ROOT / "cc_kvmhost").rglob("*.py")}
        assert {name for name in modules if not name.startswith("__")} <= rooms


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

    def test_all_files_by_the_command(self, capsys: Any) -> None:
        files = [str(path) for path in sorted((ROOT / "examples").rglob("*.yaml"))]
        assert cli.main(["validate", *files]) == 0
        said = capsys.readouterr()
        assert said.err == "" and said.out.endswith(f"\n{len(files)} files, no errors\n")

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

    def test_its_screens_are_those_that_are_made(self) -> None:
        made = (ROOT / "docs/screens.md").read_text(encoding="utf-8")
        shown = re.findall(r"^```console\n\$ kvmhost .*?^```", self.TEXT, re.M | re.S)
        assert len(shown) == 2
        for screen in shown:
            assert screen in made


def anchors(path: Path) -> Set[str]:
    """The names that a renderer gives to a document's headings."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> List[Tuple[str, str]]:
    return [
        (str(path.relative_to(ROOT)), target)
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
        if not re.match(r"https?://", target)
    ]


class TestLinks:
    @pytest.mark.parametrize("where, target", links(), ids=[" ".join(each) for each in links()])
    def test_lead_somewhere(self, where: str, target: str) -> None:
        name, _, anchor = target.partition("#")
        path = (ROOT / where).parent / name if name else ROOT / where
        assert path.exists()
        if anchor:
            assert anchor in anchors(path)

    def test_the_index_has_each_document(self) -> None:
        text = (ROOT / "docs/README.md").read_text(encoding="utf-8")
        for path in (ROOT / "docs").glob("*.md"):
            assert path.name == "README.md" or f"({path.name})" in text, path.name


#: Typed here, as root, or on another machine; what follows ">" is the shell's.
KVMHOST = re.compile(r"(?:\$ |sudo |ssh \S+ |ssh \S+ sudo )?kvmhost( [^>]*)$")


def typed() -> List[Tuple[str, str]]:
    """Each line of a code block that is to be typed, continued lines in one."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for block in re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", text, re.M | re.S):
            for line in block.replace("\\\n", " ").split("\n"):
                found.append((str(path.relative_to(ROOT)), line.strip()))
    return found


def kvmhost_commands() -> List[Tuple[str, str]]:
    matches = [(where, KVMHOST.match(line.split(" > ")[0])) for where, line in typed()]
    return [(where, found.group(1)) for where, found in matches if found]


class TestCommands:
    """No command of the documents is misspelt or gone. Those of getting-started.md are also run, by
    tests/hosts/test_recipes.py."""

    def test_there_are_some(self) -> None:
        assert len(kvmhost_commands()) > 15

    @pytest.mark.parametrize(
        "where, words", kvmhost_commands(), ids=[" ".join(each) for each in kvmhost_commands()]
    )
    def test_is_one_of_the_command_line(self, where: str, words: str) -> None:
        cli._parser().parse_args(shlex.split(words))

    def test_targets_of_make(self) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
        for path in DOCUMENTS:
            text = path.read_text(encoding="utf-8")
            named = re.findall(r"(?:`|^ *(?:sudo )?)(?:sudo )?make ([a-z-]+)", text, re.M)
            assert set(named) <= targets, path

    def test_programs_and_their_options(self) -> None:
        for where, line in typed():
            found = re.match(r"(?:\$ |sudo )?((?:images|tools|tests)/[\w/.-]+)(.*)", line)
            if found:
                program = ROOT / found.group(1)
                assert program.exists(), (where, line)
                source = program.read_text(encoding="utf-8")
                for option in re.findall(r" (--[a-z-]+)", found.group(2)):
                    assert option in source, (where, line)

    def test_packages_are_those_of_the_images(self) -> None:
        text = (ROOT / "docs/getting-started.md").read_text(encoding="utf-8").replace("\\\n", " ")
        (told,) = re.findall(r"dnf install -y (qemu-kvm .*)", text)
        for release in ("9", "10"):
            listed = (ROOT / f"images/packages/el-{release}").read_text().splitlines()
            wanted = {line for line in listed if line and not line.startswith("#")}
            # The images do without weak dependencies; here dnf brings them.
            assert {"libvirt-daemon", "python3-libvirt"} <= set(told.split()) <= wanted

    def test_the_language_server_is_the_one_that_is_tested(self) -> None:
        tested = (ROOT / "tests/editors/test_language_server.py").read_text(encoding="utf-8")
        (version,) = re.findall(r'^VERSION = "(.*)"$', tested, re.M)
        told = (ROOT / "docs/editors.md").read_text(encoding="utf-8")
        assert f"yaml-language-server {version} " in told

    def test_the_rpm_has_that_name(self) -> None:
        text = (ROOT / "docs/getting-started.md").read_text(encoding="utf-8")
        assert f"cc_kvmhost-{cli.VERSION}-1.el" in text
