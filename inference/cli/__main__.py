"""``python -m ppl.inference.cli``: the command ``ppl``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
