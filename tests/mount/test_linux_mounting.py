"""mount(8), fstab, options, other users, and users who are not root."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo import HELPER, mount_helper
from rowfs.cli.main import COMMANDS
from soaklib.system import alive
from tests.mount.helpers import MIB, ROOT, Mounted, is_mounted, noise, read_file, run, until, write_file
from tests.mount.linux import need
from tests.mount.namespaces import HOME, Namespace, for_users

OWNER, OTHER = "nobody", "daemon"  # users that every Debian has


@pytest.fixture
def helper() -> Iterator[None]:
    """mount(8)'s helper, as tools/install would put it there."""
    with mount_helper() as ours:
        if not ours:
            pytest.skip(f"{HELPER} is there already")
        yield


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="rowfs-linux-", dir="/tmp"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


# mount(8)


def test_mount_knows_the_type(make_mounted: Callable[..., Mounted], helper: None) -> None:
    mounted = make_mounted()
    mounted.umount()
    for _ in range(3):  # again at once: it waits until the daemon before is done
        done = run("mount", "-t", "rowfs", mounted.pool, mounted.mnt)
        assert done.stdout == done.stderr == ""
        assert is_mounted(mounted.mnt)
        mounted.pid = mounted.info()["pid"]
        run("umount", mounted.mnt)
    mounted.wait_free(mounted.pid)
    mounted.pid = 0


def test_options_reach_the_mount(make_mounted: Callable[..., Mounted], helper: None) -> None:
    mounted = make_mounted()
    mounted.cli("create", ":vm", "1M")
    mounted.umount()
    words = "ro,noatime,nofail,_netdev,x-systemd.automount,cache=32M,uid=nobody,gid=12345,umask=027"
    run("mount", "-t", "rowfs", "-o", words, mounted.pool, mounted.mnt)
    mounted.pid = mounted.info()["pid"]
    assert mounted.info()["read_only"] is True
    for name, mode in (("", 0o750), (".snapshots", 0o750), ("vm", 0o640)):
        found = os.stat(mounted.path(name))
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (mode, 12345)
        assert found.st_uid == pwd.getpwnam("nobody").pw_uid
    assert "Read-only" in run("touch", mounted.path("new"), codes=(1,)).stderr
    mounted.remount()
    assert os.stat(mounted.path("vm")).st_uid == 0  # shown so, not made so


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("colour=red", "no mount option colour=red"),
        ("uid=nobody-of-that-name", "no user"),
        ("gid=4294967295", "group id"),
        ("umask=9", "umask"),
        ("umask=1777", "umask"),
        ("cache=1K", "cache"),
        ("zeros=-1", "zeros=-1 is no time"),
    ],
)
def test_an_option_that_is_none_is_refused(mounted: Mounted, helper: None, option: str, says: str) -> None:
    mounted.umount()
    assert says in run("mount", "-t", "rowfs", "-o", option, mounted.pool, mounted.mnt, codes=(1,)).stderr
    assert not is_mounted(mounted.mnt)
    assert says in mounted.run("mount", "-o", option, str(mounted.pool), str(mounted.mnt), code=2).stderr


def test_a_line_of_fstab(make_mounted: Callable[..., Mounted], helper: None, tmp_path: Path) -> None:
    need("mkfs.ext4")
    mounted = make_mounted()
    mounted.cli("create", ":vm", "64M")
    run("mkfs.ext4", "-q", mounted.path("vm"))
    mounted.umount()
    where = tmp_path / "vm"
    where.mkdir()
    fstab = tmp_path / "fstab"
    for document in ("README.md", "docs/LINUX.md"):
        lines = [line for line in (ROOT / document).read_text().splitlines() if line.endswith(" 0 0")]
        assert [line.split()[2] for line in lines] == ["rowfs", "ext4"]
    places = {"/srv/pool": str(mounted.pool), "/mnt/rowfs": mounted.path(), "/mnt/rowfs/vm1": mounted.path("vm")}
    places["/mnt/vm1"] = str(where)
    fstab.write_text("".join(f"{' '.join(places.get(word, word) for word in line.split())}\n" for line in lines))
    run("mount", "--all", "--fstab", fstab)
    mounted.pid = mounted.info()["pid"]
    try:
        (where / "file").write_bytes(noise("fstab", MIB))
        (attached,) = mounted.disk("vm")["attached"]
        assert attached["mounts"] == [str(where)]
        assert "target is busy" in run("umount", "--internal-only", mounted.mnt, codes=(32,)).stderr
    finally:
        run("umount", where)
    until(lambda: mounted.disk("vm")["open"] == 0, "the loop device to go")
    run("umount", mounted.mnt)
    mounted.wait_free(mounted.pid)
    mounted.pid = 0


def test_mounting_again_waits_for_the_daemon_before(mounted: Mounted) -> None:
    path = mounted.path("vm")
    run("truncate", "-s", "64M", path)
    for number in range(3):
        write_file(path, noise(number, 8 * MIB))
        pid = mounted.pid
        run("umount", "--internal-only", mounted.mnt)  # returns while the daemon still commits
        mounted.mount()
        assert mounted.pid != pid
        assert read_file(path, 0, 8 * MIB) == noise(number, 8 * MIB)


def test_umount_from_a_directory_on_the_mount_names_the_shell_there_and_never_itself(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "1M")
    umount = shlex.join([sys.executable, "-P", "-m", "rowfs", "umount", "."])
    with subprocess.Popen(["sh", "-c", f"{umount}; exit $?"], cwd=mounted.mnt, stderr=subprocess.PIPE, text=True) as sh:
        _, said = sh.communicate()
    assert sh.returncode == 1
    assert said == f"rowfs: {mounted.mnt} is in use by sh ({sh.pid}): close that first, or use --force\n"
    run(*shlex.split(umount), cwd=mounted.mnt)  # nobody else is there
    assert not is_mounted(mounted.mnt)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    need("systemd-analyze")
    unit = tmp_path / "mnt-rowfs.mount"
    shutil.copy(ROOT / "tools" / "rowfs.mount", unit)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "mnt-rowfs.mount" not in done.stderr, done.stderr


# Other users


def test_without_allow_other_no_other_user_gets_in(public: Path, make_mounted: Callable[..., Mounted]) -> None:
    mounted = make_mounted(pool=str(public / "pool"), mnt=str(public / "mnt"))
    mounted.cli("create", ":vm", "1M")
    mounted.cli("snapshot", ":vm@s")
    os.chmod(mounted.path("vm"), 0o666)
    with for_users(public) as there:
        for words in (["ls"], ["ls", ".snapshots"], ["cat", "vm"], ["stat", "vm"], ["cat", ".snapshots/vm/s"]):
            done = there.run(OTHER, words[0], mounted.path("".join(words[1:])))
            assert done.returncode != 0 and "Permission denied" in done.stderr
        assert "Permission denied" in there.run(OTHER, "dd", "if=/dev/zero", f"of={mounted.path('vm')}").stderr
        assert stat.S_IMODE(os.stat(mounted.pool / "control.sock").st_mode) == 0o600
        assert "may not speak" in there.rowfs(OTHER, "info", mounted.path()).stderr
        # Even where the pool's directory and the socket were opened to all, the daemon asks who speaks.
        os.chmod(mounted.pool, 0o755)
        os.chmod(mounted.pool / "control.sock", 0o666)
        for verb in (
            ["info"],
            ["list"],
            ["delete", mounted.path("vm")],
            ["snapshot", mounted.path("vm@t")],
            ["umount"],
        ):
            done = there.rowfs(OTHER, *verb, *([] if len(verb) > 1 else [mounted.path()]))
            assert done.returncode == 1 and "only root and the user who mounted" in done.stderr
    (vm,) = mounted.call("list")
    assert (vm["size_bytes"], [item["name"] for item in vm["snapshots"]]) == (MIB, ["s"])


def test_with_allow_other_modes_decide(public: Path, make_mounted: Callable[..., Mounted]) -> None:
    mounted = make_mounted(pool=str(public / "pool"), mnt=str(public / "mnt"), mount=("--allow-other",))
    mounted.cli("create", ":open", "1M")
    mounted.cli("create", ":closed", "1M")
    os.chmod(mounted.path("open"), 0o666)
    os.chmod(mounted.path("closed"), 0o600)
    with for_users(public) as there:
        write = ["dd", "if=/dev/zero", f"of={mounted.path('open')}", "count=1", "conv=notrunc"]
        assert there.run(OTHER, *write).returncode == 0
        assert "Permission denied" in there.run(OTHER, "cat", mounted.path("closed")).stderr
        assert "Permission denied" in there.run(OTHER, "touch", mounted.path("new")).stderr
        assert "Permission denied" in there.run(OTHER, "touch", mounted.path(".snapshots/open/new")).stderr
        assert there.run(OTHER, "rm", "-f", mounted.path("open")).returncode != 0
        entry = pwd.getpwnam(OTHER)
        os.chown(mounted.path("closed"), entry.pw_uid, entry.pw_gid)
        assert there.run(OTHER, "cat", mounted.path("closed")).returncode == 0
        assert "may not speak" in there.rowfs(OTHER, "snapshot", mounted.path("closed")).stderr


def test_uid_makes_a_user_the_owner(public: Path, make_mounted: Callable[..., Mounted]) -> None:
    options = ("-o", f"allow_other,uid={OTHER},umask=077")
    mounted = make_mounted(pool=str(public / "pool"), mnt=str(public / "mnt"), mount=options)
    with for_users(public) as there:
        assert there.run(OTHER, "truncate", "-s", "1M", mounted.path("own")).returncode == 0
        assert there.run(OTHER, "touch", mounted.path(".snapshots/own/first")).returncode == 0
        assert "Permission denied" in there.run(OWNER, "ls", mounted.path()).stderr
    assert stat.S_IMODE(os.stat(mounted.path("own")).st_mode) == 0o600


# Without root


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The directory of the user OWNER."""
    place = tmp_path / "home"
    place.mkdir()
    entry = pwd.getpwnam(OWNER)
    os.chown(place, entry.pw_uid, entry.pw_gid)
    return place


class Owner:
    """The user OWNER, with a pool and an empty directory to mount it on."""

    pool, mnt = f"{HOME}/pool", f"{HOME}/disks"

    def __init__(self, there: Namespace) -> None:
        self._there = there

    def does(self, *words: str) -> str:
        """Run a program, or a verb of rowfs, which has to succeed: what it says."""
        done = self._there.rowfs(OWNER, *words) if words[0] in COMMANDS else self._there.run(OWNER, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_a_user_who_is_not_root_has_a_pool_of_their_own(home: Path) -> None:
    with for_users(home, home) as there:
        owner = Owner(there)
        pool, mnt, does = owner.pool, owner.mnt, owner.does
        does("init", pool)
        does("mkdir", mnt)
        does("mount", pool, mnt)
        try:
            does("truncate", "-s", "16M", f"{mnt}/vm")
            does("dd", f"if={pool}/data", f"of={mnt}/vm", "bs=4k", "count=1", "conv=notrunc,fsync")
            does("snapshot", f"{mnt}/vm@s")
            does("clone", f"{mnt}/vm@s", f"{mnt}/vm2")
            does("truncate", "-s", "0", f"{mnt}/vm")
            does("cmp", f"{mnt}/.snapshots/vm/s", f"{mnt}/vm2")
            assert "4.0K held by snapshots" in does("info", f"{mnt}/vm")
            assert does("stat", "--format=%U %a", f"{mnt}/vm") == f"{OWNER} 644\n"
            for user in (OTHER, "root"):  # not even root
                assert "Permission denied" in there.run(user, "ls", mnt).stderr
            assert "may not speak" in there.rowfs(OTHER, "info", mnt).stderr
            assert there.rowfs("root", "info", mnt).returncode == 0
            assert "only root can use loop devices" in there.rowfs(OWNER, "attach", f"{mnt}/vm").stderr
        finally:
            does("umount", mnt)
        assert "fuse.rowfs" not in there.run(OWNER, "cat", "/proc/mounts").stdout
        assert does("check", pool).endswith("clean\n")


def test_a_user_takes_a_dead_mount_away(home: Path) -> None:
    with for_users(home, home) as there:
        owner = Owner(there)
        owner.does("init", owner.pool)
        owner.does("mkdir", owner.mnt)
        owner.does("mount", owner.pool, owner.mnt)
        owner.does("create", f"{owner.mnt}/vm", "1M")
        pid = json.loads(owner.does("info", owner.mnt, "--json"))["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid), "the daemon to end")
        assert "is not running" in there.rowfs(OWNER, "list", owner.mnt).stderr
        owner.does("umount", owner.mnt)
        owner.does("mount", owner.pool, owner.mnt)
        assert "vm" in owner.does("ls", owner.mnt)
        owner.does("umount", owner.mnt)


def test_a_user_may_let_others_in_if_root_says_so(home: Path) -> None:
    with for_users(home, home) as there:
        owner = Owner(there)
        owner.does("init", owner.pool)
        owner.does("mkdir", owner.mnt)
        said = there.rowfs(OWNER, "mount", "--allow-other", owner.pool, owner.mnt).stderr
        assert "user_allow_other" in said and "/etc/fuse.conf" in said
        there.run("root", "sh", "-c", "echo user_allow_other >/etc/fuse.conf")
        owner.does("mount", "--allow-other", owner.pool, owner.mnt)
        owner.does("truncate", "-s", "1M", f"{owner.mnt}/vm")
        assert there.run(OTHER, "ls", owner.mnt).stdout == "vm\n"
        assert "Permission denied" in there.run(OTHER, "rm", "-f", f"{owner.mnt}/vm").stderr
        assert "may not speak" in there.rowfs(OTHER, "info", owner.mnt).stderr
        owner.does("umount", owner.mnt)
