"""`python -m posttrain` is `posttrain`."""

import sys

from posttrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
