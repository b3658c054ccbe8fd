"""Tiny exports of every kind, what a PyTorch user asks of them, and what this package answers."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

import medvill_jax
from medvill_jax.app import film
from medvill_jax.app.model import Model
from medvill_jax.data.questions import clean_question
from medvill_jax.data.transforms import text_slots
from medvill_jax.hub.export import write_export
from medvill_jax.hub.network import functional
from medvill_jax.models.attention_masks import KINDS
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.compat import Compat
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.models.resnet import ResNetConfig
from medvill_jax.models.vit_patch import PatchConfig
from tests.hub.checkpoints import SIZES, inputs, vocabulary, writing_network
from tests.models.reference import arrays_of, medvill_config

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"max_len": 12, "beam_size": 1},
    "short": {"max_len": 12, "min_len": 3, "no_repeat_ngram": 2},
    "beams": {"max_len": 12, "beam_size": 4, "length_penalty": 0.5, "no_repeat_ngram": 1},
}
TEXTS = ["w7 w21 W33 w7", "w5", "unheard-of w60 [MASK] w61"]
QUESTIONS = ["Is w12 w13 there?", "w20's W21, x ray ? -yes/no", "w9."]


@dataclass(frozen=True)
class Case:
    """An export, and what is asked of it.

    Attributes:
        config, stage, heads, extra: of the export.
        kinds: masks under which both pre-training heads are computed.
        searches: names of searches for reports.
        matches: whether images and texts are matched.
        writes: whether it has the weights of `writing_network`.
    """

    config: MedvillConfig
    stage: str
    heads: dict[str, Any]
    extra: dict[str, Any]
    kinds: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    matches: bool = False
    writes: bool = False


def network(encoder: Any, **fields: Any) -> MedvillConfig:
    """Large weights, so that what is read shows."""
    bert = BertConfig(SIZES.vocab, 32, 2, 4, 64, 40, dropout=0.0, initializer_range=0.3)
    return MedvillConfig(bert, encoder, 64, **fields)


def dense(rng: np.random.Generator, inside: int, outside: int) -> dict[str, np.ndarray]:
    return {
        "kernel": rng.normal(size=(inside, outside)).astype(np.float32) / np.float32(inside**0.5),
        "bias": rng.normal(size=outside).astype(np.float32),
    }


def cases() -> dict[str, Case]:
    rng = np.random.default_rng(5)
    classifier = {
        "classifier": dense(rng, 32 + 24, 5),
        "cells": {"scale": 1 + rng.random(24, np.float32), "bias": rng.random(24, np.float32)},
    }
    answer = {"answer": {"hidden": dense(rng, 32, 64), "output": dense(rng, 64, 7)}}
    contrast = {"image": dense(rng, 32, 6), "text": dense(rng, 32, 6), "scale": np.float32(1.5)}
    late = {"match": dense(rng, 16 + 32, 2), "contrast": contrast}
    released = Compat(
        first_sep_position="after_cells",
        cell_positions="contiguous",
        pad_visible=True,
        layer_norm_eps=1e-5,
        pad_segment=0,
    )
    small = ResNetConfig((1, 1, 1, 1), 8, (8, 8, 16, 16), False)
    films = {"films": {"image_size": 48, "square": True}, "text_len": 9}
    plain = medvill_config(SIZES, attention="bar")
    as_released = medvill_config(SIZES, attention="non_cross", compat=released)
    decode = {"beam_size": 2, "max_len": 8, "seed": 0}
    findings = {"inputs": "image", "thresholds": [0.1, 0.2, 0.3, 0.4, 0.5], **films}
    patches = network(PatchConfig(32, 24), attention="bidirectional")
    questions = {"summary": "product", "answers": [*"abcdefg"]}
    return {
        "pretrain": Case(plain, "pretraining", {}, {}, KINDS, tuple(SEARCHES), matches=True, writes=True),
        "released": Case(
            as_released,
            "generation",
            {},
            {"decode": decode},
            ("bar", "non_cross"),
            ("own", "greedy"),
            matches=True,
            writes=True,
        ),
        "classify": Case(patches, "classification", classifier, findings),
        "vqa": Case(network(small, attention="mixed"), "vqa", answer, questions),
        "retrieve": Case(network(small, attention="bar"), "retrieval", late, {"fusion": "late"}, matches=True),
    }


def write(case: Case, folder: Path) -> Path:
    """Writes the export of a case into a new folder, as `export`."""
    folder.mkdir()
    if case.writes:
        params, stats = arrays_of(writing_network(), case.config)
    else:
        params, stats = jax.tree.map(np.asarray, functional(case.config).init(jax.random.key(3)))
        rng = np.random.default_rng(1)
        stats = jax.tree.map(lambda leaf: leaf + rng.uniform(0, 0.5, leaf.shape).astype(np.float32), stats)
    (folder / "vocab.txt").write_text(vocabulary())
    write_export(
        folder / "export",
        config=asdict(case.config),
        params=params,
        stats=stats,
        tokenizer_path=folder / "vocab.txt",
        label_names=["A", "B", "C", "D", "E"] if case.stage == "classification" else (),
        heads=case.heads,
        stage=case.stage,
        extra=case.extra,
    )
    return folder / "export"


def films(folder: Path) -> list[str]:
    """Film files of several kinds."""
    rng = np.random.default_rng(7)
    gray = rng.integers(0, 256, (150, 97), dtype=np.uint8)
    Image.fromarray(gray).save(folder / "tall.png")
    Image.fromarray(gray.T).save(folder / "wide.jpg", quality=90)
    Image.fromarray(gray[:40, :60].astype(np.uint16) * 13).save(folder / "deep.png")
    colour = rng.integers(0, 256, (70, 50, 4), dtype=np.uint8)
    Image.fromarray(colour).save(folder / "clear.png")
    return [str(folder / name) for name in ("tall.png", "wide.jpg", "deep.png", "clear.png")]


def ask(case: Case, folder: Path) -> dict[str, np.ndarray]:
    """Writes the questions to a case's folder; returns their arrays."""
    _, ids, lens = inputs(2)
    rng = np.random.default_rng(9)
    pixels = (rng.integers(0, 256, (3, 64, 64)) * np.array([0.2, 0.6, 1.0])[:, None, None]).astype(np.uint8)
    cells = np.array([[0, 2, 3], [1, 2, 3], [0, 1, 2]])
    mask = (np.arange(ids.shape[1]) < lens[:, None]).astype(np.int64)
    arrays = {"pixels": pixels, "ids": ids.astype(np.int64), "mask": mask, "cells": cells}
    arrays["use_s2s"] = np.array([True, False, True])
    # Films about which `writing_network` writes different texts.
    noise = np.random.default_rng(0).normal(size=(5, 64, 64, 3)) / 2
    arrays["normalised"] = (noise + np.linspace(-4, 4, 5)[:, None, None, None]).astype(np.float32)
    np.savez(folder / "asked.npz", **arrays)
    asked = {
        "films": films(folder),
        "texts": TEXTS,
        "questions": QUESTIONS,
        "kinds": case.kinds,
        "matches": case.matches,
        "searches": {name: SEARCHES.get(name, {}) for name in case.searches},
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    return arrays


def answers(case: Case, folder: Path, asked: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and texts by the names of `transformers_user`, as this package computes them."""
    model = medvill_jax.load(folder / "export")
    arrays, images, ids = model.arrays, asked["pixels"], asked["ids"]
    lens = asked["mask"].sum(axis=1)
    found: dict[str, Any] = {"films": _films(model, folder)}
    for prefix, texts in (("", TEXTS), ("question_", [clean_question(text) for text in QUESTIONS])):
        found |= {f"{prefix}{name}": rows for name, rows in _tokens(model, texts).items()}
    for kind in case.kinds:
        use_s2s = asked["use_s2s"] if kind == "mixed" else None
        logits = arrays.logits(images, ids, lens, attention=kind, cells=asked["cells"], use_s2s=use_s2s)
        found |= {f"{kind}_{name}": array for name, array in logits.items()}
    functions = arrays._functions_with(None)
    if case.matches:
        found["match"] = arrays.match(images, ids, lens)
    if "classifier" in case.heads:
        found["classes"] = functions.logits("classes", images)
    if "answer" in case.heads:
        found["answers"] = functions.logits("answers", images, ids, lens, product=True)
    if "contrast" in case.heads:
        found["image_vectors"], found["text_vectors"] = functions.project(images), functions.project(ids, lens)
    if case.extra.get("fusion") != "late":
        found["embedding"] = functions.pooled(images)
    words: dict[str, Any] = {"tokenizer": model.export.tokenizer.encode(TEXTS[0]).tolist()}
    for name in case.searches:
        written = arrays.generate(asked["normalised"], **SEARCHES.get(name, {"beam_size": 2, "max_len": 8}))
        found[f"{name}_log_probs"] = np.array([report["log_prob"] for report in written], np.float32)
        words[name] = [report["text"] for report in written]
    return found, words


def _films(model: Model, folder: Path) -> np.ndarray:
    paths = json.loads((folder / "asked.json").read_text())["films"]
    return np.stack([film.read(path, model.films, model.config.image_size).pixels for path in paths])


def _tokens(model: Model, texts: list[str]) -> dict[str, np.ndarray]:
    tokenizer = model.export.tokenizer
    assert tokenizer is not None
    text_len = min(model.export.extra.get("text_len", 253), model.config.bert.max_positions - 1)
    slots = [text_slots(tokenizer.encode(text), text_len, tokenizer.sep_id) for text in texts]
    ids, lens = np.stack([row for row, _ in slots]), np.array([length for _, length in slots])
    return {"input_ids": ids, "attention_mask": np.arange(text_len + 1) < lens[:, None]}
