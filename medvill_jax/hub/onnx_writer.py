"""Writes the classifier of an export as ONNX, for programs without Python: films in, findings out.

model.onnx     input `pixel_values` uint8 `[batch, S, S]`: gray films, padded to a square with black and resized;
               outputs `logits` and `probabilities`, float32 `[batch, C]`
labels.json    names of the C findings, and the probability from which each counts as found
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from medvill_jax.errors import MissingExtra
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import LABELS_FILE, Export, whole_folder
from medvill_jax.hub.transformers_writer import torch_arrays, torch_config

MODEL_FILE = "model.onnx"
OPSET = 18


def write_onnx(out: Path, export: Export) -> None:
    """Writes the folder, whole or not at all; an older one of this kind at the same path is replaced.

    Raises:
        HubError: the export has no classifier of films alone, is not a whole model, or `out` holds other files.
        MissingExtra: PyTorch or its exporter is not installed.
    """
    if "classifier" not in export.heads or export.extra.get("inputs", "image+report") != "image":
        raise HubError(
            "ONNX is written for classifiers of films alone, as configs/classify.py trains with --config.inputs=image; "
            f"this export ({export.stage}) holds none"
        )
    try:
        import onnxscript  # noqa: F401  torch imports it late
        import torch
    except ImportError:
        raise MissingExtra("PyTorch and onnxscript", "onnx", "writing ONNX") from None
    from medvill_jax.hub.transformers_files.configuration_medvill import MedvillConfig
    from medvill_jax.hub.transformers_files.modeling_medvill import MedvillModel

    model = MedvillModel(MedvillConfig(**torch_config(export)))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in torch_arrays(export).items()})

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.model.class_logits(pixel_values)
            return logits, logits.sigmoid()

    side = export.config.image_size
    # Of one film, the exporter would take the size of the batch for a constant.
    films = torch.zeros(2, side, side, dtype=torch.uint8)
    with whole_folder(out, (MODEL_FILE, LABELS_FILE)) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own code
        torch.onnx.export(
            Classifier().eval(),
            (films,),
            folder / MODEL_FILE,
            input_names=["pixel_values"],
            output_names=["logits", "probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        labels = {"names": export.label_names, "thresholds": export.extra.get("thresholds", 0.5)}
        (folder / LABELS_FILE).write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
