"""`python -m rtdetr_lab …` is the same as `rtdetr-lab …`."""

import sys

from rtdetr_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
