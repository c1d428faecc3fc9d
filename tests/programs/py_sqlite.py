"""A transaction of SQLite that is under way, with what it has written still in the journal; its kind is the argument.

With "wal" the locks are on a file that is mapped.
"""

import sqlite3
import sys
import time
from pathlib import Path


def main() -> None:
    connection = sqlite3.connect("database", isolation_level=None)
    connection.execute(f"pragma journal_mode={sys.argv[1]}")
    connection.execute("create table numbers (number integer)")
    connection.execute("insert into numbers values (1)")
    connection.execute("begin immediate")
    connection.execute("insert into numbers values (2)")
    print("ready", file=sys.stderr, flush=True)
    while not Path("go").exists():
        time.sleep(0.01)
    connection.execute("insert into numbers values (3)")
    connection.execute("commit")
    found = connection.execute("select sum(number) from numbers").fetchone()
    print("PASS" if found == (6,) else f"FAIL: {found}", file=sys.stderr, flush=True)


main()
