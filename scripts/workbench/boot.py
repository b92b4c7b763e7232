# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/boot [OPTION ...] [MACHINE ...]

Boot the stock and the patched kernel on emulated machines, and print a table of the type
of default domain that each device gets. Installs, fetches and builds what is missing
first. Without an argument this is the main job: vtd, vtd-nopt and vtd-nopt-external, under
iommu.strict=0 and iommu.strict=1.

  --all               every machine, unless some are named, under every iommu.strict and
                      iommu.passthrough, unless --strict or --passthrough gives one
  --odd               under each of the parameters in scripts/parameters instead
  --attack            have a device do DMA to what has been unmapped instead, also under
                      iommu.passthrough=1, and print what it has reached; on the machines
                      whose file has such a device, unless some are named: see
                      scripts/guest/attack.c
  --image IMAGE       boot a kernel that somebody else has built: a file for x86_64, or
                      debian:X.Y, the newest of that version in the first suite that has one:
                      apt's own, backports, stable, oldstable, unstable; of a flavour by
                      debian:X.Y-cloud or -rt; may be given again. Unless some are named, on
                      vtd and vtd-nopt. It is judged as stock of its version. With --all, not
                      on vtd-flts: there none finds its NVMe disk; nor on machines that
                      need a diff of scripts/probe/
  --modules DIR       the modules of the one --image that is a file, a directory as
                      /lib/modules/VERSION is; without them, what has no driver is not read
  --arch ARCH         only machines of this architecture; all of them, unless some are named
  --base BASE         what is built: mainline (the default), newest, lts or a directory,
                      see scripts/setup. Machines for which it lacks something are left out.
                      lts lacks what --attack, --debug, --loads and --events need
  --kernel KERNEL     only stock, or only patched; or what scripts/series test has made
                      last: commit, which must be as patched, or tests, as stock; or what
                      scripts/mutate has made last: mutant, which must be as patched
  --alternative NAME  patched beside a kernel without the series that has NAME of
                      related/alternatives/, two-ops or identity-may-fail: another way to make
                      lazy what is behind VT-d without pass-through; only machines with VT-d
                      that need no diff of scripts/probe/
  --with NAME         both kernels with related/NAME.patch on top, where NAME is untrusted or
                      iova-destroy, or with a diff of your own if NAME has a "/"; may be given
                      again
  --loads             print how often the IOTLB is invalidated for each load in scripts/loads,
                      with iommu.strict=1 and 0, instead. Unless some are named, on vtd and
                      vtd-nopt
  --random N          N machines that are drawn at random, with parameters and a default that
                      are drawn, too; from --seed, or from a number that the system draws.
                      What is right follows from each machine
  --seed SEED         the first machine's, a number; the second has SEED + 1, and so on
  --events            one event in each boot instead: types are written; a driver, a device or
                      a CPU goes and comes back; the machine suspends, is reset or starts
                      another kernel; VFIO takes the disk; allocations fail. The disk is read
                      meanwhile, except in faults, nth and reset. Then types and disks are
                      judged. Print how often each event happened.
                      Unless some are named, on vtd-nopt-hotplug, vtd and vtd-nopt-external
  --event EVENT       only this one: type, fuzz, rebind, plug, cpu, suspend, vfio, faults, nth,
                      queue, kexec or reset; may be given again
  --rounds TIMES      how often types are written in type, and on each path of faults: 40
                      unless given. The path plug of faults has fewer, and so have the events
                      fuzz, rebind, plug, cpu, suspend and vfio. nth, queue, kexec and reset
                      have none
  --default DEFAULT   a kernel whose configuration asks for lazy or strict invalidation or for
                      passthrough by itself: lazy, as all others here, strict or passthrough.
                      Or opt-in: it leaves VT-d off unless the firmware asks for it and there
                      is an external-facing port, as here, on vtd-external, vtd-nopt-external
                      and vtd-late unless some are named. Booted where it counts, that is
                      with iommu.strict or iommu.passthrough unset
  --debug             with KASAN, lockdep, checks of the DMA API and of pages that are freed
                      while they are mapped, and more; a finding of theirs fails. lockdep does
                      not look at one lock of PCI's hotplug, see scripts/probe/debug/
  --kcsan             events with KCSAN, which looks for data races in the IOMMU's core and in
                      VT-d's iommu.c and cache.c; a finding fails
  --64k               with pages of 64 KiB; only machines of arm64, all unless some are named
  --strict SETTING    only with this iommu.strict: unset, 0 or 1
  --passthrough SETTING
                      only with this iommu.passthrough: unset, 0 or 1; if not given unset, or
                      each of them with --all and --default
  --append 'WORDS'    more kernel parameters
  --replug TIMES      unplug what a machine plugs, and plug it in again: 1 unless given; not
                      with --random
  --timeout SECONDS   until a guest counts as hung, 60 unless given, with --debug 300, with
                      --loads 600, with --events 600 and 2 more for each of --rounds, and that
                      4 times with --debug or --kcsan; and 5 more for each --replug
  --accel tcg|kvm     how QEMU runs the guest, tcg unless given
  --console           show the console of the one boot that the rest selects
  --list              print the machines and what each emulates

MACHINE is a name, see --list, or the path of a file like those in scripts/machine/.

The table goes to stdout as boots end, a row for each machine, setting and device. With --all
and --default it has a row for each machine and device, and a column for each setting; "!" is
not as expected. With --random it has a row for each machine, and at the end how many there were
of each class: with 8 machines or more it fails if a class has none, unless only stock is
booted. With --loads and --events it comes after the last boot, with a row for each load or
event. With --event nth it also fails if a boot has told no number, or if those of stock and
patched differ though the type is the same. Where no type is written, and for what came of a
failure, they may differ by two. Progress and failures go to stderr.

A boot fails if a device has another type than expected or takes another than it should
through sysfs, if its disk cannot be read through the IOMMU or invalidates the IOTLB too
often or too seldom, if it skips what it should judge, or the kernel logs an error, warns,
panics or hangs: see scripts/guest/init.c. What is right is in scripts/workbench/policy.py.
The end of its console is shown, the whole is kept under build/.

Exit status: 0 every row is as expected; 1 some are not, they are marked in the table, or
named below it;
2 it could not be found out: bad argument, or something could not be built or started.
"""

from __future__ import annotations

import os
import secrets
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence

from workbench import base as bases
from workbench import attack, build, draw, drawn, emulator, events, image, initramfs
from workbench import kernel, loads, machine, packages, parameters, paths, policy, progress
from workbench import setup, verb, verdict
from workbench.boots import AT_ONCE, UNREAD, Booter, How, ImageRows, Pool, Rows, Taker
from workbench.job import Job, Way
from workbench.machine import Machine
from workbench.policy import Setting
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell, must_be_one_of

MAIN_JOB = ("vtd", "vtd-nopt", "vtd-nopt-external")
FOR_AN_IMAGE = ("vtd", "vtd-nopt")
FOR_OPT_IN = ("vtd-external", "vtd-nopt-external", "vtd-late")
UNSET = "unset"
HOSTS = {"x86_64": "x86_64", "aarch64": "arm64", "s390x": "s390"}  # by what uname says
DEBUG_NEEDS = "drivers/iommu/iommu-debug-pagealloc.c"
LARGE_PAGES = "arm64"  # the architecture that can have pages of 64 KiB
SECONDS_PER_BOOT = 3  # of QEMU (TCG) on a core of an AMD EPYC
SETTINGS = (UNSET, "0", "1")
SEEDS = 10**9


def options() -> verb.Arguments:
    """Return the parser of our arguments."""
    parser = verb.Arguments(__doc__ or "")
    add = parser.add_argument
    for flag in ("--all", "--odd", "--attack", "--loads", "--console", "--list", "--debug"):
        add(flag, action="store_true")
    for flag in ("--events", "--kcsan"):
        add(flag, action="store_true")
    add("--event", dest="only", type=verb.one_of(*events.EVENTS), action="append", default=[])
    add("--rounds", type=verb.number)
    add("--64k", action="store_true")
    add("--random", type=verb.number)
    add("--seed", type=verb.number)
    add("--image", action="append")
    add("--modules", type=Path)
    add("--arch")
    add("--base", default="mainline")
    add("--kernel", type=verb.one_of("stock", "patched", "commit", "tests", "mutant"))
    add("--alternative")
    add("--with", dest="related", action="append", default=[])
    add("--default", type=verb.one_of(*policy.DEFAULTS))
    add("--strict", type=verb.one_of(*SETTINGS))
    add("--passthrough", type=verb.one_of(*SETTINGS))
    add("--append", default="")
    add("--replug", type=verb.number)
    add("--timeout", type=verb.number)
    add("--accel", type=verb.one_of("tcg", "kvm"), default="tcg")
    add("machines", nargs="*")
    return parser


def _refuse_together(asked: Namespace) -> None:
    """Raise CannotTell of options that mean nothing together."""
    pairs = [("odd", "all"), ("odd", "strict"), ("odd", "passthrough")]
    pairs += [("image", other) for other in ("odd", "kernel", "arch", "alternative")]
    pairs += [
        ("attack", other) for other in ("odd", "image", "replug", "loads", "alternative")
    ]
    _check_images(asked)
    kernel.check_related(asked.related, own=True)
    pairs += [("alternative", other) for other in ("odd", "kernel", "arch")]
    pairs += [("loads", other) for other in ("all", "odd", "image", "strict", "console")]
    pairs += [("loads", "passthrough"), ("loads", "replug")]
    pairs += [("events", other) for other in ("all", "odd", "image", "attack", "loads")]
    pairs += [("events", other) for other in ("passthrough", "alternative")]
    pairs += [("default", other) for other in ("odd", "image", "attack", "loads", "events")]
    pairs += [("random", other) for other in ("all", "odd", "attack", "loads", "image")]
    pairs += [("random", other) for other in ("arch", "alternative", "default", "64k")]
    pairs += [("random", other) for other in ("strict", "passthrough", "events", "replug")]
    pairs += [("debug", "kcsan")]
    for fragment in ("debug", "64k"):
        pairs += [(fragment, other) for other in ("image", "attack", "loads")]
    pairs += [("64k", "events"), ("64k", "alternative")]
    pairs += [("odd", "replug"), ("odd", "console")]
    for one, other in pairs:
        if all(getattr(asked, each) not in (None, False) for each in (one, other)):
            raise CannotTell(f"--{one} and --{other} cannot go together")
    if asked.seed is not None and asked.random is None:
        raise CannotTell(f"--seed '{asked.seed}': is for --random")
    if asked.random is not None and asked.machines:
        raise CannotTell(f"machine '{asked.machines[0]}': --random draws its own, name none")
    if (asked.only or asked.rounds or asked.kcsan) and not asked.events:
        raise CannotTell("--event, --rounds and --kcsan are for --events")
    if asked.events:
        events.check_only(asked.only, asked.rounds, asked.replug)
    if asked.alternative is not None:
        must_be_one_of("--alternative", asked.alternative, kernel.alternatives())
    if asked.image is not None and asked.base != "mainline":
        raise CannotTell("--image and --base cannot go together")
    if asked.attack and (asked.accel != "tcg" or asked.base == "lts"):
        raise CannotTell(
            "--attack needs --accel tcg, and --base mainline, newest or a directory"
        )
    if asked.accel == "kvm" and not os.access("/dev/kvm", os.W_OK):
        raise CannotTell("--accel 'kvm': no access to /dev/kvm here, use tcg")


def _check_images(asked: Namespace) -> None:
    """Raise CannotTell unless what is asked for of images can be done."""
    for name in asked.image or ():
        if asked.image.count(name) > 1:
            raise CannotTell(f"--image '{name}': given twice")
    if asked.image and asked.related:
        raise CannotTell("--image and --with cannot go together")
    if asked.modules and (len(asked.image or ()) != 1 or image.is_debian(asked.image[0])):
        raise CannotTell(f"--modules '{asked.modules}': is for one --image that is a file")
    if asked.modules:
        image.check_modules(asked.modules)


def _named(asked: Namespace) -> list[Machine]:
    """Return the machines that are named, or whose files are, each once."""
    known = machine.names()
    found: dict[str, Machine] = {}
    for word in asked.machines:
        if "/" in word:
            each = machine.read_file(Path(word))
        else:
            must_be_one_of("machine", word, known)
            each = machine.read(word)
        if found.setdefault(each.name, each) != each:
            raise CannotTell(f"machine '{word}': another one has this name, too")
    return list(found.values())


def choose(asked: Namespace) -> list[Machine]:
    """Return the machines that are asked for."""
    named = _named(asked)
    if getattr(asked, "64k"):
        _only_64k(asked, named)
    chosen = named or [machine.read(name) for name in _unnamed(asked)]
    if asked.arch is not None:
        machine.arch(asked.arch)
        for each in chosen:
            if named and each.arch.name != asked.arch:
                raise CannotTell(f"machine '{each.name}' is not of --arch '{asked.arch}'")
        chosen = [each for each in chosen if each.arch.name == asked.arch]
        if not chosen:
            raise CannotTell(
                f"--arch '{asked.arch}': none of {' '.join(_unnamed(asked))} is of it, name others"
            )
    for each in chosen:
        if asked.accel == "kvm" and each.arch.name != HOSTS.get(os.uname().machine):
            why = f"--accel 'kvm' cannot run {each.arch.name} here, use tcg"
            raise CannotTell(f"machine '{each.name}': {why}")
    if asked.replug is not None and not any(each.plugs for each in chosen):
        raise CannotTell(f"--replug '{asked.replug}': none of these machines plugs a device")
    if asked.image is not None:
        for each in chosen:
            if not image.is_for(each):
                why = "--image is for those of x86_64 that need no diff of scripts/probe/"
                raise CannotTell(f"machine '{each.name}': {why}")
    for each in chosen:
        if asked.attack:
            attack.attacker(each)
    if asked.loads:
        for each in chosen:
            loads.check(each, loads.read())
        chosen = [loads.equipped(each) for each in chosen]
    if asked.events:
        chosen = events.able(chosen, bool(named))
    if asked.alternative is not None:
        why = "--alternative is for those with VT-d that need no diff of scripts/probe/"
        chosen = _only(_takes_alternative, chosen, named, why)
    if asked.default == policy.OPT_IN:
        why = "--default opt-in is for VT-d with an external-facing port"
        chosen = _only(_can_opt_in, chosen, named, why)
    return chosen


def _unnamed(asked: Namespace) -> Sequence[str]:
    """Return the names of the machines that are meant if none is named."""
    if asked.image is not None:
        return image.machines() if asked.all else FOR_AN_IMAGE
    if asked.attack:
        return [name for name, each in machine.read_all().items() if each.attacker]
    if asked.loads:
        return loads.MACHINES
    if asked.default == policy.OPT_IN and not asked.all:
        return FOR_OPT_IN
    if asked.events and asked.arch is None:
        return events.MACHINES
    return machine.names() if asked.all or asked.odd or asked.arch is not None else MAIN_JOB


def _only_64k(asked: Namespace, named: Sequence[Machine]) -> None:
    """Ask for machines of arm64 only; CannotTell if others are asked for."""
    if asked.arch not in (None, LARGE_PAGES):
        raise CannotTell(f"--arch '{asked.arch}': with --64k it must be {LARGE_PAGES}")
    for each in named:
        if each.arch.name != LARGE_PAGES:
            raise CannotTell(f"machine '{each.name}': --64k is for those of {LARGE_PAGES}")
    asked.arch = LARGE_PAGES


def _has_vtd(each: Machine) -> bool:
    return any("intel-iommu" in word for word in each.qemu)


def _takes_alternative(each: Machine) -> bool:
    """Whether it boots an alternative, to which the probe's diff does not apply."""
    return _has_vtd(each) and not each.probe


def _can_opt_in(each: Machine) -> bool:
    return _has_vtd(each) and bool(each.external)


def _only(
    can: Callable[[Machine], bool],
    chosen: Sequence[Machine],
    named: Sequence[Machine],
    why: str,
) -> list[Machine]:
    """Return the machines for which an option is; CannotTell if others are named."""
    for each in named:
        if not can(each):
            raise CannotTell(f"machine '{each.name}': {why}")
    found = [each for each in chosen if can(each)]
    if not found:
        raise CannotTell(f"{why}, and none of these machines is one")
    return found


def _plain_ways(asked: Namespace) -> list[Way]:
    is_all = asked.all or asked.default
    stricts = [asked.strict] if asked.strict else list(SETTINGS) if is_all else ["0", "1"]
    passthroughs = [asked.passthrough or UNSET]
    if is_all and not asked.passthrough:
        passthroughs = list(SETTINGS)
    ways = []
    for passthrough in passthroughs:
        for strict in stricts:
            if asked.default and UNSET not in (strict, passthrough):
                continue  # no matter what the default is
            words = [f"iommu.strict={strict}"] if strict != UNSET else []
            words += [f"iommu.passthrough={passthrough}"] if passthrough != UNSET else []
            setting = Setting(strict, passthrough, asked.default or policy.DEFAULTS[0])
            ways.append(Way(setting, tuple(words)))
    if not ways:
        raise CannotTell(
            f"--default '{asked.default}': --strict and --passthrough leave nothing unset"
        )
    if asked.attack and not (asked.strict or asked.passthrough or asked.all):
        ways.append(Way(Setting(UNSET, "1"), ("iommu.passthrough=1",)))
    return ways


def ways(asked: Namespace, chosen: Sequence[Machine]) -> dict[str, list[Way]]:
    """Return how each machine is booted, by its name."""
    if asked.loads:
        return {each.name: list(loads.STRICT_FIRST) for each in chosen}
    if not asked.odd:
        plain = _plain_ways(asked)
        return {each.name: plain for each in chosen}
    odd = parameters.read()
    found = {each.name: [Way(*way) for way in odd.get(each.name, [])] for each in chosen}
    for each in _named(asked):
        if each.name in found and not found[each.name]:
            raise CannotTell(f"--odd: scripts/parameters has none for {each.name}")
    found = {name: some for name, some in found.items() if some}
    if not found:
        raise CannotTell(f"--odd: scripts/parameters has none for --arch {asked.arch}")
    return found


@dataclass(frozen=True)
class Plan:
    """What is to be booted.

    ways: by a machine's name. run: the directory of this run. drawn: the machines, if they are
    drawn.
    """

    chosen: Sequence[Machine]
    ways: Mapping[str, Sequence[Way]]
    run: Path
    drawn: Sequence[draw.Drawn] = ()


def _plan(asked: Namespace) -> Plan:
    if asked.random is None:
        chosen = choose(asked)
        how = ways(asked, chosen)
        chosen = [each for each in chosen if each.name in how]
        return Plan(chosen, how, paths.run_directory("boot"))
    run = paths.run_directory("boot")
    seed = asked.seed or secrets.randbelow(SEEDS) + 1
    progress.say(f"boot: {asked.random} machines from --seed {seed}")
    machines = [draw.write(seed + number, run) for number in range(asked.random)]
    chosen = [each.machine for each in machines]
    return Plan(chosen, {each.machine.name: [each.way] for each in machines}, run, machines)


def _kernels(base: bases.Base, names: Sequence[str]) -> dict[str, kernel.Kernel]:
    made = {}
    for name in names:
        if name == "stock":
            made[name] = kernel.stock(base)
        elif name == "patched":
            made[name] = kernel.patched(base)
        elif name in kernel.alternatives():
            made[name] = kernel.alternative(base, name)
        else:
            made[name] = kernel.kept(base, name)
    return made


def _build_all(
    pool: Pool,
    kernels: Mapping[str, kernel.Kernel],
    jobs: Sequence[Job],
    stock: kernel.Kernel,
    more: tuple[str, ...],
) -> None:
    """Build what is to be booted, one architecture after the other: see _build_arch()."""
    archs: dict[str, list[Job]] = {}
    for job in jobs:
        archs.setdefault(job.machine.arch.name, []).append(job)
    for ours in archs.values():
        _build_arch(pool, kernels, ours, stock, more)


def _build_arch(
    pool: Pool,
    kernels: Mapping[str, kernel.Kernel],
    jobs: Sequence[Job],
    stock: kernel.Kernel,
    more: tuple[str, ...],
) -> None:
    """Build what the machines of one architecture need, and have them booted meanwhile.

    more: what these boots need beside the default of their settings, see build.Target.
    """
    arch = jobs[0].machine.arch
    run = pool.booter.run
    files = run / f"guest-{arch.name}"
    for name, plain in kernels.items():
        for is_probe, default in sorted(set(map(_kind, jobs))):
            built = kernel.probed(plain) if is_probe else plain
            target = _target(arch, default, more)
            to = run / f"{built.name}-{target.name}"
            image_file = build.build_one(built, arch, to, target.more)
            if not files.exists():
                headers = built.tree / f"obj-{target.name}" / "usr/include"
                sources = initramfs.Sources(stock.tree, [headers])
                machines = [job.machine for job in jobs]
                initramfs.guest_files(
                    sources, arch, headers.parents[1] / "guest", files, machines
                )
            wanted = [
                job for job in jobs if job.kernel == name and _kind(job) == (is_probe, default)
            ]
            pool.submit(wanted, image_file, files)


def _kind(job: Job) -> tuple[bool, str]:
    """Return what kernels of the same source differ by: the probes, and the default."""
    return job.machine.probe, job.way.setting.default


def _target(arch: machine.Arch, default: str, more: tuple[str, ...]) -> build.Target:
    """Return for what a kernel with this default is built. more: see build.Target."""
    fragments = () if default == policy.DEFAULTS[0] else (f"default-{default}",)
    return build.Target(arch.name, arch.image, fragments + more)


def _jobs(
    chosen: Sequence[Machine],
    how: Mapping[str, Sequence[Way]],
    kernels: Sequence[str],
    related: Sequence[str] = (),
) -> list[Job]:
    return [
        Job(each, name, way, tuple(related))
        for each in chosen
        if each.name in how
        for way in how[each.name]
        for name in kernels
    ]


def _asked_jobs(
    asked: Namespace,
    chosen: Sequence[Machine],
    how: Mapping[str, Sequence[Way]],
    kernels: Sequence[str],
) -> list[Job]:
    """Return the boots that are asked for, of kernels that are built."""
    jobs = _jobs(chosen, how, kernels, asked.related)
    return events.happenings(jobs, asked.only) if asked.events else jobs


def _say_how_many(jobs: Sequence[Job], kernels: Sequence[str], seconds: int) -> None:
    """Say how many boots there are to be, and about how long they take."""
    machines = dict.fromkeys(job.machine.name for job in jobs)
    ways = dict.fromkeys(job.way for job in jobs)
    settings = {
        (way.setting, () if way.is_spelled else events.without(way.words)) for way in ways
    }
    progress.say(
        f"boot: {len(jobs)} boots of {' and '.join(kernels)} on {len(machines)} machines, "
        f"{len(settings)} settings, {AT_ONCE} at a time, "
        f"about {len(jobs) * seconds // AT_ONCE + 2} s"
    )


def _say_what(
    jobs: Sequence[Job],
    kernels: Mapping[str, kernel.Kernel],
    more: tuple[str, ...],
    seconds: int,
) -> None:
    """Say what is going to be done, and about how long the parts take that take long."""
    _say_how_many(jobs, list(kernels), seconds)
    wanted = dict.fromkeys((job.machine.arch, *_kind(job)) for job in jobs)
    for arch, is_probe, default in wanted:
        for plain in kernels.values():
            built = kernel.probed(plain) if is_probe else plain
            target = _target(arch, default, more)
            outlook = build.outlook(built, target)
            progress.say(f"boot: {built.name} for {target.name}: {outlook}")


def _leave_out(
    chosen: Sequence[Machine], base: bases.Base, named: Sequence[Machine]
) -> list[Machine]:
    """Return the machines for which a base has all that is needed."""
    kept = []
    for each in chosen:
        lacking = kernel.lacks(base, each.needs, each.probe)
        if not lacking:
            kept.append(each)
        elif each.name in [one.name for one in named]:
            raise CannotTell(f"machine '{each.name}': {base.version} lacks {lacking}")
        else:
            progress.say(f"boot: {each.name} is left out: {base.version} lacks {lacking}")
    if not kept:
        raise CannotTell(f"{base.version} lacks what these machines need")
    return kept


def _how(asked: Namespace) -> How:
    words = ["iommu.debug_pagealloc=1"] if asked.debug else []
    words += list(events.WORDS) if asked.events else []
    is_slow = asked.debug or asked.kcsan
    limit = 600 if asked.loads else 300 if asked.debug else 60
    if asked.events:
        limit = 600 + events.SECONDS_PER_ROUND * (asked.rounds or events.ROUNDS)
        limit *= events.DEBUG_TAKES if is_slow else 1
    return How(
        timeout=asked.timeout or limit,
        replugs=asked.replug or (0 if asked.random else 1),
        accel=asked.accel,
        append=words + asked.append.split(),
        show=asked.console,
        memory="1G" if is_slow or getattr(asked, "64k") else "",
    )


def _pool(
    asked: Namespace, jobs: Sequence[Job], plan: Plan, parser: verdict.Parser
) -> tuple[Pool, Taker]:
    """Return what boots these, and what prints the table that is asked for."""
    booter = Booter(_how(asked), plan.run, parser)
    rows: Taker
    if asked.loads:
        each = loads.read()
        booter = loads.Booter(_how(asked), plan.run, parser, loads=each)
        rows = loads.Rows(each, jobs)
    elif asked.attack:
        booter = attack.Booter(_how(asked), plan.run, parser)
        rows = attack.Rows(jobs)
    elif asked.events:
        rounds = asked.rounds or events.ROUNDS
        booter = events.Booter(_how(asked), plan.run, parser, rounds=rounds)
        rows = events.Rows(jobs)
    elif plan.drawn:
        rows = drawn.Rows(plan.drawn, jobs)
    else:
        rows = Rows(asked.all or asked.default is not None, jobs)
    return Pool(booter, rows, len(jobs)), rows


def _more(asked: Namespace) -> tuple[str, ...]:
    """Return what these boots need of scripts/config/ but for defaults, see build.Target."""
    if asked.loads or (asked.events and not (asked.debug or asked.kcsan)):
        return events.CONFIG + loads.CONFIG  # one starts from the objects of the other
    more = list(events.CONFIG) if asked.events else []
    more += ["debug", "debug-iommu"] if asked.debug else []
    more += ["kcsan"] if asked.kcsan else []
    return tuple(more + (["64k"] if getattr(asked, "64k") else []))


def _check_needs(option: str, base: bases.Base, needs: Sequence[str]) -> None:
    """Raise CannotTell unless a base has the files that an option needs."""
    for path in needs:
        if not (base.stock / path).exists():
            raise CannotTell(f"{option}: {base.version} lacks {path}")


def _say_what_comes_first(base: bases.Base) -> None:
    """Say what is done before it can be said which kernels are to be built."""
    if not base.stock.exists():
        progress.say("boot: first, about 2 min: install packages and fetch Linux's source")


def _prepare(asked: Namespace, base: bases.Base, plan: Plan) -> list[Machine]:
    """Have what booting takes but for the kernels; return the machines that a base can do."""
    chosen = list(plan.chosen)
    _say_what_comes_first(base)
    if base.name != "mainline":
        setup.prepare(base, [])  # to see which machines it is for
        chosen = _leave_out(chosen, base, _named(asked))
    setup.prepare_machines(base, chosen, *packages.BUILD)
    for each in {(each.arch, each.emulator, each.count): each for each in chosen}.values():
        emulator.check_events(each)
    _check_needs("--debug", base, [DEBUG_NEEDS] if asked.debug else [])
    _check_needs("--loads", base, [loads.NEEDS] if asked.loads else [])
    _check_needs("--events", base, events.NEEDS if asked.events else [])
    return chosen


def _boot_built(asked: Namespace, plan: Plan) -> int:
    base = bases.find(asked.base)
    names = [asked.kernel] if asked.kernel else ["stock", "patched"]
    if asked.alternative:
        names = ["patched", asked.alternative]
    _check_console(asked, _asked_jobs(asked, plan.chosen, plan.ways, names))
    chosen = _prepare(asked, base, plan)
    jobs = _asked_jobs(asked, chosen, plan.ways, names)
    kernels = {
        name: kernel.with_related(plain, asked.related)
        for name, plain in _kernels(base, names).items()
    }
    if asked.debug:
        kernels = {name: kernel.debugged(each) for name, each in kernels.items()}
    if asked.attack:
        kernels = {name: kernel.attacked(each) for name, each in kernels.items()}
    if asked.events:
        kernels = {name: kernel.failing(each) for name, each in kernels.items()}
    more = _more(asked)
    seconds = loads.SECONDS_PER_BOOT if asked.loads else SECONDS_PER_BOOT
    seconds = events.SECONDS_PER_BOOT if asked.events else seconds
    _say_what(jobs, kernels, more, attack.SECONDS if asked.attack else seconds)
    stock = kernel.stock(base)
    pool, rows = _pool(asked, jobs, plan, verdict.Parser(stock.tree))
    try:
        _build_all(pool, kernels, jobs, stock, more)
        pool.finish()
    except Exception:
        pool.stop()
        pool.tell_failures("boot")
        raise
    else:
        status = _end(pool)
    finally:
        pool.stop()
        if isinstance(rows, drawn.Rows):
            _tell_seeds(asked, rows)
    if isinstance(rows, (drawn.Rows, events.Rows)) and rows.end() != AS_EXPECTED:
        paths.keep(plan.run)
        return max(status, NOT_AS_EXPECTED)
    return status


def _tell_seeds(asked: Namespace, rows: drawn.Rows) -> None:
    """Say how to repeat each drawn machine that has failed."""
    for each in rows.failed():
        progress.say(*drawn.repeat(each, _given(asked)))


def _given(asked: Namespace) -> list[str]:
    """Return the options that were given, but for those that choose machines and settings."""
    words = []
    for name in ("base", "kernel", "append", "timeout", "accel"):
        value = getattr(asked, name)
        if value != options().get_default(name):
            words += [f"--{name}", str(value)]
    for name in asked.related:
        words += ["--with", name]
    return words + ["--debug"] * asked.debug


def _images(asked: Namespace, base: bases.Base, plan: Plan) -> list[image.Image]:
    """Have the kernels that are asked for, each in a directory with what its guests need."""
    arch, files = plan.chosen[0].arch, plan.run / "guest"
    sources = initramfs.Sources(base.stock, initramfs.system_headers())
    initramfs.guest_files(sources, arch, base.directory / "guest-image", files, plan.chosen)
    found = []
    for number, name in enumerate(asked.image):
        one = image.fetch(name, asked.modules, base.log, plan.run / f"image-{number}")
        paths.copy(files, one.files)
        one.add_modules(one.files / "initramfs.cpio")
        found.append(one)
    return found


def _image_jobs(plan: Plan, images: Sequence[image.Image], is_named: bool) -> list[Job]:
    """Return the boots of these kernels, of each on the machines that it has the driver for.

    CannotTell if a machine is named for which one has none, or if none is left.
    """
    for each in plan.chosen:
        for one in [one for one in images if not one.has_driver(each)]:
            why = f"image '{one.name}': no driver for the IOMMU of {each.name}"
            if is_named or len(plan.chosen) == 1:
                raise CannotTell(why)
            progress.say(f"boot: {why}, left out")
    jobs: list[Job] = [
        image.ImageJob(each, one.name, way, image=one)
        for each in plan.chosen
        for way in plan.ways[each.name]
        for one in images
        if one.has_driver(each)
    ]
    if not jobs:
        raise CannotTell("--image: none has the driver for the IOMMU of one of these machines")
    return jobs


def _boot_images(asked: Namespace, plan: Plan) -> int:
    base = bases.find("mainline")
    _check_console(asked, _jobs(plan.chosen, plan.ways, asked.image))
    for name in asked.image:
        image.check(name)
    _say_what_comes_first(base)
    setup.prepare_machines(base, plan.chosen, *packages.IMAGE)
    for each in plan.chosen:
        emulator.check_events(each)
    images = _images(asked, base, plan)
    jobs = _image_jobs(plan, images, is_named=bool(asked.machines))
    for job in jobs:
        if asked.replug is not None and not job.can_replug:
            why = "with PREEMPT_RT no device can be plugged in again"
            raise CannotTell(f"--replug '{asked.replug}': image '{job.kernel}': {why}")
    _say_how_many(jobs, asked.image, SECONDS_PER_BOOT)
    files = {one.name: one for one in images}
    booter = Booter(_how(asked), plan.run, verdict.Parser(base.stock))
    pool = Pool(booter, ImageRows(asked.image, jobs), len(jobs))
    try:
        for job in jobs:
            pool.submit([job], files[job.kernel].file, files[job.kernel].files)
        return _end(pool)
    finally:
        pool.stop()


def _end(pool: Pool) -> int:
    results = pool.finish()
    unread = sorted(
        {f"{result.job.machine.name} {name}" for result in results for name in result.unread}
    )
    if unread:
        progress.say(f"boot: not read, since {UNREAD} in this kernel: {', '.join(unread)}")
    return pool.end("boot")


def _check_console(asked: Namespace, jobs: Sequence[Job]) -> None:
    """Raise CannotTell if the console is asked for of more than one boot."""
    if not asked.console or len(jobs) == 1:
        return
    settings = [job.way.setting for job in jobs]
    selects = {
        "machine": {job.machine.name for job in jobs},
        "--image" if asked.image else "--kernel": {job.kernel for job in jobs},
        "--strict": {each.strict for each in settings},
        "--passthrough": {each.passthrough for each in settings},
        "--event": {job.event for job in jobs if isinstance(job, events.Happening)},
    }
    several = [name for name, values in selects.items() if len(values) > 1]
    raise CannotTell(
        f"--console shows one boot, these are {len(jobs)}: give one {', one '.join(several)}"
    )


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    asked = options().parse(arguments)
    if asked.list:
        for each in machine.read_all().values():
            print(f"{each.name:18}  {each.about}")
        return AS_EXPECTED
    _refuse_together(asked)
    plan = _plan(asked)
    return _boot_built(asked, plan) if asked.image is None else _boot_images(asked, plan)
