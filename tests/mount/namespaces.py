"""Mount namespaces of their own: for other paths to a mount, and for users who are not root.

A checkout and its Python may lie below a directory that is root's alone, and /dev/fuse may be too. So users get a
namespace in which these can be reached below /mnt, and in which /etc/fuse.conf allows nothing. A namespace ends with
the last process in it, and takes all of its mounts along.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mount.helpers import ROOT
from tests.mount.linux import need

HOME = "/mnt/home"

# Mounts that are not this test's must not be held: whoever unmounts them meanwhile would wait, or find them in use.
BEGIN = """
keep=$1; shift
while read -r source mountpoint kind _; do
    case $mountpoint:$kind:$source in
        "$keep"/* | /:*) ;;
        *:fuse.rowfs:* | *:/dev/loop*) umount --lazy "$mountpoint" 2>/dev/null || : ;;  # gone meanwhile
    esac
done </proc/mounts
"""
FOR_USERS = """
mount -t tmpfs -o mode=755 tmpfs /mnt
for place in python site home; do
    mkdir "/mnt/$place"
    [ -z "$1" ] || mount --bind "$1" "/mnt/$place"
    shift
done
mkdir /mnt/root
cp -r "$1" /mnt/root
chmod -R a+rX /mnt/root
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
touch /mnt/fuse.conf
mount --bind /mnt/fuse.conf /etc/fuse.conf
echo ready
"""


@dataclass(frozen=True)
class Namespace:
    """A mount namespace, by the id of a process in it, and the line that its script said."""

    pid: int
    said: str

    def run(self, user: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program as a user, whatever comes of it."""
        entry = pwd.getpwnam(user)
        words = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "setpriv", f"--reuid={entry.pw_uid}"]
        words += [f"--regid={entry.pw_gid}", "--clear-groups", "--inh-caps=-all", "--", *command]
        python = {
            "PYTHONHOME": "/mnt/python",
            "PYTHONPATH": "/mnt/root:/mnt/site",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": "/mnt/python/lib",
        }
        environment = os.environ | python
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd="/", timeout=300)

    def rowfs(self, user: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run rowfs as a user, in a namespace for users."""
        python = f"/mnt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        return self.run(user, python, "-m", "rowfs", *words)


@contextlib.contextmanager
def another_namespace(keep: Path, script: str, *arguments: str) -> Iterator[Namespace]:
    """A namespace with the rowfs mounts below `keep`, in which a script is done that says one line."""
    need("unshare", "nsenter", "setpriv")
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", f"{BEGIN}{script}\nread -r _"]
    with subprocess.Popen(
        [*words, "sh", str(keep), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Namespace(process.pid, process.stdout.readline().strip())
        finally:
            process.stdin.close()


@contextlib.contextmanager
def for_users(keep: Path, home: Path | None = None) -> Iterator[Namespace]:
    """A namespace for users; `home` is a directory to be reached there as HOME."""
    places = [sys.base_prefix, sysconfig.get_path("purelib"), str(home or ""), str(ROOT / "rowfs")]
    with another_namespace(keep, FOR_USERS, *places) as there:
        assert there.said == "ready"
        yield there
