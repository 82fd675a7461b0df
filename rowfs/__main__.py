"""`python -m rowfs`: the same as the command `rowfs`."""

import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until main can take it: importing it takes a while

from rowfs.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
