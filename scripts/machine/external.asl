// SPDX-License-Identifier: GPL-2.0-only
//
// Marks a root port of QEMU's q35 as external-facing, which makes Linux distrust
// devices below it. PORT is replaced by the port's name, which is S and the number of
// its place in hexadecimal digits: slot * 8 + function. The property is Microsoft's,
// "DMA protection for externally exposed PCIe ports".
DefinitionBlock ("", "SSDT", 2, "IOMMU", "EXTERNAL", 1)
{
    External (\_SB.PCI0.PORT, DeviceObj)

    Scope (\_SB.PCI0.PORT)
    {
        Name (_DSD, Package ()
        {
            ToUUID ("efcc06cc-73ac-4bc3-bff0-76143807c389"),
            Package () { Package () { "ExternalFacingPort", 1 } }
        })
    }
}
