# SPDX-License-Identifier: GPL-2.0-only
#
# Of two summary.csv, that of before and that of now, print the rows of now where nothing
# may differ, and yet patched is worse than stock by more than the interval; behind each
# what it was before, "," and how many times better patched was, if it was there.

BEGIN { FS = OFS = "," }

{ key = $1 FS $2 FS $3 FS $4 FS $5 FS $6 }

NR == FNR {
	before[key] = $14
	next
}

($2 == 1 || $1 == "vtd" || $1 == "virtio-iommu") && $5 ~ /boot|map|reads|cpu$/ &&
	$17 == "worse" { print $0, before[key] }
