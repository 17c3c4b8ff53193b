"""cloud-init's module list with kvmhost in it.

A list in cloud.cfg.d replaces any list that is read before it. So ours is a copy of the list that is
in force without it, with kvmhost inserted.
"""

import os
import re
from functools import partial
from typing import Any, Dict, List, NamedTuple, Optional

from .. import files
from ..config import KEY
from ..errors import KvmhostError
from ..files import inside
from .changes import CLOUD_DIR, Change, collected, names, read

CLOUD_CFG = CLOUD_DIR + "/cloud.cfg"
CLOUD_CFG_D = CLOUD_DIR + "/cloud.cfg.d"
# cloud-init reads *.cfg in the order of their names, and the last list wins: this name is read after
# 00_ to 99_.
OWN_CFG = "zz_kvmhost.cfg"

STAGES = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")
STAGE = "cloud_final_modules"
# The only form that the schema of every cloud-init accepts.
ENTRY = [KEY, "once-per-instance"]
# In between, user-data's files have been written, and its scripts, which may use libvirt, follow.
AFTER = "write_files_deferred"
BEFORE = ("scripts_", "phone_home", "final_message", "power_state_change")

HEADER = """\
# Written by `kvmhost register`: the {stage} of {source}
# with kvmhost inserted. Do not edit: change the list there, then run `kvmhost register`.
# `kvmhost unregister` removes this file.
"""


class ModuleList(NamedTuple):
    """The modules of one stage, and the file (a path inside the root) that lists them."""

    source: str
    entries: List[Any]


def with_entry(root: str) -> List[Change]:
    """The change that writes our file: the list in force without it, with kvmhost inserted."""
    own = own_cfg(root)
    if not os.path.isdir(os.path.dirname(own)):
        raise KvmhostError([os.path.dirname(own) + ": no such directory: install cloud-init first"])
    lists = _module_lists(root)
    for stage, (source, entries) in lists.items():
        if KEY in map(_module_name, entries):
            return without_entry(root, f"not needed, {stage} of {source} has kvmhost")
    if STAGE not in lists:
        problem = (
            f"{inside(root, CLOUD_CFG)}: no {STAGE} here nor in cloud.cfg.d, so cloud-init has "
            "no such stage; restore the file of the cloud-init package"
        )
        raise KvmhostError([problem])
    source, entries = lists[STAGE]
    if source > os.path.join(CLOUD_CFG_D, OWN_CFG):
        problem = (
            f"{inside(root, source)}: sets {STAGE} and is read after {OWN_CFG}, which would "
            "have no effect; rename it, or list [kvmhost, once-per-instance] in it"
        )
        raise KvmhostError([problem])
    content = _list_file(source, entries)
    if read(own) == content:
        return []
    why = f"{own}: the {STAGE} of {source} with kvmhost"
    return [Change(own, why, partial(files.replace, own, content, root))]


def without_entry(root: str, why: str = "removed") -> List[Change]:
    own = own_cfg(root)
    return [Change(own, f"{own}: {why}", partial(os.unlink, own))] if os.path.lexists(own) else []


def own_cfg(root: str) -> str:
    return os.path.join(inside(root, CLOUD_CFG_D), OWN_CFG)


def _module_lists(root: str) -> Dict[str, ModuleList]:
    """Each stage's list that is in force without our file: the last one wins."""
    paths = [CLOUD_CFG] + [
        os.path.join(CLOUD_CFG_D, name)
        for name in names(inside(root, CLOUD_CFG_D))
        if name.endswith(".cfg") and name != OWN_CFG
    ]
    lists: Dict[str, ModuleList] = {}
    for found in collected(partial(_lists_of, root, path) for path in paths):
        lists.update(found)
    return lists


def _lists_of(root: str, source: str) -> Dict[str, ModuleList]:
    """The lists that one file sets."""
    import yaml

    path = inside(root, source)
    try:
        text = read(path).decode("utf-8")
        if re.match(r"##\s*template:", text, re.IGNORECASE):
            _require_no_list(path, text)
            return {}
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
    # cloud-init would merge our list with the others, and run every module twice.
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


def _require_no_list(path: str, template: str) -> None:
    for stage in STAGES:
        if stage in template:
            problem = (
                f"{path}: a template with {stage}: which list it gives is only known at boot; "
                "write the list into a file that is no template"
            )
            raise KvmhostError([problem])


def _list_problems(entries: Any) -> List[str]:
    """Why a list can't be copied: an entry that we lost would be a module that never runs."""
    if not isinstance(entries, list):
        return [f"{entries!r} is not a list of modules"]
    return [
        f"entry {number}, {entry!r}: neither NAME nor [NAME, FREQUENCY]"
        for number, entry in enumerate(entries, 1)
        if entry and _module_name(entry) is None
    ]


def _module_name(entry: Any) -> Optional[str]:
    """The module that an entry names. cloud-init accepts hyphens and underscores, with or without cc_."""
    name = entry.get("name") if isinstance(entry, dict) else entry
    if isinstance(entry, list) and entry:
        name = entry[0]
    if not isinstance(name, str):
        return None
    name = name.strip().replace("-", "_")
    if name.lower().endswith(".py"):
        name = name[: -len(".py")]
    return name[len("cc_") :] if name.startswith("cc_") else name


def _list_file(source: str, entries: List[Any]) -> bytes:
    import yaml

    place = _place(entries)
    listed = entries[:place] + [ENTRY] + entries[place:]
    text = HEADER.format(stage=STAGE, source=source)
    # default_flow_style None: one entry a line, [kvmhost, once-per-instance] in brackets.
    return (text + yaml.safe_dump({STAGE: listed}, default_flow_style=None)).encode("utf-8")


def _place(entries: List[Any]) -> int:
    """Where kvmhost goes: after write_files_deferred; without it, before scripts; else last."""
    modules = [_module_name(entry) or "" for entry in entries]
    if AFTER in modules:
        return modules.index(AFTER) + 1
    scripts = (place for place, name in enumerate(modules) if name.startswith(BEFORE))
    return next(scripts, len(entries))
