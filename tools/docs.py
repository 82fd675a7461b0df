"""Writes what the documents say of each verb, from its declaration in rowfs/verbs/; and man pages.

docs.py              writes docs/CLI.md and docs/CONTROL.md where they differ
docs.py --man DIR    writes man pages into DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from rowfs import __version__
from rowfs.verbs.pages import cli_sections, control_rows, man_pages, replaced
from rowfs.verbs.table import COMMANDS, METHODS

ROOT = Path(__file__).resolve().parents[1]


def documents() -> dict[Path, str]:
    """The documents that declarations are written into, as they should be."""
    cli, control = ROOT / "docs/CLI.md", ROOT / "docs/CONTROL.md"
    return {
        cli: replaced(cli.read_text(), cli_sections(COMMANDS.values())),
        control: replaced(control.read_text(), control_rows(METHODS.values())),
    }


def write_man_pages(directory: Path) -> None:
    """Writes the man pages into `directory`, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in man_pages(COMMANDS.values(), __version__).items():
        (directory / name).write_text(text)


def main() -> int:
    """Does what the command line says."""
    if sys.argv[1:2] == ["--man"] and len(sys.argv) == 3:
        write_man_pages(Path(sys.argv[2]))
    elif len(sys.argv) == 1:
        for path, text in documents().items():
            if path.read_text() != text:
                path.write_text(text)
                print(f"wrote {path.relative_to(ROOT)}")
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
