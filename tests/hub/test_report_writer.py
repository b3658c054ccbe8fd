"""`load(...).arrays.generate(...)` against torch run anew for every word, and arguments that do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medvill_jax
from medvill_jax.app.model import Model
from medvill_jax.decoding.rules import Rules
from medvill_jax.hub.convert import convert
from medvill_jax.hub.errors import HubError
from tests.decoding import slow
from tests.hub.checkpoints import (
    CLS,
    MASK,
    PAD,
    SEP,
    SIZES,
    UNK,
    save,
    vocabulary,
    write_config,
    writing_network,
)
from tests.models.reference import TorchMedvill

RULES = Rules(end_id=SEP, max_len=12, banned=(PAD, UNK, CLS, MASK))


@pytest.fixture(scope="module")
def network() -> TorchMedvill:
    return writing_network()


@pytest.fixture(scope="module")
def folder(network: TorchMedvill, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    save(folder / "pytorch_model.bin", network.state_dict())
    write_config(folder, SIZES)
    (folder / "vocab.txt").write_text(vocabulary())
    convert(folder, out := folder / "export")
    return out


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Model:
    return medvill_jax.load(folder)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(5, 64, 64, 3))
    return (noise / 2 + np.linspace(-4, 4, 5)[:, None, None, None]).astype(np.float32)


def follower(network: TorchMedvill, image: np.ndarray) -> slow.Follow:
    """The whole network, image included, run for one word."""
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]

    @torch.no_grad()
    def log_probs(text: slow.Text) -> np.ndarray:
        ids = torch.tensor([[*text, MASK]])
        mlm, _ = network(pixels, ids, np.array([ids.shape[1]]), "s2s")
        return torch.log_softmax(mlm[0, -1], dim=-1).numpy()

    return log_probs


@pytest.mark.parametrize(("beams", "penalty"), [(1, 0.0), (2, 0.0), (4, 0.0), (4, 0.5)])
def test_cached_decoding_equals_full_recompute(
    loaded: Model, network: TorchMedvill, images: np.ndarray, beams: int, penalty: float
) -> None:
    reports = loaded.arrays.generate(images, beam_size=beams, max_len=RULES.max_len, length_penalty=penalty)
    for image, report in zip(images, reports, strict=True):
        follow = follower(network, image)
        text, total, _ = slow.beam(follow, RULES, beams, penalty)
        if beams == 1:
            assert (text, total) == slow.greedy(follow, RULES)[:2]
        words = slow.words(text, RULES)
        assert report["token_ids"] == list(words)
        assert abs(report["log_prob"] - total) <= 1e-4
        assert report["text"] == " ".join(f"w{word}" for word in words)
    # A beam search without penalty prefers texts that are all equally short.
    if beams == 1:
        assert len({len(report["token_ids"]) for report in reports}) > 1


@pytest.mark.parametrize("fields", [{"beam_size": 3}, {"top_p": 0.9, "seed": 5}])
def test_neighbours_order_and_batch_size_do_not_matter(
    loaded: Model, images: np.ndarray, fields: dict[str, Any]
) -> None:
    whole = loaded.arrays.generate(images, max_len=8, batch_size=5, **fields)
    order = [3, 0, 4, 1, 2]
    shuffled = loaded.arrays.generate(images[order], max_len=8, batch_size=2, **fields)
    for place, example in enumerate(order):
        assert shuffled[place]["token_ids"] == whole[example]["token_ids"]
        assert abs(shuffled[place]["log_prob"] - whole[example]["log_prob"]) <= 1e-4


def test_rules_and_defined_results(loaded: Model, images: np.ndarray) -> None:
    assert loaded.arrays.generate(images[:0], max_len=8) == []
    gray = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    for report in loaded.arrays.generate(gray, beam_size=2, max_len=12, min_len=6, no_repeat_ngram=1):
        ids = report["token_ids"]
        assert len(ids) >= 6
        assert len(set(ids)) == len(ids)
        assert not {PAD, UNK, CLS, SEP, MASK} & set(ids)
    silent = loaded.arrays.generate(images[:2], max_len=8, banned=[n for n in range(SIZES.vocab) if n != SEP])
    assert [(report["token_ids"], report["text"]) for report in silent] == [([], "")] * 2
    assert all(report["log_prob"] < 0 for report in silent)
    some = [n for n in range(SIZES.vocab) if n not in (SEP, MASK)]
    assert loaded.arrays.generate(images[:1], max_len=3, min_len=3, banned=some)[0]["token_ids"] == [MASK] * 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"max_len": 41}, "max_len=41 tokens do not fit the model's 40 positions"),
        ({"max_len": 0}, "max_len=0 leaves no room"),
        ({"min_len": 9}, "min_len=9 is not in"),
        ({"beam_size": 0}, "beam_size=0 is below 1"),
        ({"beam_size": 121}, "beam_size=121 exceeds the vocabulary"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
        ({"top_p": 0.5, "beam_size": 2}, "top_p samples one report"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"temperature": 0.5}, "give top_p as well"),
        ({"top_p": 0.5, "temperature": 0.0}, "temperature=0.0"),
        ({"seed": [1, 2]}, "one per image"),
        ({"seed": -1}, "a seed must be in"),
        ({"banned": [SEP]}, "end of text, 102, is among the banned"),
        ({"banned": [120]}, r"outside the vocabulary of 120: \[120\]"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"images": np.zeros((1, 64, 64))}, "images are uint8"),
    ],
)
def test_arguments_that_do_not_fit(loaded: Model, images: np.ndarray, change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        loaded.arrays.generate(**{"images": images, "max_len": 8, **change})


def test_vocabularies_that_do_not_serve(folder: Path, images: np.ndarray, tmp_path: Path) -> None:
    export = medvill_jax.load(folder).export
    assert export.vocab is not None

    def generate(vocab: str | None) -> list[dict[str, Any]]:
        loaded = medvill_jax.load(folder)
        path = None
        if vocab is not None:
            (path := tmp_path / "vocab.txt").write_text(vocab)
        object.__setattr__(loaded.export, "vocab", path)
        return loaded.arrays.generate(images[:1], max_len=3)

    with pytest.raises(HubError, match=r"lacks the special token \[MASK\]"):
        generate(vocabulary(without=MASK))
    with pytest.raises(HubError, match="has 121 tokens, the model 120"):
        generate(vocabulary() + "more\n")
    with pytest.raises(HubError, match=r"other ids of \[CLS\] and \[SEP\]"):
        generate("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n")
    plain = generate(None)
    assert plain[0]["text"] is None
    assert plain[0]["token_ids"] == generate(vocabulary())[0]["token_ids"]
    # Ids that have no word are never written.
    short = generate("".join(vocabulary().splitlines(keepends=True)[:104]))
    assert all(word < 104 for word in short[0]["token_ids"])


def test_a_damaged_network_and_one_without_the_head(folder: Path, images: np.ndarray) -> None:
    loaded = medvill_jax.load(folder)
    loaded.export.params["mlm"]["bias"][:] = np.nan
    with pytest.raises(HubError, match="not finite"):
        loaded.arrays.generate(images[:1], max_len=8)
    parts = tuple(part for part in loaded.export.parts if part != "mlm")
    object.__setattr__(loaded.export, "parts", parts)
    with pytest.raises(HubError, match=r"lacks mlm"):
        loaded.arrays.generate(images[:1], max_len=8)
