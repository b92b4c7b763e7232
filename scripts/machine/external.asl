// SPDX-License-Identifier: GPL-2.0-only
//
// Marks the root port in slot 4 of QEMU's q35 as external-facing, which makes
// Linux distrust every device below it. The property is Microsoft's, "DMA
// protection for externally exposed PCIe ports".
DefinitionBlock ("", "SSDT", 2, "IOMMU", "EXTERNAL", 1)
{
    External (\_SB.PCI0.S20, DeviceObj)

    Scope (\_SB.PCI0.S20)
    {
        Name (_DSD, Package ()
        {
            ToUUID ("efcc06cc-73ac-4bc3-bff0-76143807c389"),
            Package () { Package () { "ExternalFacingPort", 1 } }
        })
    }
}
