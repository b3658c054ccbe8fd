"""All next words in one pass equal one network call per word."""

import jax
import numpy as np

from medvill_jax.hub.network import functional
from medvill_jax.models.causal import next_word_states
from tests.hub.checkpoints import SIZES
from tests.models.reference import TorchMedvill, arrays_of, medvill_config

MASK = 4


def test_one_pass_is_a_decoder_fed_with_the_report() -> None:
    config = medvill_config(SIZES)
    module = functional(config).bind(*arrays_of(TorchMedvill(SIZES), config))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 64, 64)).astype(np.uint8)
    ids = rng.integers(5, SIZES.vocab, (2, 6)).astype(np.int32)
    states = jax.jit(lambda: next_word_states(module, images, ids, mask_id=MASK))()
    encode = jax.jit(lambda asked, lens: module.encode(images, asked, lens, attention="s2s").text)
    for position in range(6):
        asked = ids.copy()
        asked[:, position] = MASK
        asked[:, position + 1 :] = 0
        lens = np.full(2, position + 1, np.int32)
        expected = encode(asked, lens)[:, position]
        np.testing.assert_allclose(states[:, position], expected, atol=1e-5)
