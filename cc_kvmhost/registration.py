"""At home in cloud-init: kvmhost in its module list, the section in its schema.

The module list: a list in cloud.cfg.d replaces the one before it, so ours is a copy of the list
that holds without it, kvmhost inserted. The schema: cloud-init knows no way to add a section,
so ours is merged into its schema file. Both are derived from files that others own and replace:
register() may run at any time and brings them up to date, check() says whether it would.
"""

import copy
import fcntl
import json
import os
import re
import stat
from contextlib import contextmanager
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
    TypeVar,
)

from . import config
from .errors import KvmhostError

T = TypeVar("T")

DEFINITION = "cc_kvmhost"
REFERENCE = {"$ref": "#/$defs/" + DEFINITION}

CLOUD_DIR = "/etc/cloud"
CLOUD_CFG = "/etc/cloud/cloud.cfg"
CLOUD_CFG_D = "/etc/cloud/cloud.cfg.d"
# cloud-init reads *.cfg in the order of their names and the last list wins: after 00_ to 99_.
OWN_CFG = "zz_kvmhost.cfg"

STAGES = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")
STAGE = "cloud_final_modules"
# The one form that the schema of every cloud-init accepts.
ENTRY = [config.KEY, "once-per-instance"]
# Files of the user's are in place, scripts of the user's may already use the host.
AFTER = "write_files_deferred"
BEFORE = ("scripts_", "phone_home", "final_message", "power_state_change")

PYTHON_DIRS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")
PACKAGE_DIRS = ("site-packages", "dist-packages")
SCHEMA = "cloudinit/config/schemas/schema-cloud-config-v1.json"
ORIGINAL = ".before-kvmhost"
TEMPORARY = ".kvmhost-tmp"

HEADER = """\
# Written by `kvmhost register`: the {stage} of {source}
# with kvmhost inserted. Do not edit: change the list there, then run `kvmhost register`.
# `kvmhost unregister` removes this file.
"""


class Change(NamedTuple):
    """One file that is not as it should be, and what makes it so."""

    path: str
    why: str
    make: Callable[[], None]


class ModuleList(NamedTuple):
    """The modules of one stage, and the file (a path inside the root) that lists them."""

    source: str
    entries: List[Any]


def check(root: str = "/") -> Tuple[str, ...]:
    """What register() would change; empty: registered, and current."""
    return tuple(change.why for change in _missing(root))


def register(root: str = "/") -> Tuple[str, ...]:
    """Put kvmhost into cloud-init's module list and schema; what was changed."""
    with _locked(root):
        return _make(_missing(root))


def unregister(root: str = "/") -> Tuple[str, ...]:
    """Take both back, to the byte; what was changed. No cloud-init: nothing to take back."""
    if not os.path.isdir(_inside(root, CLOUD_DIR)):
        return ()
    with _locked(root):
        # Whatever may ail the schema: a module that is gone must not stay listed.
        changed = _make(_list_without_entry(root)) + _make(_schemas_without_section(root))
        for path in [_own_cfg(root)] + _schema_paths(root):
            _remove(path + ORIGINAL)
            _remove(path + TEMPORARY)
    return changed


def _missing(root: str) -> List[Change]:
    """What register() has to change; every problem found is raised before any change is made."""
    # The schema first: killed in between, a section that is known but not run does no harm.
    schema, listed = _collected(
        [partial(_schemas_with_section, root), partial(_list_with_entry, root)]
    )
    return schema + listed


# -- the module list ---------------------------------------------------------------------------


def _list_with_entry(root: str) -> List[Change]:
    """Our file in cloud.cfg.d: the list that holds without it, kvmhost inserted."""
    own = _own_cfg(root)
    if not os.path.isdir(os.path.dirname(own)):
        raise KvmhostError([os.path.dirname(own) + ": no such directory: install cloud-init first"])
    lists = _module_lists(root)
    for stage, (source, entries) in lists.items():
        if config.KEY in map(_module_name, entries):
            why = f"{own}: not needed, {stage} of {source} has kvmhost"
            return [Change(own, why, partial(os.unlink, own))] if os.path.lexists(own) else []
    if STAGE not in lists:
        problem = (
            f"{_inside(root, CLOUD_CFG)}: no {STAGE} here nor in cloud.cfg.d, so cloud-init has "
            "no such stage; restore the file of the cloud-init package"
        )
        raise KvmhostError([problem])
    source, entries = lists[STAGE]
    if source > os.path.join(CLOUD_CFG_D, OWN_CFG):
        problem = (
            f"{_inside(root, source)}: sets {STAGE} and is read after {OWN_CFG}, which would "
            "have no effect; rename it, or list [kvmhost, once-per-instance] in it"
        )
        raise KvmhostError([problem])
    content = _list_file(source, entries)
    if _read(own) == content:
        return []
    why = f"{own}: the {STAGE} of {source} with kvmhost"
    return [Change(own, why, partial(_replace, own, content))]


def _list_without_entry(root: str) -> List[Change]:
    own = _own_cfg(root)
    return [Change(own, f"{own}: removed", partial(os.unlink, own))] if os.path.lexists(own) else []


def _own_cfg(root: str) -> str:
    return os.path.join(_inside(root, CLOUD_CFG_D), OWN_CFG)


def _module_lists(root: str) -> Dict[str, ModuleList]:
    """Each stage's list as cloud-init would read it without our file: the last one wins."""
    paths = [CLOUD_CFG] + [
        os.path.join(CLOUD_CFG_D, name)
        for name in _names(_inside(root, CLOUD_CFG_D))
        if name.endswith(".cfg") and name != OWN_CFG
    ]
    lists: Dict[str, ModuleList] = {}
    for found in _collected(partial(_lists_of, root, path) for path in paths):
        lists.update(found)
    return lists


def _lists_of(root: str, source: str) -> Dict[str, ModuleList]:
    """The lists that one file sets."""
    import yaml

    path = _inside(root, source)
    try:
        text = (_read(path) or b"").decode("utf-8")
        if re.match(r"##\s*template:", text, re.IGNORECASE):
            return _lists_of_template(path, text)
        content = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise KvmhostError([f"{path}: not readable as YAML: {reason}; mend the file"]) from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise KvmhostError([f"{path}: a {kind} where cloud-init wants a mapping; mend the file"])
    lists = {stage: ModuleList(source, content[stage]) for stage in STAGES if stage in content}
    problems = [
        f"{path}: {stage}: {problem}"
        for stage, found in lists.items()
        for problem in _list_problems(found.entries)
    ]
    # Another way to merge applies to our list as well: it would hold everything twice.
    problems += [
        f"{path}: {key} beside {STAGE}: no list can be derived from that; write the whole "
        f"list, without {key}"
        for key in ("merge_how", "merge_type")
        if key in content and STAGE in lists
    ]
    if source == CLOUD_CFG and content.get("conf_d", CLOUD_CFG_D) != CLOUD_CFG_D:
        problems.append(
            f"{path}: conf_d is {content['conf_d']!r}, kvmhost registers in {CLOUD_CFG_D} only; "
            "remove conf_d"
        )
    if problems:
        raise KvmhostError(problems)
    return lists


def _lists_of_template(path: str, text: str) -> Dict[str, ModuleList]:
    """None: what a template says is only known at boot."""
    stages = [stage for stage in STAGES if stage in text]
    if stages:
        problem = (
            f"{path}: a template with {stages[0]}: which list it gives is only known at boot; "
            "write the list into a file that is no template"
        )
        raise KvmhostError([problem])
    return {}


def _list_problems(entries: Any) -> List[str]:
    """What keeps us from taking over a list: a lost entry would be a module that never runs."""
    if not isinstance(entries, list):
        return [f"{entries!r} is not a list of modules"]
    return [
        f"entry {number}, {entry!r}: neither NAME nor [NAME, FREQUENCY]"
        for number, entry in enumerate(entries, 1)
        if entry and _module_name(entry) is None
    ]


def _module_name(entry: Any) -> Optional[str]:
    """One name per module, as cloud-init reads it: hyphen or underscore, with or without cc_."""
    name = entry
    if isinstance(entry, list) and entry:
        name = entry[0]
    elif isinstance(entry, dict):
        name = entry.get("name")
    if not isinstance(name, str):
        return None
    name = name.strip().replace("-", "_")
    if name.lower().endswith(".py"):
        name = name[: -len(".py")]
    return name[len("cc_") :] if name.startswith("cc_") else name


def _list_file(source: str, entries: List[Any]) -> bytes:
    """The text of our file."""
    import yaml

    place = _place(entries)
    listed = entries[:place] + [ENTRY] + entries[place:]
    text = HEADER.format(stage=STAGE, source=source)
    # default_flow_style None: one entry a line, [kvmhost, once-per-instance] in brackets.
    return (text + yaml.safe_dump({STAGE: listed}, default_flow_style=None)).encode("utf-8")


def _place(entries: List[Any]) -> int:
    """Where kvmhost goes: after write_files_deferred; without it, before scripts; else last."""
    names = [_module_name(entry) or "" for entry in entries]
    for position, name in enumerate(names):
        if name == AFTER:
            return position + 1
    for position, name in enumerate(names):
        if name.startswith(BEFORE):
            return position
    return len(entries)


# -- the schema --------------------------------------------------------------------------------


def _schemas_with_section(root: str) -> List[Change]:
    """cloud-init's schema files, our section merged in."""
    problems = _not_importable(root)
    if not _schemas(root):
        problems.append(
            f"{_inside(root, '/usr/lib')}: no Python here has a {SCHEMA}: install cloud-init "
            "22.4 or newer, then run `kvmhost register`"
        )
    if problems:
        raise KvmhostError(problems)
    changes = _collected(partial(_schema_with_section, path) for path in _schemas(root))
    return [change for found in changes for change in found]


def _schema_with_section(path: str) -> List[Change]:
    schema = _read_json(path)
    unknown = _unknown_shape(schema)
    if unknown:
        problem = (
            f"{path}: {unknown}: not a schema as cloud-init 22.4 to 26.2 have it, left alone; "
            "look for a newer kvmhost"
        )
        raise KvmhostError([problem])
    merged = _with_section(schema)
    if merged == schema:
        return []
    pristine = _without_section(schema) == schema
    replace = _replace_keeping if pristine else _replace
    return [Change(path, f"{path}: the kvmhost section", partial(replace, path, _dump(merged)))]


def _schemas_without_section(root: str) -> List[Change]:
    changes = _collected(partial(_schema_without_section, path) for path in _schemas(root))
    return [change for found in changes for change in found]


def _schema_without_section(path: str) -> List[Change]:
    schema = _read_json(path)
    without = _without_section(schema)
    if without == schema:
        return []
    make = partial(_replace, path, _dump(without))
    if _original_holds(path, without):
        make = partial(os.rename, path + ORIGINAL, path)
    return [Change(path, f"{path}: without the kvmhost section", make)]


def _packages(root: str) -> List[Tuple[str, str]]:
    """Every directory of Python packages below root, with its Python's name."""
    return [
        (python, os.path.join(parent, python, name))
        for parent in PYTHON_DIRS
        for python in _names(_inside(root, parent))
        for name in PACKAGE_DIRS
        if python.startswith("python3")
    ]


def _schema_paths(root: str) -> List[str]:
    """Where a cloudinit package has or had its schema file."""
    paths = [_inside(root, os.path.join(packages, SCHEMA)) for _, packages in _packages(root)]
    # More than one way may lead to a file: /usr/lib64 is a link on some systems.
    return sorted(set(paths))


def _schemas(root: str) -> List[str]:
    return [path for path in _schema_paths(root) if os.path.isfile(path)]


def _not_importable(root: str) -> List[str]:
    """The Pythons that have cloud-init but not this module: each boot would warn of it."""
    packages = _packages(root)
    with_module = {
        python
        for python, home in packages
        if os.path.isdir(_inside(root, os.path.join(home, DEFINITION)))
    }
    if "python3" in with_module:  # Debian's python3/dist-packages serves every Python
        return []
    return [
        f"{_inside(root, home)}: cloud-init is here but {DEFINITION} is not; install it with "
        "the Python that runs cloud-init"
        for python, home in packages
        if os.path.isfile(_inside(root, os.path.join(home, SCHEMA)))
        and not (with_module if python == "python3" else python in with_module)
    ]


def _unknown_shape(schema: Any) -> Optional[str]:
    """What is missing of the places where our section goes."""
    if not isinstance(schema, dict):
        return "not a JSON object"
    if not isinstance(schema.get("$defs"), dict) or not isinstance(schema.get("allOf"), list):
        return "no $defs object or no allOf list"
    modules = schema["$defs"].get("all_modules")
    if not isinstance(modules, dict) or not isinstance(modules.get("enum"), list):
        return "no $defs.all_modules.enum list"
    if "additionalProperties" in schema and not isinstance(schema.get("properties"), dict):
        return "additionalProperties without a properties object"
    return None


def _with_section(schema: Dict[str, Any]) -> Dict[str, Any]:
    """The schema with our section in each place that names a section or a module."""
    merged = copy.deepcopy(schema)
    section = config.load_schema()
    del section["$schema"]  # the whole file has one already
    merged["$defs"][DEFINITION] = {"type": "object", "properties": {config.KEY: section}}
    for listed, ours in (
        (merged["$defs"]["all_modules"]["enum"], config.KEY),
        (merged["allOf"], REFERENCE),
    ):
        if ours not in listed:
            listed.append(ours)
    if isinstance(merged.get("properties"), dict):  # 23.4 and newer: the keys that may be there
        merged["properties"][config.KEY] = {}
    return merged


def _without_section(schema: Any) -> Any:
    """The schema without anything of ours; what others merged into it stays."""
    if _unknown_shape(schema):
        return schema
    without = copy.deepcopy(schema)
    without["$defs"].pop(DEFINITION, None)
    modules = without["$defs"]["all_modules"]
    modules["enum"] = [name for name in modules["enum"] if name != config.KEY]
    without["allOf"] = [entry for entry in without["allOf"] if entry != REFERENCE]
    if isinstance(without.get("properties"), dict):
        without["properties"].pop(config.KEY, None)
    return without


def _original_holds(path: str, without: Any) -> bool:
    """Whether the file kept by register() still is this one without our section.

    It is not once cloud-init was upgraded or another module merged a section of its own.
    """
    try:
        return bool(_read_json(path + ORIGINAL) == without)
    except KvmhostError:
        return False


def _dump(schema: Any) -> bytes:
    """JSON in the form in which cloud-init itself has it."""
    return (json.dumps(schema, indent=2) + "\n").encode("utf-8")


# -- problems and files -------------------------------------------------------------------------------------


def _collected(calls: Iterable[Callable[[], T]]) -> List[T]:
    """Each call's result, or the problems of all of them raised once."""
    results: List[T] = []
    problems: List[str] = []
    for call in calls:
        try:
            results.append(call())
        except KvmhostError as error:
            problems.extend(error.problems)
    if problems:
        raise KvmhostError(problems)
    return results


@contextmanager
def _locked(root: str) -> Iterator[None]:
    """One registration at a time: a package manager's trigger may run while we do."""
    directory = _inside(root, CLOUD_DIR)
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KvmhostError([f"{directory}: {error.strerror}: install cloud-init first"]) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _inside(root: str, path: str) -> str:
    """``path`` below ``root``, its symlinks followed as they would be in there."""
    done: List[str] = []
    todo = path.split("/")[::-1]
    followed = 0
    while todo:
        part = todo.pop()
        here = os.path.join(root, *(done + [part]))
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
        elif os.path.islink(here) and followed < 40:
            followed += 1
            target = os.readlink(here)
            done = [] if target.startswith("/") else done
            todo.extend(target.split("/")[::-1])
        else:
            done.append(part)
    return os.path.join(root, *done)


def _names(directory: str) -> List[str]:
    """What is in a directory, in the order in which cloud-init reads it."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise KvmhostError([f"{directory}: {error.strerror}: run this as root"]) from None


def _read(path: str) -> Optional[bytes]:
    """A file's bytes; None if there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KvmhostError([f"{path}: {error.strerror}: run this as root"]) from None


def _read_json(path: str) -> Any:
    try:
        return json.loads((_read(path) or b"").decode("utf-8"))
    except ValueError as error:
        raise KvmhostError(
            [f"{path}: not JSON ({error}): reinstall the package it belongs to"]
        ) from None


def _make(changes: List[Change]) -> Tuple[str, ...]:
    """Make the changes: none if one of the places can't be written to."""
    places = sorted({os.path.dirname(change.path) for change in changes})
    problems = [
        f"{place}: not writable: run this as root; where /usr is read-only, do it while the "
        "image is built"
        for place in places
        if not os.access(place, os.W_OK)
    ]
    if problems:
        raise KvmhostError(problems)
    for change in changes:
        try:
            change.make()
            _sync(os.path.dirname(change.path))
        except OSError as error:
            problem = f"{change.path}: {error.strerror}; mend that and run this again"
            raise KvmhostError([problem]) from None
    return tuple(change.why for change in changes)


def _replace_keeping(path: str, content: bytes) -> None:
    """The same, the file as it was kept beside it, with its owner, times and labels."""
    _remove(path + ORIGINAL)
    os.link(path, path + ORIGINAL)
    _replace(path, content)


def _replace(path: str, content: bytes) -> None:
    """Killed at any moment, after a power cut too: the old file or the new one."""
    temporary = path + TEMPORARY  # always the same: what a killed run left, the next one removes
    _remove(temporary)
    with open(temporary, "xb") as stream:
        stream.write(content)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        if os.path.exists(path):
            old = os.stat(path)
            os.fchown(stream.fileno(), old.st_uid, old.st_gid)
            os.fchmod(stream.fileno(), stat.S_IMODE(old.st_mode))
        os.fsync(stream.fileno())
    os.rename(temporary, path)


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def _sync(directory: str) -> None:
    """Renames are on the disk once their directory is."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
