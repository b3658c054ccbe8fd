"""WordPiece: the published vocabulary gives the published ids, and training is repeatable to the byte."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers

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


def bert_json(path: Path, words: list[str], **normalizer) -> None:
    """A tokenizer.json of BERT's WordPiece, lower-casing unless `normalizer` says otherwise."""
    vocab = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *words])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(**normalizer)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.save(str(path))


CASED = ["The", "heart", "is", "Normal", ".", "Effusion", "##s", "BP"]


def test_cased_vocabularies_are_refused_wherever_it_shows(tmp_path):
    for folder in ("json", "vocab", "config", "both"):
        (tmp_path / folder).mkdir()
    bert_json(tmp_path / "json" / "tokenizer.json", WORDS, lowercase=False)
    # No configuration at all, as BioBERT and ClinicalBERT are published.
    (tmp_path / "vocab" / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *CASED]))
    (tmp_path / "config" / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS]))
    (tmp_path / "config" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    # A stale vocab.txt in small letters beside what the model was trained with.
    (tmp_path / "both" / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS]))
    bert_json(tmp_path / "both" / "tokenizer.json", CASED, lowercase=False)
    for folder in ("json", "vocab", "config", "both"):
        with pytest.raises(DataError, match="keeps upper case"):
            load_tokenizer(tmp_path / folder)
    with pytest.raises(DataError, match=r"4 of its 13 tokens have capitals"):
        load_tokenizer(tmp_path / "vocab" / "vocab.txt")
    with pytest.raises(DataError, match="keeps upper case"):
        load_tokenizer(tmp_path / "config" / "vocab.txt")
    # Some names in capitals in a large vocabulary were added by somebody.
    added = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(300)), "XXXX", "[unused1]"]
    (tmp_path / "added.txt").write_text("\n".join(added))
    assert load_tokenizer(tmp_path / "added.txt").vocab_size == len(added)


def test_what_the_tokenizer_does_decides_beside_a_vocab_txt(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "stale"]))
    bert_json(tmp_path / "tokenizer.json", WORDS)
    loaded = load_tokenizer(tmp_path)
    assert loaded.tokens == (*SPECIAL_TOKENS, *WORDS)
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    saved.enable_padding(length=32)
    saved.enable_truncation(4)
    saved.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).tokens == loaded.tokens
    # The same words and normaliser, but pieces are split at spaces only.
    saved.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    saved.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="splits words differently"):
        load_tokenizer(tmp_path)
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(SPECIAL_TOKENS)}, []))
    bpe.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="is a BPE tokenizer"):
        load_tokenizer(tmp_path)


FOREIGN = {
    "SentencePiece": ["\u2581the", "\u2581heart", "s"],
    "byte-level BPE": ["\u0120the", "\u0120heart", "s"],
    "BPE": ["the</w>", "heart</w>", "s</w>"],
    "tabulated": ["the 812", "heart 310", "s 12"],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_vocabularies_of_other_kinds_are_named(tmp_path, kind):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *FOREIGN[kind]]))
    with pytest.raises(DataError, match=f"is a {kind} vocabulary"):
        load_tokenizer(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_vocabularies_that_an_editor_has_saved(tmp_path, end, encoding):
    tokens = (*WORDS, *SPECIAL_TOKENS)
    (tmp_path / "vocab.txt").write_bytes((end.join(tokens) + end).encode(encoding))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.tokens == tokens
    assert tokenizer.pad_id == len(WORDS)


def test_unknown_words_are_counted(vocab):
    tokenizer = Tokenizer.from_file(vocab)
    texts = ["The heart is normal, no effusion.", "Zebra lungs? Ünknown!", "...", "", "(?) the heart"]
    # Words in pieces count once, and punctuation, known or not, is no word.
    assert tokenizer.unknown_words(texts) == (2, 11)
    with pytest.raises(DataError, match=r"vocab.txt turns 18.2 % of the 11 words of the texts into \[UNK\].*: do this"):
        tokenizer.check_words(texts, "the texts", "do this")
    with pytest.raises(DataError, match=r"10.0 % of the 10 words"):
        tokenizer.check_words(["the heart is normal no effusion the heart is zebra"], "the texts", "do this")
    tokenizer.check_words(["the heart is normal no effusion the heart is normal zebra"], "the texts", "do this")
    tokenizer.check_words([], "the texts", "do this")


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
