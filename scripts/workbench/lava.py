# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/lava [OPTION ...] [MACHINE ...]

Write jobs for LAVA, which runs tests in labs: one for each emulated machine, and templates
for real boards. Builds the kernels first, and puts them with all else that the jobs fetch
beside them.

  --kernel stock|patched  what is booted, patched unless given
  --url URL               by which the lab fetches what is in the directory; unless given,
                          jobs name its files, which does for lava-run on this machine
  --output DIR            the directory, build/lava unless given

MACHINE is a name, see scripts/boot --list. Unless some are named, it is all that can do
without a host that plugs in a device, since nobody does so in a lab.

  MACHINE.yaml            boots twice, with iommu.strict=0 and 1. A result is a KTAP line
                          that process 1 of the guest prints, and nothing else is
  MACHINE.device.yaml     the device that lava-run wants beside it; a lab has its own
  board-strict-0.yaml     for a real machine: replace DEVICE-TYPE, KERNEL-URL, MODULES-URL,
  board-strict-1.yaml     ROOT-URL, and SELFTEST by the path of default_domain there. Boots a
                          kernel from the network, with modules and root file system, and
                          runs the selftest

    lava-run --job-id 1 --output-dir out --device vtd-nopt.device.yaml vtd-nopt.yaml

ends with 0 though results have failed: each is a line of its log with "lvl": "results".

Exit status: 0 written; 2 bad argument, or something could not be built.
"""

from __future__ import annotations

import importlib
import shutil
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from workbench import base as bases
from workbench import (
    build,
    emulator,
    guest,
    initramfs,
    kernel,
    machine,
    packages,
    paths,
    progress,
)
from workbench import setup, verb
from workbench.job import Job, Way, told
from workbench.machine import Machine
from workbench.policy import Setting
from workbench.status import AS_EXPECTED, CannotTell, must_be_one_of

SETTINGS = ("0", "1")

# As LAVA and its template for QEMU call architectures
_ARCHS = {"x86_64": "x86_64", "arm64": "arm64", "s390": "s390x", "riscv": "riscv64"}

# The results of KTAP, but not those of subtests, which are indented. A skip is "ok", too. On its
# way through two terminals a line may end with more than one return.
_RESULT = (
    r"(?m)^(?=(?:ok \d+ [^\r\n]*?(?=# SKIP))?(?P<result># SKIP|not ok|ok))"
    r"(?:not )?ok \d+ (?:- )?(?P<test_case_id>[^\r\n]*?) *(?:# SKIP[^\r\n]*)?\r*\n"
)
_MONITOR = {
    "start": "TAP version 13",
    "end": "(?m)^# Totals: ",
    "pattern": _RESULT,
    "fixupdict": {"ok": "pass", "not ok": "fail", "# SKIP": "skip"},
}

# The template has a network, which must not take the place of another device
_NIC = "model=virtio,addr=0x10"

_TIMEOUTS = {
    "job": {"minutes": 20},
    "action": {"minutes": 5},
    "connection": {"minutes": 2},
}
_TIMEOUT = {"minutes": 5}

# What runs on a board. The selftest ends with 4 if it has skipped all that it judges
BOARD_TEST = r"""
setting=fail
grep -qw iommu.strict=STRICT /proc/cmdline && setting=pass
lava-test-case iommu_strict_STRICT --result $setting
status=0
SELFTEST > /tmp/report || status=$?
cat /tmp/report
case $status in 0) ended=pass ;; 4) ended=skip ;; *) ended=fail ;; esac
lava-test-case selftest_ends --result $ended
# The results of KTAP, and nothing else; none is a failure
sed -n -E -e 's/^ok [0-9]+ (- )?(.*[^ ]) *# SKIP.*/skip \2/p;t' \
	-e 's/^ok [0-9]+ (- )?/pass /p;t' -e 's/^not ok [0-9]+ (- )?/fail /p' \
	/tmp/report > /tmp/results
test -s /tmp/results || echo 'fail reported' > /tmp/results
while read -r result name; do
	name=$(echo "$name" | tr -c '[:alnum:]\n' _)
	lava-test-case "$name" --result "$result" < /dev/null
done < /tmp/results
"""

BOARD = """\
job_name: default domains, iommu.strict=STRICT
device_type: DEVICE-TYPE
visibility: public
priority: medium
timeouts:
  job: {minutes: 30}
  action: {minutes: 10}
  connection: {minutes: 2}
context:
  extra_kernel_args: iommu.strict=STRICT
actions:
- deploy:
    to: tftp
    timeout: {minutes: 10}
    os: debian
    kernel: {url: KERNEL-URL, type: zimage}
    modules: {url: MODULES-URL, compression: xz}
    nfsrootfs: {url: ROOT-URL, compression: xz}
- boot:
    method: grub  # or what the board has
    commands: nfs
    timeout: {minutes: 10}
    auto_login: {login_prompt: 'login:', username: root}
    prompts: ['root@(.*):']
- test:
    timeout: {minutes: 10}
    definitions:
    - name: default-domain
      from: inline
      path: default-domain.yaml
      repository:
        metadata:
          format: Lava-Test Test Definition 1.0
          name: default-domain
          description: the selftest of default domains
        run:
          steps:
          - |
"""
BOARD += textwrap.indent(BOARD_TEST.lstrip(), " " * 12)


def is_for(each: Machine) -> bool:
    """Return whether a machine has all its devices without a host that plugs them in."""
    words = " ".join(each.qemu)
    return all(f"id=plugged{number}" in words for number, _ in enumerate(each.plugs, 1))


def left_alone(each: Machine) -> Machine:
    """Return a machine as it is without a host that counts and plugs."""
    return replace(each, plugs=(), count=each.count if each.count == ("kernel",) else ())


@dataclass(frozen=True)
class Directory:
    """Where jobs go, and what they fetch. url: by which a lab has it."""

    path: Path
    url: str

    def image(self, name: str, arguments: str) -> Mapping[str, str]:
        """Return what LAVA wants of a file that it hands to QEMU with these arguments."""
        return {"image_arg": arguments, "url": f"{self.url}/{name}"}


def _options(each: Machine) -> list[str]:
    """Return QEMU's options for a machine, but for its files."""
    words = [*each.arch.qemu[1:], *each.qemu, *each.arch.disks, *each.arch.nvme, "-no-reboot"]
    place = words.index("-m")
    return words[:place] + words[place + 2 :]


def _images(
    each: Machine, where: Directory, kernel_name: str, strict: str
) -> Mapping[str, Any]:
    """Return the files that LAVA hands to QEMU."""
    way = _way(strict)
    line = guest.command_line(each.arch, [*each.append, *way.words])
    disks = [f"-blockdev {guest.disk(f'disk{number}')}" for number in range(guest.DISKS)]
    images = {
        "kernel": where.image(kernel_name, f'-kernel {{kernel}} -append "{line}"'),
        "initrd": where.image(_initrd(each, strict), "-initrd {initrd}"),
        "disk": where.image("disk.img", " ".join(disks).replace("disk.img", "{disk}")),
    }
    for number, port in enumerate(each.external):
        label = f"table{number}"
        images[label] = where.image(port.table, f"-acpitable file={{{label}}}")
    return images


def _way(strict: str) -> Way:
    return Way(Setting(strict), (f"iommu.strict={strict}",))


def _initrd(each: Machine, strict: str) -> str:
    return f"{each.name}-strict-{strict}.initrd"


def _actions(images: Mapping[str, Any], strict: str) -> Iterator[Mapping[str, Any]]:
    """Yield what a job does for a boot."""
    name = f"strict-{strict}"
    common = {"namespace": name, "timeout": _TIMEOUT}
    yield {"deploy": {**common, "to": "tmpfs", "images": images}}
    yield {"boot": {**common, "method": "qemu", "media": "tmpfs"}}
    yield {"test": {**common, "monitors": [{"name": name, **_MONITOR}]}}


def job(each: Machine, where: Directory, kernel_name: str) -> Mapping[str, Any]:
    """Return the job of a machine."""
    actions = [
        action
        for strict in SETTINGS
        for action in _actions(_images(each, where, kernel_name, strict), strict)
    ]
    memory = each.arch.qemu[each.arch.qemu.index("-m") + 1]
    return {
        "job_name": f"default domains, {each.name}, {kernel_name}",
        "device_type": "qemu",
        "visibility": "public",
        "priority": "medium",
        "timeouts": _TIMEOUTS,
        "context": {
            "arch": _ARCHS[each.arch.name],
            "no_kvm": True,
            "memory": int(memory),
            "model": _NIC,
            "extra_options": _options(each),
        },
        "actions": actions,
    }


def device(each: Machine) -> Mapping[str, Any]:
    """Return the device that a machine's job runs on, as a lab's template would have it."""
    program, *firmware = emulator.command(
        each.arch.qemu[0], each.emulator or each.arch.emulator
    )
    memory = each.arch.qemu[each.arch.qemu.index("-m") + 1]
    parameters = {
        "command": program,
        "options": [
            *([" ".join(firmware)] if firmware else []),
            "-nographic",
            f"-net nic,{_NIC} -net user",
            f"-m {memory}",
            "-monitor none",
        ],
        "extra": _options(each),
    }
    serial = {"serial": None}
    return {
        "device_type": "qemu",
        "available_architectures": [_ARCHS[each.arch.name]],
        "actions": {
            "deploy": {"connections": serial, "methods": {"image": None}},
            "boot": {
                "connections": serial,
                "methods": {"qemu": {"parameters": parameters}},
            },
        },
        "timeouts": {"actions": {}, "connections": {}},
        "constants": {"failure_retry": 1, "boot_retry": 1, "spawn_maxread": "4092"},
        "parameters": {},
    }


def boards(path: Path) -> None:
    """Write the templates for real boards."""
    for strict in SETTINGS:
        text = BOARD.replace("STRICT", strict)
        paths.write(path / f"board-strict-{strict}.yaml", text.encode())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    yaml = importlib.import_module("yaml")
    text: str = yaml.safe_dump(content, sort_keys=False, width=1000, default_flow_style=False)
    paths.write(path, text.encode())


def _choose(names: Sequence[str]) -> list[Machine]:
    for name in names:
        must_be_one_of("machine", name, machine.names())
        if not is_for(machine.read(name)):
            raise CannotTell(f"machine '{name}': a host has to plug a device in, no lab does")
    named = [machine.read(name) for name in dict.fromkeys(names)]
    left_out = [each for each in machine.read_all().values() if not is_for(each)]
    if not named:
        progress.say(
            "lava: left out, since a host has to plug a device in: "
            + " ".join(each.name for each in left_out)
        )
    return named or [each for each in machine.read_all().values() if is_for(each)]


@dataclass
class Writer:
    """What builds what jobs fetch, and writes them.

    kernels: those that have been built. guests: where what guests boot with is, by
    architecture. run: where that is built.
    """

    base: bases.Base
    kernel: str
    where: Directory
    run: Path
    kernels: set[str] = field(default_factory=set)
    guests: dict[str, Path] = field(default_factory=dict)

    def _build(self, each: Machine) -> str:
        """Have the kernel of a machine; return its file's name."""
        plain = kernel.stock(self.base)
        if self.kernel == "patched":
            plain = kernel.patched(self.base)
        built = kernel.probed(plain) if each.probe else plain
        name = f"{built.name}-{each.arch.name}"
        if name in self.kernels:
            return name
        build.build_one(built, each.arch, self.where.path / name)
        self.kernels.add(name)
        if each.arch.name not in self.guests:
            obj = built.tree / f"obj-{each.arch.name}"
            sources = initramfs.Sources(self.base.stock, [obj / "usr/include"])
            files = self.run / each.arch.name
            initramfs.guest_files(sources, each.arch, obj / "guest", files)
            self.guests[each.arch.name] = files
            shutil.copyfile(files / "disk.img", self.where.path / "disk.img")
        return name

    def write(self, each: Machine) -> None:
        """Write the job of a machine, and what it fetches."""
        name = self._build(each)
        archive = self.guests[each.arch.name] / "initramfs.cpio"
        for strict in SETTINGS:
            words = told(Job(left_alone(each), self.kernel, _way(strict)), 0)
            initramfs.tell(archive, words, self.where.path / _initrd(each, strict))
        _write(self.where.path / f"{each.name}.yaml", job(each, self.where, name))
        _write(self.where.path / f"{each.name}.device.yaml", device(each))


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--kernel", type=verb.one_of("stock", "patched"), default="patched")
    parser.add_argument("--url", default="")
    parser.add_argument("--output", type=Path, default=paths.BUILD / "lava")
    parser.add_argument("machines", nargs="*")
    asked = parser.parse(arguments)
    chosen = _choose(asked.machines)
    base = bases.find("mainline")
    setup.prepare_machines(base, chosen, *packages.BUILD, *packages.YAML)
    to: Path = asked.output.resolve()
    to.mkdir(parents=True, exist_ok=True)
    where = Directory(to, (asked.url or f"file://{to}").rstrip("/"))
    writer = Writer(base, asked.kernel, where, paths.run_directory("lava"))
    for each in chosen:
        writer.write(each)
    initramfs.tables(chosen, to)
    boards(to)
    progress.say(f"lava: {len(chosen)} jobs and 2 templates are in {asked.output}")
    return AS_EXPECTED
