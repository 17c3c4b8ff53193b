"""Finds out, by a file's first bytes, what cloud-init takes the file for."""

import json
import re
from typing import Optional

from .errors import KvmhostError
from .problems import shown

HEADER = "#cloud-config"
#: How HEADER begins in base64, as some clouds' commands want user-data.
_HEADER_IN_BASE64 = "I2Nsb3VkLWNvbmZp"
JINJA = "## template: jinja"
INSTANCE_DATA = "/run/cloud-init/instance-data.json"

#: Other beginnings of files that cloud-init knows. As its handlers do, they are compared in lower
#: case, after any white space, and whatever follows.
_OTHER_KINDS = (
    ("#cloud-config-archive", "an archive of several parts; check each cloud-config in it"),
    ("#cloud-config-jsonp", "a JSON patch of cloud-config; check what it makes"),
    ("#cloud-boothook", "a boothook script, which has no kvmhost section"),
    ("#include", "a list of addresses to include; check the files they lead to"),
    ("#part-handler", "a part handler, which has no kvmhost section"),
    ("#!", "a script, which has no kvmhost section"),
)

#: What compressed files begin with. cloud-init unpacks gzip only.
_COMPRESSED = (
    (b"\xfd7zXZ", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
)

#: The keys of cloud-config that cloud-init 22.4 to 26.2 has in its schema, and those that its other
#: files may have at their top level.
KEYS = frozenset(
    """
    allow_public_ssh_keys ansible apk_repos apt apt_pipelining apt_reboot_if_required apt_update
    apt_upgrade authkey_hash autoinstall bootcmd byobu_by_default ca-certs ca_certs chef chpasswd
    cloud_config_modules cloud_final_modules cloud_init_modules create_hostname_file datasource
    datasource_list def_log_file def_log_file_mode device_aliases disable_ec2_metadata disable_root
    disable_root_opts disk_setup drivers fan final_message fqdn fs_setup groups growpart grub-dpkg
    grub_dpkg hostname keyboard landscape launch-index locale locale_configfile log_cfgs lxd
    manage_etc_hosts manage_resolv_conf mcollective merge_how merge_type migrate
    mount_default_fields mounts network no_ssh_fingerprints ntp output package_reboot_if_required
    package_update package_upgrade packages password phone_home power_state
    prefer_fqdn_over_hostname preserve_hostname puppet random_seed reporting resize_rootfs
    resolv_conf rh_subscription rpi rsyslog runcmd salt_minion snap spacewalk ssh
    ssh_authorized_keys ssh_deletekeys ssh_fp_console_blacklist ssh_genkeytypes ssh_import_id
    ssh_key_console_blacklist ssh_keys ssh_publish_hostkeys ssh_pwauth ssh_quiet_keygen swap
    syslog_fix_perms system_info timezone ubuntu_advantage ubuntu_pro updates user users
    vendor_data vendor_data2 version wireguard write_files yum_repo_dir yum_repos zypper
    """.split()
)


def cloud_config(name: str, data: bytes) -> str:
    """The YAML text of a file that cloud-init takes for cloud-config, with its line numbers kept. A
    template is rendered.

    :param name: the file's name, for messages
    :raises KvmhostError: cloud-init takes the file for something else, or can't read it
    """
    text = _decoded(name, data)
    if b"mime-version:" in data[:4096].lower():
        raise KvmhostError(
            [f"{name}:1: a MIME multipart message; check each cloud-config in it by itself"]
        )
    start = text.lstrip().lower()
    if start.startswith(JINJA):
        rendered = _rendered(name, text)
        number = len(text) - len(text.lstrip())
        text = "\n" * (text.count("\n", 0, number) + 1) + rendered
        start = rendered.lstrip().lower()
    for beginning, what in _OTHER_KINDS:
        if start.startswith(beginning):
            raise KvmhostError([f"{name}:1: cloud-init takes the file for {what}"])
    if not start.startswith(HEADER):
        raise KvmhostError([f"{name}:1: {_not_cloud_config(text)}"])
    return text


def _decoded(name: str, data: bytes) -> str:
    """
    :raises KvmhostError: it is not UTF-8 without a byte order mark
    """
    if data.startswith(b"\x1f\x8b"):
        raise KvmhostError(
            [
                f"{name}: compressed with gzip, as cloud-init takes it; to check it: zcat {name} |"
                " kvmhost validate -"
            ]
        )
    for beginning, program in _COMPRESSED:
        if data.startswith(beginning):
            raise KvmhostError([f"{name}: compressed with {program}; cloud-init unpacks only gzip"])
    encoding = _wide_encoding(data)
    if encoding:
        raise KvmhostError(
            [
                f"{name}:1: {encoding}; cloud-init reads UTF-8 only;"
                f" iconv -f {encoding} -t UTF-8 converts it"
            ]
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise KvmhostError([f"{name}: can't be read: not UTF-8 text"]) from error
        line = data.count(b"\n", 0, error.start) + 1
        raise KvmhostError(
            [
                f"{name}:{line}: can't be read: byte 0x{data[error.start]:02x} is not UTF-8; is the"
                " file Latin-1? iconv -f LATIN1 -t UTF-8 converts it"
            ]
        ) from error
    if text.startswith("\ufeff"):
        raise KvmhostError(
            [
                f"{name}:1: begins with a byte order mark, behind which cloud-init does not see"
                f" {HEADER}: it ignores the file; save it as UTF-8 without one"
            ]
        )
    return text


def _wide_encoding(data: bytes) -> str:
    """UTF-16 or UTF-32, by the byte order mark or the zeros that ASCII's characters have there; or ""."""
    if data[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff") or data[:3] == b"\0\0\0":
        return "UTF-32"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    zeros = [byte == 0 for byte in data[:4]]
    return "UTF-16" if zeros in ([True, False] * 2, [False, True] * 2) else ""


def _not_cloud_config(text: str) -> str:
    if not text.strip():
        return f"the file is empty; cloud-config begins with {HEADER}"
    first = text.lstrip().split("\n", 1)[0].rstrip()
    if first.startswith(_HEADER_IN_BASE64):
        return "base64; to check what is in it: base64 -d FILE | kvmhost validate -"
    return (
        f"the first line is {shown(first)}; cloud-init takes the file for cloud-config only if it"
        f" is {HEADER}"
    )


def _rendered(name: str, text: str) -> str:
    """A template as cloud-init renders it, with this machine's variables. Where cloud-init is missing
    or has no instance, a word replaces each variable.

    :raises KvmhostError: it can't be rendered here
    """
    text = text.lstrip()
    try:
        from cloudinit.handlers import jinja_template

        with open(INSTANCE_DATA, encoding="utf-8") as stream:
            variables = json.load(stream)
    except (ImportError, OSError, ValueError) as error:
        if "{%" in text:
            raise KvmhostError(
                [
                    f"{name}:1: a jinja template, and there is no instance of cloud-init here to"
                    " render it for; on a machine with cloud-init: cloud-init schema --config-file"
                    f" {name}"
                ]
            ) from error
        body = text.split("\n", 1)[1] if "\n" in text else ""
        return re.sub(r"\{\{.*?\}\}|\{#.*?#\}", "variable", body, flags=re.DOTALL)
    try:
        rendered: Optional[str] = jinja_template.render_jinja_payload(text, name, variables)
    except Exception as error:  # its class depends on cloud-init's version
        raise KvmhostError([f"{name}: a jinja template that can't be rendered: {error}"]) from error
    if not rendered:
        raise KvmhostError([f"{name}: a jinja template that renders to nothing"])
    return rendered
