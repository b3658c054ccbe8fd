"""MedViLL (Moon et al., IEEE JBHI 2022) in PyTorch: one BERT over `[CLS] v_1 .. v_N [SEP] w_1 .. w_t [SEP] [PAD]..`.

    model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)

Written by medvill_jax next to the weights, and needs torch and transformers only. In shapes, B is the number of images,
S their side in pixels, N the number of image cells, T+1 that of text slots, H the hidden size and V the vocabulary.
Parameters are named as in medvill_jax. processing_medvill.py prepares the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from .configuration_medvill import MedvillConfig
from .decoding_medvill import Cache, Rules, Step, search
from .layers_medvill import (
    MASKED,
    Embeddings,
    Encoder,
    Heads,
    ItmHead,
    MlmHead,
    PatchEmbedder,
    Pooler,
    ResNet,
    additive,
    visible,
)

# ImageNet statistics, RGB.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
# Logarithm of the largest factor of the cosines, 100 (Radford et al., ICML 2021).
LARGEST_SCALE = 4.6052


@dataclass
class MedvillOutput(ModelOutput):
    """Logits `mlm_logits` `[B, T+1, V]` and `itm_logits` `[B, 2]` (class 1: matched), None if the weights lack the
    head; last hidden states `image_hidden` `[B, N+2, H]` and `text_hidden` `[B, T+1, H]`; `summary` `[B, H]`, the input
    of the matching head."""

    mlm_logits: Tensor | None = None
    itm_logits: Tensor | None = None
    image_hidden: Tensor | None = None
    text_hidden: Tensor | None = None
    summary: Tensor | None = None


@dataclass
class MedvillReports(ModelOutput):
    """`sequences` int64 `[B, L]`, the tokens of each report and then [SEP]; `log_probs` `[B]`, of the whole reports."""

    sequences: Tensor | None = None
    log_probs: Tensor | None = None


RESNET50 = {"depths": (3, 4, 6, 3), "stem_width": 64, "widths": (256, 512, 1024, 2048), "bottleneck": True}
# Settings of `MedvillModel.generate` where neither the caller nor the training run chose.
DECODING = {"beam_size": 1, "max_len": 128, "min_len": 0, "length_penalty": 0.0, "no_repeat_ngram": 0}


class MedvillBackbone(PreTrainedModel):
    """The network: image and text as embeddings, and both through the encoder.

    Everywhere `pixel_values` is uint8 `[B, S, S]`, as the processor gives it, or normalised float `[B, 3, S, S]`;
    `input_ids` int64 `[B, T+1]`: tokens, [SEP], [PAD]...; and `attention_mask` `[B, T+1]` is 0 at [PAD].
    """

    config_class = MedvillConfig
    base_model_prefix = "medvill"
    main_input_name = "pixel_values"

    def __init__(self, config: MedvillConfig):
        super().__init__(config)
        sizes: dict[str, Any] = {**(config.image_encoder or RESNET50)}
        self.image_encoder = PatchEmbedder(**sizes) if "patch_size" in sizes else ResNet(**sizes)
        self.image_projection = nn.Linear(self.image_encoder.width, config.hidden_size)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler: Any = Pooler(config) if "pooler" in config.parts else None
        self.mlm: Any = MlmHead(config) if "mlm" in config.parts else None
        self.itm: Any = ItmHead(config) if "itm" in config.parts else None
        self.heads = Heads(config, self.image_encoder.width)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @classmethod
    def can_generate(cls) -> bool:
        # `generate` is ours: reports are not written from left to right by a decoder.
        return False

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Features `[B, N, C]` of the cells, in raster order."""
        if pixel_values.dtype == torch.uint8:
            mean, std = (torch.tensor(values, device=pixel_values.device) for values in (PIXEL_MEAN, PIXEL_STD))
            pixel_values = (pixel_values[:, None].float() - 255.0 * mean[:, None, None]) / (255.0 * std[:, None, None])
        return self.image_encoder(pixel_values.to(self.dtype))

    def embed_image(self, features: Tensor, cells: Tensor | None) -> Tensor:
        """The image block `[B, n+2, H]` of features `[B, N, C]` at the cells `[B, n]`; None keeps all."""
        batch, grid, width = features.shape
        if cells is None:
            positions = torch.arange(grid, device=features.device)[None]
        else:
            positions, features = cells, features.gather(1, cells[..., None].expand(-1, -1, width))
        kept = positions.shape[1]
        if self.config.cell_positions == "contiguous":
            positions = torch.arange(1, kept + 1, device=features.device)[None]
        # [CLS] and [SEP] have position 0, as in the published pre-training.
        last = kept + 1 if self.config.first_sep_position == "after_cells" else 0
        positions = F.pad(F.pad(positions, (1, 0)), (0, 1), value=last)
        ends = [self._word(batch, token) for token in (self.config.cls_id, self.config.sep_id)]
        content = torch.cat([ends[0], self.image_projection(features), ends[1]], dim=1)
        return self.embeddings(content, positions, torch.zeros_like(positions))

    def embed_text(self, input_ids: Tensor, lens: Tensor, own_cls: bool) -> Tensor:
        """The text block `[B, T+1, H]`, or `[B, T+2, H]` with a [CLS] first."""
        content = self.embeddings.word_embeddings(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        types = torch.ones_like(positions) if self.config.pad_segment else (positions < lens[:, None]).long()
        if own_cls:
            content = torch.cat([self._word(len(input_ids), self.config.cls_id), content], dim=1)
            positions, types = F.pad(positions, (1, 0)), F.pad(types, (1, 0), value=1)
        return self.embeddings(content, positions, types)

    def _joint(
        self, block: Tensor, input_ids: Tensor, lens: Tensor, kind: str, use_s2s: Tensor | None = None
    ) -> MedvillOutput:
        """Hidden states and summary of an image block and a text."""
        own_cls, image_len = int(kind == "non_cross"), block.shape[1]
        text = self.embed_text(input_ids, lens, bool(own_cls))
        seen = visible(kind, image_len, lens + own_cls, text.shape[1], use_s2s, self.config.pad_visible)
        hidden, _ = self.encoder(torch.cat([block, text], dim=1), additive(seen[:, None], block.dtype))
        image, text = hidden[:, :image_len], hidden[:, image_len:]
        if own_cls:
            return MedvillOutput(None, None, image, text[:, 1:], image[:, 0] * text[:, 0])
        return MedvillOutput(None, None, image, text, None if self.pooler is None else self.pooler(image))

    def _image_alone(self, block: Tensor) -> Tensor:
        return self.pooler(self.encoder(block, block.new_zeros(1))[0])

    def _text_alone(self, input_ids: Tensor, lens: Tensor) -> Tensor:
        """Pooled [CLS] `[B, H]` of texts without image."""
        text = self.embed_text(input_ids, lens, own_cls=True)
        seen = visible("bidirectional", 0, lens + 1, text.shape[1], None, False)
        return self.pooler(self.encoder(text, additive(seen[:, None], text.dtype))[0])

    def _word(self, batch: int, token: int) -> Tensor:
        return self.embeddings.word_embeddings.weight[token].expand(batch, 1, -1)


class MedvillModel(MedvillBackbone):
    """The network with the functions of its heads."""

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        attention: str | None = None,
        cells: Tensor | None = None,
        use_s2s: Tensor | None = None,
        **_: Any,
    ) -> MedvillOutput:
        """Both pre-training heads. `attention` is another mask than the model's; `cells` int64 `[B, n]` are the raster
        indices of the kept cells, None for all; `use_s2s` bool `[B]` says under `mixed` who takes the s2s mask."""
        block = self.embed_image(self.image_features(pixel_values), cells)
        lens = text_lens(input_ids, attention_mask)
        output = self._joint(block, input_ids, lens, attention or self.config.attention, use_s2s)
        if self.mlm is not None:
            output.mlm_logits = self.mlm(output.text_hidden, self.embeddings.word_embeddings)
        if self.itm is not None and output.summary is not None:
            output.itm_logits = self.itm(output.summary)
        return output

    def class_logits(
        self, pixel_values: Tensor, input_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """`[B, classes]`, of images with or without their reports, as `config.inputs` says; probabilities are their
        sigmoid."""
        if (self.config.inputs == "image") != (input_ids is None):
            raise ValueError(f"this classifier takes {self.config.inputs} as input")
        return self.heads.classifier(self.summarize(pixel_values, input_ids, attention_mask))

    def answer_logits(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`[B, answers]`, of questions about images."""
        return self.heads.answer(self.summarize(pixel_values, input_ids, attention_mask, self.config.summary))

    def match(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Log-odds `[images, texts]` that each image and each text belong together; after training for retrieval with
        projections, their scaled cosine is added."""
        late, kind = self.config.fusion == "late", self.config.attention
        if not late and kind == "s2s":
            raise ValueError("under s2s an image does not see the text: this model cannot match")
        lens, features = text_lens(input_ids, attention_mask), self.image_features(pixel_values)
        scores = []
        for image in features if late else self.embed_image(features, None):
            if late:
                mean = image.mean(dim=0).expand(len(input_ids), -1)
                logits = self.heads.match(torch.cat([mean, self._text_alone(input_ids, lens)], dim=-1))
            else:
                logits = self.itm(self._joint(image.expand(len(input_ids), -1, -1), input_ids, lens, kind).summary)
            scores.append(logits[:, 1] - logits[:, 0])
        if not self.config.contrast or self.config.stage not in ("retrieval", "multitask"):
            return torch.stack(scores)
        scale = self.heads.contrast.scale.clamp(max=LARGEST_SCALE).exp()
        vectors = self.project_images(pixel_values), self.project_texts(input_ids, attention_mask)
        return torch.stack(scores) + scale * vectors[0] @ vectors[1].T

    def project_images(self, pixel_values: Tensor) -> Tensor:
        """Unit vectors `[B, D]` of images in the space where their cosines with texts compare them."""
        return _unit(self.heads.contrast.image(self.embed_images(pixel_values)))

    def project_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Unit vectors `[B, D]` of texts in that space."""
        return _unit(self.heads.contrast.text(self._text_alone(input_ids, text_lens(input_ids, attention_mask))))

    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """Pooled [CLS] `[B, H]` of images without text."""
        return self._image_alone(self.embed_image(self.image_features(pixel_values), None))

    def summarize(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        kind: str = "pooled",
    ) -> Tensor:
        """The input of a head, `[B, H]`; `[B, C + H]` after late fusion, `[B, H + C]` with cells, for C visual
        channels. `kind` is "pooled", "cls" or "product", see `MedvillConfig.summary`."""
        features, lens = self.image_features(pixel_values), None
        if input_ids is not None:
            lens = text_lens(input_ids, attention_mask)
        if self.config.fusion == "late":
            if input_ids is None or lens is None:
                raise ValueError("late fusion needs a text")
            return torch.cat([features.mean(dim=1), self._text_alone(input_ids, lens)], dim=-1)
        block = self.embed_image(features, None)
        if input_ids is None or lens is None:
            summary = self._image_alone(block)
        else:
            output = self._joint(block, input_ids, lens, self.config.attention)
            image: Any = output.image_hidden
            summary = {
                "pooled": lambda: output.summary,
                "cls": lambda: image[:, 0],
                "product": lambda: image[:, 0] * image[:, -1],
            }[kind]()
        if not self.config.cells:
            return summary
        return torch.cat([summary, self.heads.cells(features.amax(dim=1))], dim=-1)

    @torch.no_grad()
    def generate(self, pixel_values: Tensor, **options: Any) -> MedvillReports:
        """Writes a report about every image, token by token, by filling in a [MASK] under the s2s mask.

        Args:
            pixel_values: images.
            options: `beam_size`, `max_len` (tokens, [SEP] included), `min_len`, `length_penalty` (added to the score
                for each token) and `no_repeat_ngram`; by default those of the training run, or greedy.
        """
        if unknown := options.keys() - DECODING:
            raise ValueError(f"generate has no option {', '.join(sorted(unknown))}; it has {', '.join(DECODING)}")
        if self.mlm is None:
            raise ValueError("these weights have no MLM head to write with")
        config, chosen = self.config, {**DECODING, **(self.config.decode or {}), **options}
        beams, max_len = chosen["beam_size"], min(chosen["max_len"], config.max_positions)
        rules = Rules(config.sep_id, max_len, chosen["min_len"], tuple(config.banned_ids), chosen["no_repeat_ngram"])
        block = self.embed_image(self.image_features(pixel_values), None)
        penalty = chosen["length_penalty"]
        step, nothing = cached_step(self, block, beams)
        tokens, totals = search(step, nothing, rules, batch=len(block), beams=beams, length_penalty=penalty)
        longest = int((tokens != config.sep_id).sum(dim=1).max())
        return MedvillReports(tokens[:, : longest + 1], totals)


def cached_step(model: MedvillModel, block: Tensor, beams: int) -> tuple[Step, Cache]:
    """The step of a search over tokens, and its empty cache, for image blocks `[B, N+2, H]`.

    Under s2s no image row sees text and no token a later one, so their keys and values are computed once.
    """
    _, image = model.encoder(block, block.new_zeros(1))
    image = [(keys.repeat_interleave(beams, 0), values.repeat_interleave(beams, 0)) for keys, values in image]
    words = model.embeddings.word_embeddings

    def step(tokens: Tensor, index: int, written: Cache) -> tuple[Tensor, Cache]:
        # Two rows: the token before, and a [MASK] that sees it and whose state predicts; the token sees no [MASK].
        ids = torch.stack([tokens, torch.full_like(tokens, model.config.mask_id)], dim=1)
        positions = torch.tensor([[max(index - 1, 0), index]], device=ids.device)
        x = model.embeddings(words(ids), positions, torch.ones_like(positions))
        memories = [
            (torch.cat([of_image[0], of_text[0]], dim=2), torch.cat([of_image[1], of_text[1]], dim=2))
            for of_image, of_text in zip(image, written, strict=True)
        ]
        mask = x.new_zeros(2, memories[0][0].shape[2] + 2)
        mask[0, -1] = MASKED
        if index == 0:  # no token is before
            x, mask = x[:, 1:], mask[1:, 1:]
        hidden, after = model.encoder(x, mask, memories)
        start = block.shape[1]
        return model.mlm(hidden[:, -1], words), [(k[:, :, start:-1], v[:, :, start:-1]) for k, v in after]

    return step, [(keys[:, :, :0], values[:, :, :0]) for keys, values in image]


def text_lens(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """int64 `[B]`, the slots of each text that are not [PAD]."""
    return (torch.ones_like(input_ids) if attention_mask is None else attention_mask).long().sum(dim=1)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + 1e-12)
