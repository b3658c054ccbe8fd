"""Differences between the released MedViLL code and the clean behaviour, one field each (docs/spec.md#compat).

The published weights were trained and scored with the released behaviour. To score them as published, load them with
`Compat.upstream(...)`. The defaults are the clean behaviour, in which a [PAD] never influences a result.
"""

from __future__ import annotations

from dataclasses import dataclass

from medvill_jax.errors import ConfigError

SEP_POSITIONS = ("zero", "after_cells")
CELL_POSITIONS = ("raster", "contiguous")
BATCH_NORM_MODES = ("running", "batch")
STAGES = ("pretraining", "retrieval", "generation", "vqa", "classification")


@dataclass(frozen=True)
class Compat:
    """Switches between the clean and the released behaviour.

    Attributes:
        first_sep_position: position id of the image block's [SEP]: "zero" (pre-training) or "after_cells", N+1
            (fine-tuning). See docs/spec.md#layout.
        cell_positions: position id of a visual token: "raster", the index of its cell (pre-training), or "contiguous",
            its index in the sequence (classification); see docs/spec.md#layout.
        shared_cells: all examples of a batch keep the same random cells (docs/spec.md#shared-cells).
        pad_visible: real queries see the [PAD] keys that the released masks show them: image rows under `bar`, text
            rows under `non_cross` (docs/spec.md#visible-padding).
        layer_norm_eps: replaces `BertConfig.layer_norm_eps`; None keeps it. Released report generation and VQA compute
            with 1e-5 whatever their config.json says (docs/spec.md#layer-norm-eps). The MLM head's is always 1e-5.
        frozen_batch_norm: statistics with which a frozen part of the ResNet normalises in training: "running", or
            "batch", which also updates its running statistics (docs/spec.md#frozen-statistics).
        pad_segment: token type of a [PAD] slot: 1 like other text slots (pre-training) or 0 (fine-tuning,
            classification). Without effect unless a [PAD] is visible.

    Raises:
        ConfigError: a field has an unknown value.
    """

    first_sep_position: str = "zero"
    cell_positions: str = "raster"
    shared_cells: bool = False
    pad_visible: bool = False
    layer_norm_eps: float | None = None
    frozen_batch_norm: str = "running"
    pad_segment: int = 1

    def __post_init__(self) -> None:
        for field, values in (
            ("first_sep_position", SEP_POSITIONS),
            ("cell_positions", CELL_POSITIONS),
            ("frozen_batch_norm", BATCH_NORM_MODES),
            ("pad_segment", (0, 1)),
        ):
            if getattr(self, field) not in values:
                raise ConfigError(
                    f"compat.{field}={getattr(self, field)!r} is not one of {', '.join(map(repr, values))}"
                )

    @classmethod
    def upstream(cls, stage: str = "pretraining") -> Compat:
        """The released code's behaviour at one of its stages.

        Args:
            stage: one of `STAGES`; "pretraining" is that of the five published checkpoints.

        Raises:
            ConfigError: unknown stage.
        """
        if stage not in STAGES:
            raise ConfigError(f"unknown stage {stage!r}; there are {', '.join(STAGES)}")
        if stage in ("pretraining", "retrieval"):
            return cls(shared_cells=True, pad_visible=True, frozen_batch_norm="batch")
        if stage == "classification":
            # The released classifier freezes nothing, samples no cells and uses the bidirectional mask.
            return cls(first_sep_position="after_cells", cell_positions="contiguous", pad_segment=0)
        return cls(
            first_sep_position="after_cells",
            pad_visible=True,
            layer_norm_eps=1e-5,
            frozen_batch_norm="batch",
            pad_segment=0,
        )

    @classmethod
    def named(cls, name: str, stage: str = "pretraining") -> Compat:
        """The behaviour of a name in configurations and flags: "clean" or "", and "upstream" at a stage.

        Raises:
            ConfigError: unknown name or stage.
        """
        if name in ("", "clean"):
            return cls()
        if name == "upstream":
            return cls.upstream(stage)
        raise ConfigError(f"unknown compat {name!r}; there are 'clean' and 'upstream'")
