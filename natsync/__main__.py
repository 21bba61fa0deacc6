"""`python -m natsync`: the command line."""

import sys

from natsync.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
