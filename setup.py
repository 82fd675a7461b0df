"""The C extensions; the rest is in pyproject.toml. Without it rowfs mounts all the same (rowfs/native/extension.py)."""

import shlex
import subprocess
from glob import glob

from setuptools import Extension, setup


def fuse_flags(which: str) -> list[str]:
    """What pkg-config says about libfuse; nothing where it cannot be asked: the build of the extension fails then."""
    try:
        return shlex.split(subprocess.check_output(["pkg-config", which, "fuse3"], text=True))
    except (OSError, subprocess.CalledProcessError):
        return []


setup(
    ext_modules=[
        Extension(
            "rowfs.native._native",
            sorted(glob("rowfs/native/_*.c")),
            depends=sorted(glob("rowfs/native/_*.h")),
            extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread", *fuse_flags("--cflags")],
            extra_link_args=["-pthread", *fuse_flags("--libs")],
            optional=True,
        ),
        Extension(
            "rowfs.persist._verified",
            [f"rowfs/persist/{part}.c" for part in ("_verified", "_follow", "_cursor", "_guard")],
            depends=["rowfs/persist/_verified.h"],
            extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra"],
            optional=True,
        ),
    ]
)
