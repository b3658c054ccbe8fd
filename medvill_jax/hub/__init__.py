"""Models in and out: our export folder, conversion from and to PyTorch checkpoints, initialisation from them."""
