"""A client of SQLite that is a process, as those of other databases are: sqlite_client.py DATABASE JOURNAL_MODE.

Carries out the SQL of each line on its standard input, and prints the rows.
"""

from __future__ import annotations

import sqlite3
import sys


def main(path: str, mode: str) -> None:
    """Until the input ends."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute(f"PRAGMA journal_mode={mode}")
    # With FULL, a transaction whose journal is deleted may come undone: SQLite syncs that directory only with EXTRA.
    connection.execute("PRAGMA synchronous=EXTRA")
    for line in sys.stdin:
        for statement in filter(str.strip, line.split(";")):
            for row in connection.execute(statement):
                print(*row, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
