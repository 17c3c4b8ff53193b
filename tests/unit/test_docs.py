"""The documents: the reference is the schema's, the examples are valid, the README names what is."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, List, Set, Tuple

import pytest

import documents
from cc_kvmhost import cli, config, document
from documents import DOCUMENTS, ELSEWHERE, ROOT


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

    def test_is_short(self) -> None:
        """Read in ten minutes: what is looked up stands in docs/."""
        assert len(self.TEXT.splitlines()) < 160

    def test_has_its_order(self) -> None:
        headings = re.findall(r"^## (.*)$", self.TEXT, re.M)
        assert headings == [
            "What must be in the image",
            "Two commands",
            "The section",
            "How it decides",
            'What "ok" means',
            "What it never does",
            "What has been shown, and on what",
            "Where to go next",
        ]

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


def test_commands_md_has_every_command() -> None:
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    (commands,) = [action for action in cli._parser()._actions if action.choices]
    listed = " ".join(re.findall(r"^\| `(.*)` \|", text, re.M))
    for name in commands.choices or ():
        assert re.search(rf"\b{name}\b", listed), name


class TestLinks:
    @pytest.mark.parametrize("where, target", links(), ids=[" ".join(each) for each in links()])
    def test_lead_somewhere(self, where: str, target: str) -> None:
        name, _, anchor = target.partition("#")
        path = (ROOT / where).parent / name if name else ROOT / where
        assert path.exists()
        if anchor:
            assert anchor in anchors(path)

    def test_addresses(self, tmp_path: Path) -> None:
        """Whether they answer, `make links` asks on a connected machine; here a server of our own does."""
        import http.server

        spec = importlib.util.spec_from_file_location("links", str(ROOT / "tools/links.py"))
        assert spec and spec.loader
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        assert len(tool.links()) > 5

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/here" else 404)
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        assert tool.problem(f"{base}/here") == ""
        assert tool.problem(f"{base}/gone").startswith("404")
        server.shutdown()
        server.server_close()
        assert "refused" in tool.problem(f"{base}/here")
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs/a.md").write_text(
            f"[x]({base}/here), [y]\n\n[y]: {base}/gone\n[z](b.md)\n"
        )
        assert tool.links(tmp_path) == {
            f"{base}/here": ["docs/a.md"],
            f"{base}/gone": ["docs/a.md"],
        }

    def test_the_index_has_each_document(self) -> None:
        text = (ROOT / "docs/README.md").read_text(encoding="utf-8")
        for path in (ROOT / "docs").glob("*.md"):
            assert path.name == "README.md" or f"({path.name})" in text, path.name


def test_the_demo_says_first_that_it_wants_debian(tmp_path: Path) -> None:
    """And what a reader on EL can do instead; that the command is right, test_cli.py shows."""
    for program in ("bash", "dirname"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    done = subprocess.run(
        [str(ROOT / "tests/setup-machine"), "--for-hosts"],
        env={"PATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: this wants Debian or Ubuntu")
    (command,) = re.findall(r"python3 -m cc_kvmhost (.*)", done.stderr)
    cli._parser().parse_args(shlex.split(command))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo: .*\n\t@tests/setup-machine --for-hosts\n", makefile, re.M)


@pytest.mark.skipif(os.geteuid() != 0, reason="installing needs root")
@pytest.mark.parametrize("fails", [0, 100])
def test_what_apt_says_is_shown_only_if_it_fails(tmp_path: Path, fails: int) -> None:
    """On a bare Debian it is some hundred lines, above the demo's own."""
    script = tmp_path / "tree/tests/setup-machine"
    script.parent.mkdir(parents=True)
    shutil.copy(str(ROOT / "tests/setup-machine"), str(script))
    (version,) = re.findall(r"^TOX=(.*)$", script.read_text(encoding="utf-8"), re.M)
    stand_ins = {
        "dpkg-query": "exit 1",
        "apt-get": f"echo Unpacking make; echo no space >&2; exit {fails}",
        "tree/.venv/bin/tox": f"echo {version} from here",
    }
    for name, text in stand_ins.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    done = subprocess.run(
        [str(script), "--for-hosts"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.returncode == (1 if fails else 0)
    assert "missing: make " in done.stdout and "Unpacking" not in done.stdout
    shown = "Unpacking make\nno space\nerror: apt-get could not install them: see above\n"
    assert done.stderr == (shown if fails else "")
    assert not list(tmp_path.glob("kvmhost-setup.*"))


@pytest.mark.parametrize(
    "options, command", [(["--for-hosts"], "the same command with sudo"), ([], "sudo make setup")]
)
def test_installing_without_root(options: List[str], command: str) -> None:
    """The demo needs root itself, and a fourth of what `make setup` installs. Other targets need no root."""
    become = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as directory:  # tmp_path is root's alone
        os.chmod(directory, 0o755)
        shutil.copy(str(ROOT / "tests/setup-machine"), directory)
        for name in ("apt-get", "dpkg-query"):
            program = Path(directory, name)
            program.write_text("#!/bin/sh\nexit 1\n")
            program.chmod(0o755)
        done = subprocess.run(
            [*become, f"{directory}/setup-machine", *options],
            env={"PATH": f"{directory}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
    assert done.returncode == 1
    assert done.stderr == f"error: installing needs root: {command}\n"


def lines() -> List[Tuple[str, str]]:
    """Each line of a code block that is to be typed, continued lines in one."""
    return [
        (block.document, line.strip())
        for block in documents.commands()
        for line in block.text.replace("\\\n", " ").split("\n")
    ]


class TestBlocks:
    """Each command in a code block is run by a test. Who runs what stands in tests/documents.py."""

    def test_there_are_some(self) -> None:
        assert len(documents.commands()) > 35

    @pytest.mark.parametrize(
        "document, start", ELSEWHERE, ids=[" ".join(each) for each in ELSEWHERE]
    )
    def test_who_runs_it(self, document: str, start: str) -> None:
        """The block is there, and so is the test that runs it."""
        assert [each for each in documents.blocks(document) if each.text.startswith(start)]
        who = ELSEWHERE[document, start]
        if not who.startswith("not run: "):
            path, _, name = who.partition("::")
            text = (ROOT / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"^ *def {name}\(", text, re.M), who

    def test_indented_blocks_are_none(self) -> None:
        """A command in a block without a fence would be run by nobody."""
        for path in DOCUMENTS:
            text = re.sub(
                r"^( *)```.*?^\1```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S
            )
            commands = r"\n\n    (?:kvmhost|cloud-init|ssh|sudo|make|tmt|virsh|systemctl|dnf)\b.*"
            assert not re.search(commands, text), path

    def test_one_command_fills_in_the_address(self, tmp_path: Path) -> None:
        text = documents.block("CONTRIBUTING.md", "sed -i")
        names = {path.relative_to(ROOT) for path in DOCUMENTS} | {Path("examples/project/tox.ini")}
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(ROOT / name), str(tmp_path / name))
        subprocess.run(["sh", "-euc", text], cwd=str(tmp_path), check=True)
        told = [name for name in names if "REPOSITORY_URL" in (ROOT / name).read_text("utf-8")]
        assert len(told) > 3
        for name in told:
            filled = (tmp_path / name).read_text("utf-8")
            assert "https://git.example/cc_kvmhost.git" in filled, name
            assert not re.search(r"(clone|repo:|\+) *REPOSITORY_URL", filled), name


#: `kvmhost …` in the text, with words for what is to be filled in.
INLINE = re.compile(r"`(?:sudo )?kvmhost( [^`]*)`")
STAND_FOR = {
    "[FILE]": "x",
    "[COMMAND]": "plan",
    "[--root DIR]": "",
    "[--force]": "",
    "[--dry-run]": "",
}


def inline_commands() -> List[Tuple[str, str]]:
    found = []
    for path in DOCUMENTS:
        text = re.sub(
            r"^( *)```.*?^\1```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S
        )
        for words in INLINE.findall(text):
            found.append((str(path.relative_to(ROOT)), " ".join(words.split())))
    return sorted(set(found))


class TestCommands:
    """No command of the documents is misspelt or gone."""

    def test_there_are_some(self) -> None:
        assert len(inline_commands()) > 40

    @pytest.mark.parametrize(
        "where, words", inline_commands(), ids=[" ".join(each) for each in inline_commands()]
    )
    def test_is_one_of_the_command_line(self, where: str, words: str) -> None:
        for placeholder, word in STAND_FOR.items():
            words = words.replace(placeholder, word)
        words = re.sub(r"\[--level LEVEL\]", "", words).replace("[--cloud-config]", "")
        words = words.replace("FILE...", "x").replace("COMMAND...", "plan")
        if words == "validate":  # named, not called
            return
        try:
            cli._parser().parse_args(shlex.split(words))
        except SystemExit as done:  # as --version ends
            assert done.code == 0

    def test_targets_of_make(self) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
        for path in DOCUMENTS:
            text = path.read_text(encoding="utf-8")
            named = re.findall(r"(?:`|^ *(?:sudo )?)(?:sudo )?make ([a-z-]+)", text, re.M)
            assert set(named) <= targets, path

    def test_programs_and_their_options(self) -> None:
        for where, line in lines():
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
