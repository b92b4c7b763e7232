// SPDX-License-Identifier: GPL-2.0-only
//
// As external.asl, and PORT belongs to a USB4 host: all that hangs on it comes
// through a tunnel. The property names the host interface. Linux only asks whether it
// is there, so the ISA bridge will do.
DefinitionBlock ("", "SSDT", 2, "IOMMU", "USB4", 1)
{
    External (\_SB.PCI0.PORT, DeviceObj)
    External (\_SB.PCI0.SF8, DeviceObj)

    Scope (\_SB.PCI0.PORT)
    {
        Name (_DSD, Package ()
        {
            ToUUID ("efcc06cc-73ac-4bc3-bff0-76143807c389"),
            Package () { Package () { "ExternalFacingPort", 1 } },
            ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
            Package () { Package () { "usb4-host-interface", \_SB.PCI0.SF8 } }
        })
    }
}
