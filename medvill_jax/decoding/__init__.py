"""Writing text word by word with any network that can say which word comes next.

The network is one function, `step(tokens, index, cache) -> logits, cache` (see `rules.Step`). `single.greedy` and
`single.nucleus` write one text per example, `beam.beam_search` compares several. All are pure, meant to be called under
`jax.jit`, have static shapes, end as soon as nothing can change, and feed the network only what it wrote itself.
"""
