"""Gradients and a whole training trajectory against torch, dropout off, on the same weights and data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from medvill_jax.hub.network import functional
from medvill_jax.training.losses import cross_entropy_sum
from medvill_jax.training.optimizer import OptimizerConfig, adamw
from medvill_jax.trees import flatten, tree_names
from tests.models.reference import Sizes, TorchMedvill, arrays_of, medvill_config

SIZES = Sizes(hidden=16, heads=2, intermediate=32, depths=(1, 1, 1, 1))
BATCH, SLOTS, SIDE, PREDICTIONS = 4, 6, 64, 3


def make_batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lens = rng.integers(2, SLOTS + 1, BATCH)
    ids = rng.integers(5, SIZES.vocab, (BATCH, SLOTS))
    ids[np.arange(SLOTS)[None] >= lens[:, None]] = 0
    return {
        "images": rng.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32),
        "ids": ids,
        "lens": lens,
        "positions": rng.integers(0, 1 << 20, (BATCH, PREDICTIONS)) % lens[:, None],
        "labels": rng.integers(5, SIZES.vocab, (BATCH, PREDICTIONS)),
        "matched": rng.integers(0, 2, BATCH),
    }


def torch_loss(model: TorchMedvill, batch: dict[str, np.ndarray]) -> torch.Tensor:
    images = torch.from_numpy(batch["images"].transpose(0, 3, 1, 2).copy())
    mlm, itm = model(images, torch.from_numpy(batch["ids"]), batch["lens"], "bar")
    rows = torch.from_numpy(batch["positions"])[..., None].expand(-1, -1, SIZES.vocab)
    words = torch.gather(mlm, 1, rows).flatten(0, 1)
    return torch.nn.functional.cross_entropy(words, torch.from_numpy(batch["labels"]).flatten()) + (
        torch.nn.functional.cross_entropy(itm, torch.from_numpy(batch["matched"]))
    )


def our_loss(params: Any, stats: Any, batch: dict[str, Any], *, train: bool) -> tuple[jax.Array, Any]:
    model = functional(medvill_config(SIZES))
    module = model.bind(params, stats)
    hidden = module.encode(batch["images"], batch["ids"], batch["lens"], attention="bar", train=train)
    mlm = module.mlm_logits(hidden.text, batch["positions"])
    itm = module.itm_logits(hidden.summary)
    words = cross_entropy_sum(mlm, batch["labels"], jnp.ones((BATCH, PREDICTIONS))) / (BATCH * PREDICTIONS)
    pairs = cross_entropy_sum(itm, batch["matched"], jnp.ones(BATCH)) / BATCH
    return words + pairs, model.stats_of(module)


@pytest.mark.parametrize("train", [False, True], ids=["running_statistics", "batch_statistics"])
def test_gradients(train: bool) -> None:
    reference = TorchMedvill(SIZES).train(train)
    for part in reference.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    params, stats = arrays_of(reference, medvill_config(SIZES))
    batch = make_batch(0)
    loss = torch_loss(reference, batch)
    loss.backward()
    (ours, _), gradients = jax.jit(jax.value_and_grad(lambda p: our_loss(p, stats, batch, train=train), has_aux=True))(
        params
    )
    assert abs(float(ours) - loss.item()) <= 1e-4
    # The conversion tables carry torch's gradients into our layout.
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    expected = flatten(arrays_of(reference, medvill_config(SIZES))[0])
    largest = max(float(np.abs(array).max()) for array in expected.values())
    worst: dict[str, float] = {}
    for name, gradient in flatten(gradients).items():
        difference = float(np.abs(np.asarray(gradient) - expected[name]).max())
        # A softmax does not see what is added to every key, so the gradient of a key's bias is rounding alone: such
        # tensors are held against the largest gradient instead of against themselves.
        scale = float(np.abs(expected[name]).max())
        worst[name] = difference / (scale if scale > 1e-5 * largest else largest)
    assert max(worst.values()) <= 1e-4, sorted(worst.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize("train", [False, True], ids=["running_statistics", "batch_statistics"])
def test_twenty_steps_of_adamw(train: bool) -> None:
    reference = TorchMedvill(SIZES).train(train)
    for part in reference.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    params, stats = arrays_of(reference, medvill_config(SIZES))
    config = OptimizerConfig(learning_rate=1e-3, weight_decay=0.01)
    decayed = [parameter for parameter in reference.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in reference.parameters() if parameter.ndim == 1]
    theirs = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=1e-3, eps=1e-6
    )
    ours = adamw(config, 20, tree_names(params))
    state = ours.init(params)

    @jax.jit
    def step(params: Any, stats: Any, state: Any, batch: Any) -> Any:
        (loss, stats), gradients = jax.value_and_grad(lambda p: our_loss(p, stats, batch, train=train), has_aux=True)(
            params
        )
        updates, state = ours.update(gradients, state, params)
        return optax.apply_updates(params, updates), stats, state, loss

    losses = []
    for number in range(20):
        batch = make_batch(number % 4)
        theirs.zero_grad()
        loss = torch_loss(reference, batch)
        loss.backward()
        theirs.step()
        params, stats, state, own = step(params, stats, state, batch)
        losses.append((loss.item(), float(own)))
    worst = max(abs(a - b) / a for a, b in losses)
    assert worst <= 1e-3, losses
    assert losses[-1][0] < losses[0][0]
