"""`python -m medvill_jax.tasks.sweep`."""

import sys

from medvill_jax.tasks.sweep.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
