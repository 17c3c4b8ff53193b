"""The file that a section stands in: a cloud-config file and the lines of what is in it."""

import os
import stat
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from .config import KEY, check, nearest, shown
from .errors import KvmhostError

HEADER = "#cloud-config"


class Document(NamedTuple):
    """A cloud-config file: its mapping and the line (from 1) of each key and item by its path."""

    name: str
    content: Dict[str, Any]
    lines: Dict[Tuple[Any, ...], int]

    def line(self, path: Tuple[Any, ...]) -> int:
        """The line of a path, or of the nearest place above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(name: str) -> Document:
    """Read a cloud-config file.

    :raises KvmhostError: not readable, not text, not YAML, not a mapping, or no #cloud-config
    """
    import yaml

    try:
        if stat.S_IFMT(os.stat(name).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise KvmhostError([f"{name}: a FIFO, socket or device, not a file"])
        with open(name, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise KvmhostError([f"{name}: can't be read: {reason}"]) from error
    if text.split("\n", 1)[0].rstrip() != HEADER:
        raise KvmhostError(
            [
                "{}:1: the first line is {}; cloud-init takes the file for cloud-config only if it"
                " is {}".format(name, shown(text.split("\n", 1)[0]), HEADER)
            ]
        )
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
        lines = {} if node is None else _find_lines(node, loader.construct_object)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character #x{error.character:04x} is not allowed"
        raise KvmhostError([f"{name}:{line}: not YAML: {what}"]) from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        what = getattr(error, "problem", None) or str(error)
        raise KvmhostError([f"{name}:{line}: not YAML: {what}"]) from error
    except RecursionError as error:
        raise KvmhostError([f"{name}:1: nested too deeply to be read"]) from error
    if not isinstance(content, dict):
        raise KvmhostError([f"{name}:1: holds {shown(content)}, not a mapping with a {KEY} key"])
    return Document(name, content, lines)


def read_section(name: str) -> Any:
    """The section of a cloud-config file, unchecked.

    :raises KvmhostError: as read() does, or the file has no section
    """
    document = read(name)
    if KEY not in document.content:
        raise KvmhostError([f"{name}: no {KEY} key: nothing is asked for"])
    return document.content[KEY]


def check_file(name: str) -> List[str]:
    """Every problem of a file, with its line, as `kvmhost validate` prints them."""
    try:
        document = read(name)
    except KvmhostError as error:
        return list(error.problems)
    if KEY not in document.content:
        near = nearest(KEY, [key for key in document.content if isinstance(key, str)])
        if not near:
            return []
        return [f"{name}:{document.line((near,))}: unknown key {near!r}; did you mean {KEY!r}?"]
    return [
        f"{name}:{document.line((KEY,) + problem.path)}: {problem}"
        for problem in check(document.content[KEY])
    ]


def _find_lines(root: Any, construct: Callable[[Any], Any]) -> Dict[Tuple[Any, ...], int]:
    """The line of each place of a YAML node. What an alias repeats has the line of the original.

    :param construct: makes the value of a scalar node
    """
    lines: Dict[Tuple[Any, ...], int] = {}
    seen = set()
    rest: List[Tuple[Tuple[Any, ...], Any]] = [((), root)]
    while rest:
        path, node = rest.pop()
        lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "mapping":
            for key, value in node.value:
                if key.id == "scalar":
                    place = path + (construct(key),)
                    lines[place] = key.start_mark.line + 1
                    rest.append((place, value))
        elif node.id == "sequence":
            rest += [(path + (number,), item) for number, item in enumerate(node.value)]
    return lines
