"""What users hand in: each input with the exit code and every line of `kvmhost validate`."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Tuple

import pytest
from odd_inputs import ODD

import cloud_init
from cc_kvmhost import cli, problems, user_data

UNIT = (
    "a unit's full name with its suffix (.service, .socket, .timer, .path, .target, .mount,"
    " .automount, .swap), such as cockpit.socket, at most 255 characters"
)
DRIVERS = "qemu, network, storage, nodedev, secret, interface, nwfilter"
KNOWN = "Known here: check, kvm, libvirt, timeout, tuned, units"
AGAIN = "the key stands here again; the first is on line"
DEFAULTS = "FILE: kvmhost section valid: mode by release, tuned virtual-host"

#: What it is, the file, the exit code, the lines.
INPUTS: List[Tuple[str, Any, int, List[str]]] = [
    ("empty section", "#cloud-config\nkvmhost: {}\n", 0, [DEFAULTS]),
    ("null section", "#cloud-config\nkvmhost:\n", 0, [DEFAULTS]),
    ("blank line before", "\n#cloud-config\nkvmhost: {}\n", 0, [DEFAULTS]),
    (
        "blank lines and spaces before",
        " \n\t\n  #cloud-config\nkvmhost: {}\n",
        1,
        ["FILE:2: not YAML: a tab, where YAML allows spaces only"],
    ),
    ("header in other case", "#Cloud-Config\nkvmhost: {}\n", 0, [DEFAULTS]),
    ("text after the header", "#cloud-config for our hosts\nkvmhost: {}\n", 0, [DEFAULTS]),
    ("text glued to the header", "#cloud-config: v1\nkvmhost: {}\n", 0, [DEFAULTS]),
    (
        "windows line ends",
        "#cloud-config\r\nkvmhost:\r\n  timeout: 5\r\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 5 s"],
    ),
    ("old mac line ends", "#cloud-config\rkvmhost: {}\r", 0, [DEFAULTS]),
    ("no newline at the end", "#cloud-config\nkvmhost: {}", 0, [DEFAULTS]),
    ("document marker", "#cloud-config\n---\nkvmhost: {}\n", 0, [DEFAULTS]),
    ("document end", "#cloud-config\nkvmhost: {}\n...\n", 0, [DEFAULTS]),
    ("null libvirt", "#cloud-config\nkvmhost:\n  libvirt:\n", 0, [DEFAULTS]),
    (
        "null tuned",
        "#cloud-config\nkvmhost:\n  tuned:\n    # profile: virtual-host\n",
        0,
        [DEFAULTS],
    ),
    (
        "all children commented out",
        "#cloud-config\nkvmhost:\n  libvirt:\n    # mode: modular\n  tuned:\n",
        0,
        [DEFAULTS],
    ),
    (
        "yes for true",
        "#cloud-config\nkvmhost:\n  libvirt:\n    tls: no\n    autostart: yes\n",
        0,
        [DEFAULTS],
    ),
    ("no section", "#cloud-config\npackages: [vim]\n", 0, ["FILE: no kvmhost section"]),
    (
        "unknown key of somebody else",
        "#cloud-config\nother_module: {a: 1}\n",
        0,
        ["FILE: no kvmhost section"],
    ),
    ("header only", "#cloud-config\n", 0, ["FILE: no kvmhost section"]),
    ("header and comments", "#cloud-config\n# nothing yet\n\n", 0, ["FILE: no kvmhost section"]),
    ("a null document", "#cloud-config\nnull\n", 0, ["FILE: no kvmhost section"]),
    (
        "jinja template",
        "## template: jinja\n#cloud-config\nfqdn: {{ v1.local_hostname }}.example\nkvmhost:\n  timeout: 5\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 5 s"],
    ),
    (
        "jinja in quotes",
        '## template: jinja\n#cloud-config\nhostname: "{{ v1.instance_id }}"\nkvmhost: {}\n',
        0,
        [DEFAULTS],
    ),
    (
        "jinja template, wrong section",
        "## template: jinja\n#cloud-config\nhostname: {{ v1.instance_id }}\nkvmhost:\n  timeout: 0\n",
        1,
        ["FILE:5: kvmhost.timeout: 0 is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "jinja statements",
        "## template: jinja\n#cloud-config\n{% if v1.region %}\nkvmhost: {}\n{% endif %}\n",
        1,
        [
            "FILE:1: a jinja template, and there is no instance of cloud-init here to render it for; on a machine with cloud-init: cloud-init schema --config-file FILE"
        ],
    ),
    (
        "jinja template of a script",
        "## template: jinja\n#!/bin/sh\necho {{ v1.instance_id }}\n",
        1,
        ["FILE:1: cloud-init takes the file for a script, which has no kvmhost section"],
    ),
    (
        "jinja header only",
        "## template: jinja\n",
        1,
        ["FILE:1: the file is empty; cloud-config begins with #cloud-config"],
    ),
    (
        "braces without the jinja header",
        "#cloud-config\nhostname: {{ v1.instance_id }}\nkvmhost: {}\n",
        1,
        ["FILE:2: not YAML: a jinja template; it needs '## template: jinja' above #cloud-config"],
    ),
    (
        "whole section as JSON",
        '#cloud-config\n{"kvmhost": {"libvirt": {"mode": "modular", "drivers": ["qemu"]}, "units": ["cockpit.socket"]}}\n',
        0,
        [
            "FILE: kvmhost section valid: modular, drivers qemu, tuned virtual-host, units cockpit.socket"
        ],
    ),
    (
        "all keys",
        "#cloud-config\nkvmhost:\n  libvirt: {mode: monolithic, autostart: false, tls: true}\n  tuned: {profile: null}\n  timeout: 60\n",
        0,
        [
            "FILE: kvmhost section valid: monolithic, TLS, no autostart, tuned with its own profile, timeout 60 s"
        ],
    ),
    (
        "tuned left alone",
        "#cloud-config\nkvmhost:\n  tuned: {enabled: false}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned left alone"],
    ),
    (
        "merge key",
        "#cloud-config\nbase: &b {timeout: 5}\nkvmhost:\n  <<: *b\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 5 s"],
    ),
    (
        "the key twice",
        "#cloud-config\nkvmhost: {}\nkvmhost:\n  timeout: 5\n",
        1,
        [f"FILE:3: kvmhost: {AGAIN} 2, and YAML keeps the last"],
    ),
    (
        "a mapping twice",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: modular\n  timeout: 5\n  libvirt:\n    tls: true\n",
        1,
        [f"FILE:6: kvmhost.libvirt: {AGAIN} 3, and YAML keeps the last"],
    ),
    (
        "another module's key twice",
        "#cloud-config\npackages: [a]\nkvmhost: {}\npackages: [b]\n",
        1,
        [f"FILE:4: packages: {AGAIN} 2, and YAML keeps the last"],
    ),
    (
        "a key three times",
        "#cloud-config\nkvmhost:\n  timeout: 1\n  timeout: 2\n  timeout: 3\n",
        1,
        [
            f"FILE:4: kvmhost.timeout: {AGAIN} 3, and YAML keeps the last",
            f"FILE:5: kvmhost.timeout: {AGAIN} 3, and YAML keeps the last",
        ],
    ),
    (
        "a key twice in flow style",
        "#cloud-config\nkvmhost: {timeout: 1, timeout: 2}\n",
        1,
        [f"FILE:2: kvmhost.timeout: {AGAIN} 2, and YAML keeps the last"],
    ),
    (
        "twice, once in quotes",
        '#cloud-config\nkvmhost:\n  timeout: 1\n  "timeout": 2\n',
        1,
        [f"FILE:4: kvmhost.timeout: {AGAIN} 3, and YAML keeps the last"],
    ),
    (
        "no-break spaces as indentation",
        "#cloud-config\nkvmhost:\n\xa0\xa0libvirt:\n\xa0\xa0\xa0\xa0mode: modular\n",
        1,
        [
            'FILE:3: U+00A0 (no-break space) before "libvirt", which YAML takes for a part of it; indent with spaces',
            'FILE:4: U+00A0 (no-break space) before "mode", which YAML takes for a part of it; indent with spaces',
        ],
    ),
    (
        "a no-break space behind spaces",
        "#cloud-config\nkvmhost:\n  libvirt:\n  \xa0mode: modular\n",
        1,
        [
            'FILE:4: U+00A0 (no-break space) before "mode", which YAML takes for a part of it; indent with spaces',
            f'FILE:4: kvmhost["\\u00a0mode"]: unknown key; {KNOWN}',
        ],
    ),
    (
        "a zero width space",
        "#cloud-config\nkvmhost:\n  \u200btimeout: 5\n",
        1,
        [
            'FILE:3: U+200B (zero width space) before "\\u200btimeout", which YAML takes for a part of it; indent with spaces',
            f"FILE:3: kvmhost[\"\\u200btimeout\"]: unknown key; did you mean 'timeout'? {KNOWN}",
        ],
    ),
    (
        "an em space",
        "#cloud-config\nkvmhost:\n\u2003timeout: 5\n",
        1,
        [
            'FILE:3: U+2003 (em space) before "timeout", which YAML takes for a part of it; indent with spaces'
        ],
    ),
    (
        "a no-break space behind a colon",
        "#cloud-config\nkvmhost:\n  timeout:\xa0120\n",
        1,
        [
            "FILE:2: kvmhost: \"timeout:\\u00a0120\" is not allowed (a space is missing after 'timeout:'); allowed: a mapping or null"
        ],
    ),
    (
        "a section without kvmhost",
        "#cloud-config\nlibvirt:\n  mode: modular\ntuned:\n  profile: virtual-host\n",
        1,
        [
            "FILE:2: unknown key 'libvirt'; it belongs under kvmhost, indented",
            "FILE:4: unknown key 'tuned'; it belongs under kvmhost, indented",
        ],
    ),
    (
        "a section that is not indented",
        "#cloud-config\nkvmhost:\nlibvirt:\n  mode: modular\n",
        1,
        ["FILE:3: unknown key 'libvirt'; it belongs under kvmhost, indented"],
    ),
    (
        "timeout at the top",
        "#cloud-config\ntimeout: 5\nkvmhost: {}\n",
        1,
        ["FILE:2: unknown key 'timeout'; it belongs under kvmhost, indented"],
    ),
    (
        "mode at the top",
        "#cloud-config\nmode: modular\n",
        1,
        ["FILE:2: unknown key 'mode'; it belongs under kvmhost.libvirt, indented"],
    ),
    (
        "packges",
        "#cloud-config\npackges: [vim]\nkvmhost: {}\n",
        1,
        ["FILE:2: unknown key 'packges'; did you mean 'packages'?"],
    ),
    (
        "run_cmd",
        "#cloud-config\nrun_cmd: [ls]\n",
        1,
        ["FILE:2: unknown key 'run_cmd'; did you mean 'runcmd'?"],
    ),
    (
        "user-s",
        "#cloud-config\nUsers: []\nkvmhost: {}\n",
        1,
        ["FILE:2: unknown key 'Users'; did you mean 'users'?"],
    ),
    (
        "write-files",
        "#cloud-config\nwrite-files: []\n",
        1,
        ["FILE:2: unknown key 'write-files'; did you mean 'write_files'?"],
    ),
    (
        "kvm_host",
        "#cloud-config\nssh_pwauth: true\nkvm_host: {}\n",
        1,
        ["FILE:3: unknown key 'kvm_host'; did you mean 'kvmhost'?"],
    ),
    (
        "KVMHost",
        "#cloud-config\nKVMHost:\n  timeout: 5\n",
        1,
        ["FILE:2: unknown key 'KVMHost'; did you mean 'kvmhost'?"],
    ),
    (
        "mode under kvmhost",
        "#cloud-config\nkvmhost:\n  mode: modular\n",
        1,
        [f"FILE:3: kvmhost.mode: unknown key; it belongs under kvmhost.libvirt. {KNOWN}"],
    ),
    (
        "drivers under kvmhost",
        "#cloud-config\nkvmhost:\n  drivers: [qemu]\n",
        1,
        [f"FILE:3: kvmhost.drivers: unknown key; it belongs under kvmhost.libvirt. {KNOWN}"],
    ),
    (
        "profile under kvmhost",
        "#cloud-config\nkvmhost:\n  profile: virtual-host\n",
        1,
        [f"FILE:3: kvmhost.profile: unknown key; it belongs under kvmhost.tuned. {KNOWN}"],
    ),
    (
        "units under libvirt",
        "#cloud-config\nkvmhost:\n  libvirt:\n    units: [cockpit.socket]\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.units: unknown key; it belongs under kvmhost. Known here: autostart, drivers, mode, networks, pools, tls"
        ],
    ),
    (
        "profile under libvirt",
        "#cloud-config\nkvmhost:\n  libvirt:\n    profile: virtual-host\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.profile: unknown key; it belongs under kvmhost.tuned. Known here: autostart, drivers, mode, networks, pools, tls"
        ],
    ),
    (
        "kvmhost under kvmhost",
        "#cloud-config\nkvmhost:\n  kvmhost: {}\n",
        1,
        [
            f"FILE:3: kvmhost.kvmhost: unknown key; the section stands in itself: take one of the two away. {KNOWN}"
        ],
    ),
    ("empty file", "", 1, ["FILE:1: the file is empty; cloud-config begins with #cloud-config"]),
    (
        "white space only",
        " \n\n",
        1,
        ["FILE:1: the file is empty; cloud-config begins with #cloud-config"],
    ),
    (
        "no header",
        "kvmhost: {}\n",
        1,
        [
            'FILE:1: the first line is "kvmhost: {}"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    (
        "header with a space",
        "# cloud-config\nkvmhost: {}\n",
        1,
        [
            'FILE:1: the first line is "# cloud-config"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    (
        "header misspelt",
        "#cloud-confg\nkvmhost: {}\n",
        1,
        [
            'FILE:1: the first line is "#cloud-confg"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    (
        "a comment before the header",
        "# our hosts\n#cloud-config\nkvmhost: {}\n",
        1,
        [
            'FILE:1: the first line is "# our hosts"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    (
        "document marker before the header",
        "---\n#cloud-config\nkvmhost: {}\n",
        1,
        [
            'FILE:1: the first line is "---"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    (
        "byte order mark",
        b"\xef\xbb\xbf#cloud-config\nkvmhost: {}\n",
        1,
        [
            "FILE:1: begins with a byte order mark, behind which cloud-init does not see #cloud-config: it ignores the file; save it as UTF-8 without one"
        ],
    ),
    (
        "UTF-16 little endian",
        b"\xff\xfe#\x00c\x00l\x00o\x00u\x00d\x00-\x00c\x00o\x00n\x00f\x00i\x00g\x00\n\x00k\x00v\x00m\x00h\x00o\x00s\x00t\x00:\x00 \x00{\x00}\x00\n\x00",
        1,
        ["FILE:1: UTF-16; cloud-init reads UTF-8 only; iconv -f UTF-16 -t UTF-8 converts it"],
    ),
    (
        "UTF-16 big endian without a mark",
        b"\x00#\x00c\x00l\x00o\x00u\x00d\x00-\x00c\x00o\x00n\x00f\x00i\x00g\x00\n\x00k\x00v\x00m\x00h\x00o\x00s\x00t\x00:\x00 \x00{\x00}\x00\n",
        1,
        ["FILE:1: UTF-16; cloud-init reads UTF-8 only; iconv -f UTF-16 -t UTF-8 converts it"],
    ),
    (
        "Latin-1",
        b"#cloud-config\n# K\xf6ln\nkvmhost: {}\n",
        1,
        [
            "FILE:2: can't be read: byte 0xf6 is not UTF-8; is the file Latin-1? iconv -f LATIN1 -t UTF-8 converts it"
        ],
    ),
    (
        "gzip",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        1,
        [
            "FILE: compressed with gzip, as cloud-init takes it; to check it: zcat FILE | kvmhost validate -"
        ],
    ),
    ("a binary", b"\x7fELF\x02\x01\x01\x00\xff\xfe", 1, ["FILE: can't be read: not UTF-8 text"]),
    (
        "MIME multipart",
        'Content-Type: multipart/mixed; boundary="X"\nMIME-Version: 1.0\n\n--X\nContent-Type: text/cloud-config\n\nkvmhost: {}\n--X--\n',
        1,
        ["FILE:1: a MIME multipart message; check each cloud-config in it by itself"],
    ),
    (
        "archive",
        "#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    kvmhost: {}\n",
        1,
        [
            "FILE:1: cloud-init takes the file for an archive of several parts; check each cloud-config in it"
        ],
    ),
    (
        "include",
        "#include\nhttp://seed.example/kvmhost.yaml\n",
        1,
        [
            "FILE:1: cloud-init takes the file for a list of addresses to include; check the files they lead to"
        ],
    ),
    (
        "include-once",
        "#include-once\nhttp://seed.example/kvmhost.yaml\n",
        1,
        [
            "FILE:1: cloud-init takes the file for a list of addresses to include; check the files they lead to"
        ],
    ),
    (
        "JSON patch",
        "#cloud-config-jsonp\n[]\n",
        1,
        ["FILE:1: cloud-init takes the file for a JSON patch of cloud-config; check what it makes"],
    ),
    (
        "a script",
        "#!/bin/sh\nexit 0\n",
        1,
        ["FILE:1: cloud-init takes the file for a script, which has no kvmhost section"],
    ),
    (
        "a boothook",
        "#cloud-boothook\n#!/bin/sh\n",
        1,
        ["FILE:1: cloud-init takes the file for a boothook script, which has no kvmhost section"],
    ),
    (
        "a part handler",
        "#part-handler\nimport os\n",
        1,
        ["FILE:1: cloud-init takes the file for a part handler, which has no kvmhost section"],
    ),
    (
        "no drivers",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: []\n",
        1,
        [
            f"FILE:4: kvmhost.libvirt.drivers: an empty list is not allowed; leave the key out for the default; allowed: a list of at least 1 of {DRIVERS}"
        ],
    ),
    (
        "drivers as text",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: qemu, network\n",
        1,
        [
            f'FILE:4: kvmhost.libvirt.drivers: "qemu, network" is not allowed (write it as a list: [qemu, network]); allowed: a list of at least 1 of {DRIVERS}'
        ],
    ),
    (
        "one driver as text",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: qemu\n",
        1,
        [
            f'FILE:4: kvmhost.libvirt.drivers: "qemu" is not allowed (write it as a list: [qemu]); allowed: a list of at least 1 of {DRIVERS}'
        ],
    ),
    (
        "drivers as a mapping",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: {qemu: true}\n",
        1,
        [
            f"FILE:4: kvmhost.libvirt.drivers: a mapping is not allowed; allowed: a list of at least 1 of {DRIVERS}"
        ],
    ),
    (
        "three wrong drivers",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: [xen, quemu, lxc]\n",
        1,
        [
            f'FILE:4: kvmhost.libvirt.drivers[0]: "xen" is not allowed; allowed: {DRIVERS}',
            "FILE:4: kvmhost.libvirt.drivers[1]: \"quemu\" is not allowed (did you mean 'qemu'?); allowed: as above",
            'FILE:4: kvmhost.libvirt.drivers[2]: "lxc" is not allowed; allowed: as above',
        ],
    ),
    (
        "a driver twice",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: [qemu, network, qemu]\n",
        1,
        [
            'FILE:4: kvmhost.libvirt.drivers[2]: "qemu" stands in the list already, at kvmhost.libvirt.drivers[0]; allowed: each only once'
        ],
    ),
    (
        "the same unit twice",
        "#cloud-config\nkvmhost:\n  units:\n    - cockpit.socket\n    - podman.socket\n    - cockpit.socket\n",
        1,
        [
            'FILE:6: kvmhost.units[2]: "cockpit.socket" stands in the list already, at kvmhost.units[0]; allowed: each only once'
        ],
    ),
    (
        "units as text",
        "#cloud-config\nkvmhost:\n  units: cockpit.socket\n",
        1,
        [
            'FILE:3: kvmhost.units: "cockpit.socket" is not allowed (write it as a list: [cockpit.socket]); allowed: a list'
        ],
    ),
    (
        "units without suffix",
        "#cloud-config\nkvmhost:\n  units: [cockpit, podman]\n",
        1,
        [
            f'FILE:3: kvmhost.units[0]: "cockpit" is not allowed; allowed: {UNIT}',
            'FILE:3: kvmhost.units[1]: "podman" is not allowed; allowed: as above',
        ],
    ),
    (
        "a template unit",
        "#cloud-config\nkvmhost:\n  units: [foo@.service]\n",
        1,
        [
            f'FILE:3: kvmhost.units[0]: "foo@.service" is not allowed (a template; name an instance: foo@NAME.service); allowed: {UNIT}'
        ],
    ),
    (
        "a unit with a path",
        "#cloud-config\nkvmhost:\n  units: [/etc/systemd/system/foo.service]\n",
        1,
        [
            f'FILE:3: kvmhost.units[0]: "/etc/systemd/system/foo.service" is not allowed; allowed: {UNIT}'
        ],
    ),
    (
        "a null in units",
        "#cloud-config\nkvmhost:\n  units:\n    - \n",
        1,
        [f"FILE:4: kvmhost.units[0]: null is not allowed; allowed: {UNIT}"],
    ),
    (
        "a null for units",
        "#cloud-config\nkvmhost:\n  units:\n",
        1,
        [
            "FILE:3: kvmhost.units: null is not allowed (leave the key out for the default); allowed: a list"
        ],
    ),
    (
        "no space in a mapping",
        "#cloud-config\nkvmhost:\n  timeout:120\n",
        1,
        [
            "FILE:2: kvmhost: \"timeout:120\" is not allowed (a space is missing after 'timeout:'); allowed: a mapping or null"
        ],
    ),
    (
        "no space, then more keys",
        "#cloud-config\nkvmhost:\n  timeout:120\n  libvirt: {}\n",
        1,
        ["FILE:3: not YAML: a space is missing after 'timeout:'"],
    ),
    (
        "no space, after other keys",
        "#cloud-config\nkvmhost:\n  libvirt: {}\n  timeout:120\n",
        1,
        ["FILE:4: not YAML: a space is missing after 'timeout:'"],
    ),
    (
        "no space under libvirt",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode:modular\n",
        1,
        [
            "FILE:3: kvmhost.libvirt: \"mode:modular\" is not allowed (a space is missing after 'mode:'); allowed: a mapping or null"
        ],
    ),
    (
        "no space in flow style",
        "#cloud-config\nkvmhost: {timeout:120}\n",
        1,
        [
            f"FILE:2: kvmhost[\"timeout:120\"]: unknown key; a space is missing after 'timeout:'. {KNOWN}"
        ],
    ),
    (
        "an unclosed bracket",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: [qemu, network\n  timeout: 5\n",
        1,
        ["FILE:4: not YAML: the '[' is not closed"],
    ),
    (
        "an unclosed bracket at the end",
        "#cloud-config\nkvmhost: [\n",
        1,
        ["FILE:2: not YAML: the '[' is not closed"],
    ),
    (
        "an unclosed brace",
        "#cloud-config\nkvmhost: {timeout: 5\nhostname: a\n",
        1,
        ["FILE:2: not YAML: the '{' is not closed"],
    ),
    (
        "an unclosed quote",
        '#cloud-config\nkvmhost:\n  tuned:\n    profile: "virtual-host\n  timeout: 5\n',
        1,
        ['FILE:4: not YAML: the " is not closed'],
    ),
    (
        "a closing bracket too many",
        "#cloud-config\nkvmhost:\n  units: [a.socket]]\n",
        1,
        ["FILE:3: not YAML: the ']' closes nothing"],
    ),
    (
        "typographic quotes",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: \u201cmodular\u201d\n",
        1,
        [
            'FILE:4: kvmhost.libvirt.mode: "\u201cmodular\u201d" is not allowed (typographic quotes are no quotes in YAML: write " or \'); allowed: auto, modular, monolithic'
        ],
    ),
    (
        "typographic quotes around a unit",
        "#cloud-config\nkvmhost:\n  units: [\u2018cockpit.socket\u2019]\n",
        1,
        [
            f'FILE:3: kvmhost.units[0]: "\u2018cockpit.socket\u2019" is not allowed (typographic quotes are no quotes in YAML: write " or \'); allowed: {UNIT}'
        ],
    ),
    (
        "a number in quotes",
        '#cloud-config\nkvmhost:\n  timeout: "120"\n',
        1,
        [
            'FILE:3: kvmhost.timeout: "120" is not allowed (write it without quotes); allowed: a whole number from 1 to 3600'
        ],
    ),
    (
        "a number with a unit",
        "#cloud-config\nkvmhost:\n  timeout: 120s\n",
        1,
        [
            'FILE:3: kvmhost.timeout: "120s" is not allowed (write 120: it counts seconds); allowed: a whole number from 1 to 3600'
        ],
    ),
    (
        "a number with a comma",
        "#cloud-config\nkvmhost:\n  timeout: 1,000\n",
        1,
        ['FILE:3: kvmhost.timeout: "1,000" is not allowed; allowed: a whole number from 1 to 3600'],
    ),
    (
        "a fraction",
        "#cloud-config\nkvmhost:\n  timeout: 1.5\n",
        1,
        ["FILE:3: kvmhost.timeout: 1.5 is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "true in quotes",
        '#cloud-config\nkvmhost:\n  libvirt:\n    tls: "true"\n',
        1,
        [
            'FILE:4: kvmhost.libvirt.tls: "true" is not allowed (write it without quotes); allowed: true or false'
        ],
    ),
    (
        "yes in quotes",
        '#cloud-config\nkvmhost:\n  libvirt:\n    tls: "yes"\n',
        1,
        ['FILE:4: kvmhost.libvirt.tls: "yes" is not allowed (write true); allowed: true or false'],
    ),
    (
        "a number for a truth",
        "#cloud-config\nkvmhost:\n  libvirt:\n    autostart: 1\n",
        1,
        ["FILE:4: kvmhost.libvirt.autostart: 1 is not allowed; allowed: true or false"],
    ),
    (
        "a misspelt mode",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: modlar\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.mode: \"modlar\" is not allowed (did you mean 'modular'?); allowed: auto, modular, monolithic"
        ],
    ),
    (
        "a mode in capitals",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: Modular\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.mode: \"Modular\" is not allowed (did you mean 'modular'?); allowed: auto, modular, monolithic"
        ],
    ),
    (
        "off for the mode",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: off\n",
        1,
        ["FILE:4: kvmhost.libvirt.mode: false is not allowed; allowed: auto, modular, monolithic"],
    ),
    (
        "false for tuned",
        "#cloud-config\nkvmhost:\n  tuned: false\n",
        1,
        [
            "FILE:3: kvmhost.tuned: false is not allowed (write {enabled: false}); allowed: a mapping or null"
        ],
    ),
    (
        "true for the section",
        "#cloud-config\nkvmhost: true\n",
        1,
        [
            "FILE:2: kvmhost: true is not allowed (write {} for all defaults); allowed: a mapping or null"
        ],
    ),
    (
        "a list for the section",
        "#cloud-config\nkvmhost: []\n",
        1,
        ["FILE:2: kvmhost: an empty list is not allowed; allowed: a mapping or null"],
    ),
    (
        "a list of keys for the section",
        "#cloud-config\nkvmhost:\n  - timeout: 5\n",
        1,
        ["FILE:2: kvmhost: a list is not allowed; allowed: a mapping or null"],
    ),
    (
        "the mode for libvirt",
        "#cloud-config\nkvmhost:\n  libvirt: modular\n",
        1,
        [
            'FILE:3: kvmhost.libvirt: "modular" is not allowed (write {mode: modular}); allowed: a mapping or null'
        ],
    ),
    (
        "a profile with a path",
        "#cloud-config\nkvmhost:\n  tuned: {profile: ../etc}\n",
        1,
        [
            'FILE:3: kvmhost.tuned.profile: "../etc" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "a tab",
        "#cloud-config\nkvmhost:\n\ttimeout: 5\n",
        1,
        ["FILE:3: not YAML: a tab, where YAML allows spaces only"],
    ),
    (
        "a tab behind a colon",
        "#cloud-config\nkvmhost:\n  timeout:\t5\n",
        1,
        ["FILE:3: not YAML: a tab, where YAML allows spaces only"],
    ),
    (
        "uneven indentation",
        "#cloud-config\nkvmhost:\n  timeout: 5\n   units: []\n",
        1,
        ["FILE:4: not YAML: indented deeper than the line above allows"],
    ),
    (
        "less indentation",
        "#cloud-config\nkvmhost:\n  libvirt:\n    tls: true\n   timeout: 5\n",
        1,
        ["FILE:5: not YAML: not indented as the lines above"],
    ),
    (
        "a control character",
        "#cloud-config\nkvmhost: \x07\n",
        1,
        ["FILE:2: not YAML: the character U+0007 is not allowed"],
    ),
    (
        "an alias to nothing",
        "#cloud-config\nkvmhost: *base\n",
        1,
        ["FILE:2: not YAML: found undefined alias 'base'"],
    ),
    (
        "an object of Python",
        "#cloud-config\nkvmhost: !!python/object:os.system {}\n",
        1,
        [
            "FILE:2: not YAML: a tag or '=' that cloud-init does not know; a text of that kind needs quotes"
        ],
    ),
    (
        "an impossible date",
        "#cloud-config\nkvmhost: 2026-99-99\n",
        1,
        [
            'FILE:2: not YAML: "2026-99-99" can\'t be read as a date; if it is a text, write it in quotes'
        ],
    ),
    (
        "a mapping as a key",
        "#cloud-config\n{}: 1\n",
        1,
        ["FILE:2: not YAML: a mapping or a list in the place of a key"],
    ),
    (
        "two documents",
        "#cloud-config\n---\na: 1\n---\nkvmhost: {}\n",
        1,
        ["FILE:4: not YAML: a second document begins here; cloud-init reads one only"],
    ),
    (
        "a list as the document",
        "#cloud-config\n- kvmhost: {}\n",
        1,
        ["FILE:2: holds a list, not a mapping with a kvmhost key"],
    ),
    (
        "a word as the document",
        "#cloud-config\nkvmhost\n",
        1,
        ['FILE:2: holds "kvmhost", not a mapping with a kvmhost key'],
    ),
    (
        "a number as the document",
        "#cloud-config\n7\n",
        1,
        ["FILE:2: holds 7, not a mapping with a kvmhost key"],
    ),
    (
        "Ansible's booleans in capitals",
        "#cloud-config\nkvmhost:\n  libvirt:\n    tls: TRUE\n",
        0,
        ["FILE: kvmhost section valid: mode by release, TLS, tuned virtual-host"],
    ),
    (
        "several errors, by line",
        "#cloud-config\nkvmhost:\n  units: [a]\n  timeout: 0\n  libvirt:\n    mode: x\n  typo: 1\n",
        1,
        [
            f'FILE:3: kvmhost.units[0]: "a" is not allowed; allowed: {UNIT}',
            "FILE:4: kvmhost.timeout: 0 is not allowed; allowed: a whole number from 1 to 3600",
            'FILE:6: kvmhost.libvirt.mode: "x" is not allowed; allowed: auto, modular, monolithic',
            f"FILE:7: kvmhost.typo: unknown key; {KNOWN}",
        ],
    ),
    (
        "errors of the file and the section",
        "#cloud-config\npackges: []\nkvmhost:\n  timeout: 0\n  timeout: 1\n",
        1,
        [
            "FILE:2: unknown key 'packges'; did you mean 'packages'?",
            f"FILE:5: kvmhost.timeout: {AGAIN} 4, and YAML keeps the last",
        ],
    ),
]
INPUTS += ODD


@pytest.fixture
def no_cloud_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that only writes user-data."""
    monkeypatch.setitem(sys.modules, "cloudinit", None)


def content(text: Any) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8")


@pytest.mark.usefixtures("no_cloud_init")
class TestInputs:
    @pytest.mark.parametrize("what, text, code, lines", INPUTS, ids=[row[0] for row in INPUTS])
    def test_validate(
        self,
        what: str,
        text: Any,
        code: int,
        lines: List[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Any,
    ) -> None:
        monkeypatch.chdir(str(tmp_path))
        Path("FILE").write_bytes(content(text))
        assert cli.main(["validate", "FILE"]) == code
        captured = capsys.readouterr()
        if code:
            count = "{} error{} in 1 of 1 file".format(len(lines), "s" * (len(lines) > 1))
            assert captured.err.splitlines() == ["error: " + line for line in lines] + [count]
            assert captured.out == ""
        else:
            assert (captured.out.splitlines(), captured.err) == (lines, "")

    @pytest.mark.parametrize(
        "text, code, lines",
        [row[1:] for row in INPUTS if row[2]],
        ids=[row[0] for row in INPUTS if row[2]],
    )
    def test_plan_names_the_same_file_and_line(
        self,
        text: Any,
        code: int,
        lines: List[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Any,
    ) -> None:
        monkeypatch.chdir(str(tmp_path))
        Path("FILE").write_bytes(content(text))
        assert cli.main(["plan", "FILE", "--root", "."]) == code
        said = capsys.readouterr().err.splitlines()
        assert said == ["error: " + line for line in lines]

    def test_there_are_many(self) -> None:
        assert len({row[0] for row in INPUTS}) == len(INPUTS) > 250

    @pytest.mark.parametrize("opened, closed", ["[]", "{}"])
    def test_nested_too_deeply(self, opened: str, closed: str, tmp_path: Path, capsys: Any) -> None:
        """By Python's own limit, as in cloud-init."""
        name = str(tmp_path / "user-data")
        inner = opened + "a: " * (opened == "{")
        for end in (closed * 5000, ""):
            Path(name).write_text(f"#cloud-config\nkvmhost: {{}}\na: {inner * 5000}{end}\n")
            assert cli.main(["validate", name]) == 1
            assert capsys.readouterr().err.startswith(
                f"error: {name}: nested too deeply to be read"
            )

    def test_a_number_that_python_does_not_read(self, tmp_path: Path, capsys: Any) -> None:
        """Newer ones take 4300 digits at most."""
        name = str(tmp_path / "user-data")
        Path(name).write_text("#cloud-config\nkvmhost:\n  timeout: " + "9" * 5000)
        assert cli.main(["validate", name]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: {name}:3: ") and "whole number" in said
        assert "sys.set_int" not in said

    def test_large_files(self, tmp_path: Path, capsys: Any) -> None:
        """More than any metadata service hands out. PyYAML takes some seconds for 10 MB."""
        name = str(tmp_path / "user-data")
        units = "".join(f"    - unit{number}.service\n" for number in range(2000))
        content = "x" * 1000000
        Path(name).write_text(
            f"#cloud-config\nwrite_files: [{{content: {content}}}]\nkvmhost:\n  units:\n{units}"
        )
        assert cli.main(["validate", name]) == 0
        said = capsys.readouterr().out
        assert "units unit0.service" in said and said.endswith("and 1992 more\n")

    def test_an_alias_bomb(self, tmp_path: Path, capsys: Any) -> None:
        name = str(tmp_path / "user-data")
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        for number in range(1, 12):
            lines.append("a{0}: &a{0} [{1}]".format(number, ", ".join([f"*a{number - 1}"] * 9)))
        Path(name).write_text("\n".join(["#cloud-config", *lines, "kvmhost: {units: *a11}\n"]))
        assert cli.main(["validate", name]) == 1
        assert "through aliases" in capsys.readouterr().err

    def test_files_named_twice(self, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        text = b"#cloud-config\nkvmhost: {}\n"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert cli.main(["validate", "-", "-"]) == 0
        assert capsys.readouterr().out.startswith("<stdin>: kvmhost section valid")

    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        text = b"#cloud-config\nkvmhost:\n  timeout: 0\n"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert cli.main(["validate", "-"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: <stdin>:3: kvmhost.timeout: 0 is not allowed")

    def test_what_no_terminal_can_show(self, tmp_path: Path) -> None:
        """ASCII only, and a name that is no text: escaped, not a traceback."""
        name = os.path.join(os.fsencode(str(tmp_path)), b"caf\xe9")
        text = "#cloud-config\nkvmhost: {tuned: {profile: k\u00e9}}\n"
        with open(name, "wb") as stream:
            stream.write(text.encode())
        path = os.pathsep.join(filter(None, sys.path))
        script = "import sys; from cc_kvmhost.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable.encode(), b"-c", script.encode(), b"validate", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=path, PYTHONIOENCODING="ascii"),
        )
        assert done.returncode == 1
        assert b"k\\xe9" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.once
class TestAsCloudInit:
    """What cloud-init itself makes of the same bytes."""

    PROGRAM = """
import sys
from cloudinit import handlers
print(handlers.type_from_starts_with(sys.stdin.buffer.read()))
"""

    @staticmethod
    def run(version: str, *command: str, **more: Any) -> Any:
        environment = cloud_init._environment(cloud_init.package(version), "4.19.2")
        environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[2])
        return subprocess.run(
            [*cloud_init.PYTHON, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )

    @pytest.mark.parametrize("version", ["22.4", "26.2"])
    @pytest.mark.parametrize(
        "what",
        [
            "blank line before",
            "header in other case",
            "text after the header",
            "text glued to the header",
            "byte order mark",
            "no header",
            "header with a space",
            "a comment before the header",
            "UTF-16 little endian",
            "Latin-1",
            "archive",
            "include-once",
            "a script",
            "jinja template",
        ],
    )
    def test_takes_a_file_for_the_same(self, what: str, version: str) -> None:
        ((_, text, code, lines),) = [row for row in INPUTS if row[0] == what]
        said = self.run(version, "-c", self.PROGRAM, input=content(text)).stdout.decode().strip()
        if what == "jinja template":
            assert said == "text/jinja2"
        else:
            assert (said == "text/cloud-config") == (code == 0), lines

    @pytest.mark.parametrize("version", ["22.4", "25.1", "26.2"])
    def test_a_template_is_rendered_by_it(self, version: str, tmp_path: Path) -> None:
        text = (
            "## template: jinja\n#cloud-config\n{% if 1 %}\nkvmhost:\n  timeout: 0\n{% endif %}\n"
        )
        (tmp_path / "user-data").write_text(text)
        script = "import sys; from cc_kvmhost.cli import main; sys.exit(main())"
        name = str(tmp_path / "user-data")
        done = self.run(version, "-c", script, "validate", name)
        assert done.returncode == 1
        assert b"kvmhost.timeout: 0 is not allowed" in done.stderr, done.stderr

    @pytest.mark.parametrize("version", ["22.4", "25.1", "26.2"])
    def test_all_of_its_keys_are_known(self, version: str) -> None:
        import json

        schema = json.loads((cloud_init.package(version) / cloud_init.SCHEMA).read_text())
        keys = set(schema.get("properties", {}))
        for reference in schema["allOf"]:
            rule = schema["$defs"][reference["$ref"].split("/")[-1]]
            keys.update(rule.get("properties", {}))
        assert len(keys) > 80 and keys <= user_data.KEYS
        assert problems.KEY not in user_data.KEYS
