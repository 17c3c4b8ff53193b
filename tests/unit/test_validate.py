"""Parsing the output of virt-host-validate."""

from cc_kvmhost.virt import validate

OUTPUT = """\
  QEMU: Checking for hardware virtualization                                 : FAIL (Only emulated CPUs are available, performance will be significantly limited)
  QEMU: Checking if device '/dev/kvm' exists                                 : FAIL (Check that the 'kvm-intel' or 'kvm-amd' modules are loaded & the BIOS has enabled virtualization)
  QEMU: Checking if device '/dev/net/tun' exists                             : PASS
  QEMU: Checking for cgroup 'cpu' controller support                         : PASS
  QEMU: Checking for cgroup 'devices' controller support                     : WARN (Enable 'devices' in kernel Kconfig file or mount/enable cgroup controller in your system)
  QEMU: Checking for device assignment IOMMU support                         : WARN (No ACPI DMAR table found, IOMMU either disabled in BIOS or not supported by this hardware platform)
  QEMU: Checking for secure guest support                                    : WARN
"""


def test_warnings_and_failures_but_kvms() -> None:
    assert validate.parse(OUTPUT) == [
        "virt-host-validate: for cgroup 'devices' controller support: Enable 'devices' in kernel"
        " Kconfig file or mount/enable cgroup controller in your system",
        "virt-host-validate: for device assignment IOMMU support: No ACPI DMAR table found, IOMMU"
        " either disabled in BIOS or not supported by this hardware platform",
        "virt-host-validate: for secure guest support: failed",
    ]


def test_nothing_else() -> None:
    assert validate.parse("nonsense\n\n: WARN (x)\n") == []
