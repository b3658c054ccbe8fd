"""Torch shares few cores with JAX here; its idle threads would spin."""

import torch

torch.set_num_threads(1)
