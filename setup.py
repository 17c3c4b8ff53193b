"""Packaging of cc_kvmhost. The schema of schemas/ is package data (by the link in cc_kvmhost/)."""

import os

from setuptools import setup

HERE = os.path.dirname(os.path.abspath(__file__))

with open(os.path.join(HERE, "README.md"), encoding="utf-8") as stream:
    README = stream.read()

setup(
    name="cc_kvmhost",
    version="0.1.0",
    description="cloud-init module: makes CentOS Stream and RHEL machines KVM hosts at first boot",
    long_description=README,
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=["cc_kvmhost"] + ["cc_kvmhost." + room for room in ("systemd", "virt", "cloud_init")],
    package_data={"cc_kvmhost": ["schemas/*.json", "py.typed"]},
    data_files=[
        ("share/man/man1", ["share/man/man1/kvmhost.1"]),
        (
            "share/bash-completion/completions",
            ["share/bash-completion/completions/kvmhost"],
        ),
    ],
    entry_points={"console_scripts": ["kvmhost = cc_kvmhost.cli:main"]},
    python_requires=">=3.6",
    install_requires=[
        "distro>=1.4",
        "jsonschema>=2.6",
        "PyYAML>=3.12",
    ],
    # What applying needs and validating doesn't: pip builds it from source, which takes a compiler.
    extras_require={
        "apply": [
            # 0.15 wants Python 3.11. The C files of 0.13.4 and 0.14 are made by a Cython that wants 3.8,
            # which their metadata does not say: pip of Python 3.6 and 3.7 would choose them and fail.
            "pystemd>=0.11; python_version >= '3.11'",
            "pystemd>=0.11,<0.15; python_version >= '3.8' and python_version < '3.11'",
            "pystemd>=0.11,<0.13.4; python_version < '3.8'",
        ],
    },
    classifiers=[
        "Environment :: Console",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Boot",
    ],
)
