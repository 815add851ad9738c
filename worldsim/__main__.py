"""`python -m worldsim VERB`, the same as `worldsim VERB`."""

import sys

from worldsim.cli import main

if __name__ == "__main__":
    sys.exit(main())
