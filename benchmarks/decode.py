"""Speed of report generation: cached beam search against a loop that recomputes the whole sequence for every token.

    python -m benchmarks.decode                                   # BERT-base, 256 cells, beam 4, 128 tokens
    python -m benchmarks.decode --layers=2 --tokens=16            # a quick check
    python -m benchmarks.decode --device=cuda --batch=32          # PyTorch on a GPU, as JAX is where it has one

Both generate with the same random weights in float32, and neither ends early: [SEP] is banned, so all reports have the
same number of tokens. The reference is in PyTorch: it runs the ResNet once per image (the released code runs it for
every token), and for every token the Transformer over the image, the tokens and the [MASK] of all beams, the vocabulary
head over the [MASK] rows only, and the selection of the best K continuations. Its cost per token grows smoothly with
the length of the sequence, so by default a few lengths are timed (`--lengths`, spaced evenly from the first token to
the last, each the fastest of `--repeats`), and the time of a report is their linear interpolation, summed over all
tokens. `--lengths=0` runs every token of one report instead. Our program is timed as a whole, in batches of `--batch`
images; compilation is measured separately.

Before timing, both generate a few tokens, which must be equal.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from benchmarks.peak import peak_bytes
from medvill_jax import programs
from medvill_jax.commands import Parser
from medvill_jax.decoding.rules import Rules
from medvill_jax.hub.network import functional
from medvill_jax.hub.report_writer import Writing, write
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.medvill import MedvillConfig

END, MASK = 102, 103
BANNED = (0, 100, 101, MASK)
IMAGE_SIZE = 512


def tensor(array: Any) -> torch.Tensor:
    """On the default device of PyTorch."""
    return torch.from_numpy(np.array(array)).to(torch.get_default_device())


class Reference:
    """The Transformer and its MLM head in torch, with the same arrays; the embeddings of the image are an input."""

    def __init__(self, config: MedvillConfig, params: dict[str, Any]):
        self.config, self.params = config, jax.tree.map(lambda leaf: tensor(leaf), params)

    def linear(self, part: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, part["kernel"].T, part["bias"])

    def norm(self, part: dict[str, Any], x: torch.Tensor, eps: float) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], part["scale"], part["bias"], eps)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """int `[R, t]` -> `[R, t, H]`, at positions 0, 1, 2..."""
        tables = self.params["embeddings"]
        x = tables["word_embeddings"]["embedding"][ids]
        x = (
            x
            + tables["position_embeddings"]["embedding"][: ids.shape[1]]
            + tables["token_type_embeddings"]["embedding"][1]
        )
        return self.norm(tables["layer_norm"], x, self.config.bert.layer_norm_eps)

    def next_token(self, image: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Image `[1, N+2, H]`, tokens `[K, t]` -> log-probabilities `[K, V]` of the next token."""
        bert, beams = self.config.bert, texts.shape[0]
        ids = torch.cat([texts, torch.full((beams, 1), MASK)], 1)
        x = torch.cat([image.expand(beams, -1, -1), self.embed(ids)], 1)  # [K, L, H]
        length, cells = x.shape[1], image.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        seen[:, :cells] = True
        split = (beams, length, bert.num_heads, bert.hidden_size // bert.num_heads)
        for number in range(bert.num_layers):
            layer = self.params["encoder"]["layer"][number]
            attention = layer["attention"]
            q, k, v = (self.linear(attention[n], x).view(split).transpose(1, 2) for n in ("query", "key", "value"))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            mixed = self.linear(attention["output"], mixed.transpose(1, 2).reshape(x.shape))
            x = self.norm(layer["attention_layer_norm"], x + mixed, bert.layer_norm_eps)
            hidden = self.linear(layer["output"], nn.functional.gelu(self.linear(layer["intermediate"], x)))
            x = self.norm(layer["output_layer_norm"], x + hidden, bert.layer_norm_eps)
        head = self.params["mlm"]
        query = self.norm(head["layer_norm"], nn.functional.gelu(self.linear(head["dense"], x[:, -1])), 1e-5)
        logits = query @ self.params["embeddings"]["word_embeddings"]["embedding"].T + head["bias"]
        result = torch.log_softmax(logits, -1)
        result[:, [*BANNED, END]] = -torch.inf
        return result

    @torch.inference_mode()
    def extend(
        self, image: torch.Tensor, texts: torch.Tensor, totals: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds a token to every beam: tokens `[K, t]` and summed log-probabilities `[K]` -> `[K, t+1]` and `[K]`."""
        values = totals[:, None] + self.next_token(image, texts)
        totals, place = values.flatten().topk(texts.shape[0])
        parent, token = place // values.shape[1], place % values.shape[1]
        return torch.cat([texts[parent], token[:, None]], 1), totals

    def write(self, image: torch.Tensor, beams: int, length: int) -> torch.Tensor:
        """The best of `beams` texts, int `[length]`."""
        texts = torch.zeros((beams, 0), dtype=torch.long)
        totals = torch.tensor([0.0] + [-torch.inf] * (beams - 1))
        for _ in range(length):
            texts, totals = self.extend(image, texts, totals)
        return texts[0]


def seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def reference_seconds(reference: Reference, image: torch.Tensor, flags: argparse.Namespace) -> tuple[float, str]:
    """Seconds of the tokens of one report, and how they were measured."""
    if not flags.lengths:
        return seconds(lambda: reference.write(image, flags.beams, flags.tokens)), "every token of one report was run"
    totals = torch.zeros(flags.beams)
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    lengths = np.unique(np.linspace(0, flags.tokens - 1, flags.lengths).round().astype(int))
    times = []
    for length in lengths.tolist():
        texts = torch.randint(1000, flags.vocabulary, (flags.beams, length), generator=generator)
        times.append(
            min(seconds(lambda texts=texts: reference.extend(image, texts, totals)) for _ in range(flags.repeats))
        )
        print(f"  torch, token {length + 1:>3}: {times[-1]:8.3f} s", flush=True)
    total = float(np.interp(np.arange(flags.tokens), lengths, times).sum())
    return total, f"interpolated linearly between tokens {', '.join(str(n + 1) for n in lengths)}"


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of every report")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8, help="images in a batch of our program")
    parser.add_argument(
        "--lengths", type=int, default=4, help="number of text lengths at which torch is timed; 0: every token"
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=30522)
    parser.add_argument("--device", default="cpu", help="of PyTorch")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON in the last line")
    flags = parser.parse_args()
    torch.set_default_device(flags.device)

    bert = BertConfig(vocab_size=flags.vocabulary, num_layers=flags.layers, dropout=0.0)
    config = MedvillConfig(bert, image_size=IMAGE_SIZE)
    model = functional(config)
    params, stats = jax.jit(model.init)(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (flags.batch, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    live, seeds = np.ones(flags.batch, bool), np.zeros(flags.batch, np.int32)

    @functools.partial(programs.jit, static_argnames="writing")
    def ours(params: Any, stats: Any, writing: Writing, images: Any) -> Any:
        return write(model.bind(params, stats), images, live, seeds, writing)

    def writing(length: int) -> Writing:
        return Writing(Rules(END, length, min_len=length, banned=BANNED), MASK, flags.beams)

    @programs.jit
    def encode(params: Any, stats: Any, image: jax.Array) -> jax.Array:
        module = model.bind(params, stats)
        return module.embed_image(module.image_features(image), None, None)

    device = jax.devices()[0].device_kind
    print(
        f"{flags.layers} layers, {config.grid_cells} cells, beam {flags.beams}, {flags.tokens} tokens, float32,",
        end=" ",
    )
    print(f"ours on {device}, torch on {flags.device}")
    with jax.default_matmul_precision("highest"):
        image = tensor(encode(params, stats, images[:1]))
        encoding = seconds(lambda: encode(params, stats, images[:1]).block_until_ready())
        reference = Reference(config, params)
        few = min(4, flags.tokens)
        jax_tokens = np.asarray(ours(params, stats, writing(few), images).tokens[0])
        torch_tokens = reference.write(image, flags.beams, few).cpu().numpy()
        print(f"first {few} tokens: ours {jax_tokens.tolist()}, torch {torch_tokens.tolist()}")
        if (jax_tokens != torch_tokens).any():
            print("error: the two generate different tokens", file=sys.stderr)
            return 1

        start = time.perf_counter()
        compiled = ours.lower(params, stats, writing(flags.tokens), images).compile()
        compiling = time.perf_counter() - start
        texts = jax.block_until_ready(compiled(params, stats, images))
        assert (np.asarray(texts.lengths) == flags.tokens).all()
        best = min(
            seconds(lambda: jax.block_until_ready(compiled(params, stats, images))) for _ in range(flags.repeats)
        )
    memory = compiled.memory_analysis()
    per_report = best / flags.batch
    print(f"  ours, {flags.batch} reports: {best:.2f} s; compiled in {compiling:.1f} s; working memory", end=" ")
    print(f"{memory.temp_size_in_bytes / 2**20:.0f} MiB in addition to the arrays")
    generating, how = reference_seconds(reference, image, flags)
    print(
        f"torch:  {1 / (encoding + generating):9.4f} reports/s ({encoding + generating:.1f} s each, of which "
        f"{encoding:.2f} s encode"
    )
    print(f"        the image, timed with our encoder); {how}")
    print(f"ours:   {1 / per_report:9.4f} reports/s ({per_report:.2f} s each)")
    print(f"ratio:  {(encoding + generating) / per_report:.1f}x")
    peak = peak_bytes(jax.local_devices()[0])
    print(f"peak memory: {peak / 2**30:.1f} GiB, {'both together' if device == 'cpu' else 'ours on the device'}")
    if flags.json:
        figures = {"reports_per_second": 1 / per_report, "ratio": (encoding + generating) / per_report}
        print(json.dumps(figures | {"peak_bytes": peak, "compiling_seconds": compiling}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
