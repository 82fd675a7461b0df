"""The C extension; the rest is in pyproject.toml. Without it rowfs mounts all the same (rowfs/native/extension.py)."""

import shlex
import subprocess

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
            [
                f"rowfs/native/{part}.c"
                for part in (
                    "_native",
                    "_receive",
                    "_hotpath",
                    "_writes",
                    "_engine",
                    "_workers",
                    "_transfer",
                    "_verify",
                    "_crc32c",
                )
            ],
            depends=["rowfs/native/_native.h", "rowfs/native/_engine.h", "rowfs/native/_crc32c.h"],
            extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread", *fuse_flags("--cflags")],
            extra_link_args=["-pthread", *fuse_flags("--libs")],
            optional=True,
        )
    ]
)
