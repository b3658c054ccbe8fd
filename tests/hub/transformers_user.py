"""What a PyTorch user does with folders of `--to=transformers`, in a process that cannot import JAX or this package.

    python transformers_user.py FOLDER...

Each FOLDER holds `model`, the written folder, and what the process is asked: `asked.npz` and `asked.json`. It writes
`answered.npz` and `answered.json`. Needs torch, transformers and OpenCV only, of any release.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

FORBIDDEN = ("jax", "jaxlib", "flax", "medvill_jax", "tests")


class Without:
    """An import hook that finds what another one finds, but nothing forbidden, as if it was not installed."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in FORBIDDEN else self.finder.find_spec(name, path, target)


def answer(folder):
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer

    where, asked = folder / "model", json.loads((folder / "asked.json").read_text())
    model, loading = AutoModel.from_pretrained(where, trust_remote_code=True, output_loading_info=True)
    assert not any(loading.values()), loading
    model.eval()
    processor = AutoProcessor.from_pretrained(where, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=True)
    config = AutoConfig.from_pretrained(where, trust_remote_code=True)
    words = {"tokenizer": tokenizer(asked["texts"][0], add_special_tokens=False)["input_ids"]}
    films = processor(images=asked["films"], return_tensors="np")
    arrays = {"films": films["pixel_values"], **processor(text=asked["texts"], return_tensors="np")}
    arrays |= {f"question_{name}": value for name, value in processor(questions=asked["questions"]).items()}

    given = {name: torch.from_numpy(array) for name, array in np.load(folder / "asked.npz").items()}
    pixels, text = given["pixels"], {"input_ids": given["ids"], "attention_mask": given["mask"]}
    with torch.no_grad():
        for kind in asked["kinds"]:
            use_s2s = given["use_s2s"] if kind == "mixed" else None
            outputs = model(pixels, **text, attention=kind, cells=given["cells"], use_s2s=use_s2s)
            arrays |= {f"{kind}_mlm": outputs.mlm_logits, f"{kind}_itm": outputs.itm_logits}
        if asked["matches"]:
            arrays["match"] = model.match(pixels, **text)
        if config.classes:
            arrays["classes"] = model.class_logits(pixels)
        if config.answers:
            arrays["answers"] = model.answer_logits(pixels, **text)
        if config.contrast:
            arrays["image_vectors"], arrays["text_vectors"] = model.project_images(pixels), model.project_texts(**text)
        if config.fusion == "joint":
            arrays["embedding"] = model.embed_images(pixels)
    normalised = given["normalised"].permute(0, 3, 1, 2)
    for name, options in asked["searches"].items():
        reports = model.generate(normalised, **options)
        arrays[f"{name}_log_probs"] = reports.log_probs
        words[name] = processor.batch_decode(reports.sequences)
    # What is saved again loads again.
    model.save_pretrained(folder / "saved")
    processor.save_pretrained(folder / "saved")
    again = AutoModel.from_pretrained(folder / "saved", trust_remote_code=True).eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    same = AutoProcessor.from_pretrained(folder / "saved", trust_remote_code=True)(images=asked["films"])
    assert np.array_equal(same["pixel_values"], films["pixel_values"])
    np.savez(folder / "answered.npz", **{name: np.asarray(array) for name, array in arrays.items()})
    (folder / "answered.json").write_text(json.dumps(words))


def main():
    sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
    for name in FORBIDDEN:
        assert importlib.util.find_spec(name) is None, name
    os.environ.update(HF_HUB_OFFLINE="1", HF_MODULES_CACHE=str(Path(sys.argv[1]) / "modules"))
    import transformers

    for folder in sys.argv[1:]:
        answer(Path(folder))
    imported = sorted({name.partition(".")[0] for name in sys.modules} & {*FORBIDDEN})
    assert not imported, imported
    print(transformers.__version__)


if __name__ == "__main__":
    main()
