"""python3 -m cc_kvmhost: the command line from a clone, without installing."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
