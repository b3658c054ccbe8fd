"""The parts of MedViLL in PyTorch: image encoders, BERT, heads, attention masks; see modeling_medvill.py.

In shapes, B is the number of images, S their side in pixels, N the number of image cells, L that of all slots, T+1 that
of text slots, H the hidden size and V the vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_medvill import MedvillConfig
from .decoding_medvill import Cache, Memory

# Finite also in bfloat16, so that a row that sees nothing has no NaN.
MASKED = -1e30
# Logarithm of the cosines' first factor, 1 / 0.07 (Radford et al., ICML 2021).
FIRST_SCALE = 2.6593
ATTENTION = ("bidirectional", "s2s", "bar", "mixed", "non_cross")


class ConvNorm(nn.Module):
    """Convolution without bias, then BatchNorm."""

    def __init__(self, in_width: int, width: int, kernel: int, stride: int):
        super().__init__()
        self.convolution = nn.Conv2d(in_width, width, kernel, stride, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalization(self.convolution(x))


class ResidualLayer(nn.Module):
    """1x1-3x3-1x1 (bottleneck) or 3x3-3x3 convolutions beside a shortcut (He et al., CVPR 2016)."""

    def __init__(self, in_width: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        inner = width // 4 if bottleneck else width
        plan = [(1, inner, 1), (3, inner, stride), (1, width, 1)] if bottleneck else [(3, width, stride), (3, width, 1)]
        widths = [in_width, *(out for _, out, _ in plan)]
        self.layer = nn.ModuleList(
            ConvNorm(before, out, kernel, step) for before, (kernel, out, step) in zip(widths[:-1], plan, strict=True)
        )
        projects = stride != 1 or in_width != width
        self.shortcut = ConvNorm(in_width, width, 1, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        for layer in self.layer[:-1]:
            x = F.relu(layer(x))
        return F.relu(self.layer[-1](x) + shortcut)


class ResNet(nn.Module):
    """The last feature map of a ResNet (v1.5) as a sequence of cells."""

    def __init__(self, depths: list[int], stem_width: int, widths: list[int], bottleneck: bool):
        super().__init__()
        self.embedder = ConvNorm(3, stem_width, 7, 2)
        stages, current = [], stem_width
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            layers = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                layers.append(ResidualLayer(current, width, stride, bottleneck))
                current = width
            stages.append(nn.ModuleList(layers))
        self.stages = nn.ModuleList(stages)
        self.width = current

    def forward(self, images: Tensor) -> Tensor:
        """Normalised `[B, 3, S, S]` -> `[B, N, width]`, cells in raster order."""
        x = F.max_pool2d(F.relu(self.embedder(images)), 3, 2, 1)
        for stage in self.stages:
            for layer in stage:  # pyright: ignore[reportGeneralTypeIssues]
                x = layer(x)
        return x.flatten(2).transpose(1, 2)


class PatchEmbedder(nn.Module):
    """Square patches, each projected linearly (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self, patch_size: int, width: int):
        super().__init__()
        self.patch_size, self.width = patch_size, width
        self.projection = nn.Linear(3 * patch_size**2, width)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised `[B, 3, S, S]` -> `[B, N, width]`, patches in raster order."""
        batch, channels, height, width = images.shape
        size = self.patch_size
        x = images.reshape(batch, channels, height // size, size, width // size, size)
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, size * size * channels)
        return self.projection(x)


class Embeddings(nn.Module):
    """Content + position + token type, LayerNorm, dropout; image and text share it."""

    def __init__(self, config: MedvillConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_positions, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.token_types, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, content: Tensor, positions: Tensor, token_types: Tensor) -> Tensor:
        """`[B, L, H]`, and int64 that broadcast to `[B, L]` -> `[B, L, H]`."""
        x = content + self.position_embeddings(positions) + self.token_type_embeddings(token_types)
        return self.dropout(self.layer_norm(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention with an additive mask."""

    def __init__(self, config: MedvillConfig):
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """`[B, L, H]`; keys and values `[B, heads, M, D]` that precede those of `x` -> `[B, L, H]`, all of them."""
        batch, length, size = x.shape
        query, key, value = (
            project(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        if memory is not None:
            key, value = torch.cat([memory[0], key], dim=2), torch.cat([memory[1], value], dim=2)
        logits = query @ key.transpose(2, 3) / math.sqrt(size // self.heads) + mask
        mixed = self.dropout(F.softmax(logits.float(), dim=-1).to(x.dtype)) @ value
        return self.output(mixed.transpose(1, 2).reshape(batch, length, size)), (key, value)


class Layer(nn.Module):
    """Attention and feed-forward, each with residual, then LayerNorm."""

    def __init__(self, config: MedvillConfig):
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.attention = SelfAttention(config)
        self.attention_layer_norm = nn.LayerNorm(size, eps)
        self.intermediate = nn.Linear(size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, size)
        self.output_layer_norm = nn.LayerNorm(size, eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        attended, seen = self.attention(x, mask, memory)
        x = self.attention_layer_norm(x + self.dropout(attended))
        return self.output_layer_norm(x + self.dropout(self.output(F.gelu(self.intermediate(x))))), seen


class Encoder(nn.Module):
    """A stack of layers."""

    def __init__(self, config: MedvillConfig):
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor, mask: Tensor, memories: Cache | None = None) -> tuple[Tensor, Cache]:
        """`[B, L, H]`, a mask that broadcasts to `[B, heads, L, M + L]`, and memories of every layer."""
        after = []
        for index, layer in enumerate(self.layer):
            x, memory = layer(x, mask, memories[index] if memories else None)
            after.append(memory)
        return x, after


class Pooler(nn.Module):
    """tanh(Linear(h_[CLS]))."""

    def __init__(self, config: MedvillConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden[:, 0]))


class MlmHead(nn.Module):
    """Linear, GELU, LayerNorm(1e-5), then the word embeddings as output weights plus a bias."""

    def __init__(self, config: MedvillConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, 1e-5)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, word_embeddings: nn.Embedding) -> Tensor:
        return F.linear(self.layer_norm(F.gelu(self.dense(hidden))), word_embeddings.weight, self.bias)


class ItmHead(nn.Module):
    """Linear to two classes; class 1 means that image and text belong together."""

    def __init__(self, config: MedvillConfig):
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, 2)

    def forward(self, summary: Tensor) -> Tensor:
        return self.linear(summary)


class AnswerHead(nn.Module):
    """Linear to twice the width, ReLU, Linear to the answers."""

    def __init__(self, in_size: int, config: MedvillConfig):
        super().__init__()
        self.hidden = nn.Linear(in_size, 2 * config.hidden_size)
        self.output = nn.Linear(2 * config.hidden_size, config.answers)

    def forward(self, summary: Tensor) -> Tensor:
        return self.output(F.relu(self.hidden(summary)))


class ContrastHead(nn.Module):
    """Projections of image and text to one space, and the logarithm of their cosines' factor."""

    def __init__(self, config: MedvillConfig):
        super().__init__()
        self.image = nn.Linear(config.hidden_size, config.contrast)
        self.text = nn.Linear(config.hidden_size, config.contrast)
        self.scale = nn.Parameter(torch.tensor(FIRST_SCALE))


class Heads(nn.Module):
    """The heads of fine-tuning; their input is a summary, see `MedvillModel.summarize`."""

    cells: nn.LayerNorm
    classifier: nn.Linear
    answer: AnswerHead
    contrast: ContrastHead
    match: nn.Linear

    def __init__(self, config: MedvillConfig, image_width: int):
        super().__init__()
        size = config.hidden_size + (image_width if config.fusion == "late" or config.cells else 0)
        if config.cells:
            self.cells = nn.LayerNorm(image_width, config.layer_norm_eps)
        if config.classes:
            self.classifier = nn.Linear(size, config.classes)
        if config.answers:
            self.answer = AnswerHead(size, config)
        if config.contrast:
            self.contrast = ContrastHead(config)
        if config.matches and config.fusion == "late":
            self.match = nn.Linear(size, 2)


def visible(
    kind: str, image_len: int, text_lens: Tensor, text_len: int, use_s2s: Tensor | None, pad_visible: bool
) -> Tensor:
    """Where a query (row) sees a key (column), bool `[B, L, L]`, L = image_len + text_len.

        kind            image rows see          text rows see
        bidirectional   image, real text        image, real text
        s2s             image                   image, text up to and including themselves
        bar             image, real text        image, text up to and including themselves
        non_cross       image                   real text
        mixed           per example, s2s where `use_s2s` says so, else bidirectional

    Args:
        kind: one of `ATTENTION`.
        image_len, text_len: slots of both blocks.
        text_lens: int64 `[B]`, text slots that are not [PAD].
        use_s2s: bool `[B]`, for `mixed`.
        pad_visible: rows other than those of bidirectional masks see [PAD], as in the released code.
    """
    index = torch.arange(image_len + text_len, device=text_lens.device)
    row, column = index[:, None], index[None]  # [L, 1], [1, L]
    image_row, image_column = row < image_len, column < image_len
    real = column < image_len + text_lens[:, None, None]  # [B, 1, L]
    allowed = real | pad_visible
    s2s = image_column | (~image_row & (column <= row) & allowed)  # [B, L, L]
    if kind == "bidirectional":
        seen = real
    elif kind == "s2s":
        seen = s2s
    elif kind == "bar":
        seen = s2s | (image_row & allowed)
    elif kind == "non_cross":
        seen = (image_row == image_column) & allowed
    elif kind == "mixed":
        half = torch.zeros_like(text_lens, dtype=torch.bool) if use_s2s is None else use_s2s
        seen = torch.where(half[:, None, None], s2s, real)
    else:
        raise ValueError(f"unknown attention {kind!r}; there are {', '.join(ATTENTION)}")
    return seen.expand(len(text_lens), len(index), len(index))


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """bool `[..., L, L]` -> 0 where a query may attend, `MASKED` elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, MASKED)
