"""Writes texts token by token: beam search, of which greedy decoding is the case of one beam, as in medvill_jax.

The network is a function `step(tokens, index, cache) -> logits, cache`: int64 `[R]` tokens of slot `index - 1` (ignored
at index 0) -> float `[R, V]` logits of slot `index`. A cache is a list of pairs of tensors whose first axis is R, the
rows: `beams` texts for each example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Memory = tuple[Tensor, Tensor]
Cache = list[Memory]
Step = Callable[[Tensor, int, Cache], tuple[Tensor, Cache]]


@dataclass(frozen=True)
class Rules:
    """The rules for a text.

    Attributes:
        end_id: the token that ends a text, [SEP].
        max_len: the most tokens, `end_id` included; a longer text is cut there.
        min_len: the fewest tokens before `end_id`.
        banned: tokens that are never written.
        no_repeat_ngram: no n-gram of that many tokens occurs twice in a text; 0 sets no limit.
    """

    end_id: int
    max_len: int
    min_len: int = 0
    banned: tuple[int, ...] = ()
    no_repeat_ngram: int = 0


def search(
    step: Step, cache: Cache, rules: Rules, *, batch: int, beams: int, length_penalty: float
) -> tuple[Tensor, Tensor]:
    """The best text that a beam search finds for each example.

    In every slot the likeliest continuations of all beams are kept. Those that end leave the beam, and the best of them
    so far is stored. The score is the sum of log-probabilities plus `length_penalty` times the number of tokens,
    `end_id` included. Of equal scores the text that was complete earlier wins, then the lower beam, then the lower id.

    Args:
        step: the network.
        cache: its cache before the first token, for `batch * beams` rows.
        rules: the rules for a text.
        batch: number of examples, B.
        beams: texts that are compared, K.
        length_penalty: above 0 favours long texts, below 0 short ones.

    Returns:
        int64 `[B, max_len]`, the tokens and then `end_id`; and float32 `[B]`, the sums of their log-probabilities.
    """
    length, end, device = rules.max_len, rules.end_id, cache[0][0].device
    tokens = torch.full((batch, beams, length), end, device=device)
    # Only one beam is live at first: K equal ones would find every continuation K times.
    total = torch.full((batch, beams), -torch.inf, device=device)
    total[:, 0] = 0.0
    best_tokens = tokens[:, 0].clone()
    best_score = torch.full((batch,), -torch.inf, device=device)
    best_total = best_score.clone()
    row = torch.arange(batch, device=device)
    for index in range(length):
        if not torch.isfinite(total).any():
            break
        previous = tokens[:, :, max(index - 1, 0)].flatten()  # [B K]
        logits, cache = step(previous, index, cache)
        gains = log_probs(logits, tokens.flatten(0, 1), index, rules).view(batch, beams, -1)  # [B, K, V]
        vocabulary = gains.shape[-1]
        # Adding to a sum can make two log-probabilities equal; of one beam, the likelier token is written.
        ranked = (gains if beams == 1 else total[..., None] + gains).flatten(1)
        place = ranked.sort(dim=1, descending=True, stable=True).indices[:, :beams]  # [B, K]
        parent, token = place // vocabulary, place % vocabulary
        total = (total[..., None] + gains).flatten(1).gather(1, place)
        tokens = tokens.gather(1, parent[..., None].expand(-1, -1, length))
        tokens[:, :, index] = token
        rows = (row[:, None] * beams + parent).flatten()
        cache = [(keys[rows], values[rows]) for keys, values in cache]

        complete = (token == end) | (index + 1 == length)
        scores = torch.where(complete, total + length_penalty * (index + 1), -torch.inf)
        winner = scores.argmax(dim=1)
        better = scores[row, winner] > best_score
        best_score = torch.where(better, scores[row, winner], best_score)
        best_total = torch.where(better, total[row, winner], best_total)
        best_tokens = torch.where(better[:, None], tokens[row, winner], best_tokens)
        # Sums of log-probabilities never increase, and the penalty is largest at the next or at the last length.
        hopeless = total + max(length_penalty * (index + 2), length_penalty * length) <= best_score[:, None]
        total = torch.where(complete | hopeless, -torch.inf, total)
    return best_tokens, best_total


def log_probs(logits: Tensor, tokens: Tensor, index: int, rules: Rules) -> Tensor:
    """The network's log-probabilities of the next token, minus infinity for tokens that the rules forbid.

    If the rules forbid every token, `end_id` is allowed at any length.

    Args:
        logits: `[R, V]`.
        tokens: int64 `[R, T]`, the texts so far; slots from `index` on are ignored.
        index: the slot of the next token.
        rules: the rules for a text.

    Returns:
        float32 `[R, V]`.
    """
    # Rounding can lift a log-probability above 0, but the search relies on sums that never increase.
    allowed = torch.log_softmax(logits.float(), dim=-1).clamp(max=0.0)
    end = allowed[:, rules.end_id].clone()
    allowed[:, list(rules.banned)] = -torch.inf
    if index < rules.min_len:
        allowed[:, rules.end_id] = -torch.inf
    size = rules.no_repeat_ngram
    if 0 < size <= index:
        ngrams = tokens[:, :index].unfold(1, size, 1)  # [R, index - n + 1, n]
        last = tokens[:, index - size + 1 : index]  # [R, n-1]
        repeats = (ngrams[..., :-1] == last[:, None]).all(dim=-1)
        counts = torch.zeros_like(allowed).scatter_add_(1, ngrams[..., -1], repeats.to(allowed.dtype))
        allowed = allowed.masked_fill(counts > 0, -torch.inf)
    stuck = torch.isneginf(allowed).all(dim=-1)
    allowed[:, rules.end_id] = torch.where(stuck, end, allowed[:, rules.end_id])
    return allowed
