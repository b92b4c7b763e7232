# SPDX-License-Identifier: GPL-2.0-only
#
# Of two summary.csv, that of before and that of now, print the rows of now
#  - where nothing may differ, and yet patched is slower than stock; with one of them, the
#    exit status is 1. Of so many intervals of 95 % some are off by chance: here those of
#    99.9 % count, so that one of fifty is off in one run of twenty;
#  - whose interval has nothing in common with that of before;
# each with how many times better patched is, and was, and last how many rows there were.
# Exit status 2: the two have nothing in common. Only times are looked at.

BEGIN { FS = "," }

{ key = $1 " iommu.strict=" $2 " cpus=" $3 " devices=" $4 " " $5 " " $6 }

FNR == 1 || $14 == "" || $5 !~ /^(boot|map|unmap|rate|reads|cpu)$/ { next }

NR == FNR {
	low[key] = $15
	high[key] = $16
	before[key] = ", before " $14 " [" $15 " to " $16 "]"
	next
}

{ was = key in before ? before[key] : "" }

$2 == 1 || $1 == "vtd" || $1 == "virtio-iommu" {
	equal++
	if ($18 != "" && $18 < 1) {
		print "slower than stock, " key ": " $14 " [" $15 " to " $16 "]" was
		status = 1
	}
}

was != "" {
	rows++
	if ($15 > high[key] || $16 < low[key])
		print "not as before, " key ": " $14 " [" $15 " to " $16 "]" was
	else
		same++
}

END {
	if (!rows) {
		print "nothing of it was measured before, too" >"/dev/stderr"
		exit 2
	}
	print equal + 0 " rows where nothing may differ"
	print same + 0 " of " rows + 0 " ratios are as before: their intervals overlap"
	exit status
}
