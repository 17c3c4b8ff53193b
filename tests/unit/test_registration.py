"""Registration, on the real files of each cloud-init, read back by cloud-init's own code."""

import contextlib
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

import cloud_init
from cc_kvmhost import config, files, problems
from cc_kvmhost.cloud_init import changes, module_list, registration, schema
from cc_kvmhost.errors import KvmhostError

VERSIONS = ("22.4", "25.1", "26.2")
ENTRY = ["kvmhost", "once-per-instance"]
OWN_SCHEMA = config.load_schema()


@pytest.fixture(params=VERSIONS)
def root(request, tmp_path):
    """A tree with each cloud-init and this module."""
    return cloud_init.root(request.param, tmp_path / "root")


@pytest.fixture
def newest(tmp_path):
    return cloud_init.root(VERSIONS[-1], tmp_path / "root")


@pytest.fixture(scope="module")
def reader():
    """cloud-init's own code that reads cloud.cfg and cloud.cfg.d."""
    asked = cloud_init.CloudInit(cloud_init.package(VERSIONS[-1]))
    yield asked
    asked.close()


def schema_of(root):
    return root / cloud_init.SCHEMA


def own_cfg(root):
    return root / "etc/cloud/cloud.cfg.d" / module_list.OWN_CFG


def write(root, name, text):
    """An administrator's file in cloud.cfg.d."""
    path = root / "etc/cloud/cloud.cfg.d" / name
    path.write_text(text)
    return path


def everything(root):
    """Each file below root: bytes, mode, owner, time of change."""
    found = {}
    for path in sorted(root.rglob("*")):
        if "__pycache__" in path.parts or path.is_dir():
            continue
        status = path.lstat()
        found[str(path.relative_to(root))] = (
            os.readlink(path) if path.is_symlink() else path.read_bytes(),
            stat.filemode(status.st_mode),
            (status.st_uid, status.st_gid, status.st_mtime_ns),
        )
    return found


def copy(root, to):
    shutil.copytree(str(root), str(to), symlinks=True)
    return to


def merge_other(root):
    """Do what another module that registers in the same way would do."""
    schema = json.loads(schema_of(root).read_text())
    schema["$defs"]["cc_other"] = {"type": "object", "properties": {"other": {"type": "string"}}}
    schema["$defs"]["all_modules"]["enum"].append("other")
    schema["allOf"].append({"$ref": "#/$defs/cc_other"})
    if "properties" in schema:
        schema["properties"]["other"] = {}
    schema_of(root).write_text(json.dumps(schema, indent=2) + "\n")


def upgrade(root, version):
    """Do what a package manager does: rename two new files into place."""
    for name in (cloud_init.SCHEMA, "etc/cloud/cloud.cfg"):
        new = root / (name + ".dpkg-new")
        shutil.copy2(str(cloud_init.package(version) / name), str(new))
        new.rename(root / name)


def problems_of(call, root):
    """The problems it raises, without the place of the tree."""
    with pytest.raises(KvmhostError) as raised:
        call(str(root))
    return [problem.replace(f"{root}/", "/") for problem in raised.value.problems]


class TestRegister:
    def test_says_what_it_changes_and_is_done_then(self, root):
        missing = registration.check(str(root))
        assert [line.split(": ")[0] for line in missing] == [
            str(schema_of(root)),
            str(own_cfg(root)),
        ]
        assert registration.register(str(root)) == missing
        assert registration.check(str(root)) == ()

    def test_a_label_is_that_of_the_path_that_the_image_has(self, root):
        with mock.patch.object(files, "has_selinux", return_value=True), mock.patch.object(
            files, "label_of_policy", return_value=""
        ) as label:
            registration.register(str(root))
        path = "/etc/cloud/cloud.cfg.d/zz_kvmhost.cfg"
        assert mock.call(path, stat.S_IFREG) in label.call_args_list

    def test_a_second_time_touches_nothing(self, root):
        registration.register(str(root))
        before = everything(root)
        assert registration.register(str(root)) == ()
        assert everything(root) == before

    def test_check_touches_nothing(self, root):
        before = everything(root)
        registration.check(str(root))
        assert everything(root) == before

    def test_cloud_init_reads_the_same_list_with_kvmhost(self, root, reader):
        before = reader.module_list(root)
        registration.register(str(root))
        after = reader.module_list(root)
        assert [entry for entry in after if entry != ENTRY] == before
        place = after.index(ENTRY)
        assert after[place - 1] == "write-files-deferred"
        assert after.index("scripts-vendor") > place

    def test_other_stages_stay(self, root, reader):
        stages = ("cloud_init_modules", "cloud_config_modules")
        before = [reader.module_list(root, stage) for stage in stages]
        registration.register(str(root))
        assert [reader.module_list(root, stage) for stage in stages] == before

    def test_schema_keeps_mode_owner_and_its_original(self, root):
        before = schema_of(root).lstat()
        pristine = schema_of(root).read_bytes()
        registration.register(str(root))
        after = schema_of(root).lstat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (
            before.st_mode,
            before.st_uid,
            before.st_gid,
        )
        kept = Path(f"{schema_of(root)}{schema.ORIGINAL}")
        assert kept.read_bytes() == pristine

    def test_a_newer_section_replaces_the_older_one(self, root, monkeypatch, tmp_path):
        before = everything(root)
        newer = tmp_path / "newer.json"
        newer.write_text(json.dumps({**OWN_SCHEMA, "description": "newer"}))
        registration.register(str(root))
        monkeypatch.setattr(config, "SCHEMA_FILE", str(newer))
        assert len(registration.register(str(root))) == 1
        assert b'"description": "newer"' in schema_of(root).read_bytes()
        registration.unregister(str(root))
        assert everything(root) == before


class TestUnregister:
    def test_restores_every_byte_and_time(self, root):
        before = everything(root)
        registration.register(str(root))
        changed = registration.unregister(str(root))
        assert changed == (
            f"{own_cfg(root)}: removed",
            f"{schema_of(root)}: without the kvmhost section",
        )
        assert everything(root) == before
        assert registration.unregister(str(root)) == ()

    def test_restores_a_file_of_another_format(self, root):
        text = json.dumps(json.loads(schema_of(root).read_text()), indent=1, sort_keys=True)
        schema_of(root).write_text(text)
        registration.register(str(root))
        registration.unregister(str(root))
        assert schema_of(root).read_text() == text

    def test_without_the_original_the_bytes_are_the_same(self, root):
        """cloud-init's own file is what json.dumps writes: nothing depends on what was kept."""
        pristine = schema_of(root).read_bytes()
        registration.register(str(root))
        Path(f"{schema_of(root)}{schema.ORIGINAL}").unlink()
        registration.unregister(str(root))
        assert schema_of(root).read_bytes() == pristine

    def test_nothing_registered(self, root):
        before = everything(root)
        assert registration.unregister(str(root)) == ()
        assert everything(root) == before

    def test_no_cloud_init(self, tmp_path):
        assert registration.unregister(str(tmp_path)) == ()

    def test_after_cloud_init_was_removed_nothing_of_ours_is_left(self, root):
        registration.register(str(root))
        schema_of(root).unlink()
        registration.unregister(str(root))
        assert not [name for name in everything(root) if "kvmhost" in name]

    def test_a_schema_that_is_broken_does_not_keep_the_module_listed(self, root):
        registration.register(str(root))
        schema_of(root).write_text("{")
        (problem,) = problems_of(registration.unregister, root)
        assert "not JSON" in problem
        assert "reinstall" in problem
        assert not own_cfg(root).exists()


class TestUpgrade:
    @pytest.mark.parametrize(("old", "new"), [("22.4", "25.1"), ("25.1", "26.2"), ("26.2", "22.4")])
    def test_registered_again(self, old, new, tmp_path, reader):
        tree = cloud_init.root(old, tmp_path / "root")
        registration.register(str(tree))
        upgrade(tree, new)
        missing = registration.check(str(tree))
        assert f"{schema_of(tree)}: the kvmhost section" in missing
        assert registration.register(str(tree)) == missing
        assert registration.check(str(tree)) == ()
        theirs = reader.module_list(cloud_init.package(new))
        assert [entry for entry in reader.module_list(tree) if entry != ENTRY] == theirs
        registration.unregister(str(tree))
        for name in (cloud_init.SCHEMA, "etc/cloud/cloud.cfg"):
            assert (tree / name).read_bytes() == (cloud_init.package(new) / name).read_bytes()

    def test_unregistered_without_being_registered_again(self, tmp_path):
        tree = cloud_init.root("22.4", tmp_path / "root")
        registration.register(str(tree))
        upgrade(tree, "25.1")
        registration.unregister(str(tree))
        pristine = cloud_init.package("25.1") / cloud_init.SCHEMA
        assert schema_of(tree).read_bytes() == pristine.read_bytes()
        assert not [name for name in everything(tree) if "kvmhost" in name]

    def test_a_changed_cloud_cfg(self, newest, reader):
        registration.register(str(newest))
        cfg = newest / "etc/cloud/cloud.cfg"
        cfg.write_text(cfg.read_text().replace(" - phone-home\n", ""))
        (missing,) = registration.check(str(newest))
        assert missing.startswith(str(own_cfg(newest)))
        registration.register(str(newest))
        assert "phone-home" not in reader.module_list(newest)


class TestAnotherModule:
    """A second module from outside merges its schema the same way."""

    def test_after_us_stays_when_we_go(self, root):
        pristine = schema_of(root).read_bytes()
        merge_other(root)
        theirs = schema_of(root).read_bytes()
        schema_of(root).write_bytes(pristine)
        registration.register(str(root))
        merge_other(root)
        assert registration.check(str(root)) == ()
        registration.unregister(str(root))
        assert schema_of(root).read_bytes() == theirs

    def test_before_us_is_part_of_the_original(self, root):
        merge_other(root)
        before = everything(root)
        registration.register(str(root))
        registration.unregister(str(root))
        assert everything(root) == before

    def test_that_restores_over_us_is_noticed(self, root):
        pristine = schema_of(root).read_bytes()
        merge_other(root)
        registration.register(str(root))
        schema_of(root).write_bytes(pristine)
        assert len(registration.register(str(root))) == 1
        registration.unregister(str(root))
        assert schema_of(root).read_bytes() == pristine


class TestModuleList:
    @pytest.mark.parametrize(
        ("listed", "before"),
        [
            pytest.param(["a", "write-files-deferred", "b"], "b", id="hyphens"),
            pytest.param(["a", "write_files_deferred", "b"], "b", id="underscores"),
            pytest.param(["a", ["write-files-deferred", "always"], "b"], "b", id="frequency"),
            pytest.param(["a", {"name": "write-files-deferred"}, "b"], "b", id="mapping"),
            pytest.param(["cc_write_files_deferred.py", "b"], "b", id="full name"),
            pytest.param(["write-files-deferred"], None, id="last"),
            pytest.param(["a", "scripts-vendor", "b"], "scripts-vendor", id="before scripts"),
            pytest.param(["a", "scripts_user"], "scripts_user", id="before scripts_user"),
            pytest.param(["a", ["scripts-user", "always"]], ["scripts-user", "always"], id="entry"),
            pytest.param(["a", "final-message"], "final-message", id="before final-message"),
            pytest.param(["a", "power_state_change"], "power_state_change", id="before reboot"),
            pytest.param(["a", "b"], None, id="nothing known"),
            pytest.param([], None, id="empty"),
            pytest.param(["a", "", "scripts-user"], "scripts-user", id="empty entry"),
        ],
    )
    def test_place(self, listed, before, newest, reader):
        write(newest, "50_site.cfg", yaml.safe_dump({"cloud_final_modules": listed}))
        registration.register(str(newest))
        found = reader.module_list(newest)
        assert [entry for entry in found if entry != ENTRY] == listed
        place = found.index(ENTRY)
        assert (found[place + 1] if place + 1 < len(found) else None) == before

    def test_the_last_list_is_the_one(self, newest, reader):
        write(newest, "10_first.cfg", "cloud_final_modules: [first]")
        write(newest, "99_last.cfg", "cloud_final_modules: [last]")
        write(newest, "99_last.cfg.bak", "cloud_final_modules: [not read]")
        registration.register(str(newest))
        assert reader.module_list(newest) == ["last", ENTRY]
        assert "/etc/cloud/cloud.cfg.d/99_last.cfg\n" in own_cfg(newest).read_text()

    def test_a_list_that_comes_later_is_noticed(self, newest, reader):
        registration.register(str(newest))
        site = write(newest, "50_site.cfg", "cloud_final_modules: [site]")
        assert len(registration.check(str(newest))) == 1
        registration.register(str(newest))
        assert reader.module_list(newest) == ["site", ENTRY]
        site.unlink()
        registration.register(str(newest))
        assert "scripts-user" in reader.module_list(newest)

    @pytest.mark.parametrize(
        "listed",
        [
            "cloud_final_modules: [a, kvmhost, b]",
            "cloud_final_modules: [a, [kvmhost, always]]",
            "cloud_final_modules: [cc_kvmhost]",
            "cloud_final_modules: [{name: kvmhost, frequency: always}]",
            "cloud_config_modules: [kvmhost]",
        ],
    )
    def test_an_administrator_who_lists_kvmhost_is_left_alone(self, listed, newest):
        write(newest, "50_site.cfg", listed)
        registration.register(str(newest))
        assert not own_cfg(newest).exists()
        assert registration.check(str(newest)) == ()

    def test_our_file_goes_once_an_administrator_lists_kvmhost(self, newest, reader):
        registration.register(str(newest))
        write(newest, "50_site.cfg", "cloud_final_modules: [a, kvmhost]")
        assert len(registration.register(str(newest))) == 1
        assert reader.module_list(newest) == ["a", "kvmhost"]

    def test_a_template_without_a_list_is_none_of_our_business(self, newest):
        write(newest, "50_site.cfg", "## template: jinja\n{% if v1.region %}\n%}: [")
        assert len(registration.register(str(newest))) == 2

    def test_text_of_our_file(self, newest):
        write(newest, "50_site.cfg", "cloud_final_modules: [a, [b, always], {name: c}]")
        registration.register(str(newest))
        assert own_cfg(newest).read_text() == (
            "# Written by `kvmhost register`: the cloud_final_modules of "
            "/etc/cloud/cloud.cfg.d/50_site.cfg\n"
            "# with kvmhost inserted. Do not edit: change the list there, then run "
            "`kvmhost register`.\n"
            "# `kvmhost unregister` removes this file.\n"
            "cloud_final_modules:\n- a\n- [b, always]\n- {name: c}\n"
            "- [kvmhost, once-per-instance]\n"
        )


class TestRefusal:
    """Shapes that are not recognised are named, and nothing is written."""

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("50_site.cfg", "a: [", "not readable as YAML: while parsing"),
            ("50_site.cfg", "a: \udcff", "not readable as YAML: 'utf-8' codec"),
            ("50_site.cfg", "a: \0", "not readable as YAML: unacceptable character"),
            ("50_site.cfg", "a: 2020-13-01", "not readable as YAML: month must be"),
            ("50_site.cfg", "- a", "a list where cloud-init wants a mapping"),
            ("50_site.cfg", "text", "a str where cloud-init wants a mapping"),
            ("50_site.cfg", "cloud_final_modules: a", "cloud_final_modules: 'a' is not a list"),
            ("50_site.cfg", "cloud_final_modules:", "cloud_final_modules: None is not a list"),
            ("50_site.cfg", "cloud_final_modules: [a, 3]", "entry 2, 3: neither NAME nor"),
            ("50_site.cfg", "cloud_final_modules: [[[a]]]", "entry 1, [['a']]: neither NAME nor"),
            ("50_site.cfg", "cloud_config_modules: {a: b}", "{'a': 'b'} is not a list"),
            (
                "50_site.cfg",
                "merge_how: list(append)\ncloud_final_modules: [a]",
                "merge_how beside cloud_final_modules",
            ),
            (
                "50_site.cfg",
                "## template: jinja\ncloud_final_modules: [a]",
                "a template with cloud_final_modules",
            ),
            ("zzz.cfg", "cloud_final_modules: [a]", "is read after zz_kvmhost.cfg"),
        ],
    )
    def test_cloud_cfg_d(self, name, text, said, newest):
        path = newest / "etc/cloud/cloud.cfg.d" / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        before = everything(newest)
        (problem,) = problems_of(registration.register, newest)
        assert problem.startswith(f"/etc/cloud/cloud.cfg.d/{name}: ")
        assert said in problem
        assert problems_of(registration.check, newest) == [problem]
        assert everything(newest) == before

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("system_info: {}", "no cloud_final_modules here nor in cloud.cfg.d"),
            ("", "no cloud_final_modules here nor in cloud.cfg.d"),
            ("conf_d: /etc/other\ncloud_final_modules: [a]", "conf_d is '/etc/other'"),
        ],
    )
    def test_cloud_cfg(self, text, said, newest):
        (newest / "etc/cloud/cloud.cfg").write_text(text)
        before = everything(newest)
        (problem,) = problems_of(registration.register, newest)
        assert problem.startswith("/etc/cloud/cloud.cfg: ")
        assert said in problem
        assert everything(newest) == before

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda schema: [], "not a JSON object"),
            (lambda schema: {**schema, "$defs": []}, "no $defs object or no allOf list"),
            (lambda schema: {**schema, "allOf": {}}, "no $defs object or no allOf list"),
            (lambda schema: {**schema, "$defs": {}}, "no $defs.all_modules.enum list"),
            (lambda schema: {**schema, "properties": 1}, "additionalProperties without"),
        ],
    )
    def test_schema_of_unknown_shape(self, change, said, newest):
        schema = json.loads(schema_of(newest).read_text())
        schema_of(newest).write_text(json.dumps(change(schema)))
        before = everything(newest)
        (problem,) = problems_of(registration.register, newest)
        assert problem.startswith(f"/{cloud_init.SCHEMA}: {said}")
        assert everything(newest) == before
        assert registration.unregister(str(newest)) == ()

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
    def test_schema_that_is_no_json(self, content, newest):
        schema_of(newest).write_bytes(content)
        (problem,) = problems_of(registration.register, newest)
        assert f"/{cloud_init.SCHEMA}: not JSON" in problem

    def test_all_problems_at_once(self, newest):
        schema_of(newest).write_text("[]")
        write(newest, "10_one.cfg", "- a")
        write(newest, "20_two.cfg", "cloud_final_modules: 3")
        assert len(problems_of(registration.register, newest)) == 3

    def test_a_cloud_init_without_schema_file(self, tmp_path):
        tree = cloud_init.root("20.4", tmp_path / "root")
        (problem,) = problems_of(registration.register, tree)
        assert "install cloud-init 22.4 or newer" in problem

    def test_no_cloud_init(self, tmp_path):
        (problem,) = problems_of(registration.register, tmp_path)
        assert problem == "/etc/cloud: No such file or directory: install cloud-init first"

    def test_a_module_that_cloud_init_can_not_import(self, newest):
        (newest / cloud_init.PACKAGES / "cc_kvmhost").rmdir()
        (problem,) = problems_of(registration.register, newest)
        assert problem.startswith(f"/{cloud_init.PACKAGES}: cloud-init is here but cc_kvmhost")

    def test_a_module_installed_for_another_python(self, newest):
        """EL 8: cloud-init runs with the system's 3.6, pip may be another Python's."""
        lib = newest / "usr/lib"
        (lib / "python3.6").mkdir()
        (lib / "python3/dist-packages/cc_kvmhost").rmdir()
        (lib / "python3/dist-packages").rename(lib / "python3.6/site-packages")
        (newest / "usr/local/lib/python3.12/site-packages/cc_kvmhost").mkdir(parents=True)
        (problem,) = problems_of(registration.register, newest)
        assert problem.startswith("/usr/lib/python3.6/site-packages: cloud-init is here")
        (newest / "usr/local/lib/python3.6/site-packages/cc_kvmhost").mkdir(parents=True)
        assert len(registration.register(str(newest))) == 2


class TestRoot:
    """An image's tree: its links point into the tree, not into this machine."""

    def test_absolute_links(self, newest, reader):
        (newest / "usr/lib/python3").rename(newest / "opt")
        (newest / "usr/lib/python3").symlink_to("/opt")
        (newest / "etc/cloud").rename(newest / "srv")
        (newest / "etc/cloud").symlink_to("../../../../srv")
        before = everything(newest)
        assert len(registration.register(str(newest))) == 2
        assert (newest / "srv/cloud.cfg.d" / module_list.OWN_CFG).is_file()
        assert b"cc_kvmhost" in (newest / "opt/dist-packages" / schema.SCHEMA).read_bytes()
        registration.unregister(str(newest))
        assert everything(newest) == before

    def test_a_file_that_is_a_link_stays_one(self, newest):
        schema_of(newest).rename(newest / "opt.json")
        schema_of(newest).symlink_to("/opt.json")
        before = everything(newest)
        registration.register(str(newest))
        assert schema_of(newest).is_symlink()
        assert b"cc_kvmhost" in (newest / "opt.json").read_bytes()
        registration.unregister(str(newest))
        assert everything(newest) == before

    def test_a_link_can_not_lead_us_out(self, newest, tmp_path):
        victim = tmp_path / "victim"
        victim.write_text("mine")
        for path in (own_cfg(newest), schema_of(newest)):
            Path(f"{path}{files.TEMPORARY}").symlink_to(victim)
        own_cfg(newest).symlink_to(victim)
        registration.register(str(newest))
        assert victim.read_text() == "mine"
        assert not own_cfg(newest).is_symlink()

    def test_a_loop_of_links(self, newest):
        shutil.rmtree(str(newest / "etc/cloud"))
        (newest / "etc/cloud").symlink_to("cloud")
        (problem,) = problems_of(registration.register, newest)
        assert "/etc/cloud: Too many levels of symbolic links" in problem

    def test_what_is_written_does_not_name_the_tree(self, newest):
        """Otherwise the first check on the running image would find a change."""
        before = set(everything(newest))
        registration.register(str(newest))
        for name in set(everything(newest)) - before | {cloud_init.SCHEMA}:
            assert str(newest).encode() not in (newest / name).read_bytes()
        newest.rename(newest.parent / "elsewhere")
        assert registration.check(str(newest.parent / "elsewhere")) == ()

    def test_relative(self, newest, monkeypatch):
        monkeypatch.chdir(newest.parent)
        assert len(registration.register("root")) == 2
        assert registration.check(str(newest)) == ()


class TestPermissions:
    def test_not_root(self):
        with _world_readable_root() as tree:
            before = everything(tree)
            text = _as_nobody(lambda: registration.register(str(tree)))
            assert text.count("not writable: run this as root") == 2
            assert everything(tree) == before

    def test_a_file_only_root_may_read(self):
        with _world_readable_root() as tree:
            write(tree, "90_secret.cfg", "a: b").chmod(0o600)
            text = _as_nobody(lambda: registration.check(str(tree)))
            assert "90_secret.cfg: Permission denied: run this as root" in text

    def test_not_root_may_check(self):
        with _world_readable_root() as tree:
            assert _as_nobody(lambda: registration.check(str(tree))) == ""


@contextlib.contextmanager
def _world_readable_root():
    """pytest's own directories are closed to others."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        tree = cloud_init.root(VERSIONS[-1], Path(directory) / "root")
        # Imports what is imported late: nobody may not read every interpreter's library.
        registration.check(str(tree))
        yield tree


def _as_nobody(call):
    """What it raises in a process that may not write; "" if nothing."""
    with tempfile.TemporaryFile("w+") as answer:
        child = os.fork()
        if not child:
            # The package itself may stand where nobody may not look.
            config.load_schema = lambda: OWN_SCHEMA
            try:
                os.setgid(65534)
                os.setuid(65534)
                call()
            except KvmhostError as error:
                answer.write("\n".join(error.problems))
            except BaseException as error:
                answer.write(repr(error))
            finally:
                answer.flush()
                os._exit(0)
        os.waitpid(child, 0)
        answer.seek(0)
        return answer.read()


@pytest.mark.once
class TestKilled:
    """SIGKILL before each line of the functions that write."""

    WRITERS = ("make", "replace", "_temporary", "_replace_keeping", "remove", "_sync", "unregister")
    FILES = [module.__file__ for module in (changes, files, registration, schema)]

    def kill_at_each_line(self, call, prepared, tmp_path):
        """A copy of the tree per line that runs; ends when the call does."""
        for line in range(1, 1000):
            tree = tmp_path / f"killed-{line}"
            copy(prepared, tree)
            if self._survives(call, tree, line):
                assert line > 30, "the writers are not traced"
                return
            yield tree
            shutil.rmtree(str(tree))

    def _survives(self, call, tree, line):
        child = os.fork()
        if not child:
            rest = line

            def trace(frame, event, _argument):
                nonlocal rest
                if frame.f_code.co_filename not in self.FILES:
                    return None
                if frame.f_code.co_name not in self.WRITERS:
                    return None
                if event == "line":
                    rest -= 1
                    if not rest:
                        os.kill(os.getpid(), signal.SIGKILL)
                return trace

            sys.settrace(trace)
            call(str(tree))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        return os.WIFEXITED(status)

    def test_register(self, tmp_path, reader):
        tree = cloud_init.root("25.1", tmp_path / "root")
        pristine = everything(tree)
        whole = copy(tree, tmp_path / "whole")
        registration.register(str(whole))
        merged = schema_of(whole).read_bytes()
        for killed in self.kill_at_each_line(registration.register, tree, tmp_path):
            assert schema_of(killed).read_bytes() in (merged, pristine[cloud_init.SCHEMA][0])
            if own_cfg(killed).exists():
                assert own_cfg(killed).read_bytes() == own_cfg(whole).read_bytes()
                assert schema_of(killed).read_bytes() == merged
            again = copy(killed, tmp_path / "again")
            registration.register(str(again))
            assert set(everything(again)) == set(everything(whole))
            assert registration.check(str(again)) == ()
            registration.unregister(str(again))
            assert everything(again) == pristine
            registration.unregister(str(killed))
            assert everything(killed) == pristine
            shutil.rmtree(str(again))

    def test_unregister(self, tmp_path):
        tree = cloud_init.root("25.1", tmp_path / "root")
        pristine = everything(tree)
        registration.register(str(tree))
        merged = schema_of(tree).read_bytes()
        for killed in self.kill_at_each_line(registration.unregister, tree, tmp_path):
            assert schema_of(killed).read_bytes() in (merged, pristine[cloud_init.SCHEMA][0])
            if own_cfg(killed).exists():
                assert schema_of(killed).read_bytes() == merged
            registration.unregister(str(killed))
            assert everything(killed) == pristine

    def test_two_at_once(self, newest):
        children = []
        for _ in range(8):
            child = os.fork()
            if not child:
                status = 1
                try:
                    registration.register(str(newest))
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
        assert registration.check(str(newest)) == ()


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A registered tree per version."""
    trees = {}
    for version in VERSIONS:
        trees[version] = cloud_init.whole_root(version, tmp_path_factory.mktemp("trees") / version)
        registration.register(str(trees[version]))
    return trees


@pytest.fixture(scope="module")
def validators(registered):
    """Each cloud-init, registered, with each jsonschema that it runs with."""
    started = {
        (version, js): cloud_init.CloudInit(registered[version], js)
        for version, js in cloud_init.PAIRS
    }
    yield started
    for each in started.values():
        each.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
SECTIONS = from_schema(OWN_SCHEMA)


@st.composite
def damaged(draw):
    """A valid section with one place replaced, or one key added."""
    section = draw(SECTIONS.filter(bool))
    place = section
    while True:
        key = draw(st.sampled_from([*place, None]) if isinstance(place, dict) else st.just(0))
        if key is None:
            key = draw(st.text(max_size=8))
            break
        if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    place[key] = draw(JSON)
    return section


@pytest.mark.once
class TestSchema:
    """cloud-init's validation with our schema merged in agrees with ours."""

    def agree(self, section, validators):
        verdicts = {
            f"{version}/{js}: {who}": verdict
            for (version, js), each in validators.items()
            for who, verdict in (
                ("cloud-init", each.rejects({"kvmhost": section}) is None),
                ("schema", each.valid(section, OWN_SCHEMA)),
            )
        }
        # Not config.check(): that also knows what no schema can say (contradictions.py).
        verdicts["kvmhost validate"] = not problems.find(section, config.load_schema())
        assert len(set(verdicts.values())) == 1, (section, verdicts)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(section=SECTIONS)
    def test_valid(self, section, validators):
        assert validators[cloud_init.PAIRS[0]].rejects({"kvmhost": section}) is None
        self.agree(section, validators)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(section=damaged())
    def test_damaged(self, section, validators):
        self.agree(section, validators)

    @pytest.mark.parametrize(
        ("section", "said"),
        [
            ({"libvirt": {"mode": "moduler"}}, "kvmhost.libvirt.mode: 'moduler' is not one of"),
            ({"timeout": "3"}, "kvmhost.timeout: '3' is not of type 'integer'"),
            ({"unit": []}, "kvmhost: Additional properties are not allowed ('unit' was unexp"),
            ([], "kvmhost: [] is not of type 'object', 'null'"),
        ],
    )
    def test_rejected(self, section, said, validators):
        for each in validators.values():
            assert said in (each.rejects({"kvmhost": section}) or "")

    def test_other_keys_stay_as_they_were(self, validators):
        for (version, _), each in validators.items():
            assert each.rejects({"hostname": "a", "runcmd": ["b"]}) is None
            assert each.rejects({"hostname": 3})
            assert bool(each.rejects({"unknown_key": 3})) == (version != "22.4")

    def test_without_registration_the_key_is_unknown(self):
        """What a user sees if the schema is not merged."""
        for version in ("25.1", "26.2"):
            each = cloud_init.CloudInit(cloud_init.package(version))
            assert "Additional properties are not allowed ('kvmhost'" in (
                each.rejects({"kvmhost": {}}) or ""
            )
            each.close()

    @pytest.mark.parametrize("entry", ["kvmhost", ENTRY])
    def test_the_entry_of_the_module_list(self, entry, validators):
        for each in validators.values():
            assert each.rejects({"cloud_final_modules": ["scripts-user", entry]}) is None

    def test_a_second_module_beside_us(self, tmp_path):
        for version in VERSIONS:
            tree = cloud_init.whole_root(version, tmp_path / version)
            registration.register(str(tree))
            merge_other(tree)
            each = cloud_init.CloudInit(tree)
            assert each.rejects({"kvmhost": {}, "other": "x"}) is None
            assert each.rejects({"kvmhost": {}, "other": 3})
            each.close()


@pytest.mark.once
class TestSchemaCommand:
    """`cloud-init schema` on files."""

    BAD = "#cloud-config\nhostname: a\nkvmhost:\n  libvirt:\n    mode: moduler\n  units: [a b]\n"

    def test_examples_are_valid(self, registered):
        examples = Path(__file__).parents[2] / "examples"
        for tree in registered.values():
            for example in sorted(examples.glob("*.yaml")):
                if example.read_text().startswith("#cloud-config"):  # no template
                    status, text = cloud_init.run(tree, "schema", "--config-file", str(example))
                    assert (status, text.split()[0]) == (0, "Valid"), text

    def test_annotate_points_at_the_lines(self, registered, tmp_path):
        bad = tmp_path / "bad.yaml"
        bad.write_text(self.BAD)
        for tree in registered.values():
            status, text = cloud_init.run(tree, "schema", "--config-file", str(bad), "--annotate")
            lines = [line.split() for line in text.splitlines()]
            assert ["mode:", "moduler", "#", "E1"] in lines
            assert ["units:", "[a", "b]", "#", "E2"] in lines
            assert "# E1: 'moduler' is not one of ['auto', 'modular', 'mon" in text

    def test_invalid_is_exit_1(self, registered, tmp_path):
        bad = tmp_path / "bad.yaml"
        bad.write_text(self.BAD)
        for tree in registered.values():
            status, text = cloud_init.run(tree, "schema", "--config-file", str(bad))
            assert status == 1
            assert "kvmhost.libvirt.mode: 'moduler' is not one of" in text

    def test_docs_of_cloud_init_are_whole(self, registered):
        """22.4 prints its modules' documentation from the schema; later ones have no --docs."""
        _, pristine = cloud_init.run(cloud_init.package("22.4"), "schema", "--docs", "all")
        status, text = cloud_init.run(registered["22.4"], "schema", "--docs", "all")
        assert (status, len(text)) == (0, len(pristine))
