"""The published network in torch, built from `transformers` parts under the published names.

`TorchMedvill.state_dict()` has exactly the entries of a released `pytorch_model.bin`
(docs/spec.md#pretraining-checkpoint), so it is also the checkpoint that the conversion tests read. Masks are written
here a second time, as loops over the definitions of docs/spec.md#masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertConfig as HfBertConfig
from transformers import BertModel

from medvill_jax.hub.assignment import assign, recognise_source
from medvill_jax.hub.errors import Allowed
from medvill_jax.hub.files import Source, Tensor
from medvill_jax.hub.network import expected
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.models.resnet import ResNetConfig
from medvill_jax.trees import nest, part_of

KINDS = ("bidirectional", "s2s", "bar", "mixed", "non_cross")


@dataclass(frozen=True)
class Sizes:
    """The reference's sizes; the defaults are tiny."""

    vocab: int = 120
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    intermediate: int = 64
    positions: int = 40
    depths: tuple[int, ...] = (1, 2, 1, 1)
    stem: int = 8
    widths: tuple[int, ...] = (16, 32, 64, 128)
    bottleneck: bool = True
    eps: float = 1e-12


class ConvLayers(nn.Module):
    """A residual layer in torchvision's naming; bottleneck with the stride in the 3x3 convolution, or basic."""

    def __init__(self, in_width: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        inner = width // 4 if bottleneck else width
        plan = [(1, inner, 1), (3, inner, stride), (1, width, 1)] if bottleneck else [(3, width, stride), (3, width, 1)]
        self.count = len(plan)
        current = in_width
        for number, (kernel, out, step) in enumerate(plan, 1):
            self.add_module(f"conv{number}", nn.Conv2d(current, out, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(out))
            current = out
        if stride != 1 or in_width != width:
            self.downsample = nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        else:
            self.downsample = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.count + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = torch.relu(x + shortcut if number == self.count else x)
        return x


def resnet_children(sizes: Sizes) -> list[nn.Module]:
    """conv1, bn1, relu, maxpool, layer1..4: a torchvision ResNet's children without pooling and classifier."""
    stages, current = [], sizes.stem
    for index, (depth, width) in enumerate(zip(sizes.depths, sizes.widths, strict=True)):
        layers = []
        for position in range(depth):
            layers.append(ConvLayers(current, width, 2 if index and not position else 1, sizes.bottleneck))
            current = width
        stages.append(nn.Sequential(*layers))
    return [
        nn.Conv2d(3, sizes.stem, 7, 2, 3, bias=False),
        nn.BatchNorm2d(sizes.stem),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *stages,
    ]


class TorchvisionResNet(nn.Module):
    """The same network under torchvision's names, with its classifier."""

    def __init__(self, sizes: Sizes, classes: int = 5):
        super().__init__()
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        for name, child in zip(names, resnet_children(sizes), strict=True):
            self.add_module(name, child)
        self.fc = nn.Linear(sizes.widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, 3, S, S]` -> feature map `[B, C, h, w]`."""
        for child in list(self.children())[:-1]:
            x = child(x)
        return x


class ImageEncoder(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.model = nn.Sequential(*resnet_children(sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).flatten(2).transpose(1, 2)  # [B, G, C]


class TextEmbeddings(nn.Module):
    """The published text embeddings; transformers' own dropped the `position_ids` buffer from its state dict."""

    def __init__(self, bert: BertModel, sizes: Sizes):
        super().__init__()
        self.register_buffer("position_ids", torch.arange(sizes.positions)[None])
        self.word_embeddings = bert.embeddings.word_embeddings
        self.position_embeddings = bert.embeddings.position_embeddings
        self.token_type_embeddings = bert.embeddings.token_type_embeddings
        self.LayerNorm = bert.embeddings.LayerNorm

    def forward(self, content: torch.Tensor, positions: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(content + self.position_embeddings(positions) + self.token_type_embeddings(types))


class ImageEmbeddings(nn.Module):
    def __init__(self, text: TextEmbeddings, sizes: Sizes, alias_words: bool):
        super().__init__()
        self.img_embeddings = nn.Linear(sizes.widths[-1], sizes.hidden)
        self.token_type_embeddings = text.token_type_embeddings
        self.LayerNorm = text.LayerNorm
        self.position_embeddings = text.position_embeddings
        if alias_words:
            self.word_embeddings = text.word_embeddings


class Backbone(nn.Module):
    """Everything below the heads."""

    def __init__(self, sizes: Sizes, alias_words: bool = False):
        super().__init__()
        config = HfBertConfig(
            vocab_size=sizes.vocab,
            hidden_size=sizes.hidden,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.intermediate,
            max_position_embeddings=sizes.positions,
            layer_norm_eps=sizes.eps,
            attn_implementation="eager",
        )
        bert = BertModel(config)
        self.txt_embeddings = TextEmbeddings(bert, sizes)
        self.img_embeddings = ImageEmbeddings(self.txt_embeddings, sizes, alias_words)
        self.img_encoder = ImageEncoder(sizes)
        self.encoder = bert.encoder
        self.pooler = bert.pooler


class Transform(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.dense = nn.Linear(sizes.hidden, sizes.hidden)
        self.LayerNorm = nn.LayerNorm(sizes.hidden, eps=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(nn.functional.gelu(self.dense(x)))


class Predictions(nn.Module):
    def __init__(self, words: nn.Embedding, sizes: Sizes):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(sizes.vocab))
        self.transform = Transform(sizes)
        self.decoder = nn.Linear(sizes.hidden, sizes.vocab, bias=False)
        self.decoder.weight = words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.transform(x)) + self.bias


class MlmHead(nn.Module):
    def __init__(self, words: nn.Embedding, sizes: Sizes):
        super().__init__()
        self.predictions = Predictions(words, sizes)


class ItmHead(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.linear = nn.Linear(sizes.hidden, 2)


class TorchMedvill(nn.Module):
    """The pre-training network. `compat`: "clean", or "released" for the masks that show [PAD]."""

    def __init__(self, sizes: Sizes, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.sizes = sizes
        self.enc = Backbone(sizes)
        self.mlm = MlmHead(self.enc.txt_embeddings.word_embeddings, sizes)
        self.itm = ItmHead(sizes)
        randomise(self, seed)
        self.eval()

    def forward(
        self,
        images: torch.Tensor,
        text_ids: torch.Tensor,
        text_lens: np.ndarray,
        kind: str,
        *,
        cells: torch.Tensor | None = None,
        use_s2s: np.ndarray | None = None,
        released: bool = False,
        sep_after: bool = False,
        contiguous: bool = False,
        pad_segment: int = 1,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images `[B, 3, S, S]`, ids `[B, T+1]` -> MLM logits `[B, T+1, V]`, ITM logits `[B, 2]`."""
        enc, rows, slots = self.enc, text_ids.shape[0], text_ids.shape[1]
        words = enc.txt_embeddings.word_embeddings
        features = enc.img_encoder(images)
        raster = torch.arange(features.shape[1]).expand(rows, -1) if cells is None else cells
        features = torch.stack([row[index] for row, index in zip(features, raster, strict=True)])
        kept = raster.shape[1]
        cls, sep = (words(torch.full((rows, 1), token)) for token in (101, 102))
        zero = torch.zeros(rows, 1, dtype=torch.long)
        if contiguous:
            raster = torch.arange(1, kept + 1).expand(rows, -1)
        positions = torch.cat([zero, raster, zero + (kept + 1 if sep_after else 0)], 1)
        image = torch.cat([cls, enc.img_embeddings.img_embeddings(features), sep], 1)
        image = enc.txt_embeddings(image, positions, torch.zeros_like(positions))

        positions = torch.arange(slots).expand(rows, -1)
        types = torch.ones_like(positions)
        types[positions >= torch.from_numpy(np.asarray(text_lens))[:, None]] = pad_segment
        text = words(text_ids)
        own_cls = int(kind == "non_cross")
        if own_cls:
            positions, text = torch.cat([zero, positions], 1), torch.cat([cls, text], 1)
            types = torch.cat([zero + 1, types], 1)
        text = enc.txt_embeddings(text, positions, types)

        mask = mask_tables(kind, kept + 2, np.asarray(text_lens) + own_cls, slots + own_cls, use_s2s, released)
        additive = (1.0 - torch.from_numpy(mask).float())[:, None] * -1e9
        hidden = enc.encoder(torch.cat([image, text], 1), additive).last_hidden_state
        summary = hidden[:, 0] * hidden[:, kept + 2] if own_cls else enc.pooler(hidden)
        return self.mlm.predictions(hidden[:, kept + 2 + own_cls :]), self.itm.linear(summary)


def mask_tables(
    kind: str, image_len: int, lens: np.ndarray, text_len: int, use_s2s: np.ndarray | None, released: bool
) -> np.ndarray:
    """int `[B, L, L]`, filled row by row from docs/spec.md#masks; clean: no [PAD] column is ever 1."""
    length = image_len + text_len
    mask = np.zeros((len(lens), length, length), np.int64)
    for example, valid in enumerate(lens):
        own = kind
        if kind == "mixed":
            assert use_s2s is not None
            own = "s2s" if use_s2s[example] else "bidirectional"
        hide_pad = not released or own == "bidirectional"
        for row in range(length):
            for column in range(length):
                from_image, to_image = row < image_len, column < image_len
                if own == "bidirectional":
                    seen = True
                elif own == "non_cross":
                    seen = from_image == to_image
                elif to_image:
                    seen = True
                elif from_image:
                    seen = own == "bar"
                else:
                    seen = column <= row
                if hide_pad and column >= image_len + valid:
                    seen = False
                mask[example, row, column] = seen
    return mask


def randomise(module: nn.Module, seed: int) -> None:
    """Random BatchNorm statistics, scales and biases in place, so that nothing hides behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, std: float) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                normal(part.running_mean, 0.0, 0.2)
                part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=generator))
                part.num_batches_tracked.fill_(7)
            if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
                normal(part.weight, 1.0, 0.1)
                normal(part.bias, 0.0, 0.1)
            elif isinstance(part, nn.Linear):
                normal(part.weight, 0.0, part.in_features**-0.5 * 0.7)
                if part.bias is not None:
                    normal(part.bias, 0.0, 0.1)
            elif isinstance(part, Predictions):
                normal(part.bias, 0.0, 0.1)
            elif isinstance(part, nn.Embedding):
                normal(part.weight, 0.0, 0.3)


def arrays_of(module: nn.Module, config: MedvillConfig) -> tuple[dict, dict]:
    """A torch model's parameters and statistics as our nested dicts, through the conversion tables."""
    tensors = {
        name: Tensor(tuple(value.shape), str(value.dtype).removeprefix("torch."), value.detach().numpy)
        for name, value in module.state_dict().items()
    }
    checkpoint = recognise_source(Source(Path("reference"), tensors, None, Path("reference")))
    params, stats = expected(config)
    wanted = {name: shape for name, shape in {**params, **stats}.items() if part_of(name) in checkpoint.format.parts}
    assignment = assign(checkpoint, wanted, Allowed(()))
    assert not assignment.problems, assignment.problems
    # Copies: torch updates its own in place.
    found = {name: array.copy() for name, array in assignment.arrays.items()}
    return (
        nest({name: array for name, array in found.items() if name in params}),
        nest({name: array for name, array in found.items() if name in stats}),
    )


def medvill_config(sizes: Sizes, **fields: Any) -> MedvillConfig:
    """Our configuration of the same sizes, 64-pixel images (4 cells) unless told otherwise; dropout off."""
    bert = BertConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        max_positions=sizes.positions,
        dropout=0.0,
        layer_norm_eps=sizes.eps,
    )
    encoder = ResNetConfig(sizes.depths, sizes.stem, sizes.widths, sizes.bottleneck)
    return MedvillConfig(bert, encoder, **{"image_size": 64, **fields})


def difference(ours: Any, theirs: torch.Tensor, where: np.ndarray | None = None) -> float:
    """Largest absolute difference, of all entries or of those whose leading indices are true in `where`."""
    ours, theirs_array = np.asarray(ours), theirs.detach().numpy()
    assert ours.shape == theirs_array.shape, (ours.shape, theirs_array.shape)
    gaps = np.abs(ours - theirs_array)
    return float(np.max(gaps if where is None else gaps[where]))
