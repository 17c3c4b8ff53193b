"""The section: what is valid, what a message says about what is not, and on which line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from cc_kvmhost import config, document, problems
from cc_kvmhost.config import Config
from cc_kvmhost.errors import KvmhostError

DEFAULTS = Config(
    mode="auto",
    drivers=("qemu", "network", "storage", "nodedev", "secret"),
    autostart=True,
    tls=False,
    tuned=True,
    profile="virtual-host",
    units=(),
    timeout=120,
)

#: A section that is wrong in one place, and what the message must say: key, value, what is allowed.
WRONG: List[Tuple[Any, Tuple[str, ...]]] = [
    # Types, at every level
    (7, ("kvmhost:", "7 is not allowed", "a mapping or null")),
    ("on", ("kvmhost:", '"on"', "a mapping or null")),
    (True, ("kvmhost:", "true", "a mapping or null")),
    ([], ("kvmhost:", "an empty list is not allowed", "a mapping or null")),
    ({"libvirt": "modular"}, ("kvmhost.libvirt:", '"modular"', "a mapping")),
    ({"libvirt": ["modular"]}, ("kvmhost.libvirt:", "a list", "a mapping")),
    ({"libvirt": {"mode": 1}}, ("kvmhost.libvirt.mode:", "1", "auto, modular, monolithic")),
    ({"libvirt": {"mode": None}}, ("kvmhost.libvirt.mode:", "null", "auto, modular")),
    ({"libvirt": {"mode": {}}}, ("kvmhost.libvirt.mode:", "a mapping", "auto, modular")),
    ({"libvirt": {"drivers": "qemu"}}, ("kvmhost.libvirt.drivers:", '"qemu"', "a list")),
    ({"libvirt": {"drivers": [1]}}, ("kvmhost.libvirt.drivers[0]:", "1", "qemu, network")),
    ({"libvirt": {"autostart": "yes"}}, ("kvmhost.libvirt.autostart:", '"yes"', "true or false")),
    ({"libvirt": {"autostart": 1}}, ("kvmhost.libvirt.autostart:", "1 ", "true or false")),
    ({"libvirt": {"tls": 0}}, ("kvmhost.libvirt.tls:", "0 ", "true or false")),
    ({"tuned": False}, ("kvmhost.tuned:", "false", "a mapping")),
    ({"tuned": {"enabled": "no"}}, ("kvmhost.tuned.enabled:", '"no"', "true or false")),
    ({"tuned": {"profile": 5}}, ("kvmhost.tuned.profile:", "5", "a tuned profile's name")),
    ({"tuned": {"profile": ["a"]}}, ("kvmhost.tuned.profile:", "a list", "profile's name")),
    ({"units": "cockpit.socket"}, ("kvmhost.units:", '"cockpit.socket"', "a list")),
    ({"units": None}, ("kvmhost.units:", "null", "a list")),
    ({"units": [{"name": "a.socket"}]}, ("kvmhost.units[0]:", "a mapping", "full name")),
    ({"timeout": "120"}, ("kvmhost.timeout:", '"120"', "a whole number from 1 to 3600")),
    ({"timeout": True}, ("kvmhost.timeout:", "true", "a whole number from 1 to 3600")),
    ({"timeout": None}, ("kvmhost.timeout:", "null", "a whole number from 1 to 3600")),
    # Limits
    ({"timeout": 0}, ("kvmhost.timeout:", "0 ", "a whole number from 1 to 3600")),
    ({"timeout": -1}, ("kvmhost.timeout:", "-1 ", "a whole number from 1 to 3600")),
    ({"timeout": 3601}, ("kvmhost.timeout:", "3601 ", "a whole number from 1 to 3600")),
    ({"timeout": 10**10}, ("kvmhost.timeout:", "a whole number from 1 to 3600")),
    ({"timeout": 10**40}, ("kvmhost.timeout:", "a whole number beyond any that is allowed")),
    ({"timeout": 1.5}, ("kvmhost.timeout:", "1.5", "a whole number from 1 to 3600")),
    ({"timeout": float("inf")}, ("kvmhost.timeout:", "a whole number from 1 to 3600")),
    ({"timeout": float("nan")}, ("kvmhost.timeout:", "a whole number from 1 to 3600")),
    (
        {"libvirt": {"drivers": []}},
        ("kvmhost.libvirt.drivers:", "an empty list", "a list of at least 1 of qemu"),
    ),
    (
        {"libvirt": {"drivers": ["qemu"] * 2}},
        ("kvmhost.libvirt.drivers[1]:", '"qemu"', "kvmhost.libvirt.drivers[0]", "each only once"),
    ),
    ({"units": ["a.socket"] * 2}, ("kvmhost.units[1]:", "kvmhost.units[0]", "each only once")),
    # Unknown keys and values, with the nearest known one
    ({"libvrt": {}}, ("kvmhost.libvrt:", "unknown key", "'libvirt'", "libvirt, timeout, tuned")),
    (
        {"zzz": 1},
        ("kvmhost.zzz:", "unknown key", "Known here: check, kvm, libvirt, timeout, tuned, units"),
    ),
    ({"libvirt": {"Mode": "auto"}}, ("kvmhost.libvirt.Mode:", "'mode'", "autostart, drivers")),
    ({"libvirt": {"autostrat": 1}}, ("kvmhost.libvirt.autostrat:", "'autostart'")),
    ({"tuned": {"profil": "x"}}, ("kvmhost.tuned.profil:", "'profile'", "enabled, profile")),
    ({"libvirt": {"mode": "modula"}}, ("kvmhost.libvirt.mode:", '"modula"', "'modular'")),
    ({"libvirt": {"mode": "Auto"}}, ("kvmhost.libvirt.mode:", '"Auto"', "'auto'")),
    ({"libvirt": {"drivers": ["quemu"]}}, ("kvmhost.libvirt.drivers[0]:", '"quemu"', "'qemu'")),
    ({"libvirt": {"drivers": ["xen"]}}, ("kvmhost.libvirt.drivers[0]:", '"xen"', "interface")),
]

BAD_UNITS = [
    "",
    "cockpit",
    ".socket",
    "cockpit.sock",
    "cockpit.SOCKET",
    "cockpit.socket ",
    " cockpit.socket",
    "cock pit.socket",
    "cockpit.socket\n",
    "cock\npit.socket",
    "\ncockpit.socket",
    "cockpit.socket\x00",
    "../cockpit.socket",
    "..socket",
    "a..socket",
    "/etc/systemd/system/cockpit.socket",
    "a/b.socket",
    "-.slice",
    "a.slice",
    "a.scope",
    "a.device",
    "a.snapshot",
    "@a.service",
    "getty@.service",
    "getty@tty/1.service",
    "k\u00e9.service",
    "a;b.service",
    "$(id).service",
    "a" * 292 + ".service",
    "a" * 248 + ".service",
]
GOOD_UNITS = [
    "cockpit.socket",
    "NetworkManager.service",
    "getty@tty1.service",
    "dnf-makecache.timer",
    "a_b:c.d.path",
    "mnt-data.mount",
    "mnt-data.automount",
    "dev-sda2.swap",
    "kvm.target",
    r"dev-disk-by\x2dlabel-swap.swap",
    "a" * 247 + ".service",
]
BAD_PROFILES = [
    "",
    " ",
    "a b",
    "a/b",
    "..",
    ".hidden",
    "../x",
    "-x",
    "a\n",
    "\na",
    "a;b",
    "a" * 129,
]
GOOD_PROFILES = ["virtual-host", "a", "cpu-partitioning", "x.y+z_1", "a" * 128]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Any]:
    """Write a file of bytes or text; returns its name."""

    def put(content: Any, name: str = "user-data") -> str:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    yield put


def problems_of(section: Any) -> Tuple[str, ...]:
    with pytest.raises(KvmhostError) as caught:
        config.parse(section)
    return caught.value.problems


def problems_in(name: str) -> List[str]:
    return list(document.judge(name).problems)


class TestParse:
    @pytest.mark.parametrize(
        "section",
        [
            None,
            {},
            {"libvirt": {}},
            {"libvirt": None, "tuned": None},
            {"tuned": {}, "units": []},
            {"timeout": 120},
        ],
    )
    def test_defaults(self, section: Any) -> None:
        assert config.parse(section) == DEFAULTS

    @pytest.mark.parametrize(
        "section, changed",
        [
            ({"libvirt": {"mode": "modular"}}, {"mode": "modular"}),
            ({"libvirt": {"drivers": ["qemu", "nwfilter"]}}, {"drivers": ("qemu", "nwfilter")}),
            ({"libvirt": {"autostart": False}}, {"autostart": False}),
            ({"libvirt": {"tls": True}}, {"tls": True}),
            ({"tuned": {"enabled": False}}, {"tuned": False}),
            ({"tuned": {"profile": None}}, {"profile": None}),
            ({"units": ["b.socket", "a.socket"]}, {"units": ("b.socket", "a.socket")}),
            ({"timeout": 1}, {"timeout": 1}),
            ({"timeout": 3600}, {"timeout": 3600}),
        ],
    )
    def test_each_key(self, section: Any, changed: Dict[str, Any]) -> None:
        assert config.parse(section) == DEFAULTS._replace(**changed)

    def test_the_section_is_not_changed(self) -> None:
        section: Dict[str, Any] = {"libvirt": {}}
        config.parse(section)
        assert section == {"libvirt": {}}

    @pytest.mark.parametrize("section, words", WRONG, ids=lambda value: repr(value)[:50])
    def test_wrong(self, section: Any, words: Tuple[str, ...]) -> None:
        (problem,) = problems_of(section)
        for word in words:
            assert word in problem
        assert "\n" not in problem and len(problem) < 400

    @pytest.mark.parametrize("name", BAD_UNITS, ids=lambda name: repr(name)[:40])
    def test_bad_unit(self, name: str) -> None:
        (problem,) = problems_of({"units": ["a.socket", name]})
        assert problem.startswith("kvmhost.units[1]: " + json.dumps(name, ensure_ascii=False)[:40])
        assert "cockpit.socket" in problem and "255" in problem
        assert "\n" not in problem and len(problem) < 400

    @pytest.mark.parametrize("name", GOOD_UNITS, ids=lambda name: repr(name)[:40])
    def test_good_unit(self, name: str) -> None:
        assert config.parse({"units": [name]}).units == (name,)

    @pytest.mark.parametrize("name", BAD_PROFILES, ids=lambda name: repr(name)[:40])
    def test_bad_profile(self, name: str) -> None:
        (problem,) = problems_of({"tuned": {"profile": name}})
        assert problem.startswith("kvmhost.tuned.profile: " + json.dumps(name)[:40])
        assert "a tuned profile's name" in problem

    @pytest.mark.parametrize("name", GOOD_PROFILES, ids=lambda name: name[:20])
    def test_good_profile(self, name: str) -> None:
        assert config.parse({"tuned": {"profile": name}}).profile == name

    def test_every_problem_at_once(self) -> None:
        found = problems_of(
            {"timeout": 0, "typo": 1, "libvirt": {"mode": "x", "tls": "y"}, "units": ["z", "/"]}
        )
        keys = [problem.split(":")[0] for problem in found]
        assert keys == [
            "kvmhost.timeout",
            "kvmhost.typo",
            "kvmhost.libvirt.mode",
            "kvmhost.libvirt.tls",
            "kvmhost.units[0]",
            "kvmhost.units[1]",
        ]

    @pytest.mark.parametrize("key", [1, None, True, 2.5, ("a", "b")])
    def test_keys_that_are_not_text(self, key: Any) -> None:
        for section in ({key: 1}, {"libvirt": {key: 1}}):
            (problem,) = problems_of(section)
            assert "unknown key" in problem

    def test_keys_of_several_kinds(self) -> None:
        assert len(problems_of({1: 1, "1": 1, None: 1, "timeout": 0})) == 4

    def test_a_key_with_a_newline_stays_in_one_line(self) -> None:
        (problem,) = problems_of({"a\nb": 1})
        assert problem.startswith('kvmhost["a\\nb"]: unknown key')

    def test_a_section_within_itself(self) -> None:
        section: Dict[str, Any] = {}
        section["libvirt"] = section
        (problem,) = problems_of(section)
        assert problem.startswith("kvmhost: holds more than 10000 values, or itself")


class TestSchema:
    def test_each_property_has_a_default_and_a_description(self) -> None:
        def look(rule: Dict[str, Any], path: str) -> None:
            for key, sub in rule["properties"].items():
                assert sub.get("description"), path + key
                if "properties" in sub:
                    look(sub, path + key + ".")
                else:
                    assert "default" in sub, path + key

        look(config.load_schema(), "")

    def test_unknown_keys_are_refused_at_every_level(self) -> None:
        def look(rule: Any) -> None:
            if isinstance(rule, dict):
                if "properties" in rule:
                    assert rule["additionalProperties"] is False
                for sub in rule.values():
                    look(sub)

        look(config.load_schema())

    def test_the_defaults_are_valid(self) -> None:
        def defaults(rule: Dict[str, Any]) -> Any:
            if "properties" in rule:
                return {key: defaults(sub) for key, sub in rule["properties"].items()}
            return rule["default"]

        section = defaults(config.load_schema())
        assert config.check(section) == []
        # Only a level that is named has to be possible.
        assert config.parse(section) == DEFAULTS._replace(check="guest")

    def test_draft_04(self) -> None:
        from jsonschema import Draft4Validator

        Draft4Validator.check_schema(config.load_schema())


class TestCheckFile:
    """What `kvmhost validate` says about a file."""

    def test_valid(self, write: Any) -> None:
        name = write("#cloud-config\nkvmhost:\n  timeout: 5\n")
        assert problems_in(name) == []

    @pytest.mark.parametrize("text", ["#cloud-config\nkvmhost:\n", "#cloud-config\nkvmhost: {}\n"])
    def test_all_defaults(self, text: str, write: Any) -> None:
        assert problems_in(write(text)) == []

    def test_no_section_is_no_fault(self, write: Any) -> None:
        assert problems_in(write("#cloud-config\nssh_pwauth: true\n")) == []

    @pytest.mark.parametrize("key", ["kvmhosts", "kvm_host", "kvm-host", "kvmhots", "KVMhost"])
    def test_typo_of_the_key(self, key: str, write: Any) -> None:
        name = write(f"#cloud-config\nssh_pwauth: true\n{key}: {{}}\n")
        assert problems_in(name) == [f"{name}:3: unknown key {key!r}; did you mean 'kvmhost'?"]

    def test_the_line_of_each_problem(self, write: Any) -> None:
        name = write(
            "#cloud-config\n"
            "# a comment\n"
            "ssh_pwauth: true\n"
            "kvmhost:\n"
            "  libvirt:\n"
            "    mode: x\n"
            "    drivers: [qemu,\n"
            "      xen]\n"
            "  units:\n"
            "    - a.socket\n"
            "    - b\n"
            "  typo: 1\n"
            "  timeout: 0\n"
        )
        found = [each[len(name) + 1 :].split(": ")[:2] for each in problems_in(name)]
        assert found == [
            ["6", "kvmhost.libvirt.mode"],
            ["8", "kvmhost.libvirt.drivers[1]"],
            ["11", "kvmhost.units[1]"],
            ["12", "kvmhost.typo"],
            ["13", "kvmhost.timeout"],
        ]

    def test_the_line_of_the_section_itself(self, write: Any) -> None:
        name = write("#cloud-config\na: 1\nkvmhost: 7\n")
        (problem,) = problems_in(name)
        assert problem.startswith(name + ":3: kvmhost: 7 is not allowed")

    def test_the_line_behind_an_alias(self, write: Any) -> None:
        name = write("#cloud-config\nbase: &b\n  timeout: 0\nkvmhost: *b\n")
        (problem,) = problems_in(name)
        assert "kvmhost.timeout: 0 is not allowed" in problem
        assert problem.startswith((name + ":3:", name + ":4:"))

    def test_no_such_file(self, tmp_path: Path) -> None:
        name = str(tmp_path / "absent")
        assert problems_in(name) == [name + ": can't be read: No such file or directory"]

    def test_a_directory(self, tmp_path: Path) -> None:
        assert problems_in(str(tmp_path)) == [f"{tmp_path}: can't be read: Is a directory"]

    def test_not_a_file_name(self) -> None:
        assert problems_in("") == [": can't be read: No such file or directory"]

    def test_not_permitted(self, write: Any) -> None:
        name = write("#cloud-config\nkvmhost: {}\n")
        os.chmod(name, 0)
        os.chmod(os.path.dirname(name), 0o755)
        # root may read everything: ask as somebody else (by then all modules are loaded).
        script = (
            "import os, sys, yaml\n"
            "from cc_kvmhost import document\n"
            "if os.geteuid() == 0: os.setgroups([]); os.setuid(65534)\n"
            "print(document.judge(sys.argv[1]).problems[0])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, os.path.basename(name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
            cwd=os.path.dirname(name),
        )
        assert done.stderr == ""
        assert "can't be read: Permission denied" in done.stdout

    def test_a_section_that_contains_itself(self, write: Any) -> None:
        name = write("#cloud-config\nkvmhost: &a\n  libvirt: *a\n")
        (problem,) = problems_in(name)
        assert problem.startswith(name + ":2: kvmhost: holds more than 10000 values, or itself")

    def test_a_billion_laughs(self, write: Any) -> None:
        rows = ["#cloud-config", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        rows += [
            "a{}: &a{} [{}]".format(n, n, ", ".join(["*a" + str(n - 1)] * 10)) for n in range(1, 30)
        ]
        name = write("\n".join([*rows, "kvmhost: *a29"]))
        (problem,) = problems_in(name)
        assert problem.startswith(name + ":32: kvmhost: holds more than 10000 values")

    def test_a_billion_laughs_inside_the_section(self, write: Any) -> None:
        rows = ["#cloud-config", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        rows += [
            "a{}: &a{} [{}]".format(n, n, ", ".join(["*a" + str(n - 1)] * 10)) for n in range(1, 30)
        ]
        (problem,) = problems_in(write("\n".join([*rows, "kvmhost: {units: *a29}"])))
        assert "kvmhost: holds more than 10000 values" in problem

    def test_a_number_of_20000_digits(self, write: Any) -> None:
        for digits in ("0x" + "f" * 20000, "9" * 20000):
            (problem,) = problems_in(write(f"#cloud-config\nkvmhost: {{timeout: {digits}}}"))
            assert "beyond any" in problem or "not YAML" in problem
            assert len(problem) < 400

    @pytest.mark.parametrize("depth", [1000, 100000])
    def test_very_deep(self, depth: int, write: Any) -> None:
        name = write("#cloud-config\nkvmhost: " + "[" * depth + "]" * depth + "\n")
        (problem,) = problems_in(name)
        assert problem.startswith(name + ":")

    def test_keys_that_are_not_text(self, write: Any) -> None:
        name = write("#cloud-config\nkvmhost:\n  timeout: 1\n  1: x\n  null: y\n  2.5: z\n")
        found = problems_in(name)
        assert len(found) == 3
        assert sorted(int(each[len(name) + 1 :].split(":")[0]) for each in found) == [4, 5, 6]

    def test_windows_line_ends(self, write: Any) -> None:
        assert problems_in(write("#cloud-config\r\nkvmhost: {}\r\n")) == []


class TestReadSection:
    def test_found(self, write: Any) -> None:
        found = document.read_section(write("#cloud-config\nkvmhost: {timeout: 5}\n"))
        assert found.content["kvmhost"] == {"timeout": 5}

    def test_none(self, write: Any) -> None:
        with pytest.raises(KvmhostError, match="no kvmhost key"):
            document.read_section(write("#cloud-config\na: 1\n"))


class TestShown:
    @pytest.mark.parametrize(
        "value, text",
        [
            ({"a": 1}, "a mapping"),
            ([1], "a list"),
            (None, "null"),
            ("a\nb", '"a\\nb"'),
            ("a" * 300, '"' + "a" * 75 + '..."'),
            ([1] * 0, "an empty list"),
            ({1}, "a set"),
            (b"\0", "binary data"),
        ],
    )
    def test_one_short_line(self, value: Any, text: str) -> None:
        assert problems.shown(value) == text
