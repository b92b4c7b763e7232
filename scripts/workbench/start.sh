# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# Read by the verbs in scripts/: see to Python, which a minimal machine does not have, and
# hand over to the module of the verb's name. Python leaves nothing beside its modules (-B).
verb=${0##*/}
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)

fail() {
	echo "$verb: $*" >&2
	exit 2
}

python=/usr/bin/python3	# Debian's, for which the other packages are
[ -x "$python" ] || python=$(command -v python3) || python=
if [ -z "$python" ]; then
	command -v apt-get >/dev/null || fail "python3 is missing, and this is not Debian"
	[ "$(id -u)" = 0 ] || fail "python3 is missing, run this once: sudo $here/setup"
	echo "$verb: install python3" >&2
	log=$(mktemp)
	{ apt-get update && DEBIAN_FRONTEND=noninteractive \
		apt-get install --yes --no-install-recommends python3; } >"$log" 2>&1 ||
		fail "python3 cannot be installed: $(tail -n 1 "$log") (all of it: $log)"
	rm -f "$log"
	python=/usr/bin/python3
fi
exec "$python" -B "$here/workbench/main.py" "$verb" "$@"
