"""A guest of QEMU's, booted from Debian's kernel and an initramfs made here, with a disk on virtio.

Its init has one of two roles. `write` writes numbered records to the file system on the disk, and says `synced N` when
those up to N are synced. `read` compares the records with what they should be, says how many there are, and ends.
"""

from __future__ import annotations

import contextlib
import lzma
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.mount.helpers import ROOT, until
from tests.mount.linux import need

BOOT_S = 120.0  # 3 s on an idle machine: the guest's processor is emulated
RECORD_BYTES = 20_000
MODULES = ("virtio_pci", "virtio_blk")
UNPACKED = ROOT / ".venv" / "guest"  # by tools/setup --test

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $modules; do insmod "/modules/$module.ko"; done
until [ -b /dev/vda ]; do usleep 10000; done
record() {{ yes "record $1" | head -c {RECORD_BYTES}; }}
mount -t ext4 /dev/vda /disk && echo "mounted"
number=0
if [ "$role" = write ]; then
    while number=$((number + 1)); do
        record "$number" >"/disk/$number"
        record "$number" | dd of=/disk/last conv=notrunc 2>/dev/null
        sync
        echo "synced $number"
    done
fi
while record $((number + 1)) | cmp -s - "/disk/$((number + 1))"; do number=$((number + 1)); done
echo "records $number"
record new >/disk/new && umount /disk && echo "wrote"
reboot -f
"""


def record(number: int | str) -> bytes:
    """What the guest writes for a number."""
    line = f"record {number}\n".encode()
    return (line * (RECORD_BYTES // len(line) + 1))[:RECORD_BYTES]


def make_initramfs(target: Path) -> None:
    """An initramfs of busybox, the drivers of virtio and INIT, for the kernel of `kernel`."""
    need("busybox", "cpio")
    root = target.parent / "initramfs.d"
    for name in ("bin", "dev", "proc", "disk", "modules"):
        (root / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin" / "busybox")
    for module, content in _modules(MODULES).items():
        (root / "modules" / f"{module}.ko").write_bytes(content)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "\0".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with target.open("wb") as archive:
        command = ["cpio", "--create", "--null", "--quiet", "--format=newc"]
        subprocess.run(command, input=names.encode(), stdout=archive, cwd=root, check=True)


def kernel() -> Path:
    """The guest's kernel. Skips where tools/setup could not get one."""
    found = sorted(UNPACKED.glob("boot/vmlinuz-*"))
    if not found:
        pytest.skip(f"there is no kernel in {UNPACKED} (tools/setup --test)")
    return found[-1]


def _modules(names: Sequence[str]) -> dict[str, bytes]:
    """Drivers by name, each after those that it needs. One that the kernel has built in is no file, and left out."""
    found: dict[str, bytes] = {}
    for name in names:
        for path in UNPACKED.glob(f"lib/modules/*/kernel/**/{name}.ko*"):
            content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
            needed = re.search(rb"\0depends=([^\0]+)\0", content)
            found |= _modules(needed[1].decode().split(",") if needed else []) | {name: content}
    return found


class Guest:
    """A guest that runs, and what it has said on its serial console."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.strip())

    def said(self) -> str:
        """All of it."""
        return "\n".join(self._lines)

    def number(self, word: str) -> int:
        """The last number that it has said behind `word`; 0 if it has not."""
        return next((int(line.split()[1]) for line in reversed(self._lines) if line.startswith(f"{word} ")), 0)

    def wait_synced(self, number: int) -> int:
        """Wait until it has synced so many records; how many they are then."""
        until(lambda: self.number("synced") >= number or self.ended(), f"record {number}", BOOT_S)
        assert not self.ended(), self.said()
        return self.number("synced")

    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL: what QEMU itself still holds is lost."""
        self._process.kill()
        self._process.wait()
        self._reader.join()


@contextlib.contextmanager
def booted(initramfs: Path, disk: str, cache: str, role: str) -> Iterator[Guest]:
    """A guest with the file `disk` as its disk, gone at the end."""
    need("qemu-system-x86_64")
    modules = " ".join(_modules(MODULES))
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-machine", "pc,accel=tcg", "-cpu", "max", "-m", "256", "-serial", "stdio"]
    command += ["-drive", f"file={disk},format=raw,if=virtio,cache={cache},discard=unmap"]
    command += ["-kernel", str(kernel()), "-initrd", str(initramfs)]
    command += ["-append", f'console=ttyS0 quiet panic=-1 role={role} modules="{modules}"']
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        guest = Guest(process)
        try:
            yield guest
        finally:
            guest.kill()
