"""The configuration of MedViLL in PyTorch, for `AutoConfig.from_pretrained(FOLDER, trust_remote_code=True)`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class MedvillConfig(PretrainedConfig):
    """Sizes and settings of a model that medvill_jax trained.

    Attributes:
        vocab_size, hidden_size, num_layers, num_heads, intermediate_size, max_positions, token_types, layer_norm_eps,
            dropout, initializer_range: of the Transformer.
        image_encoder: `depths`, `stem_width`, `widths`, `bottleneck` of a ResNet, or `patch_size`, `width` of patches;
            None is a ResNet-50.
        image_size: side of the input, pixels.
        attention: the mask that the model was trained with, see `modeling_medvill.visible`.
        cls_id, sep_id, mask_id: of the special tokens.
        banned_ids: of the tokens that are never written.
        parts: which of "pooler", "mlm" and "itm" the weights hold.
        stage: the training that the weights come from.
        classes, answers, contrast: outputs of the classifier and of the answer head, width of the projections; 0: none.
        matches: whether late fusion has a matching head.
        fusion: "joint", or "late" for the baseline without attention between image and text.
        cells: whether heads also see the maximum of each visual channel.
        inputs: of the classifier, "image" or "image+report".
        summary: the input of the answer head, "product" of the states of [CLS] and [SEP], or "cls".
        label_names, thresholds: of the classes.
        answer_names: of the answers.
        decode: settings of `MedvillModel.generate` that the training run used.
        first_sep_position, cell_positions, pad_visible, pad_segment: the released code's behaviour where it differs.
    """

    model_type = "medvill"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    token_types: int = 2
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    initializer_range: float = 0.02
    image_encoder: dict[str, Any] | None = None
    image_size: int = 512
    attention: str = "bar"
    cls_id: int = 101
    sep_id: int = 102
    mask_id: int = 103
    banned_ids: list[int] | tuple[int, ...] = (0, 100, 101, 103)
    parts: list[str] | tuple[str, ...] = ("pooler", "mlm", "itm")
    stage: str = "pretraining"
    classes: int = 0
    answers: int = 0
    contrast: int = 0
    matches: bool = False
    fusion: str = "joint"
    cells: bool = False
    inputs: str = "image+report"
    summary: str = "product"
    label_names: list[str] | None = None
    thresholds: list[float] | None = None
    answer_names: list[str] | None = None
    decode: dict[str, Any] | None = None
    first_sep_position: str = "zero"
    cell_positions: str = "raster"
    pad_visible: bool = False
    pad_segment: int = 1

    def __init__(self, **fields: Any):
        # Releases of transformers before 5 know no fields of a class.
        for name in MedvillConfig.__annotations__:
            setattr(self, name, fields.pop(name, getattr(MedvillConfig, name)))
        super().__init__(**fields)
