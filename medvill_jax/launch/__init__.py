"""Files that start a training on other machines: for SLURM, for GKE with JobSet, and for SkyPilot.

Each engine has a file, whose `text` writes what the engine reads. Starting, watching and starting again are the work of
the engine; the run's part is `--stopped_status`, which tells a run that has to go on from one that failed.
"""
