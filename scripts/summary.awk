# SPDX-License-Identifier: GPL-2.0-only
#
# Of samples.csv, make summary.csv: see scripts/bench. A row for each thing measured: the
# median, least and greatest under stock and patched; how many times better patched is,
# which is the median of the ratios within each pair; and the interval that holds the
# medians of 95 % of 2000 samples that are drawn from these ratios with replacement (the
# bootstrap), widened as Student's t is, since of few pairs it is too narrow. If 1 is in
# it, no difference has been seen. "high999" is its end for 99.9 %. The sums are those of the ratios' logarithms, so that
# twice and half are as far from 1.
#
# Better is less, but for what is done in a second. "vtd-nopt:vtd" compares under patched
# the first machine with the second, which there takes the place of stock. What is counted,
# once, has no interval; its value is for 1000 unmaps.

BEGIN {
	FS = OFS = ","
	OFMT = CONVFMT = "%.10g"
	# Student's t for 95 and 99.9 %, for 1 degree of freedom to 11, and for more
	split("12.7 4.30 3.18 2.78 2.57 2.45 2.36 2.31 2.26 2.23 2.20 2.1", t95, " ")
	split("637 31.6 12.9 8.61 6.87 5.96 5.41 5.04 4.78 4.59 4.44 4.2", t999, " ")
	print "machine", "strict", "cpus", "devices", "metric", "word", "pairs", \
		"stock", "stock_min", "stock_max", "patched", "patched_min", "patched_max", \
		"ratio", "low", "high", "says", "high999"
}

NR > 1 {
	key = $3 FS $5 FS $6 FS $7 FS $8 FS $9
	if ($1 == 0) {
		counted[key, $4] = $10
		if ($8 == "invalidations" && !seen[key]++)
			counts[++n_counts] = key
		next
	}
	if ($8 == "unmaps" || $8 ~ /_sd$/)
		next
	add(key, $4, $1 FS $2, $10)
	if ($4 == "patched" && $5 == 0 && ($3 == "vtd" || $3 == "vtd-nopt") && $7 == 0 &&
	    $8 ~ /^(map|unmap|rate|reads|cpu)$/)
		add("vtd-nopt:vtd" FS substr(key, length($3) + 2),
		    $3 == "vtd" ? "stock" : "patched", $1 FS $2, $10)
}

function add(key, kernel, pair, value)
{
	if (!seen[key]++)
		keys[++n_keys] = key
	values[key, kernel, pair] = value
	if (!known[pair]++)
		pairs[++n_pairs] = pair
}

# A number below n; always the same ones, whichever awk this is
function draw(n)
{
	state = (state * 16807) % 2147483647
	return int(state / 2147483647 * n)
}

function sort(a, n,	i, j, t)
{
	for (i = 2; i <= n; i++) {
		t = a[i]
		for (j = i - 1; j > 0 && a[j] > t; j--)
			a[j + 1] = a[j]
		a[j + 1] = t
	}
}

# The median of a[1..n], which it sorts
function median(a, n)
{
	sort(a, n)
	return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
}

# Sets low and high for the median of a[1..n], of which there are few that differ.
function interval(a, n,	i, j, drawn, times, medians, distinct, m, below)
{
	state = 1
	for (i = 1; i <= 2000; i++) {
		for (j = 1; j <= n; j++)
			drawn[j] = a[draw(n) + 1]
		m = median(drawn, n)
		if (!times[m]++)
			medians[++distinct] = m
	}
	sort(medians, distinct)
	low = ""
	for (i = 1; i <= distinct && below <= 1950; i++) {
		below += times[medians[i]]
		if (low == "" && below > 50)
			low = medians[i]
		high = medians[i]
	}
}

# By how much to widen an interval of so many pairs, by t over what it is for 95 % of many
function widening(pairs, t)
{
	return pairs < 2 ? 0 : t[pairs <= 12 ? pairs - 1 : 12] / 1.96 * sqrt(pairs / (pairs - 1))
}

function summarise(key,	i, n, pair, s, p, stock, patched, ratios, says, ratio, high999, words)
{
	split(key, words, FS)
	for (i = 1; i <= n_pairs; i++) {
		pair = pairs[i]
		if (!((key, "stock", pair) in values) || !((key, "patched", pair) in values))
			continue
		s = values[key, "stock", pair]
		p = values[key, "patched", pair]
		if (s <= 0 || p <= 0)
			continue
		n++
		stock[n] = s
		patched[n] = p
		ratios[n] = words[5] ~ /^(reads|rate)$/ ? log(p / s) : log(s / p)
	}
	if (!n)
		return
	interval(ratios, n)
	ratio = median(ratios, n)
	low = exp(ratio - widening(n, t95) * (ratio - low))
	high999 = n < 2 ? "" : sprintf("%.3f", exp(ratio + widening(n, t999) * (high - ratio)))
	high = exp(ratio + widening(n, t95) * (high - ratio))
	ratio = exp(ratio)
	says = n < 2 ? "no difference seen" : low > 1 ? "better" : high < 1 ? "worse" : "no difference seen"
	print key, n, median(stock, n), stock[1], stock[n], \
		median(patched, n), patched[1], patched[n], \
		sprintf("%.3f,%.3f,%.3f", ratio, low, high), says, high999
}

function thousand(key, kernel,	unmaps)
{
	unmaps = key
	sub(/invalidations/, "unmaps", unmaps)
	unmaps = 1000 * counted[key, kernel] / counted[unmaps, kernel]
	return sprintf(unmaps < 100 ? "%.3g" : "%.1f", unmaps)
}

END {
	for (i = 1; i <= n_keys; i++)
		summarise(keys[i])
	for (i = 1; i <= n_counts; i++)
		print counts[i], 0, thousand(counts[i], "stock"), "", "", \
			thousand(counts[i], "patched"), "", "", "", "", "", "counted"
}
