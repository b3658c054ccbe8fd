"""One step of the published pre-training in PyTorch, from our arrays: what `benchmarks/step.py` compares with.

Two programs: `published` computes as the released code does, eager attention that holds all probabilities and the
vocabulary's logits at every position; `competent` is what a PyTorch user would make of it, fused attention, logits at
masked positions only and channels last, also with autocast and with `torch.compile`. Both run a frozen image encoder
under `no_grad`.

    python -m benchmarks.torch_step ARRAYS.npz --variant=published [--frozen] [--device=cuda]

times steps in a process of its own, which imports nothing of JAX, and prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peak import peak_bytes
from medvill_jax.commands import Parser

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HIDDEN = -1e30


@dataclass(frozen=True)
class Variant:
    """How a step is written.

    Attributes:
        fused: attention that does not hold its probabilities, in place of softmax and products.
        gathered: the vocabulary's logits at masked positions, in place of all.
        autocast: products and convolutions in bfloat16.
        channels_last: the layout of films and their features.
        compiled: by `torch.compile`.
    """

    fused: bool
    gathered: bool
    autocast: bool = False
    channels_last: bool = False
    compiled: bool = False


VARIANTS = {
    "published": Variant(fused=False, gathered=False),
    "competent": Variant(fused=True, gathered=True, channels_last=True),
    "competent, bfloat16": Variant(fused=True, gathered=True, autocast=True, channels_last=True),
    "compiled, bfloat16": Variant(fused=True, gathered=True, autocast=True, channels_last=True, compiled=True),
}


@dataclass(frozen=True)
class Sizes:
    """What of the network's configuration its arrays do not say."""

    num_heads: int
    layer_norm_eps: float
    dropout: float
    num_cells: int  # 0: all
    cls_id: int
    sep_id: int


class Step:
    """The network, its optimizer and one step.

    Args:
        sizes: of the network; `bar` attention, ResNet, one film.
        params, stats: our nested dicts of arrays.
        variant: how it is computed.
        frozen: whether the image encoder does not train.
        seed: of dropout and of the sampled cells.
    """

    def __init__(self, sizes: Sizes, params: Any, stats: Any, variant: Variant, *, frozen: bool = False, seed: int = 0):
        self.sizes, self.variant, self.frozen = sizes, variant, frozen
        self.params, self.stats = _tensors(params, trains=True), _tensors(stats, trains=False)
        if variant.channels_last:
            _channels_last(self.params["image_encoder"])
        image_encoder = {id(leaf) for leaf in _leaves(self.params["image_encoder"])} if frozen else set()
        trained = [leaf for leaf in _leaves(self.params) if id(leaf) not in image_encoder]
        # On a GPU one kernel updates all arrays.
        fused = True if trained[0].is_cuda and variant.fused else None
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, eps=1e-6, weight_decay=0.0, fused=fused)
        self.compiled = torch.compile(self.loss) if variant.compiled else self.loss
        torch.manual_seed(seed)

    def __call__(self, batch: dict[str, torch.Tensor]) -> float:
        """One step on a batch of `batch.pretrain_spec`; returns the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=self.variant.autocast):
            loss = self.compiled(batch, rate=self.sizes.dropout)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def loss(self, batch: dict[str, torch.Tensor], *, rate: float) -> torch.Tensor:
        """MLM and ITM losses, each the mean; `rate` of dropout."""
        words, summary = self.encode(batch, rate)
        places, weights = batch["mlm_positions"].long(), batch["mlm_weights"]
        if self.variant.gathered:
            words = words.gather(1, places[..., None].expand(-1, -1, words.shape[2]))
        logits = self.mlm(words)
        if not self.variant.gathered:
            logits = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[2]))
        losses = functional.cross_entropy(
            logits.float().flatten(0, 1), batch["mlm_ids"].long().flatten(), reduction="none"
        )
        mlm = (losses * weights.flatten()).sum() / weights.sum()
        return mlm + functional.cross_entropy(self.linear("itm/linear", summary).float(), batch["itm_labels"].long())

    def encode(self, batch: dict[str, torch.Tensor], rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The states of the text `[B, T+1, H]`, and the pooled [CLS] `[B, H]`."""
        sizes, ids, lens = self.sizes, batch["text_ids"].long(), batch["text_lens"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.films(batch["image"])
        rows, grid, _ = features.shape
        kept = sizes.num_cells or grid
        cells = torch.arange(grid).expand(rows, -1)
        if sizes.num_cells:
            cells = torch.rand(rows, grid).argsort(1)[:, :kept].sort(1).values
            features = features.gather(1, cells[..., None].expand(-1, -1, features.shape[2]))
        table = self.get("embeddings/word_embeddings/embedding")
        first, last = (
            functional.embedding(torch.full((rows, 1), token), table) for token in (sizes.cls_id, sizes.sep_id)
        )
        image = torch.cat([first, self.linear("image_projection", features), last], 1)
        image = self.embedded(image, functional.pad(cells, (1, 1)), 0, rate)
        slots = torch.arange(ids.shape[1]).expand(rows, -1)
        x = torch.cat([image, self.embedded(functional.embedding(ids, table), slots, 1, rate)], 1)
        seen = torch.arange(x.shape[1]) < (kept + 2 + lens)[:, None]  # [B, L]
        shown = seen[:, None, :].repeat(1, x.shape[1], 1)  # [B, L, L]
        block = kept + 2
        shown[:, block:, block:] &= torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        mask = torch.zeros(shown.shape).masked_fill(~shown, HIDDEN)[:, None]
        for number in range(len(self.get("encoder/layer"))):
            x = self.layer(f"encoder/layer/{number}", x, mask, rate)
        return x[:, block:], torch.tanh(self.linear("pooler/dense", x[:, 0]))

    def films(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 `[B, S, S]` -> features `[B, G, C]`."""
        x = (images[:, None].float() / 255 - _channel(MEAN)) / _channel(DEVIATION)
        if self.variant.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        x = functional.relu(self.convolved("image_encoder/embedder", x, 2))
        x = functional.max_pool2d(x, 3, 2, 1)
        for stage, layers in enumerate(self.get("image_encoder/stages")):
            for number, layer in enumerate(layers):
                name = f"image_encoder/stages/{stage}/{number}"
                stride = 2 if stage and not number else 1
                shortcut = self.convolved(f"{name}/shortcut", x, stride) if "shortcut" in layer else x
                strides = (1, stride, 1) if len(layer["layer"]) == 3 else (stride, 1)
                for place, step in enumerate(strides):
                    x = self.convolved(f"{name}/layer/{place}", x, step)
                    x = functional.relu(x + shortcut if place + 1 == len(strides) else x)
        return x.flatten(2).transpose(1, 2)

    def convolved(self, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        """A convolution and its BatchNorm, on running statistics where it does not train."""
        kernel, norm, kept = (
            self.get(f"{name}/convolution/kernel"), self.get(f"{name}/normalization"),
            self.get(f"{name}/normalization", self.stats),
        )  # fmt: skip
        x = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
        training = not self.frozen and torch.is_grad_enabled()
        return functional.batch_norm(x, kept["mean"], kept["var"], norm["scale"], norm["bias"], training, 0.1, 1e-5)

    def embedded(self, content: torch.Tensor, positions: torch.Tensor, kind: int, rate: float) -> torch.Tensor:
        """`[B, L, H]` with positions int `[B, L]` and a token type, after LayerNorm and dropout."""
        x = content + functional.embedding(positions, self.get("embeddings/position_embeddings/embedding"))
        x = x + self.get("embeddings/token_type_embeddings/embedding")[kind]
        return functional.dropout(self.norm("embeddings/layer_norm", x), rate)

    def layer(self, name: str, x: torch.Tensor, mask: torch.Tensor, rate: float) -> torch.Tensor:
        """One layer of the Transformer, post-LayerNorm."""
        heads = self.sizes.num_heads
        q, k, v = (
            self.linear(f"{name}/attention/{part}", x).unflatten(2, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        if self.variant.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask.to(q.dtype), dropout_p=rate)
        else:
            probs = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + mask, -1)
            mixed = functional.dropout(probs, rate) @ v
        mixed = self.linear(f"{name}/attention/output", mixed.transpose(1, 2).flatten(2))
        x = self.norm(f"{name}/attention_layer_norm", x + functional.dropout(mixed, rate))
        hidden = self.linear(f"{name}/output", functional.gelu(self.linear(f"{name}/intermediate", x)))
        return self.norm(f"{name}/output_layer_norm", x + functional.dropout(hidden, rate))

    def mlm(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., H]` -> logits of the vocabulary."""
        x = self.norm("mlm/layer_norm", functional.gelu(self.linear("mlm/dense", x)), 1e-5)
        return functional.linear(x, self.get("embeddings/word_embeddings/embedding"), self.get("mlm/bias"))

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """A dense layer."""
        part = self.get(name)
        return functional.linear(x, part["kernel"], part["bias"])

    def norm(self, name: str, x: torch.Tensor, eps: float | None = None) -> torch.Tensor:
        """A LayerNorm."""
        part = self.get(name)
        eps = self.sizes.layer_norm_eps if eps is None else eps
        return functional.layer_norm(x, x.shape[-1:], part["scale"], part["bias"], eps)

    def get(self, name: str, tree: Any = None) -> Any:
        """A parameter, or the part of them, by its name."""
        found = self.params if tree is None else tree
        for part in name.split("/"):
            found = found[int(part)] if isinstance(found, list) else found[part]
        return found


def _tensors(tree: Any, *, trains: bool, name: str = "") -> Any:
    """Our nested dicts as tensors in torch's layouts; numbered parts become lists."""
    if isinstance(tree, dict):
        made = {part: _tensors(below, trains=trains, name=str(part)) for part, below in tree.items()}
        numbered = bool(made) and all(str(part).isdigit() for part in made)
        return [made[part] for part in sorted(made, key=int)] if numbered else made
    array = np.array(tree)
    if name == "kernel":
        array = np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)
    tensor = torch.from_numpy(array).to(torch.get_default_device())
    return nn.Parameter(tensor) if trains else tensor


def _channels_last(tree: Any) -> None:
    for leaf in _leaves(tree):
        if leaf.ndim == 4:
            leaf.data = leaf.data.contiguous(memory_format=torch.channels_last)


def _leaves(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    return [leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in _leaves(part)]


def _channel(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def main() -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("arrays", type=Path, help="of `benchmarks.step`")
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--steps", type=int, default=2, help="counted steps")
    parser.add_argument("--frozen", action="store_true", help="the image encoder does not train")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="so many examples of the batch in the file; all by default")
    args = parser.parse_args()
    trees: dict[str, Any] = {"params": {}, "stats": {}, "batch": {}}
    with np.load(args.arrays) as file:
        sizes = Sizes(**json.loads(str(file["sizes"])))
        for name in file.files:
            *parts, last = name.split("/")
            if not parts:
                continue
            place = trees
            for part in parts:
                place = place.setdefault(part, {})
            place[last] = file[name]
    torch.set_default_device(args.device)
    torch.backends.cudnn.benchmark = True  # on a GPU: try kernels, as XLA does
    step = Step(sizes, trees["params"], trees["stats"], VARIANTS[args.variant], frozen=args.frozen)
    batch = {name: torch.from_numpy(array[: args.batch]).to(args.device) for name, array in trees["batch"].items()}
    on_gpu = batch["image"].is_cuda
    seconds = []
    for _ in range(args.steps + 1):  # the first one warms up
        began = time.perf_counter()
        step(batch)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_bytes()
    print(json.dumps({"seconds": seconds[1:], "first": seconds[0], "peak_bytes": peak, "torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
