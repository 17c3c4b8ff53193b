"""cloud-init's schema with the kvmhost section in it.

cloud-init has no mechanism to add a section, so ours is merged into its schema file.
"""

import copy
import json
import os
from functools import partial
from typing import Any, Dict, List, Optional, Tuple

from .. import config, files
from ..config import KEY
from ..errors import KvmhostError
from ..files import inside
from .changes import Change, collected, names, read_json

DEFINITION = "cc_kvmhost"
REFERENCE = {"$ref": "#/$defs/" + DEFINITION}

PYTHON_DIRS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")
PACKAGE_DIRS = ("site-packages", "dist-packages")
SCHEMA = "cloudinit/config/schemas/schema-cloud-config-v1.json"
ORIGINAL = ".before-kvmhost"


def with_section(root: str) -> List[Change]:
    """The changes that merge our section into each of cloud-init's schema files."""
    problems, schemas = _not_importable(root), _schemas(root)
    if not schemas:
        problems.append(
            f"{inside(root, '/usr/lib')}: no Python here has a {SCHEMA}: install cloud-init "
            "22.4 or newer, then run `kvmhost register`"
        )
    if problems:
        raise KvmhostError(problems)
    return sum(collected(partial(_change_with, path) for path in schemas), [])


def whole(path: str = "") -> Dict[str, Any]:
    """The schema of a whole cloud-config file: cloud-init's own with our section in it.

    :param path: cloud-init's schema file; "" for the file of the cloud-init that is installed here
    :raises KvmhostError: there is no such file, or its shape is unknown
    """
    if path and not os.path.isfile(path):
        raise KvmhostError([f"{path}: no such file"])
    found = [path] if path else _schemas("/")
    if not found:
        raise KvmhostError(
            [
                "no cloud-init is installed here; name its schema file:"
                f" kvmhost schema --cloud-config {os.path.basename(SCHEMA)}"
                f" (cloud-init's sources have it as {SCHEMA})"
            ]
        )
    schema = read_json(found[0])
    unknown = _unknown_shape(schema)
    if unknown:
        raise KvmhostError([f"{found[0]}: {unknown}: not a schema of cloud-init 22.4 to 26.2"])
    return _merged(schema)


def _change_with(path: str) -> List[Change]:
    schema = read_json(path)
    unknown = _unknown_shape(schema)
    if unknown:
        problem = (
            f"{path}: {unknown}: not a schema as cloud-init 22.4 to 26.2 have it, left alone; "
            "look for a newer kvmhost"
        )
        raise KvmhostError([problem])
    merged = _merged(schema)
    if merged == schema:
        return []
    pristine = _stripped(schema) == schema
    replace = _replace_keeping if pristine else files.replace
    return [Change(path, f"{path}: the kvmhost section", partial(replace, path, _dump(merged)))]


def without_section(root: str) -> List[Change]:
    return sum(collected(partial(_change_without, path) for path in _schemas(root)), [])


def _change_without(path: str) -> List[Change]:
    schema = read_json(path)
    without = _stripped(schema)
    if without == schema:
        return []
    make = partial(files.replace, path, _dump(without))
    if _original_holds(path, without):
        make = partial(os.rename, path + ORIGINAL, path)
    return [Change(path, f"{path}: without the kvmhost section", make)]


def _packages(root: str) -> List[Tuple[str, str]]:
    """Every directory of Python packages below root, each with the name of its Python."""
    return [
        (python, os.path.join(parent, python, name))
        for parent in PYTHON_DIRS
        for python in names(inside(root, parent))
        for name in PACKAGE_DIRS
        if python.startswith("python3")
    ]


def paths(root: str) -> List[str]:
    """Where a cloudinit package has or had its schema file."""
    # A set, because several paths may lead to one file: /usr/lib64 is a link on some systems.
    return sorted({inside(root, os.path.join(home, SCHEMA)) for _, home in _packages(root)})


def _schemas(root: str) -> List[str]:
    return [path for path in paths(root) if os.path.isfile(path)]


def _not_importable(root: str) -> List[str]:
    """The Pythons that have cloud-init but not this module: cloud-init would warn at each boot."""
    packages = _packages(root)
    package = [(python, inside(root, os.path.join(home, DEFINITION))) for python, home in packages]
    with_module = {python for python, path in package if os.path.isdir(path)}
    if "python3" in with_module:  # Debian's python3/dist-packages serves every Python
        return []
    return [
        f"{inside(root, home)}: cloud-init is here but {DEFINITION} is not; install it with "
        "the Python that runs cloud-init"
        for python, home in packages
        if os.path.isfile(inside(root, os.path.join(home, SCHEMA)))
        and not (with_module if python == "python3" else python in with_module)
    ]


def _unknown_shape(schema: Any) -> Optional[str]:
    """Which place for our section is missing, or None."""
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


def _merged(schema: Dict[str, Any]) -> Dict[str, Any]:
    """The schema with our section in each place that names a section or a module."""
    merged = copy.deepcopy(schema)
    section = config.load_schema()
    del section["$schema"]  # the whole file has one already
    merged["$defs"][DEFINITION] = {"type": "object", "properties": {KEY: section}}
    for listed, ours in (
        (merged["$defs"]["all_modules"]["enum"], KEY),
        (merged["allOf"], REFERENCE),
    ):
        if ours not in listed:
            listed.append(ours)
    if isinstance(merged.get("properties"), dict):  # since 23.4: the keys that are allowed
        merged["properties"][KEY] = {}
    return merged


def _stripped(schema: Any) -> Any:
    """The schema without our section; what others merged into it stays."""
    if _unknown_shape(schema):
        return schema
    without = copy.deepcopy(schema)
    without["$defs"].pop(DEFINITION, None)
    modules = without["$defs"]["all_modules"]
    modules["enum"] = [name for name in modules["enum"] if name != KEY]
    without["allOf"] = [entry for entry in without["allOf"] if entry != REFERENCE]
    if isinstance(without.get("properties"), dict):
        without["properties"].pop(KEY, None)
    return without


def _original_holds(path: str, without: Any) -> bool:
    """Whether the file that register() kept equals this one without our section. It does not after an
    upgrade of cloud-init, or after another module has merged a section of its own."""
    try:
        return bool(read_json(path + ORIGINAL) == without)
    except KvmhostError:
        return False


def _replace_keeping(path: str, content: bytes) -> None:
    """Replace the file; keep the old one beside it, with its owner, times and labels."""
    files.remove(path + ORIGINAL)
    os.link(path, path + ORIGINAL)
    files.replace(path, content)


def _dump(schema: Any) -> bytes:
    """JSON, formatted as cloud-init's own file is."""
    return (json.dumps(schema, indent=2) + "\n").encode("utf-8")
