"""Checks that imports in rowfs/ go down only, and that each resource is used in the one place that knows it.

floors.py [PACKAGE]     prints `file:line: what is wrong` for each violation; exits 1 if there was any
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# The floors, by folder of rowfs/, and what each may import from the others.
MAY_IMPORT = {
    "base": {"base"},
    "rules": {"base", "rules"},
    "verbs": {"base", "verbs"},
    "persist": {"base", "persist"},
    "seal": {"base", "seal"},
    "store": {"base", "rules", "persist", "seal", "store"},
    "host": {"base", "host"},
    "native": {"base", "persist", "seal", "store", "native"},
    "service": {"base", "rules", "persist", "seal", "store", "host", "native", "service"},
    "mount": {"base", "rules", "store", "native", "service", "mount"},
    "control": {"base", "rules", "verbs", "store", "host", "native", "service", "control"},
    "process": {"base", "rules", "store", "host", "native", "service", "mount", "control", "process"},
    "cli": {"base", "host", "rules", "verbs", "store", "cli"},
}
# The C extension has floors of its own: each part, and what it includes is further down.
NATIVE = (
    *(
        ("_native",),
        ("_receive",),
        ("_hotpath",),
        ("_reads", "_syncs"),
        ("_writes",),
        ("_pagecode", "_verify", "_workers"),
    ),
    *(("_engine",), ("_crc32c", "_record", "_transfer", "_wake"), ("_base",)),
)
TOP_MODULES: dict[str, set[str]] = {"__init__.py": set(), "__main__.py": {"cli"}}

# (who, what): only inside functions, so that the command line starts quickly.
ONLY_LAZILY = {("cli", "store")}

# Where in rowfs/ a library or a call may be used: files, or folders with their slash.
LIBRARIES = {
    "lmdb": ("persist/blockmap.py",),
    "pyfuse3": ("mount/", "native/"),  # in native/ for its types alone: the extension has to be loaded before it
    "trio": ("host/", "service/", "mount/", "control/", "process/"),
}
FILES = ("persist/datafile.py", "persist/journal.py")
CALLS = dict.fromkeys(("pwrite", "pwritev", "fdatasync", "fallocate", "posix_fallocate"), FILES) | {
    # The block map's own file, before LMDB has it.
    "pread": (*FILES, "persist/mappages.py"),
    "preadv": (*FILES, "persist/mappages.py"),
    # Directories of the pool; on the mount, what the kernel caches; exported files and loop devices are not the pool's.
    "fsync": (*FILES, "persist/hostfs.py", "service/kernelcache.py", "cli/export.py", "cli/loops.py"),
}


@dataclass
class Module(ast.NodeVisitor):
    """One file of the package, visited once. `place` is its path inside the package."""

    place: Path
    found: list[tuple[int, str]] = field(default_factory=list)
    depth: int = 0  # of functions, or of blocks that only type checkers read
    os_names: set[str] = field(default_factory=set)
    c_libraries: set[str] = field(default_factory=set)  # names that hold a ctypes.CDLL

    @property
    def floor(self) -> str:
        return self.place.parts[0]

    def report(self, node: ast.stmt | ast.expr, text: str) -> None:
        self.found.append((node.lineno, text))

    # What runs at import and what later

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.If) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.visit_FunctionDef(node)
        else:
            self.generic_visit(node)

    # Imports

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.check_import(node, alias.name)
            if alias.name == "os":
                self.os_names.add(alias.asname or "os")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = node.module or ""
        if node.level:
            here = ["rowfs", *self.place.parent.parts]
            source = ".".join(here[: len(here) - node.level + 1] + source.split(".") * bool(source))
        if source == "rowfs":  # from rowfs import store
            for alias in node.names:
                self.check_import(node, f"rowfs.{alias.name}")
        else:
            self.check_import(node, source)
        if source == "os":
            for alias in node.names:
                self.check_call(node, alias.name)

    def check_import(self, node: ast.stmt | ast.expr, module: str) -> None:
        top, _, rest = module.partition(".")
        if top in LIBRARIES and not self.is_in(LIBRARIES[top]):
            self.report(node, f"imports {top}, which only {' and '.join(LIBRARIES[top])} may")
        floor = rest.partition(".")[0]
        if top != "rowfs" or floor not in MAY_IMPORT:
            return
        if floor not in self.may_import():
            self.report(node, f"{self.floor} imports {module}, which is not below it")
        elif (self.floor, floor) in ONLY_LAZILY and not self.depth:
            self.report(node, f"{self.floor} imports {module} outside a function, which slows its start")

    def may_import(self) -> set[str]:
        if len(self.place.parts) == 1:
            return TOP_MODULES.get(self.floor, set())
        return MAY_IMPORT.get(self.floor, set())

    # System calls

    def visit_Assign(self, node: ast.Assign) -> None:
        if _is_c_library(node.value):
            self.c_libraries.update(ast.unparse(target) for target in node.targets)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        # The attribute, not only its call: it may be handed to a thread, as in run_sync(os.fsync, fd).
        owner = ast.unparse(node.value)
        if owner in self.os_names | self.c_libraries or _is_c_library(node.value):
            self.check_call(node, node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        imports = ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module")
        if imports and node.args and isinstance(node.args[0], ast.Constant):
            self.check_import(node, str(node.args[0].value))
        self.generic_visit(node)

    def check_call(self, node: ast.stmt | ast.expr, name: str) -> None:
        if name in CALLS and not self.is_in(CALLS[name]):
            self.report(node, f"uses {name}, which only {' and '.join(CALLS[name])} may")

    def is_in(self, homes: tuple[str, ...]) -> bool:
        place = self.place.as_posix()
        return any(place == home or (home.endswith("/") and place.startswith(home)) for home in homes)


def _is_c_library(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("CDLL", "PyDLL")


def violations(package: Path) -> Iterator[str]:
    """One line for each violation in the package, by file and line."""
    for path in sorted(package.rglob("*.py")):
        module = Module(path.relative_to(package))
        if module.floor not in MAY_IMPORT and str(module.place) not in TOP_MODULES:
            yield f"{path}:1: {module.floor} is on no floor"
            continue
        module.visit(ast.parse(path.read_bytes(), str(path)))
        for line, text in sorted(module.found):
            yield f"{path}:{line}: {text}"


def native_violations(package: Path) -> Iterator[str]:
    """The same for the C extension in it."""
    floors = {part: floor for floor, parts in enumerate(NATIVE) for part in parts}
    for path in sorted(package.glob("native/*.[ch]")):
        if path.stem not in floors:
            yield f"{path}:1: {path.stem} is on no floor"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            _, included, rest = line.partition('#include "')
            part = rest.partition('.h"')[0]
            if included and part != path.stem and floors.get(part, -1) <= floors[path.stem]:
                yield f"{path}:{number}: {path.stem} includes {part}, which is not below it"


def main() -> int:
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "rowfs"
    found = [*violations(package), *native_violations(package)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
