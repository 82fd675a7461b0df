"""`python -m rowfs`: the same as the command `rowfs`."""

from rowfs.cli.main import main

main()
