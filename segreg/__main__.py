"""`python -m segreg` is `segreg`."""

import sys

from segreg.cli import main

if __name__ == "__main__":
    sys.exit(main())
