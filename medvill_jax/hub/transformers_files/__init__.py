"""The PyTorch code of `--to=transformers`: copied next to the weights, so it imports nothing else of this package."""
