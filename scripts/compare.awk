# SPDX-License-Identifier: GPL-2.0-only
#
# Of two summary.csv, that of before and that of now, print the rows of now
#  - where nothing may differ, and yet patched is slower than stock; with one of them, the
#    exit status is 1. Of so many intervals of 95 % some are off by chance: here they are
#    widened to 99.9 %, so that one of fifty is in one run of twenty;
#  - whose interval has nothing in common with that of before;
# each with how many times better patched is, and was, and last how many rows there were.
# Exit status 2: the two have nothing in common. Only times are looked at.

BEGIN {
	FS = ","
	# Student's t, for a degree of freedom and more
	degrees = split("12.7 4.30 3.18 2.78 2.57 2.45 2.36 2.31 2.26 2.23 2.20", t95, " ")
	split("637 31.6 12.9 8.61 6.87 5.96 5.41 5.04 4.78 4.59 4.44", t999, " ")
}

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
	i = $7 - 1 < degrees ? $7 - 1 : degrees
	wide = i < 1 ? 1 : log($14) + t999[i] / t95[i] * (log($16) - log($14))
	if (wide < 0) {
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
