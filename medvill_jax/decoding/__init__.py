"""Decoding: writes text token by token with any network that predicts the next token.

The network is one function, `step(tokens, index, cache) -> logits, cache` (see `rules.Step`). `single.greedy` and
`single.nucleus` keep one text per example, `beam.beam_search` compares several. All are pure functions with static
shapes, to be called under `jax.jit`. They stop as soon as every text is complete, and the input of a step is the output
of the step before.
"""
