# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the scripts share: messages, the bases, building. Sourced, not run.
#
# Exit status of every script: 0 all is as expected, 1 something is not,
# 2 it could not be found out (bad argument, no network, a build that fails).
set -euo pipefail
# A process group for each background job, so that it can be ended whole.
set -m

me=${0##*/}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
tmp=()	# what must not outlive this script

cleanup() {
	local job
	for job in $(jobs -p); do
		kill -- "-$job" 2>/dev/null || :
	done
	wait
	[ ${#tmp[@]} = 0 ] || rm -rf "${tmp[@]}"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
	say "$me: $*"
	exit 2
}

# help: print the comment at the head of the script itself, for --help.
help() {
	sed -n '3,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
	exit 0
}

# need_value OPTION COUNT: die unless OPTION is followed by another argument.
need_value() {
	[ "$2" -ge 2 ] || die "$1 needs a value, see --help"
}

# say TEXT: a line on stderr that stays.
say() {
	[ ! -t 2 ] || printf '\r\033[K' >&2
	printf '%s\n' "$*" >&2
}

# progress TEXT: on a terminal one line that is written over, else nothing.
progress() {
	[ ! -t 2 ] || printf '\r\033[K%s, %d s' "$*" "$SECONDS" >&2
}

# step LABEL LOG COMMAND...: run COMMAND with its output in LOG and say how long
# it took. Dies with the last line of LOG if it fails.
step() {
	local label=$1 log=$2 since=$SECONDS status=0 pid
	shift 2
	[ -t 2 ] || say "$label ..."
	mkdir -p "${log%/*}"
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		progress "$label ($(wc -l <"$log") lines of log)"
		sleep 0.2
	done
	wait "$pid" || status=$?
	[ "$status" = 0 ] ||
		die "$label failed: $(grep . "$log" | tail -n 1) (all of it: $log)"
	say "$label: $((SECONDS - since)) s"
}

# base_dir BASE: print the directory under build/ for BASE; die if BASE is none.
base_dir() {
	local dir
	case $1 in
	mainline|lts)
		printf '%s\n' "$build/$1"
		return
		;;
	esac
	if [ ! -f "$1/Kbuild" ] || [ ! -f "$1/drivers/iommu/iommu.c" ]; then
		die "base '$1' is neither mainline, lts nor a directory with a kernel tree"
	fi
	dir=$(cd "$1" && pwd -P)
	printf '%s/%s-%s\n' "$build" "${dir##*/}" \
		"$(cksum <<<"$dir" | cut -d ' ' -f 1)"
}
