"""Exports, conversion from and to PyTorch checkpoints, and initialisation from both."""
