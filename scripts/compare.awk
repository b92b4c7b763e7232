# SPDX-License-Identifier: GPL-2.0-only
#
# Of two summary.csv, that of before and that of now, print the rows of now
#  - where nothing may differ, and yet patched is worse than stock by more than the
#    interval; with one of them, the exit status is 1;
#  - whose interval has nothing in common with that of before;
# each with how many times better patched is, and was, and last how many rows are as before.

BEGIN { FS = "," }

{ key = $1 " iommu.strict=" $2 " cpus=" $3 " devices=" $4 " " $5 " " $6 }

FNR == 1 || $14 == "" { next }

NR == FNR {
	low[key] = $15
	high[key] = $16
	before[key] = ", before " $14 " [" $15 " to " $16 "]"
	next
}

{ now = key ": " $14 " [" $15 " to " $16 "]" before[key] }

($2 == 1 || $1 == "vtd" || $1 == "virtio-iommu") && $5 ~ /boot|map|reads|cpu$/ && $17 == "worse" {
	print "slower than stock, " now
	status = 1
}

key in before {
	rows++
	if ($15 > high[key] || $16 < low[key])
		print "not as before, " now
	else
		same++
}

END {
	print same + 0 " of " rows + 0 " ratios are as before: their intervals overlap"
	exit status
}
