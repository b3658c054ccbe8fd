"""`python run.py` is `python -m medvill_jax.run`; `--help` teaches it."""

from medvill_jax.run import program

if __name__ == "__main__":
    program()
