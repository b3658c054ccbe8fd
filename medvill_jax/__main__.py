"""`python -m medvill_jax` is the console command `medvill`."""

import sys

from medvill_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
