# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the scripts share: messages, the bases, building. Sourced, not run.
#
# Exit status of every script: 0 all is as expected, 1 something is not,
# 2 it could not be found out (bad argument, no network, a build that fails).
set -eEuo pipefail
export LC_ALL=C
# Huge pages for the compiler's heap: it is a quarter faster where page faults are dear
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1

me=${0##*/}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
llvm=-19	# the version suffix of Debian's LLVM programs
PATH=$build/qemu/bin:$PATH	# if there is one, see setup
machines_dir=$root/scripts/machine
expected=$root/scripts/expected
tmp=()	# what must not outlive this script

cleanup() {
	local job
	for job in $(jobs -p); do
		kill -- "-$job" || :
	done 2>/dev/null
	wait 2>/dev/null
	[ ${#tmp[@]} = 0 ] || rm -rf "${tmp[@]}"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# What nobody has looked at must not end as 1, which is a verdict.
trap 'status=$?; [ "$status" -ge 128 ] || status=2; exit "$status"' ERR

# spawn COMMAND...: run it in the background as $spawned, in a process group of
# its own, so that cleanup ends it whole.
spawn() {
	set -m
	"$@" &
	spawned=$!
	set +m
}

die() {
	say "$me: $*"
	exit 2
}

# help: print the comment at the head of the script itself, for --help.
help() {
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
	exit 0
}

# need_value OPTION COUNT: die unless OPTION is followed by another argument.
need_value() {
	[ "$2" -ge 2 ] || die "$1 needs a value, see --help"
}

# one_of OPTION VALUE CHOICE...: die unless VALUE is one of them.
one_of() {
	local option=$1 value=$2 choice
	shift 2
	for choice; do
		[ "$value" != "$choice" ] || return 0
	done
	die "$option '$value': must be one of: $*"
}

# number OPTION VALUE: die unless VALUE is a number, 1 or more.
number() {
	[[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1 '$2': must be a number, 1 or more"
}

# must_be_summary FILE: die unless it is one of bench, for --baseline.
must_be_summary() {
	head -n 1 "$1" 2>/dev/null | grep -q '^machine,strict,' ||
		die "--baseline '$1': must be a summary.csv that scripts/bench has written"
}

# clear_progress: take the line of progress away, on a terminal.
clear_progress() {
	[ ! -t 2 ] || printf '\r\033[K' >&2
}

# say LINE...: lines on stderr that stay.
say() {
	clear_progress
	printf '%s\n' "$@" >&2
}

# progress TEXT: on a terminal one line that is written over, else nothing.
progress() {
	local line="$SECONDS s: $*"
	[ ! -t 2 ] || printf '\r\033[K%.*s' "$((${COLUMNS:-80} - 1))" "$line" >&2
}

# announce TEXT: what has been begun; a line of its own where progress shows none.
announce() {
	if [ -t 2 ]; then progress "$*"; else say "$SECONDS s: $*"; fi
}

# reason LOG: print the line that tells best why the command behind it failed.
reason() {
	if [ "$(df --output=avail "${1%/*}" | tail -n 1)" -lt 1024 ]; then
		echo "no space left on the disk"	# not even for the log
		return
	fi
	grep -m 1 -E 'No space left|^E: |error: |as asked for' "$1" ||
		tail -n 1 "$1"
}

# step LABEL LOG COMMAND...: run COMMAND with its output in LOG and say how long
# it took. Dies with the reason if it fails.
step() {
	local label=$1 log=$2 since=$SECONDS status=0
	shift 2
	announce "$label"
	mkdir -p "${log%/*}"
	: >"$log"
	spawn "$@" >"$log" 2>&1 </dev/null
	while kill -0 "$spawned" 2>/dev/null; do
		progress "$label, $(wc -l <"$log") lines of log"
		sleep 0.2
	done
	wait "$spawned" || status=$?
	[ "$status" = 0 ] || die "$label failed: $(reason "$log") (all of it: $log)"
	say "$label: done in $((SECONDS - since)) s"
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

# series_files: print the files of the series, relative to the top, in the order in
# which they apply.
series_files() {
	(cd "$root" && find Documentation drivers include tools MAINTAINERS.patch -type f \
		2>/dev/null) | sort
}

# paths_of NAME.patch: print the files that it edits.
paths_of() {
	sed -n 's,^--- a/\([^[:space:]]*\).*,\1,p' "$root/$1"
}

# make_repository STOCK TREE: make TREE, a git tree of those files of STOCK that the
# series edits: git need not look at the others.
make_repository() {
	local file
	for file in $(series_files); do
		case $file in
		*.lts.patch) ;;	# edits the same files
		*.patch) paths_of "$file" ;;
		esac
	done >"$run/edited"
	printf '%s\n' .gitattributes Makefile >>"$run/edited"
	mkdir "$2"
	rsync -r --files-from="$run/edited" "$1/" "$2/"
	git -C "$2" init -q -b stock
	git -C "$2" add -A
	git -C "$2" commit -q -m stock
}

# apply_edit NAME.patch DIRECTORY VERSION: apply it to the files in DIRECTORY, or where
# it does not fit this VERSION of the kernel NAME.lts.patch. Without fuzz. Sets $is_lts
# if it was the latter.
is_lts=
apply_edit() {
	local patch=$1 into=$2 variant
	for variant in "$root/$patch" "$root/${patch%.patch}.lts.patch"; do
		if [ -f "$variant" ] && patch -d "$into" -p1 -F0 -f -s --dry-run \
				<"$variant" >/dev/null; then
			patch -d "$into" -p1 -F0 -f -s --no-backup-if-mismatch <"$variant"
			[ "$variant" = "$root/$patch" ] || is_lts=1
			return
		fi
	done
	if patch -d "$into" -p1 -F0 -f -R -s --dry-run <"$root/$patch" >/dev/null; then
		die "$patch does not apply to $3: it is in there already"
	fi
	patch -d "$into" -p1 -F0 -f -r "$into/rejected" <"$root/$patch" >/dev/null || :
	say "$(cat "$into/rejected")"
	die "$patch does not apply to $3, see the hunks above"
}

# read_settings FILE: read lines of a key and its value, as the files in
# scripts/machine/ have them, into the array $settings. A key may come again.
declare -A settings
read_settings() {
	local key value
	settings=()
	while read -r key value; do
		case $key in
		''|'#'*) ;;
		*) settings[$key]+="${settings[$key]:+ }$value" ;;
		esac
	done <"$1"
}

# moved OBJ FROM TO: OBJ, where a kernel is built, has been copied, which made of the path FROM
# the path TO. objtool is built by absolute paths: unless they are mended make builds it, and
# then all else, again.
moved() {
	{ grep -rlIF "$2/" "$1" || :; } | xargs -r sed -i "s,$2/,$3/,g"
}

# copy_patched NAME ARCH...: make $dir/NAME, a copy of the patched tree, and of what has
# been built in it for ARCH, so that little has to be built again.
copy_patched() {
	local name=$1 arch only=()
	shift
	for arch; do only+=(--include="/obj-$arch/"); done
	rsync -a --delete "${only[@]}" --exclude='/obj-*/' "$dir/patched/" "$dir/$name/"
	for arch; do
		[ ! -d "$dir/$name/obj-$arch" ] ||
			moved "$dir/$name/obj-$arch" "$dir/patched" "$dir/$name"
	done
}

# kernel_make TREE ARCH TARGET...: the kernel's make, its objects in TREE/obj-ARCH.
# That place makes every path relative, so that ccache serves any other checkout.
# Here and below, ARCH may end in -debug: the same with the checks of debug.config.
kernel_make() {
	local tree=$1 arch=$2
	shift 2
	KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=build KBUILD_BUILD_HOST=build \
	make -C "$tree" O="obj-$arch" ARCH="${arch%-debug}" LLVM=$llvm \
		CC="ccache clang$llvm" HOSTCC="ccache clang$llvm" \
		-j"$(nproc)" "$@"
}

# not_configured FRAGMENTS CONFIG: print what FRAGMENTS ask for and CONFIG has not.
not_configured() {
	local line
	while read -r line; do
		case $line in
		CONFIG_*=n) line="# ${line%=n} is not set" ;;
		CONFIG_*|'# CONFIG_'*' is not set') ;;
		*) continue ;;
		esac
		grep -qxF "$line" "$2" || printf ' (%s)' "$line"
	done <"$1"
}

# configure OBJ FRAGMENTS MAKE...: have the command MAKE, which builds a tree in its directory
# OBJ, configure it: tinyconfig with those FRAGMENTS of scripts/config/ on top. Fails, and
# names it, if a symbol that a fragment asks for is not in the result.
configure() {
	local obj=$1 name files=() lost
	for name in $2; do files+=("$root/scripts/config/$name.config"); done
	shift 2
	mkdir -p "$obj"
	cat "${files[@]}" >"$obj/fragments.new"
	if ! cmp -s "$obj/fragments" "$obj/fragments.new"; then
		rm -f "$obj/fragments"
		"$@" tinyconfig
		(cd "$obj" && ../scripts/kconfig/merge_config.sh -m -O . .config "${files[@]}")
	fi
	"$@" olddefconfig
	lost=$(not_configured "$obj/fragments.new" "$obj/.config")
	if [ -n "$lost" ]; then
		echo "not in the configuration as asked for:$lost"
		return 1
	fi
	mv "$obj/fragments.new" "$obj/fragments"
}

# fragments TREE ARCH: print those of the kernel in TREE that boots.
fragments() {
	local tree=$1 arch=$2
	echo common "${arch%-debug}"
	# A kernel with a probe runs no suite, and is measured: stock has none
	[[ $tree = *-probe ]] || [ ! -e "$tree/drivers/iommu/iommu-kunit.c" ] || echo kunit
	[ "$arch" = "${arch%-debug}" ] || echo debug
}

# up_to_date TREE ARCH: nothing has changed since the last build; make itself
# would take longer to find that out than a guest takes to boot.
up_to_date() {
	local tree=$1 built=$1/obj-$2/built
	[ -e "$built" ] || return 1
	[ -z "$(find "$tree" "$root/scripts/config" -path "$tree/obj-*" -prune -o \
		-newer "$built" -type f -print -quit)" ]
}

# configured TREE ARCH: what decides the configuration has not changed since the
# last build.
configured() {
	local tree=$1 built=$1/obj-$2/built
	[ -e "$built" ] || return 1
	[ -z "$(find "$tree" "$root/scripts/config" -path "$tree/obj-*" -prune -o \
		\( -name 'Kconfig*' -o -path "$root/scripts/config/*" \) \
		-newer "$built" -type f -print -quit)" ]
}

# compile TREE ARCH IMAGE: configure and build, and tell what ccache knew.
compile() {
	local tree=$1 arch=$2 image=$3 obj=$1/obj-$2
	mkdir -p "$obj"
	touch "$obj/started"	# a change while make runs is for the next time
	configured "$tree" "$arch" ||
		configure "$obj" "$(fragments "$tree" "$arch")" kernel_make "$tree" "$arch"
	export CCACHE_STATSLOG=$obj/ccache.stats
	rm -f "$CCACHE_STATSLOG"
	kernel_make "$tree" "$arch" "${image##*/}" headers
	# There is none if the user has disabled ccache.
	[ ! -e "$CCACHE_STATSLOG" ] || ccache --show-log-stats
	mv "$obj/started" "$obj/built"
}

# copy_objects FROM TO ARCH FILES: if nothing has been built in the tree TO for ARCH, have it
# begin with what has been in FROM, so that make builds only what differs: FILES lists the
# sources that do, as "/path".
copy_objects() {
	local from=$1 to=$2 obj=obj-$3 oldest
	[ -e "$from/$obj/built" ] && [ ! -d "$to/$obj" ] || return 0
	rm -rf "$to/$obj.new"
	rsync -a "$from/$obj/" "$to/$obj.new/"
	rm "$to/$obj.new/built"
	moved "$to/$obj.new" "$from" "$to"
	# Older than the sources that it has been built without; their own dates stay, or what
	# has been built of them for another ARCH would be built again
	oldest=$(sed "s,^,$to," "$4" | xargs stat -c %Y | sort -n | head -n 1)
	find "$to/$obj.new" -type f -print0 | xargs -0 touch -d "@$((oldest - 1))"
	mv "$to/$obj.new" "$to/$obj"
}

# build_kernel KERNEL ARCH: build the one of $dir for ARCH if anything has changed,
# and copy what boots to $run/KERNEL-ARCH, where it stays the same whatever else is
# built meanwhile. $settings are ARCH's.
build_kernel() {
	local tree=$dir/$1 arch=$2 label="build $1 for $2" log=$dir/log/build-$1-$2.log
	[ "$1" != patched ] ||
		copy_objects "$dir/stock" "$tree" "$arch" "$dir/series-files"
	if ! up_to_date "$tree" "$arch"; then
		step "$label" "$log" compile "$tree" "$arch" "${settings[image]}"
		say "$label: from ccache $(sed -n '/ Hits:/{s/.*: *//p;q}' "$log")"
	fi
	cp "$tree/obj-$arch/${settings[image]}" "$run/$1-$arch"
}

# lock DIR: keep other runs from writing below DIR until unlock or our end.
lock() {
	mkdir -p "$1"
	exec 9>"$1/lock"
	flock -n 9 && return
	say "waiting for another run to have done with $1"
	flock 9
}

unlock() {
	exec 9>&-
}

# run_dir NAME: make the directory $run for what this run leaves; it goes when we
# end, unless $tmp is emptied to keep it, and then after a day.
run_dir() {
	mkdir -p "$build/run"
	find "$build/run" -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {} +
	run=$(mktemp -d "$build/run/$1.XXXXXX")
	tmp+=("$run")
}

# build_guest TREE ARCH TARGET OUT: compile the guest's programs with TREE's
# nolibc for the compiler's TARGET, and make in OUT what a guest boots with
# beside its kernel: initramfs, disk and ACPI table.
build_guest() {
	local tree=$1 obj=$1/obj-$2 headers=$1/obj-${2/#um/x86_64} target=$3 out=$4 source sources
	mkdir -p "$out"
	sources=("$root"/{scripts/guest/init.c,tools/testing/selftests/iommu/default_domain.c})
	# 6.12 keeps to itself how to call its benchmark
	[ ! -e "$headers/usr/include/linux/map_benchmark.h" ] ||
		sources+=("$root/scripts/guest/bench.c")
	for source in "${sources[@]}"; do
		"clang$llvm" --target="$target" -fuse-ld=lld -Wall -Werror -Os -static \
			-nostdlib -ffreestanding -fno-stack-protector \
			-include "$tree/tools/include/nolibc/nolibc.h" \
			-I "$tree/tools/include/nolibc" -I "$headers/usr/include" \
			-I "$tree/tools/testing/selftests" \
			-o "$out/$(basename "$source" .c)" "$source"
	done
	cat >"$out/initramfs.list" <<-EOF
		dir /dev 755 0 0
		dir /proc 755 0 0
		dir /sys 755 0 0
		nod /dev/console 600 0 0 c 5 1
		file /init $out/init 755 0 0
		file /default_domain $out/default_domain 755 0 0
	EOF
	[ ! -e "$out/bench" ] || echo "file /bench $out/bench 755 0 0" >>"$out/initramfs.list"
	"$obj/usr/gen_init_cpio" "$out/initramfs.list" >"$out/initramfs.cpio"
	# A megabyte of 16-byte records, each its own number: see init.c
	seq -f '%015.0f' 0 65535 >"$out/disk.img"
	iasl -p "$out/external" "$root/scripts/machine/external.asl"
}

# run_guest SECONDS QEMU...: run QEMU with its console on stdin and stdout and nothing
# else, and end it after SECONDS. Status 124: it had not ended by itself. Says on stderr how
# it is run.
run_guest() {
	local limit=$1
	shift
	set -- "$@" -nodefaults -no-user-config -display none -no-reboot -serial stdio
	echo "command: ${*@Q}" | sed "s,'\([A-Za-z0-9_.,:=/+-]*\)',\1,g" >&2
	exec timeout --foreground -k 5 "$limit" "$@"
}

# expectations MACHINE KERNEL STRICT PASSTHROUGH: print DEVICE=TYPE for each of its
# devices, as $expected has it. What is unset is 0: scripts/config/ says so to the kernel. With STRICT off
# there is no IOMMU.
expectations() {
	awk -v machine="$1" -v kernel="$2" -v strict="$3" -v pt="$4" '
		$1 == machine && $3 == (pt == 1) {
			column = strict == 1 ? 4 : kernel == "stock" ? 5 : 6
			print $2 "=" (strict == "off" ? "none" : $column)
		}' "$expected"
}

# make_probe KERNEL ARCH: make the tree KERNEL-probe of $dir: KERNEL, but with drivers
# that require translation, by the diffs in scripts/probe/.
make_probe() {
	local from=$dir/$1 to=$dir/$1-probe edited=$run/probe diff path
	rm -rf "$edited"
	for diff in "$root"/scripts/probe/*.patch; do
		path=$(sed -n 's,^--- a/,,p' "$diff")
		mkdir -p "$edited/${path%/*}"
		cp "$from/$path" "$edited/$path"
		patch -d "$edited" -p1 -F0 -f -s <"$diff"
	done
	(cd "$edited" && find . -type f -printf '/%P\n') >"$run/probe-files"
	rsync -a --delete --exclude='/obj-*/' --exclude-from="$run/probe-files" "$from/" "$to/"
	rsync -rl --checksum "$edited/" "$to/"
	copy_objects "$from" "$to" "$2" "$run/probe-files"
}

# prepare ARCH [PROBE]: build the $kernels of $dir and the guest for it in $run, with PROBE
# the kernels with the probe as well.
prepare() {
	local arch=$1 kernel
	read_settings "$machines_dir/$arch.arch"
	for kernel in "${kernels[@]}"; do
		build_kernel "$kernel" "$arch"
		[ -n "${2-}" ] || continue
		step "probe $kernel for $arch" "$dir/log/probe-$kernel.log" \
			make_probe "$kernel" "$arch"
		build_kernel "$kernel-probe" "$arch"
	done
	step "build the guest for $arch" "$dir/log/guest-$arch.log" \
		build_guest "$dir/${kernels[0]}" "$arch" "${settings[target]}" "$run/guest-$arch"
}

# answer PLUG TRACE: copy a guest's console to stdout, and do what it asks for there:
# count the lines of TRACE, or plug and unplug what the monitor is told with PLUG.
# Answers to 3, where the console's input comes from, and tells the monitor by 4.
answer() {
	local line
	while IFS= read -r line || [ -n "$line" ]; do
		printf '%s\n' "$line"
		case $line in
		'# host: count'*) wc -l <"$2" >&3 ;;
		'# host: plug'*) echo "device_add $1,id=plugged" >&4; echo 0 >&3 ;;
		'# host: unplug'*) echo "device_del plugged" >&4; echo 0 >&3 ;;
		esac
	done
}

# boot_machine LOG MACHINE KERNEL WORDS [OPTION ...]: boot it for $limit seconds at most,
# with these WORDS on the kernel's command line and options for QEMU, which counts what the
# machine says unless $untraced is set: that costs time. There is no NVMe if $no_nvme is
# set. The guest's console goes to stdout. Fails if QEMU does, 124 being the time limit.
# Needs a few files of its own, beside LOG.
boot_machine() {
	local log=$1 machine=$2 kernel=$3 words=$4 arch qemu probe plug count drives=() i
	shift 4
	read_settings "$machines_dir/$machine"
	arch=${settings[arch]}
	qemu=${settings[qemu]-}
	plug=${settings[plug]-}
	plug=${plug#* }
	count=${settings[count]-}
	if [ "${count:-kernel}" = kernel ] || [ -n "${untraced-}" ]; then
		count=
	else
		count="-trace ${count// / -trace } -D $log.trace"
	fi
	words="${settings[append]-} $words"
	probe=${settings[probe]:+-probe}
	read_settings "$machines_dir/$arch.arch"
	qemu="${settings[qemu]} $qemu ${settings[disks]-} $count"
	[ -n "${no_nvme-}" ] || qemu+=" ${settings[nvme]-}"
	for i in 0 1 2 3 4 5; do
		drives+=(-blockdev "raw,node-name=disk$i,read-only=on,file.driver=file,file.filename=disk.img")
	done
	cd "$run/guest-$arch"
	mkfifo "$log.console" "$log.monitor.in"
	exec 3<>"$log.console" 4<>"$log.monitor.in"
	touch "$log.monitor.out"
	# shellcheck disable=SC2086 # the machine's words are options
	run_guest "$limit" $qemu "${drives[@]}" -accel "$accel" "$@" \
		-chardev "pipe,id=monitor,path=$log.monitor" -mon chardev=monitor \
		-kernel "$run/$kernel$probe-$arch" -initrd initramfs.cpio \
		-append "console=${settings[console]} panic=-1 ${settings[append]-} $words" \
		<&3 | answer "$plug" "$log.trace"
}
