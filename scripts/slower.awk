# SPDX-License-Identifier: GPL-2.0-only
#
# Of two summary.csv, that of before and that of now, print the rows of now where nothing
# may differ, and yet patched is worse than stock: by more than the interval of now, and
# by more than it was before.

BEGIN { FS = "," }

{ key = $1 FS $2 FS $3 FS $4 FS $5 FS $6 }

NR == FNR {
	low[key] = $15
	next
}

($2 == 1 || $1 == "vtd" || $1 == "virtio-iommu") && $17 == "worse" && key in low &&
	$16 + 0 < low[key] + 0
