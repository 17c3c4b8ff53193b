"""More of what users hand in, as test_input.INPUTS: what it is, the file, the exit code, the lines."""

from typing import Any, List, Tuple

ODD: List[Tuple[str, Any, int, List[str]]] = [
    (
        "comments without the header",
        "# a\n# b\n",
        1,
        [
            'FILE:1: the first line is "# a"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    (
        "doc then ... then doc",
        "#cloud-config\nkvmhost: {}\n...\n---\na: 1\n",
        1,
        ["FILE:4: not YAML: a second document begins here; cloud-init reads one only"],
    ),
    (
        "two docs, second empty",
        "#cloud-config\nkvmhost: {}\n---\n",
        1,
        ["FILE:3: not YAML: a second document begins here; cloud-init reads one only"],
    ),
    (
        "two docs second comment only",
        "#cloud-config\nkvmhost: {}\n---\n# nothing\n",
        1,
        ["FILE:3: not YAML: a second document begins here; cloud-init reads one only"],
    ),
    (
        "anchor only",
        "#cloud-config\nkvmhost: &a {}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "anchor dup list",
        "#cloud-config\nx: &a [qemu]\nkvmhost:\n  libvirt: {drivers: *a}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, drivers qemu, tuned virtual-host"],
    ),
    (
        "self ref",
        "#cloud-config\nkvmhost: &a\n  libvirt: *a\n",
        1,
        ["FILE:2: kvmhost: holds more than 10000 values, or itself, through aliases"],
    ),
    (
        "self ref 2",
        "#cloud-config\nkvmhost: &a\n  units: [*a]\n",
        1,
        ["FILE:2: kvmhost: holds more than 10000 values, or itself, through aliases"],
    ),
    (
        "huge int 30",
        "#cloud-config\nkvmhost: {timeout: 999999999999999999999999999999}\n",
        1,
        ["FILE:2: kvmhost.timeout: a whole number beyond any that is allowed"],
    ),
    (
        "3601",
        "#cloud-config\nkvmhost: {timeout: 3601}\n",
        1,
        ["FILE:2: kvmhost.timeout: 3601 is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "octal 0120",
        "#cloud-config\nkvmhost: {timeout: 0120}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 80 s"],
    ),
    (
        "octal 010",
        "#cloud-config\nkvmhost: {timeout: 010}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 8 s"],
    ),
    (
        "octal 0o10",
        "#cloud-config\nkvmhost: {timeout: 0o10}\n",
        1,
        ['FILE:2: kvmhost.timeout: "0o10" is not allowed; allowed: a whole number from 1 to 3600'],
    ),
    (
        "hex",
        "#cloud-config\nkvmhost: {timeout: 0x78}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "binary",
        "#cloud-config\nkvmhost: {timeout: 0b101}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 5 s"],
    ),
    (
        "underscore",
        "#cloud-config\nkvmhost: {timeout: 1_20}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "sexagesimal",
        "#cloud-config\nkvmhost: {timeout: 2:00}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "exp 1e2",
        "#cloud-config\nkvmhost: {timeout: 1e2}\n",
        1,
        ['FILE:2: kvmhost.timeout: "1e2" is not allowed; allowed: a whole number from 1 to 3600'],
    ),
    (
        "1.2e+2",
        "#cloud-config\nkvmhost: {timeout: 1.2e+2}\n",
        1,
        [
            "FILE:2: kvmhost.timeout: 120.0 is not allowed (write 120); allowed: a whole number from 1 to 3600"
        ],
    ),
    (
        "120.0",
        "#cloud-config\nkvmhost: {timeout: 120.0}\n",
        1,
        [
            "FILE:2: kvmhost.timeout: 120.0 is not allowed (write 120); allowed: a whole number from 1 to 3600"
        ],
    ),
    (
        "inf",
        "#cloud-config\nkvmhost: {timeout: .inf}\n",
        1,
        [
            "FILE:2: kvmhost.timeout: Infinity is not allowed; allowed: a whole number from 1 to 3600"
        ],
    ),
    (
        "nan",
        "#cloud-config\nkvmhost: {timeout: .nan}\n",
        1,
        ["FILE:2: kvmhost.timeout: NaN is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "bool timeout",
        "#cloud-config\nkvmhost: {timeout: true}\n",
        1,
        ["FILE:2: kvmhost.timeout: true is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "null timeout",
        "#cloud-config\nkvmhost:\n  timeout:\n",
        1,
        [
            "FILE:3: kvmhost.timeout: null is not allowed (leave the key out for the default); allowed: a whole number from 1 to 3600"
        ],
    ),
    (
        "date",
        "#cloud-config\nkvmhost: {timeout: 2026-01-01}\n",
        1,
        [
            'FILE:2: kvmhost.timeout: "2026-01-01" is not allowed; allowed: a whole number from 1 to 3600'
        ],
    ),
    (
        "date profile",
        "#cloud-config\nkvmhost: {tuned: {profile: 2026-01-01}}\n",
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "2026-01-01" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "datetime profile",
        "#cloud-config\nkvmhost: {tuned: {profile: 2026-01-01 10:00:00}}\n",
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "2026-01-01 10:00:00" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "profile int",
        "#cloud-config\nkvmhost: {tuned: {profile: 5}}\n",
        1,
        [
            "FILE:2: kvmhost.tuned.profile: 5 is not allowed; allowed: a tuned profile's name, such as virtual-host, or null"
        ],
    ),
    (
        "profile list",
        "#cloud-config\nkvmhost: {tuned: {profile: [virtual-host]}}\n",
        1,
        [
            "FILE:2: kvmhost.tuned.profile: a list is not allowed; allowed: a tuned profile's name, such as virtual-host, or null"
        ],
    ),
    (
        "profile empty",
        "#cloud-config\nkvmhost: {tuned: {profile: ''}}\n",
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "profile two",
        "#cloud-config\nkvmhost: {tuned: {profile: virtual-host powersave}}\n",
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "virtual-host powersave" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "tuned: off",
        "#cloud-config\nkvmhost: {tuned: off}\n",
        1,
        [
            "FILE:2: kvmhost.tuned: false is not allowed (write {enabled: false}); allowed: a mapping or null"
        ],
    ),
    (
        "tuned: virtual-host",
        "#cloud-config\nkvmhost: {tuned: virtual-host}\n",
        1,
        [
            'FILE:2: kvmhost.tuned: "virtual-host" is not allowed (write {profile: virtual-host}); allowed: a mapping or null'
        ],
    ),
    (
        "enabled: 'no'",
        "#cloud-config\nkvmhost: {tuned: {enabled: 'no'}}\n",
        1,
        [
            'FILE:2: kvmhost.tuned.enabled: "no" is not allowed (write false); allowed: true or false'
        ],
    ),
    (
        "enabled: n",
        "#cloud-config\nkvmhost: {tuned: {enabled: n}}\n",
        1,
        ['FILE:2: kvmhost.tuned.enabled: "n" is not allowed; allowed: true or false'],
    ),
    (
        "enabled: disabled",
        "#cloud-config\nkvmhost: {tuned: {enabled: disabled}}\n",
        1,
        ['FILE:2: kvmhost.tuned.enabled: "disabled" is not allowed; allowed: true or false'],
    ),
    (
        "mode: on",
        "#cloud-config\nkvmhost: {libvirt: {mode: on}}\n",
        1,
        ["FILE:2: kvmhost.libvirt.mode: true is not allowed; allowed: auto, modular, monolithic"],
    ),
    (
        "mode: null",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode:\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.mode: null is not allowed (leave the key out for the default); allowed: auto, modular, monolithic"
        ],
    ),
    (
        "mode: [modular]",
        "#cloud-config\nkvmhost: {libvirt: {mode: [modular]}}\n",
        1,
        ["FILE:2: kvmhost.libvirt.mode: a list is not allowed; allowed: auto, modular, monolithic"],
    ),
    (
        "mode multiline",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: |\n      modular\n",
        1,
        [
            'FILE:4: kvmhost.libvirt.mode: "modular\\n" is not allowed (write modular, without white space around it); allowed: auto, modular, monolithic'
        ],
    ),
    (
        "mode trailing space quoted",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: 'modular '\n",
        1,
        [
            'FILE:4: kvmhost.libvirt.mode: "modular " is not allowed (write modular, without white space around it); allowed: auto, modular, monolithic'
        ],
    ),
    (
        "mode libvirtd",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: libvirtd\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.mode: \"libvirtd\" is not allowed (did you mean 'monolithic'?); allowed: auto, modular, monolithic"
        ],
    ),
    (
        "mode legacy",
        "#cloud-config\nkvmhost:\n  libvirt:\n    mode: legacy\n",
        1,
        [
            'FILE:4: kvmhost.libvirt.mode: "legacy" is not allowed; allowed: auto, modular, monolithic'
        ],
    ),
    (
        "kvm: true",
        "#cloud-config\nkvmhost: {kvm: true}\n",
        1,
        ["FILE:2: kvmhost.kvm: true is not allowed; allowed: require, warn, ignore"],
    ),
    (
        "kvm required",
        "#cloud-config\nkvmhost: {kvm: required}\n",
        1,
        [
            "FILE:2: kvmhost.kvm: \"required\" is not allowed (did you mean 'require'?); allowed: require, warn, ignore"
        ],
    ),
    (
        "check: false",
        "#cloud-config\nkvmhost: {check: false}\n",
        1,
        ["FILE:2: kvmhost.check: false is not allowed; allowed: guest, daemons, sockets"],
    ),
    (
        "check null",
        "#cloud-config\nkvmhost:\n  check:\n",
        1,
        [
            "FILE:3: kvmhost.check: null is not allowed (leave the key out for the default); allowed: guest, daemons, sockets"
        ],
    ),
    (
        "non-string key 1",
        "#cloud-config\nkvmhost: {1: a}\n",
        1,
        ["FILE:2: kvmhost[1]: unknown key; Known here: check, kvm, libvirt, timeout, tuned, units"],
    ),
    (
        "non-string key true",
        "#cloud-config\nkvmhost: {true: a}\n",
        1,
        [
            "FILE:2: kvmhost[true]: unknown key; Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "non-string key on",
        "#cloud-config\nkvmhost: {on: a}\n",
        1,
        [
            "FILE:2: kvmhost[true]: unknown key; Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "null key",
        "#cloud-config\nkvmhost: {null: a}\n",
        1,
        [
            "FILE:2: kvmhost[null]: unknown key; Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "null key short",
        "#cloud-config\nkvmhost:\n  : a\n",
        1,
        ["FILE:3: not YAML: a key is missing before the ':'"],
    ),
    (
        "int and str keys",
        "#cloud-config\nkvmhost: {1: a, '1': b}\n",
        1,
        [
            "FILE:2: kvmhost[1]: unknown key; Known here: check, kvm, libvirt, timeout, tuned, units",
            "FILE:2: kvmhost.1: unknown key; Known here: check, kvm, libvirt, timeout, tuned, units",
        ],
    ),
    (
        "tuple key",
        "#cloud-config\nkvmhost:\n  ? [a, b]\n  : c\n",
        1,
        ["FILE:3: not YAML: a mapping or a list in the place of a key"],
    ),
    (
        "mapping key",
        "#cloud-config\nkvmhost:\n  ? {a: b}\n  : c\n",
        1,
        ["FILE:3: not YAML: a mapping or a list in the place of a key"],
    ),
    (
        "top int key",
        "#cloud-config\n1: a\nkvmhost: {}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "top null key",
        "#cloud-config\n~: a\nkvmhost: {}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "date key",
        "#cloud-config\nkvmhost: {2026-01-01: 1}\n",
        1,
        [
            'FILE:2: kvmhost["2026-01-01"]: unknown key; Known here: check, kvm, libvirt, timeout, tuned, units'
        ],
    ),
    (
        "string doc",
        "#cloud-config\nhello world\n",
        1,
        ['FILE:2: holds "hello world", not a mapping with a kvmhost key'],
    ),
    (
        "kvmhost yes",
        "#cloud-config\nkvmhost: yes\n",
        1,
        [
            "FILE:2: kvmhost: true is not allowed (write {} for all defaults); allowed: a mapping or null"
        ],
    ),
    (
        "kvmhost enabled",
        "#cloud-config\nkvmhost: enabled\n",
        1,
        [
            'FILE:2: kvmhost: "enabled" is not allowed (write {} for all defaults); allowed: a mapping or null'
        ],
    ),
    (
        "kvmhost ''",
        "#cloud-config\nkvmhost: ''\n",
        1,
        [
            'FILE:2: kvmhost: "" is not allowed (write {} for all defaults); allowed: a mapping or null'
        ],
    ),
    (
        "kvmhost 1",
        "#cloud-config\nkvmhost: 1\n",
        1,
        ["FILE:2: kvmhost: 1 is not allowed; allowed: a mapping or null"],
    ),
    (
        "kvmhost {enabled: true}",
        "#cloud-config\nkvmhost: {enabled: true}\n",
        1,
        [
            "FILE:2: kvmhost.enabled: unknown key; it belongs under kvmhost.tuned. Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "NUL in middle",
        b"#cloud-config\nkvmhost: {}\x00\n",
        1,
        ["FILE:2: not YAML: the character U+0000 is not allowed"],
    ),
    (
        "NUL at start",
        b"\x00#cloud-config\nkvmhost: {}\n",
        1,
        [
            'FILE:1: the first line is "\\u0000#cloud-config"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    (
        "DEL char",
        "#cloud-config\nkvmhost: {}\x7f\n",
        1,
        ["FILE:2: not YAML: the character U+007F is not allowed"],
    ),
    (
        "ESC char in value",
        '#cloud-config\nkvmhost: {tuned: {profile: "a\\e[31mb"}}\n',
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "a\\u001b[31mb" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "bidi",
        '#cloud-config\nkvmhost: {tuned: {profile: "a\\u202eb"}}\n',
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "a\\u202eb" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "newline in value",
        '#cloud-config\nkvmhost: {tuned: {profile: "virtual-host\\n"}}\n',
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "virtual-host\\n" is not allowed (write virtual-host, without white space around it); allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "emoji",
        "#cloud-config\nkvmhost: {tuned: {profile: \U0001f600}}\n",
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "\U0001f600" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "surrogate escape",
        '#cloud-config\nkvmhost: {tuned: {profile: "\\ud800"}}\n',
        1,
        [
            'FILE:2: kvmhost.tuned.profile: "\\ud800" is not allowed; allowed: a tuned profile\'s name, such as virtual-host, or null'
        ],
    ),
    (
        "CRLF tabs",
        "#cloud-config\r\nkvmhost:\r\n\tlibvirt: {}\r\n",
        1,
        ["FILE:3: not YAML: a tab, where YAML allows spaces only"],
    ),
    (
        "CRLF with error",
        "#cloud-config\r\nkvmhost:\r\n  timeout: 0\r\n",
        1,
        ["FILE:3: kvmhost.timeout: 0 is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "mac line ends error",
        "#cloud-config\rkvmhost:\r  timeout: 0\r",
        1,
        ["FILE:3: kvmhost.timeout: 0 is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "deep nesting 200",
        "#cloud-config\nkvmhost: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
        1,
        ["FILE:2: kvmhost: a list is not allowed; allowed: a mapping or null"],
    ),
    (
        "merge key list",
        "#cloud-config\na: &a {timeout: 5}\nb: &b {units: []}\nkvmhost:\n  <<: [*a, *b]\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 5 s"],
    ),
    (
        "merge with wrong",
        "#cloud-config\na: &a {timeout: 0}\nkvmhost:\n  <<: *a\n",
        1,
        ["FILE:3: kvmhost.timeout: 0 is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "merge non map",
        "#cloud-config\na: &a 5\nkvmhost:\n  <<: *a\n",
        1,
        ["FILE:2: not YAML: expected a mapping or list of mappings for merging, but found scalar"],
    ),
    (
        "merge overridden",
        "#cloud-config\na: &a {timeout: 5}\nkvmhost:\n  <<: *a\n  timeout: 6\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 6 s"],
    ),
    (
        "merge in libvirt",
        "#cloud-config\na: &a {mode: modlar}\nkvmhost:\n  libvirt:\n    <<: *a\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.mode: \"modlar\" is not allowed (did you mean 'modular'?); allowed: auto, modular, monolithic"
        ],
    ),
    (
        "units string",
        "#cloud-config\nkvmhost: {units: 'a.service b.service'}\n",
        1,
        [
            'FILE:2: kvmhost.units: "a.service b.service" is not allowed (write it as a list: [a.service, b.service]); allowed: a list'
        ],
    ),
    (
        "units map",
        "#cloud-config\nkvmhost: {units: {cockpit.socket: true}}\n",
        1,
        ["FILE:2: kvmhost.units: a mapping is not allowed; allowed: a list"],
    ),
    (
        "units list of maps",
        "#cloud-config\nkvmhost:\n  units:\n    - cockpit.socket: enabled\n",
        1,
        [
            "FILE:4: kvmhost.units[0]: a mapping is not allowed; allowed: a unit's full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters"
        ],
    ),
    (
        "units colon",
        "#cloud-config\nkvmhost:\n  units:\n    - name: cockpit.socket\n",
        1,
        [
            "FILE:4: kvmhost.units[0]: a mapping is not allowed; allowed: a unit's full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters"
        ],
    ),
    (
        "units number",
        "#cloud-config\nkvmhost: {units: [1]}\n",
        1,
        [
            "FILE:2: kvmhost.units[0]: 1 is not allowed; allowed: a unit's full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters"
        ],
    ),
    (
        "units nested list",
        "#cloud-config\nkvmhost: {units: [[a.socket]]}\n",
        1,
        [
            "FILE:2: kvmhost.units[0]: a list is not allowed; allowed: a unit's full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters"
        ],
    ),
    (
        "units no dash space",
        "#cloud-config\nkvmhost:\n  units:\n    -cockpit.socket\n",
        1,
        [
            "FILE:3: kvmhost.units: \"-cockpit.socket\" is not allowed (a space is missing after '-'); allowed: a list"
        ],
    ),
    (
        "units no dash space2",
        "#cloud-config\nkvmhost:\n  units:\n    -cockpit.socket\n    -podman.socket\n",
        1,
        [
            "FILE:3: kvmhost.units: \"-cockpit.socket -podman.socket\" is not allowed (a space is missing after '-'); allowed: a list"
        ],
    ),
    (
        "units trailing comma",
        "#cloud-config\nkvmhost: {units: [a.socket,]}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, units a.socket"],
    ),
    (
        "units double comma",
        "#cloud-config\nkvmhost: {units: [a.socket,,b.socket]}\n",
        1,
        ["FILE:2: not YAML: expected the node content, but found ','"],
    ),
    (
        "units .slice",
        "#cloud-config\nkvmhost: {units: [a.slice]}\n",
        1,
        [
            'FILE:2: kvmhost.units[0]: "a.slice" is not allowed; allowed: a unit\'s full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters'
        ],
    ),
    (
        "units conf",
        "#cloud-config\nkvmhost: {units: [libvirtd.conf]}\n",
        1,
        [
            'FILE:2: kvmhost.units[0]: "libvirtd.conf" is not allowed; allowed: a unit\'s full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters'
        ],
    ),
    (
        "unit Service caps",
        "#cloud-config\nkvmhost: {units: [cockpit.Socket]}\n",
        1,
        [
            'FILE:2: kvmhost.units[0]: "cockpit.Socket" is not allowed; allowed: a unit\'s full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters'
        ],
    ),
    (
        "unit space",
        "#cloud-config\nkvmhost: {units: ['my unit.service']}\n",
        1,
        [
            'FILE:2: kvmhost.units[0]: "my unit.service" is not allowed; allowed: a unit\'s full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters'
        ],
    ),
    (
        "unit libvirtd in modular",
        "#cloud-config\nkvmhost: {libvirt: {mode: modular}, units: [libvirtd.service]}\n",
        0,
        ["FILE: kvmhost section valid: modular, tuned virtual-host, units libvirtd.service"],
    ),
    (
        "unit trailing space",
        "#cloud-config\nkvmhost: {units: ['a.service ']}\n",
        1,
        [
            'FILE:2: kvmhost.units[0]: "a.service " is not allowed (write a.service, without white space around it); allowed: a unit\'s full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters'
        ],
    ),
    (
        "drivers null",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers:\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.drivers: null is not allowed (leave the key out for the default); allowed: a list of at least 1 of qemu, network, storage, nodedev, secret, interface, nwfilter"
        ],
    ),
    (
        "drivers none",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: none\n",
        1,
        [
            'FILE:4: kvmhost.libvirt.drivers: "none" is not allowed; allowed: a list of at least 1 of qemu, network, storage, nodedev, secret, interface, nwfilter'
        ],
    ),
    (
        "drivers all",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: all\n",
        1,
        [
            'FILE:4: kvmhost.libvirt.drivers: "all" is not allowed; allowed: a list of at least 1 of qemu, network, storage, nodedev, secret, interface, nwfilter'
        ],
    ),
    (
        "drivers QEMU",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: [QEMU]\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.drivers[0]: \"QEMU\" is not allowed (did you mean 'qemu'?); allowed: qemu, network, storage, nodedev, secret, interface, nwfilter"
        ],
    ),
    (
        "drivers virtqemud",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: [virtqemud]\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.drivers[0]: \"virtqemud\" is not allowed (did you mean 'qemu'?); allowed: qemu, network, storage, nodedev, secret, interface, nwfilter"
        ],
    ),
    (
        "driver map item",
        "#cloud-config\nkvmhost:\n  libvirt:\n    drivers: [qemu: {}]\n",
        1,
        [
            "FILE:4: kvmhost.libvirt.drivers[0]: a mapping is not allowed; allowed: qemu, network, storage, nodedev, secret, interface, nwfilter"
        ],
    ),
    (
        "unknown tag",
        "#cloud-config\nkvmhost: !foo {}\n",
        1,
        [
            "FILE:2: not YAML: a tag or '=' that cloud-init does not know; a text of that kind needs quotes"
        ],
    ),
    (
        "!!set",
        "#cloud-config\nkvmhost: !!set {timeout}\n",
        1,
        ["FILE:2: kvmhost: a set is not allowed; allowed: a mapping or null"],
    ),
    (
        "!!binary",
        "#cloud-config\nkvmhost: {tuned: {profile: !!binary aGVsbG8=}}\n",
        1,
        [
            "FILE:2: kvmhost.tuned.profile: binary data is not allowed; allowed: a tuned profile's name, such as virtual-host, or null"
        ],
    ),
    (
        "!!str 5",
        "#cloud-config\nkvmhost: {tuned: {profile: !!str 5}}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned 5"],
    ),
    (
        "!!int x",
        "#cloud-config\nkvmhost: {timeout: !!int x}\n",
        1,
        [
            'FILE:2: not YAML: "x" can\'t be read as a whole number; if it is a text, write it in quotes'
        ],
    ),
    (
        "!!timestamp bad",
        "#cloud-config\nkvmhost: {timeout: !!timestamp x}\n",
        1,
        ['FILE:2: not YAML: "x" can\'t be read as a date; if it is a text, write it in quotes'],
    ),
    (
        "!!omap",
        "#cloud-config\nkvmhost: !!omap [a: 1]\n",
        1,
        ["FILE:2: kvmhost: a list is not allowed; allowed: a mapping or null"],
    ),
    (
        "!!omap bad",
        "#cloud-config\nkvmhost: !!omap 5\n",
        1,
        ["FILE:2: not YAML: expected a sequence, but found scalar"],
    ),
    (
        "%YAML directive",
        "#cloud-config\n%YAML 1.2\n---\nkvmhost: {}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "%YAML 2",
        "#cloud-config\n%YAML 2.0\n---\nkvmhost: {}\n",
        1,
        ["FILE:2: not YAML: found incompatible YAML document (version 1.* is required)"],
    ),
    (
        "= key",
        "#cloud-config\n=: 5\nkvmhost: {}\n",
        1,
        [
            "FILE:2: not YAML: a tag or '=' that cloud-init does not know; a text of that kind needs quotes"
        ],
    ),
    (
        "= value",
        "#cloud-config\nkvmhost: {timeout: =}\n",
        1,
        [
            "FILE:2: not YAML: a tag or '=' that cloud-init does not know; a text of that kind needs quotes"
        ],
    ),
    (
        "<< at top no map",
        "#cloud-config\n<<: 5\nkvmhost: {}\n",
        1,
        ["FILE:2: not YAML: expected a mapping or list of mappings for merging, but found scalar"],
    ),
    (
        "duplicated in other nested",
        "#cloud-config\nusers:\n - name: a\n   name: b\nkvmhost: {}\n",
        1,
        [
            "FILE:4: users[0].name: the key stands here again; the first is on line 3, and YAML keeps the last"
        ],
    ),
    (
        "stray text after",
        "#cloud-config\nkvmhost: {} extra\n",
        1,
        ["FILE:2: not YAML: a text behind a value that has ended"],
    ),
    (
        "key without colon",
        "#cloud-config\nkvmhost\n  timeout: 5\n",
        1,
        ["FILE:2: not YAML: a ':' is missing after 'kvmhost'"],
    ),
    (
        "key without colon 2",
        "#cloud-config\nkvmhost:\n  libvirt\n    mode: modular\n",
        1,
        ["FILE:3: not YAML: a ':' is missing after 'libvirt'"],
    ),
    (
        "key without colon 3",
        "#cloud-config\nkvmhost:\n  timeout 120\n",
        1,
        [
            'FILE:2: kvmhost: "timeout 120" is not allowed (write timeout: 120); allowed: a mapping or null'
        ],
    ),
    (
        "equals",
        "#cloud-config\nkvmhost:\n  timeout = 120\n",
        1,
        [
            'FILE:2: kvmhost: "timeout = 120" is not allowed (write timeout: 120); allowed: a mapping or null'
        ],
    ),
    (
        "equals2",
        "#cloud-config\nkvmhost:\n  timeout=120\n  libvirt: {}\n",
        1,
        ["FILE:3: not YAML: write 'timeout: ' instead of 'timeout ='"],
    ),
    (
        "ini",
        "#cloud-config\n[kvmhost]\ntimeout=5\n",
        1,
        ["FILE:3: not YAML: write 'timeout: ' instead of 'timeout ='"],
    ),
    (
        "jinja w/o header block",
        "#cloud-config\n{% if 1 %}\nkvmhost: {}\n{% endif %}\n",
        1,
        ["FILE:2: not YAML: a jinja template; it needs '## template: jinja' above #cloud-config"],
    ),
    (
        "jinja value",
        "#cloud-config\nkvmhost: {timeout: {{ x }}}\n",
        1,
        ["FILE:2: not YAML: a jinja template; it needs '## template: jinja' above #cloud-config"],
    ),
    (
        "jinja unquoted own",
        "#cloud-config\nkvmhost:\n  timeout: {{ x }}\n",
        1,
        ["FILE:3: not YAML: a jinja template; it needs '## template: jinja' above #cloud-config"],
    ),
    (
        "jinja broken",
        "## template: jinja\n#cloud-config\nkvmhost: {timeout: {{ x }\n",
        1,
        ["FILE:3: not YAML: the '{' is not closed"],
    ),
    (
        "jinja whitespace",
        "## template:jinja\n#cloud-config\nkvmhost: {}\n",
        1,
        [
            'FILE:1: the first line is "## template:jinja"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    (
        "jinja after header",
        "#cloud-config\n## template: jinja\nkvmhost: {}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "%s placeholder",
        "#cloud-config\nkvmhost:\n  timeout: %TIMEOUT%\n",
        1,
        [
            "FILE:3: not YAML: found character '%' that cannot start any token; a text that begins so needs quotes"
        ],
    ),
    (
        "@ at start",
        "#cloud-config\nkvmhost:\n  timeout: @x\n",
        1,
        [
            "FILE:3: not YAML: found character '@' that cannot start any token; a text that begins so needs quotes"
        ],
    ),
    (
        "backtick",
        "#cloud-config\nkvmhost:\n  timeout: `x`\n",
        1,
        [
            "FILE:3: not YAML: found character '`' that cannot start any token; a text that begins so needs quotes"
        ],
    ),
    (
        "star",
        "#cloud-config\nkvmhost:\n  units: [*.service]\n",
        1,
        [
            "FILE:3: not YAML: * and & begin an alias or an anchor; a text that begins so needs quotes"
        ],
    ),
    (
        "& in",
        "#cloud-config\nkvmhost:\n  units: [&.service]\n",
        1,
        [
            "FILE:3: not YAML: * and & begin an alias or an anchor; a text that begins so needs quotes"
        ],
    ),
    (
        "percent",
        "#cloud-config\nkvmhost:\n  units: [a%i.service]\n",
        1,
        [
            'FILE:3: kvmhost.units[0]: "a%i.service" is not allowed; allowed: a unit\'s full name with its suffix (.service, .socket, .timer, .path, .target, .mount, .automount, .swap), such as cockpit.socket, at most 255 characters'
        ],
    ),
    (
        "question",
        "#cloud-config\nkvmhost:\n  ? timeout\n",
        1,
        [
            "FILE:3: kvmhost.timeout: null is not allowed (leave the key out for the default); allowed: a whole number from 1 to 3600"
        ],
    ),
    (
        "block text",
        "#cloud-config\nkvmhost: |\n  timeout: 5\n",
        1,
        [
            'FILE:2: kvmhost: "timeout: 5\\n" is not allowed (a text, by the | or > before it: take that away); allowed: a mapping or null'
        ],
    ),
    (
        "folded",
        "#cloud-config\nkvmhost: >\n  timeout: 5\n",
        1,
        [
            'FILE:2: kvmhost: "timeout: 5\\n" is not allowed (a text, by the | or > before it: take that away); allowed: a mapping or null'
        ],
    ),
    (
        "comment glued",
        "#cloud-config\nkvmhost:\n  timeout: 5#seconds\n",
        1,
        [
            'FILE:3: kvmhost.timeout: "5#seconds" is not allowed (a comment needs a space before its #); allowed: a whole number from 1 to 3600'
        ],
    ),
    (
        "indent 1",
        "#cloud-config\n kvmhost:\n   timeout: 5\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host, timeout 5 s"],
    ),
    (
        "whole file indented",
        " #cloud-config\n kvmhost: {}\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "kvmhost under other",
        "#cloud-config\nruncmd:\n  kvmhost:\n    timeout: 5\n",
        1,
        ['FILE:3: runcmd.kvmhost: stands under "runcmd"; it belongs at the left margin'],
    ),
    (
        "kvmhost in list",
        "#cloud-config\n- kvmhost:\n    timeout: 5\n",
        1,
        ["FILE:2: holds a list, not a mapping with a kvmhost key"],
    ),
    (
        "kvmhost:{}",
        "#cloud-config\nkvmhost:{}\n",
        1,
        ['FILE:2: holds "kvmhost:{}", not a mapping with a kvmhost key'],
    ),
    (
        "kvmhost:{} w others",
        "#cloud-config\npackages: [a]\nkvmhost:{}\n",
        1,
        ["FILE:3: not YAML: a space is missing after 'kvmhost:'"],
    ),
    (
        "kvm-host",
        "#cloud-config\nkvm-host: {}\n",
        1,
        ["FILE:2: unknown key 'kvm-host'; did you mean 'kvmhost'?"],
    ),
    (
        "kvmhosts",
        "#cloud-config\nkvmhosts: {}\n",
        1,
        ["FILE:2: unknown key 'kvmhosts'; did you mean 'kvmhost'?"],
    ),
    (
        "cc_kvmhost",
        "#cloud-config\ncc_kvmhost: {}\n",
        1,
        ["FILE:2: unknown key 'cc_kvmhost'; did you mean 'kvmhost'?"],
    ),
    (
        "kvm",
        "#cloud-config\nkvm: require\n",
        1,
        ["FILE:2: unknown key 'kvm'; it belongs under kvmhost, indented"],
    ),
    (
        "libvirt typo",
        "#cloud-config\nkvmhost: {libvrit: {}}\n",
        1,
        [
            "FILE:2: kvmhost.libvrit: unknown key; did you mean 'libvirt'? Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "Libvirt",
        "#cloud-config\nkvmhost: {Libvirt: {}}\n",
        1,
        [
            "FILE:2: kvmhost.Libvirt: unknown key; did you mean 'libvirt'? Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "time-out",
        "#cloud-config\nkvmhost: {time_out: 5}\n",
        1,
        [
            "FILE:2: kvmhost.time_out: unknown key; did you mean 'timeout'? Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "unit",
        "#cloud-config\nkvmhost: {unit: [a.socket]}\n",
        1,
        [
            "FILE:2: kvmhost.unit: unknown key; did you mean 'units'? Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "services",
        "#cloud-config\nkvmhost: {services: [a.socket]}\n",
        1,
        [
            "FILE:2: kvmhost.services: unknown key; Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "network under libvirt",
        "#cloud-config\nkvmhost: {libvirt: {network: default}}\n",
        1,
        [
            "FILE:2: kvmhost.libvirt.network: unknown key; did you mean 'networks'? Known here: autostart, drivers, mode, networks, pools, tls"
        ],
    ),
    (
        "networks string",
        "#cloud-config\nkvmhost: {libvirt: {networks: [default]}}\n",
        1,
        ['FILE:2: kvmhost.libvirt.networks[0]: "default" is not allowed; allowed: a mapping'],
    ),
    (
        "networks map",
        "#cloud-config\nkvmhost: {libvirt: {networks: {default: {mode: nat}}}}\n",
        1,
        [
            "FILE:2: kvmhost.libvirt.networks: a mapping is not allowed; allowed: a list of at most 64"
        ],
    ),
    (
        "networks no mode",
        "#cloud-config\nkvmhost: {libvirt: {networks: [{name: default}]}}\n",
        1,
        ["FILE:2: kvmhost.libvirt.networks[0]: needs the key 'mode'"],
    ),
    (
        "networks at top",
        "#cloud-config\nnetworks: [{name: a, mode: nat}]\n",
        1,
        ["FILE:2: unknown key 'networks'; it belongs under kvmhost.libvirt, indented"],
    ),
    (
        "no newline key",
        "#cloud-config\nkvmhost",
        1,
        ['FILE:2: holds "kvmhost", not a mapping with a kvmhost key'],
    ),
    (
        "xml",
        "<?xml version='1.0'?>\n<a/>\n",
        1,
        [
            "FILE:1: the first line is \"<?xml version='1.0'?>\"; cloud-init takes the file for cloud-config only if it is #cloud-config"
        ],
    ),
    (
        "shell var",
        "#cloud-config\nkvmhost:\n  timeout: $TIMEOUT\n",
        1,
        [
            'FILE:3: kvmhost.timeout: "$TIMEOUT" is not allowed; allowed: a whole number from 1 to 3600'
        ],
    ),
    (
        "EOF left",
        "#cloud-config\nkvmhost: {}\nEOF\n",
        1,
        ["FILE:3: not YAML: a ':' is missing after 'EOF'"],
    ),
    (
        "git conflict",
        "#cloud-config\n<<<<<<< HEAD\nkvmhost: {}\n=======\nkvmhost: {timeout: 5}\n>>>>>>> x\n",
        1,
        ["FILE:2: not YAML: a merge conflict that is not resolved"],
    ),
    (
        "base64",
        "I2Nsb3VkLWNvbmZpZwprdm1ob3N0OiB7fQo=\n",
        1,
        ["FILE:1: base64; to check what is in it: base64 -d FILE | kvmhost validate -"],
    ),
    (
        "mime boundary no version",
        "Content-Type: multipart/mixed; boundary=X\n\n--X\n",
        1,
        [
            'FILE:1: the first line is "Content-Type: multipart/mixed; boundary=X"; cloud-init takes the file for cloud-config only if it is #cloud-config'
        ],
    ),
    ("xz", b"\xfd7zXZ\x00\x00", 1, ["FILE: compressed with xz; cloud-init unpacks only gzip"]),
    ("zip", b"PK\x03\x04aaaa", 1, ["FILE: compressed with zip; cloud-init unpacks only gzip"]),
    (
        "utf-8 overlong",
        b"#cloud-config\n# \xc0\x80\nkvmhost: {}\n",
        1,
        [
            "FILE:2: can't be read: byte 0xc0 is not UTF-8; is the file Latin-1? iconv -f LATIN1 -t UTF-8 converts it"
        ],
    ),
    (
        "latin1 quotes cp1252",
        b"#cloud-config\nkvmhost: {tuned: {profile: \x93virtual-host\x94}}\n",
        1,
        [
            "FILE:2: can't be read: byte 0x93 is not UTF-8; is the file Latin-1? iconv -f LATIN1 -t UTF-8 converts it"
        ],
    ),
    (
        "BOM in the middle",
        b"#cloud-config\n\xef\xbb\xbfkvmhost: {}\n",
        1,
        [
            'FILE:2: U+FEFF (zero width no-break space) before "\\ufeffkvmhost", which YAML takes for a part of it; indent with spaces'
        ],
    ),
    (
        "NEL",
        "#cloud-config\nkvmhost: {}\x85a: 1\n",
        0,
        ["FILE: kvmhost section valid: mode by release, tuned virtual-host"],
    ),
    (
        "LS",
        "#cloud-config\nkvmhost:\u2028  timeout: 0\n",
        1,
        ["FILE:3: kvmhost.timeout: 0 is not allowed; allowed: a whole number from 1 to 3600"],
    ),
    (
        "nbsp at end",
        "#cloud-config\nkvmhost: {}\xa0\n",
        1,
        ["FILE:2: not YAML: U+00A0 (no-break space), which is no space for YAML"],
    ),
    (
        "nbsp after value",
        "#cloud-config\nkvmhost:\n  timeout: 5\xa0\n",
        1,
        [
            'FILE:3: kvmhost.timeout: "5\\u00a0" is not allowed (write 5, without white space around it); allowed: a whole number from 1 to 3600'
        ],
    ),
    (
        "en dash list",
        "#cloud-config\nkvmhost:\n  units:\n    \u2013 cockpit.socket\n",
        1,
        [
            'FILE:3: kvmhost.units: "\u2013 cockpit.socket" is not allowed (a list has hyphens: -); allowed: a list'
        ],
    ),
    (
        "fullwidth colon",
        "#cloud-config\nkvmhost\uff1a {}\n",
        1,
        ['FILE:2: holds "kvmhost\uff1a {}", not a mapping with a kvmhost key'],
    ),
    (
        "soft hyphen",
        "#cloud-config\nkvmhost:\n  time\xadout: 5\n",
        1,
        [
            "FILE:3: kvmhost[\"time\\u00adout\"]: unknown key; did you mean 'timeout'? Known here: check, kvm, libvirt, timeout, tuned, units"
        ],
    ),
    (
        "cyrillic o",
        "#cloud-config\nkvmh\u043est: {}\n",
        1,
        ["FILE:2: unknown key 'kvmh\\u043est'; did you mean 'kvmhost'?"],
    ),
]
