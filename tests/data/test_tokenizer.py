"""WordPiece: the published vocabulary gives the published ids, and training is repeatable to the byte."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer, train_wordpiece

REPO = Path(__file__).resolve().parents[2]
BERT = REPO.parent / "shared" / "data" / "bert_vocab" / "vocab.txt"
WORDS = ["the", "heart", "is", "normal", "lung", "##s", "no", "eff", "##usion", ".", ",", "e"]


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *WORDS]) + "\n")
    return path


def test_encode_and_decode(vocab):
    tokenizer = Tokenizer.from_file(vocab)
    ids = tokenizer.encode("The HEART is normal, no effusion. Lungs é")
    assert ids.dtype == np.int32
    assert ids.shape == (12,)
    assert tokenizer.decode(ids) == "the heart is normal, no effusion. lungs e"
    assert [tokenizer.tokens[i] for i in ids[-5:]] == ["##usion", ".", "lung", "##s", "e"]
    assert tokenizer.encode("zebra").tolist() == [tokenizer.unk_id]
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == np.int32
    batch = tokenizer.encode_batch(["the heart", "", "no effusion."])
    assert [b.tolist() for b in batch] == [tokenizer.encode(t).tolist() for t in ("the heart", "", "no effusion.")]


def test_special_tokens(vocab):
    tokenizer = Tokenizer.from_file(vocab)
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert ids == tokenizer.special_ids == (0, 1, 2, 3, 4)
    assert tokenizer.vocab_size == 17
    heart = tokenizer.encode("heart").tolist()
    assert tokenizer.decode([2, *heart, 4, 1, 3, 0, 0]) == "heart"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(tokenizer.encode("lungs")[1:]) == "s"
    # Text cannot smuggle in a special token.
    assert not set(tokenizer.encode("[MASK] [CLS]")) & {2, 3, 4}
    with pytest.raises(ValueError, match="outside"):
        tokenizer.decode([17])
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("the heart").tolist() == tokenizer.encode("the heart").tolist()


@pytest.mark.parametrize("missing", SPECIAL_TOKENS)
def test_missing_special_token_is_named(tmp_path, missing):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*(t for t in SPECIAL_TOKENS if t != missing), *WORDS]))
    with pytest.raises(DataError, match=rf"\{missing[:-1]}\]"):
        Tokenizer.from_file(path)


def test_damaged_vocabularies(tmp_path):
    path = tmp_path / "vocab.txt"
    for content, message in (
        (b"[PAD]\na\na\n", "line 3.*repeats line 2"),
        (b"a\n\nb\n", "line 2.*empty"),
        (b"\xff\xfe", "UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            Tokenizer.from_file(path)
    path.write_bytes("\r\n".join([*SPECIAL_TOKENS, "a\u2028b", "c"]).encode())
    assert Tokenizer.from_file(path).tokens[-2:] == ("a\u2028b", "c")


def test_load_from_folder_and_json(vocab, tmp_path):
    tokenizer = Tokenizer.from_file(vocab)
    assert load_tokenizer(vocab.parent).tokens == load_tokenizer(str(vocab)).tokens == tokenizer.tokens
    folder = tmp_path / "json"
    folder.mkdir()
    tokenizer._tokenizer.save(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder).tokens == tokenizer.tokens
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="can read"):
        load_tokenizer(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither"):
        load_tokenizer(tmp_path / "empty")
    for path in ("./no/vocab.txt", "/no/where", "vocab_b.txt", "a/b/c"):
        with pytest.raises(DataError, match="no vocabulary file"):
            load_tokenizer(path)


def test_cased_tokenizer_is_refused(tmp_path):
    import tokenizers

    cased = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({t: i for i, t in enumerate(SPECIAL_TOKENS)}, unk_token="[UNK]")
    )
    cased.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="upper case"):
        load_tokenizer(tmp_path / "tokenizer.json")


TRAIN = """
import sys
from medvill_jax.data.tokenizer import train_wordpiece
sides = ("left", "right")
texts = [f"Opacity number {i} in the {side} lung, {i % 7} mm; résumé {i * i}." for i in range(300) for side in sides]
train_wordpiece(texts[::int(sys.argv[1])], 400, sys.argv[2])
"""


def test_training_is_repeatable_across_processes_and_orders(tmp_path):
    digests = set()
    for i, step in enumerate(("1", "-1", "1")):
        path = tmp_path / f"{i}.txt"
        subprocess.run([sys.executable, "-c", TRAIN, step, str(path)], cwd=REPO, check=True)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
    tokenizer = Tokenizer.from_file(path)
    assert tokenizer.tokens[:5] == SPECIAL_TOKENS
    assert tokenizer.vocab_size <= 400
    text = "opacity in the left lung, 5 mm"
    assert tokenizer.decode(tokenizer.encode(text.upper())) == text


def test_training_covers_its_texts_and_names_what_cannot_be(tmp_path):
    tokenizer = train_wordpiece(["Zebra zebra", "quick"], 1000, tmp_path / "deep" / "vocab.txt")
    assert tokenizer.unk_id not in tokenizer.encode("zebra quick")
    assert "zebra" in tokenizer.tokens
    with pytest.raises(DataError, match="too small"):
        train_wordpiece(["zebra"], 10, tmp_path / "v.txt")
    with pytest.raises(DataError, match="not one word"):
        train_wordpiece(["", "  "], 100, tmp_path / "v.txt")


@pytest.mark.skipif(not BERT.is_file(), reason=f"needs the bert-base-uncased vocabulary at {BERT}")
def test_same_ids_as_transformers():
    transformers = pytest.importorskip("transformers")
    tokenizer = load_tokenizer(BERT)
    reference = transformers.BertTokenizer(vocab=str(BERT))
    assert tokenizer.vocab_size == 30522
    assert tokenizer.special_ids == (0, 100, 101, 102, 103)
    for text in (
        "Mild cardiomegaly; no pneumothorax (R>L).",
        "Größe µm 3.5x2 cm",
        "a\tb\u200bc 中文 naïve" + "x" * 150,
    ):
        assert tokenizer.encode(text).tolist() == reference.encode(text, add_special_tokens=False)
