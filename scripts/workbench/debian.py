# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/debian [OPTION ...] [MACHINE ...]

Boot a Debian on emulated machines, its kernels installed from the packages that
scripts/package builds: stock, patched, and patched with both patches of related/. Its root
is on NVMe. Print how often the IOTLB is invalidated for each request of fio, and for each
packet of iperf3 between virtio-net and e1000e. MACHINE is one of vtd, vtd-nopt and
vtd-nopt-external; all three unless given. Each is booted with iommu.strict=1 and 0.

  --config CONFIG  of the kernels: as for scripts/package. Unless given, Debian's cloud
                   configuration with less in it, see scripts/config/debian.config
  --kernel KERNEL  only this one: stock, patched or related; may be given again. Or debian,
                   its own of stable's backports: it is judged as stock, and no kernel has
                   to be compiled
  --strict 0|1     only with this iommu.strict; with 0 alone, nothing proves that invalidations
                   are counted
  --short          leave out the upgrade of packages, with the boot after it, and the kernel's
                   selftests of iommufd and VFIO. Both are done on vtd-nopt with iommu.strict=0
                   only, and the selftests only with stock among the kernels and no --config
  --append 'WORDS' more kernel parameters
  --timeout SECONDS
                   until a guest counts as hung, 1200 unless given
  --console        show the console of the one boot that the rest selects

In the guest a systemd unit judges: see scripts/guest/debian.c. A boot fails if a type is
not as it should be, the installed selftest does not end as it should, with and without
--write, the IOTLB is invalidated too often or too seldom, a unit fails, the kernel logs an
error, the journal has one that stock does not have, or a test of iommufd's or VFIO's has
another result than with stock. Without stock the journal is not judged.

Exit status: 0 all is as expected; 1 some is not; 2 it could not be found out.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Iterator, Mapping, Optional, Sequence

from workbench import base as bases
from workbench import boots, build, guest, initramfs, kernel, loads, machine, package, packages
from workbench import paths, policy, process, progress, root, setup, table, verb, verdict
from workbench.boots import How, Pool
from workbench.commits import version_of
from workbench.job import Job, finds_too_strict
from workbench.loads import STRICT_FIRST
from workbench.machine import Machine
from workbench.status import CannotTell, must_be_one_of

MACHINES = ("vtd", "vtd-nopt", "vtd-nopt-external")
DEBIANS = "debian"
BUILT = ("stock", "patched", "related")
KERNELS = (*BUILT, DEBIANS)
MORE = ("vtd-nopt", "0")  # where more is done: the machine, and its iommu.strict
UPGRADE, UPGRADED, SELFTESTS = "upgrade", "upgraded", "selftests"  # stages
ROOT, TESTED = "0000:00:03.0", "0000:00:0a.0"
FRAGMENT = build.CONFIG / "debian.config"

# What systemd and the loads take; other modules are left out
MODULES = (
    *("autofs4", "button", "configfs", "e1000e", "qemu_fw_cfg", "virtio_blk", "virtio_net"),
)
SECONDS = 1200
MEMORY = "1G"
WORDS = ("root=/dev/nvme0n1", "rw", "systemd.show_status=0")
HUGE_PAGES = "hugepages=96"  # as many as debian.c wants for the kernel's selftests

# Two network cards of the guest's, one cable, and nobody else at it. See debian.c
NETWORK = (
    *("-netdev", "hubport,id=net0,hubid=0", "-netdev", "hubport,id=net1,hubid=0"),
    "-device",
    "virtio-net-pci,addr=8,netdev=net0,romfile=,iommu_platform=on,disable-legacy=on",
    *("-device", "e1000e,addr=9,netdev=net1,romfile="),
)

_COUNTED = re.compile(r"^# load (\S+) (\d+) (\d+) (\d+)\r?$", re.M)
_JOURNAL = re.compile(r"^# journal: (.*?)\r?$", re.M)
_RESULT = re.compile(r"^# result: ((?:not )?ok) \d+ ([^#\r\n]+?)(?: # (\w+).*)?\r?$", re.M)
_LARGE = "128k"  # which NVMe's driver maps by the dma_iova API


@dataclass(frozen=True)
class Load:
    """What is done in the guest: a program, and the words behind what it is to expect."""

    name: str
    words: tuple[str, ...]

    def expectation(self, job: Job) -> str:
        """Return how often it has to invalidate: a word that scripts/guest/debian.c knows."""
        kind = job.type_of(job.machine.device(ROOT))
        return policy.invalidates(kind, _LARGE in self.words, job.related)

    def told(self, job: Job) -> str:
        """Return the line that tells the guest to do it."""
        return " ".join([self.words[0], self.name, self.expectation(job), *self.words[1:]])


def _loads() -> Iterator[Load]:
    for size in ("4k", _LARGE):
        for how in ("read", "randread"):
            for depth in ("1", "32"):
                yield Load(f"{how}-{size}-{depth}", ("fio", how, size, depth))
    yield Load("virtio-to-e1000e", ("iperf3", "--format=k"))
    yield Load("e1000e-to-virtio", ("iperf3", "--reverse"))


LOADS = tuple(_loads())


@dataclass(frozen=True)
class DebianJob(Job):
    """A boot of Debian.

    column: which of KERNELS. stage: "", or UPGRADE, or UPGRADED for the boot after that, or
    SELFTESTS.
    """

    column: str = ""
    stage: str = ""

    @property
    def name(self) -> str:
        """What it is called, and its log."""
        words = [self.machine.name, self.column, *self.way.words]
        return "+".join([*words, *([self.stage] if self.stage else [])])


def _stage(job: Job) -> str:
    assert isinstance(job, DebianJob)
    return job.stage


def _is_upgrade(job: Job) -> bool:
    """Whether a boot changes its disk, or finds it changed."""
    return _stage(job) in (UPGRADE, UPGRADED)


def _column(job: Job) -> str:
    assert isinstance(job, DebianJob)
    return job.column


@dataclass
class Booter(boots.Booter):
    """What boots a Debian from its disk. releases: of the kernels, by their columns."""

    image: Path = Path()
    releases: Mapping[str, str] = field(default_factory=dict)

    def told(self, job: Job) -> list[str]:
        """Return what the guest is told, see scripts/guest/debian.c."""
        lines = [f"release={self.releases[_column(job)]}", f"root={ROOT}"]
        lines += [f"{device.address}={job.type_of(device)}" for device in job.machine.devices]
        lines += ["too-strict"] if finds_too_strict(job) else []
        if _stage(job) == SELFTESTS:
            return [*lines, f"{SELFTESTS}={TESTED}"]
        return lines + ([_stage(job)] if _stage(job) else [load.told(job) for load in LOADS])

    def expected(self, job: Job) -> list[verdict.Expected]:
        """Return what the guest has to report."""
        names = ["kernel of the package", f"root is on {ROOT}", "types as told"]
        names += ["kselftest", "kselftest that writes"]
        loads_of = [f"{load.name} {load.expectation(job)}" for load in LOADS]
        names += [_stage(job)] if _is_upgrade(job) else [] if _stage(job) else loads_of
        names += ["journal", "kernel log"]
        names += [SELFTESTS] if _stage(job) == SELFTESTS else []
        return [verdict.Expected(name) for name in names]

    def _disk(self, job: Job) -> Path:
        """Return the disk that a boot changes, for the next one; or the image, unchanged."""
        column = job.name.removesuffix("d").removesuffix("+upgrade")
        return self.run / f"{column}.img" if _is_upgrade(job) else self.image

    def options(self, job: Job) -> list[str]:
        """Return QEMU's options for what the guest has."""
        snapshot = "off" if _is_upgrade(job) else "on"
        words = [*job.machine.qemu, *job.machine.arch.disks, *job.machine.arch.nvme, *NETWORK]
        words += ["-device", "edu,addr=a"]  # which VFIO's tests take
        for port in job.machine.external:
            words += ["-acpitable", f"file={port.table}"]
        for number in range(guest.DISKS):
            if number != 1:
                words += ["-blockdev", guest.disk(f"disk{number}")]
        disk = f"if=none,id=disk1,format=raw,snapshot={snapshot},file={self._disk(job)}"
        told = f"name=opt/workbench/told,file={self.run / job.name}.told"
        return [*words, "-drive", disk, "-fw_cfg", told]

    def write_initrd(self, job: Job, image_file: Path, files: Path, initrd: Path) -> None:
        """Have the initramfs that is installed in the guest, and what the guest is told."""
        if _stage(job) == UPGRADED:
            name = f"/boot/initrd.img-{self.releases[_column(job)]}"
            root.take_out(self._disk(job), name, initrd)
        else:
            os.link(image_file.with_suffix(".initrd"), initrd)
        told = "".join(f"{line}\n" for line in self.told(job))
        (self.run / f"{job.name}.told").write_text(told)

    def boot(self, job: Job, image_file: Path, files: Path) -> boots.Result:
        """Boot and judge; if packages are upgraded, boot once more after that."""
        if _stage(job) != UPGRADE:
            return super().boot(job, image_file, files)
        root.copy(self.image, self._disk(job))
        try:
            result = super().boot(job, image_file, files)
            if result.complaints or result.fault:
                return result
            assert isinstance(job, DebianJob)
            after = super().boot(replace(job, stage=UPGRADED), image_file, files)
            return replace(after, job=job)
        finally:
            paths.remove(self._disk(job))

    def check(self, result: boots.Result) -> None:
        """The guest itself has compared its types."""


@dataclass
class Rows:
    """The tables, one for each machine: loads down, kernels and settings across."""

    jobs: Sequence[DebianJob]
    results: dict[Job, boots.Result] = field(default_factory=dict)
    counts: dict[Job, Mapping[str, tuple[int, int, int]]] = field(default_factory=dict)

    def add(self, result: boots.Result) -> None:
        """Take a result; print the tables if it is the last."""
        self.results[result.job] = result
        console = self._console(result.job)
        self.counts[result.job] = {
            name: (int(count), int(uses), int(speed))
            for name, count, uses, speed in _COUNTED.findall(console)
        }
        if len(self.results) == len(self.jobs):
            self._compare()
            self._compare_tests()
            plain = [job.machine.name for job in self.jobs if not job.stage]
            for name in dict.fromkeys(plain):
                for line in self.lines(name):
                    progress.result(line)
            for line in self.tests_said():
                progress.result(line)

    def _console(self, job: Job) -> str:
        """Return what a guest has said, "" if it has not begun."""
        log = self.results[job].log
        return log.read_text(errors="replace") if log.exists() else ""

    def _errors(self, job: Job) -> set[str]:
        """Return what its journal says, and before an upgrade that of the boot which upgraded."""
        before = self.results[job].log.with_name(job.name)
        text = before.read_text(errors="replace") if before.exists() else ""
        return set(_JOURNAL.findall(self._console(job) + text))

    def like(self, job: DebianJob, **changes: str) -> Optional[DebianJob]:
        """Return the boot that differs from another one by this only, None if there is none."""
        wanted = {"column": job.column, "strict": job.way.setting.strict, **changes}
        for each in self.jobs:
            here = {"column": each.column, "strict": each.way.setting.strict}
            if (each.machine, each.stage, here) == (job.machine, job.stage, wanted):
                return each
        return None

    def _compare(self) -> None:
        """Add to what is wrong with a boot what another one shows."""
        for job in self.jobs:
            stock = self.like(job, column="stock")
            new = self._errors(job) - self._errors(stock) if stock else set()
            strict = self.like(job, strict="1")
            result = self.results[job]
            found = [f"only its journal has: {line}" for line in sorted(new)]
            if strict and strict != job:
                for load in LOADS:
                    if f"{load.name} strict" not in self.results[strict].passed:
                        found.append(
                            f"{load.name} proves nothing: the boot with iommu.strict=1 did not pass it"
                        )
            result.complaints = [*result.complaints, *found]

    def _tests(self, job: DebianJob) -> dict[str, str]:
        """Return the result of each of the kernel's own tests, by its name."""
        return {
            name: "skipped" if directive == "SKIP" else result
            for result, name, directive in _RESULT.findall(self._console(job))
            if not name.startswith("selftests: ")  # the sum of a program's
        }

    def _compare_tests(self) -> None:
        """Add to what is wrong with a boot where the kernel's own tests differ from stock's."""
        for job in [job for job in self.jobs if job.stage == SELFTESTS]:
            stock = self.like(job, column="stock")
            assert stock
            was, now = self._tests(stock), self._tests(job)
            result = self.results[job]
            result.complaints = [
                *result.complaints,
                *(
                    f"{name}: {now.get(name, 'not run')}, and {was.get(name, 'not run')} on stock"
                    for name in sorted(was.keys() | now.keys())
                    if was.get(name) != now.get(name)
                ),
            ]

    def tests_said(self) -> Iterator[str]:
        """Yield how many of the kernel's own tests had which result."""
        for job in [job for job in self.jobs if job.stage == SELFTESTS]:
            found = list(self._tests(job).values())
            yield (
                f"{job.machine.name}, {job.column}, iommufd and VFIO: "
                f"{found.count('ok')} tests passed, {found.count('not ok')} failed, "
                f"{found.count('skipped')} skipped"
            )

    def _cell(self, job: DebianJob, load: Load) -> str:
        expect = load.expectation(job)
        is_good = f"{load.name} {expect}" in self.results[job].passed
        count, uses, _ = self.counts[job].get(load.name, (0, 0, 0))
        return (
            loads.value(count, uses) + ("*" if expect == "waits" else "") + "!" * (not is_good)
        )

    def _ratio(self, job: DebianJob, load: Load) -> str:
        """Return how fast a load is, in relation to stock under the same setting."""
        stock = self.like(job, column="stock")
        speed = self.counts[job].get(load.name, (0, 0, 0))[2]
        of_stock = self.counts[stock].get(load.name, (0, 0, 0))[2] if stock else 0
        return f"{speed / of_stock:.2f}" if of_stock else "-"

    def lines(self, name: str) -> list[str]:
        """Return the lines of a machine's table."""
        jobs = [job for job in self.jobs if job.machine.name == name and not job.stage]
        jobs.sort(key=lambda job: (KERNELS.index(job.column), job.way.setting.strict != "1"))
        lines = self._table(
            f"{name}: invalidations for each request or packet", jobs, self._cell
        )
        lines += [loads.WAITS] if any("*" in line for line in lines) else []
        if jobs[0].column != "stock":
            return lines
        return lines + self._table(f"{name}: speed in relation to stock", jobs, self._ratio)

    def _table(
        self,
        title: str,
        jobs: Sequence[DebianJob],
        cell: Callable[[DebianJob, Load], str],
    ) -> list[str]:
        lines = [title, table.head([("", job.column) for job in jobs], 18, 7)]
        settings = [job.way.setting.strict for job in jobs]
        lines.append(table.line("iommu.strict", settings, 18, 7))
        for load in LOADS:
            lines.append(table.line(load.name, [cell(job, load) for job in jobs], 18, 7))
        return lines


def _kernels(base: bases.Base, names: Sequence[str]) -> dict[str, kernel.Kernel]:
    patched = kernel.patched(base)
    known = {
        "stock": kernel.stock(base),
        "patched": patched,
        "related": kernel.with_related(patched, kernel.related()),
    }
    return {name: known[name] for name in BUILT if name in names}


def _config(asked: Namespace, base: bases.Base) -> package.Config:
    if asked.config:
        return package.Config(package.configuration(asked.config, base))
    fragments = [FRAGMENT, base.stock / "tools/testing/selftests/iommu/config"]
    return package.Config(package.configuration("debian-cloud", base), fragments, MODULES)


def _selftests(built: kernel.Kernel, headers: Path, to: Path) -> Path:
    """Install the kernel's selftests of IOMMUs and VFIO, of the series, in a directory."""
    tests = built.tree / "tools/testing/selftests"
    installed = to / "kselftest"
    paths.remove(to)
    process.step(
        "install the selftest",
        built.base.log / "debian-selftest.log",
        [
            *("make", "-C", str(tests), "TARGETS=iommu vfio", f"O={to / 'objects'}"),
            *(f"KHDR_INCLUDES=-isystem {headers}", f"INSTALL_PATH={installed}", "install"),
        ],
        env=build.environment(),
    )
    return installed


@dataclass
class Made:
    """What boots: the image, the kernels' files, and their releases, by names."""

    image: Path
    files: Mapping[str, Path]
    releases: Mapping[str, str]


def _make(asked: Namespace, base: bases.Base, run: Path) -> Made:
    """Have packages, the guest's programs and the image; the base's lock is held."""
    kernels = _kernels(base, asked.kernels)
    directory = base.directory / "debian"
    config = _config(asked, base)
    debs = []
    for each in kernels.values():
        built = package.make(each, config, directory)
        debs += [deb for deb in built if deb.name.startswith("linux-image-")]
    patched = kernel.patched(base)
    patched.make()
    process.step(
        "have the kernel's headers for programs",
        base.log / "debian-headers.log",
        [*build.make(patched.tree, build.HEADERS, package.ARCH, *build.GCC), "headers"],
        env=build.environment(),
    )
    headers = patched.tree / build.HEADERS / "usr/include"
    selftests = _selftests(patched, headers, directory / "selftests")
    sources = initramfs.Sources(patched.tree, [headers, *initramfs.system_headers()])
    program = directory / "debian"
    words = initramfs.command(
        initramfs.GUEST / "debian.c", sources, "x86_64-linux-gnu", program
    )
    process.step("compile the guest's program", base.log / "debian-guest.log", words)
    image = directory / "image"
    root.make(root.Contents(debs, DEBIANS in asked.kernels, program, selftests), image)
    version = version_of(base.stock)
    releases = {name: version + package.suffix(each.name) for name, each in kernels.items()}
    for release in root.kernels(image):
        if release not in releases.values():
            releases[DEBIANS] = release
    for name, release in releases.items():
        root.take_out(image, f"/boot/vmlinuz-{release}", run / name)
        root.take_out(image, f"/boot/initrd.img-{release}", run / f"{name}.initrd")
    os.link(image, run / "image")
    return Made(run / "image", {name: run / name for name in releases}, releases)


def _jobs(asked: Namespace, chosen: Sequence[Machine]) -> list[DebianJob]:
    ways = [way for way in STRICT_FIRST if asked.strict in (None, way.setting.strict)]
    found = []
    for each in chosen:
        for name in [name for name in KERNELS if name in asked.kernels]:
            related = tuple(kernel.related()) if name == "related" else ()
            built = {"related": "patched", DEBIANS: "stock"}.get(name, name)
            found += [DebianJob(each, built, way, related, name) for way in ways]
    return found if asked.short else found + _more(found, asked.config is None)


def _more(jobs: Sequence[DebianJob], is_tested: bool) -> list[DebianJob]:
    """Return the boots that do something else. Tests are compared with those of stock."""
    jobs = [job for job in jobs if (job.machine.name, job.way.setting.strict) == MORE]
    upgraded = [replace(job, stage=UPGRADE) for job in jobs if not job.related]
    tested = [
        replace(job, stage=SELFTESTS, machine=_with_huge_pages(job.machine))
        for job in jobs
        if job.column in BUILT
    ]
    is_tested &= "stock" in [job.column for job in tested]
    return upgraded + (tested if is_tested else [])


def _with_huge_pages(each: Machine) -> Machine:
    return replace(each, append=(*each.append, HUGE_PAGES))


def _arguments(arguments: Sequence[str]) -> Namespace:
    parser = verb.Arguments(__doc__ or "")
    add = parser.add_argument
    add("--config")
    add("--kernel", dest="kernels", type=verb.one_of(*KERNELS), action="append")
    add("--strict", type=verb.one_of("0", "1"))
    add("--short", action="store_true")
    add("--append", default="")
    add("--timeout", type=verb.number, default=SECONDS)
    add("--console", action="store_true")
    add("machines", nargs="*")
    asked = parser.parse(arguments)
    asked.kernels = asked.kernels or list(BUILT)
    if asked.config:
        package.check(asked.config)
    for name in asked.machines:
        must_be_one_of("machine", name, MACHINES)
    return asked


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    asked = _arguments(arguments)
    chosen = [machine.read(name) for name in dict.fromkeys(asked.machines or MACHINES)]
    jobs = _jobs(asked, chosen)
    if asked.console and len(jobs) != 1:
        raise CannotTell(f"--console shows one boot, these are {len(jobs)}")
    base = bases.find("mainline")
    setup.prepare(base, ["x86_64"], *packages.PACKAGE, *packages.DEBIAN)
    run = paths.run_directory("debian")
    with paths.locked(base.directory):
        made = _make(asked, base, run)
    files = run / "guest"
    sources = initramfs.Sources(base.stock, initramfs.system_headers())
    kept = base.directory / "guest-image"
    initramfs.guest_files(sources, chosen[0].arch, kept, files, chosen)
    words = [*WORDS, *asked.append.split()]
    how = How(asked.timeout, 0, append=words, show=asked.console, memory=MEMORY)
    booter = Booter(
        how, run, verdict.Parser(base.stock), image=made.image, releases=made.releases
    )
    workers = ThreadPoolExecutor(os.cpu_count() or 1)
    pool = Pool(booter, Rows(jobs), len(jobs), workers)
    try:
        for job in jobs:
            pool.submit([job], made.files[job.column], files)
        pool.finish()
        return pool.end("debian")
    finally:
        pool.stop()
