"""The console command `medvill`, which is also `python -m medvill_jax`: a file per subcommand."""
