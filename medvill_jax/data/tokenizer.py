"""Lower-casing BERT WordPiece: text <-> ids over a `vocab.txt`.

The normaliser, pre-tokeniser and vocabulary format are those of `bert-base-uncased` (Devlin et al. 2019), so published
checkpoints fit. Built on Hugging Face `tokenizers`, which is fast and needs no network. A vocabulary of another kind of
tokenizer is recognised by its tokens and by how that tokenizer splits probe words, and refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from etils import epath
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from medvill_jax.data.records import DataError, place
from medvill_jax.paths import Place

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DEFAULT_VOCAB_SIZE = 30522
# Share of the words of the data below which [UNK] is accepted.
MOST_UNKNOWN = 0.1
_MAX_ALPHABET = 1000
# Share of the tokens that may have capitals, which lower-case text never matches: added names, for example.
_MOST_CAPITALS = 0.01
# Marks before or after a piece -> the kind of vocabulary that has them.
_MARKS = {
    "\u2581": "SentencePiece",
    "\u0120": "byte-level BPE",
    "</w>": "BPE",
    "@@": "BPE",
    " ": "tabulated",
    "\t": "tabulated",
}
_CASED = (
    "{name} keeps upper case; this model reads lower-case WordPiece: give a vocabulary such as bert-base-uncased has"
)
_VOCABULARY_PROBES = 200
# Texts whose encodings are in memory together.
_COUNTED_AT_ONCE = 4096
# Words that other kinds of tokenizers split or normalise differently.
_PROBES = ("The", "heart", "NORMAL", "naïve", "x-ray", "3.5cm", "(R>L)", "it's", "中文", "a\u200bb", "follow up")


class Tokenizer:
    """An immutable WordPiece tokenizer; picklable, so that it can be sent to data workers.

    Args:
      vocab: token -> id; the ids are 0 .. len(vocab) - 1.
      name: the name of the vocabulary in error messages.

    Raises `DataError` if a special token is missing, the ids have gaps, or the tokens are of another kind of tokenizer.
    """

    def __init__(self, vocab: Mapping[str, int], *, name: str = "the vocabulary"):
        missing = [token for token in SPECIAL_TOKENS if token not in vocab]
        if missing:
            raise DataError(
                f"{name} lacks the special token{'s' * (len(missing) > 1)} {', '.join(missing)}: "
                f"a BERT vocab.txt has one token per line, {', '.join(SPECIAL_TOKENS)} among them"
            )
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise DataError(f"the token ids of {name} are not 0 .. {len(vocab) - 1}, each used once")
        self.name = name
        self._tokens = tuple(sorted(vocab, key=vocab.__getitem__))
        _check_kind(self._tokens, name)
        self._tokenizer = _bert(dict(vocab))
        self._tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (vocab[token] for token in SPECIAL_TOKENS)
        self.special_ids = tuple(vocab[token] for token in SPECIAL_TOKENS)

    @classmethod
    def from_file(cls, path: Place) -> Tokenizer:
        """Reads a `vocab.txt` (one token per line, id = line number from 0) or a `tokenizer.json`.

        Raises `DataError` if it or the tokenizer_config.json of its folder is damaged or of another kind of tokenizer.
        """
        path = place(path)
        if not path.is_file():
            raise DataError(f"there is no vocabulary file at {path}")
        _check_config(path.parent / "tokenizer_config.json")
        if path.suffix == ".json":
            return _from_tokenizers(_read_json(path), str(path))
        try:
            # Not splitlines(), which also splits at characters that BERT vocabularies contain.
            lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not a UTF-8 vocab.txt (byte {error.start} is not text)") from error
        if lines[-1] == "":
            lines.pop()
        vocab: dict[str, int] = {}
        for i, token in enumerate(lines):
            if token in vocab or not token:
                what = "is empty" if not token else f"repeats line {vocab[token] + 1}"
                raise DataError(f"line {i + 1} of {path} {what}: a vocab.txt has one new token on every line")
            vocab[token] = i
        return cls(vocab, name=str(path))

    def unknown_words(self, texts: Sequence[str]) -> tuple[int, int]:
        """The number of words of `texts` that become UNK, and of all words; punctuation does not count."""
        unknown = words = 0
        for text, encoding in zip(
            texts, self._tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            for i, token, (start, end) in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True):
                if token[:2] != "##" and any(map(str.isalnum, text[start:end])):
                    words += 1
                    unknown += i == self.unk_id
        return unknown, words

    def check_words(self, texts: Sequence[str], whose: str, way_out: str) -> None:
        """Raises `DataError` if a share of `MOST_UNKNOWN` or more of the words of `texts` becomes UNK.

        `whose` names the texts in the message, `way_out` says what to do.
        """
        unknown, words = self.unknown_words(texts)
        if words and unknown >= MOST_UNKNOWN * words:
            share = f"{100 * unknown / words:.1f} % of the {words} words"
            raise DataError(f"{self.name} turns {share} of {whose} into [UNK], too many to learn from: {way_out}")

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens, in the order of their ids."""
        return self._tokens

    def encode(self, text: str) -> np.ndarray:
        """Ids int32 `[n]` of a text without special tokens; a word that the word pieces cannot form becomes UNK."""
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of every text, computed in parallel."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, np.int32) for encoding in encodings]

    def count_pieces(self, texts: Sequence[str]) -> np.ndarray:
        """uint32 `[n]`: the word pieces of each whole text, computed in parallel."""
        counts = np.empty(len(texts), np.uint32)
        for start in range(0, len(texts), _COUNTED_AT_ONCE):
            some = texts[start : start + _COUNTED_AT_ONCE]
            counts[start : start + len(some)] = [len(ids) for ids in self.encode_batch(some)]
        return counts

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of ids `[n]`: word pieces are merged, special tokens dropped, spaces before punctuation removed.

        Raises `ValueError` for an id outside the vocabulary.
        """
        special = set(self.special_ids)
        tokens = []
        for i in np.asarray(list(ids), np.int64).tolist():
            if not 0 <= i < len(self._tokens):
                raise ValueError(f"token id {i} is outside the vocabulary of {len(self._tokens)}")
            if i not in special:
                tokens.append(self._tokens[i])
        if tokens:
            tokens[0] = tokens[0].removeprefix("##") or tokens[0]
        return self._tokenizer.decoder.decode(tokens) if tokens else ""

    def save(self, path: str | Path) -> None:
        """Writes `vocab.txt`."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes("".join(token + "\n" for token in self._tokens).encode())


def load_tokenizer(source: Place) -> Tokenizer:
    """A tokenizer from a `vocab.txt`, a `tokenizer.json`, a folder with either, or a Hugging Face model name.

    Only a name that is not an existing path is looked up with `transformers.AutoTokenizer`, which may use the network.
    Raises `DataError` if there is no such vocabulary, or it is not a lower-casing WordPiece.
    """
    path = place(source)
    if path.is_dir():
        # Hugging Face prefers tokenizer.json, so a model of a folder with both was trained with it.
        for name in ("tokenizer.json", "vocab.txt"):
            if (path / name).is_file():
                return Tokenizer.from_file(path / name)
        raise DataError(f"there is neither a vocab.txt nor a tokenizer.json in {path}")
    name = str(source)
    if path.is_file():
        return Tokenizer.from_file(path)
    if path.suffix in (".txt", ".json") or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise DataError(f"there is no vocabulary file at {path}")
    return _from_hub(name)


def train_wordpiece(texts: Iterable[str], vocab_size: int, out_path: str | Path) -> Tokenizer:
    """Trains a lower-case WordPiece vocabulary on `texts`, writes it to `out_path` and returns its tokenizer.

    `[PAD]` is id 0, then `[UNK] [CLS] [SEP] [MASK]`, the characters, and merged pieces. `vocab_size` is an upper bound.
    The result is a function of the word counts of the texts and `vocab_size`, on any number of cores.

    Raises `DataError` if the texts have no word, or more characters than `vocab_size` can hold.
    """
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)))
    if not words:
        raise DataError("there is not one word to train a vocabulary on: give a vocabulary with --tokenizer")
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    common = sorted(characters, key=lambda character: (-characters[character], character))[:_MAX_ALPHABET]
    # The trainer numbers "##x" pieces in the order of a randomly seeded hash map and breaks ties by number, so two runs
    # would differ. With every single-character piece as a special token, the numbers and the result are fixed.
    alphabet = sorted(common)
    fixed_tokens = [*SPECIAL_TOKENS, *alphabet, *("##" + character for character in alphabet)]
    if vocab_size < len(fixed_tokens):
        raise DataError(
            f"vocab_size={vocab_size} is too small: the characters of these texts alone need {len(fixed_tokens)}"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(dict.fromkeys(fixed_tokens)), show_progress=False, min_frequency=2
    )
    tokenizer = _bert({UNK: 0})

    def corpus() -> Iterator[str]:
        for word, count in sorted(words.items()):
            yield " ".join([word] * count)

    tokenizer.train_from_iterator(corpus(), trainer)
    trained = Tokenizer(tokenizer.get_vocab(with_added_tokens=False), name="the trained vocabulary")
    trained.save(out_path)
    return trained


def _bert(vocab: dict[str, int]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=UNK, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _read_json(path: epath.Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise DataError(f"{path} is not a tokenizer.json that the tokenizers library can read") from error


def _from_tokenizers(tokenizer: tokenizers.Tokenizer, name: str) -> Tokenizer:
    if not isinstance(tokenizer.model, models.WordPiece):
        raise DataError(f"{name} is a {type(tokenizer.model).__name__} tokenizer; this model reads BERT WordPiece")
    normalizer = tokenizer.normalizer
    if normalizer is None or normalizer.normalize_str("A") != "a":
        raise DataError(_CASED.format(name=name))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    wordpiece = Tokenizer(tokenizer.get_vocab(), name=name)
    # Probes from the vocabulary too: fixed probes that are all [UNK] would show no difference.
    step = -(-wordpiece.vocab_size // _VOCABULARY_PROBES)
    for words in (*_PROBES, *(f"{token}, {token.upper()}" for token in wordpiece.tokens[::step] if token.isalpha())):
        if tokenizer.encode(words, add_special_tokens=False).ids != wordpiece.encode(words).tolist():
            raise DataError(
                f"{name} splits words differently from the WordPiece of bert-base-uncased, which this model reads"
            )
    return wordpiece


def _check_kind(tokens: Sequence[str], name: str) -> None:
    """Raises `DataError` if many tokens can never result from lower-casing WordPiece."""
    for mark, kind in _MARKS.items():
        if sum(mark in token and token != mark for token in tokens) > len(tokens) * _MOST_CAPITALS:
            raise DataError(
                f"{name} is a {kind} vocabulary; this model reads BERT WordPiece, as bert-base-uncased has it"
            )
    lower = normalizers.Lowercase().normalize_str
    capitals = sum(token != lower(token) for token in tokens if not (token[:1] == "[" and token[-1:] == "]"))
    if capitals > len(tokens) * _MOST_CAPITALS:
        share = f" ({capitals} of its {len(tokens)} tokens have capitals)"
        raise DataError(_CASED.format(name=name + share))


def _check_config(path: epath.Path) -> None:
    """Raises `DataError` if the configuration in the folder of a vocabulary sets `do_lower_case` to false."""
    try:
        config = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise DataError(
            f"{path} is not a JSON file: repair it, or remove it from the folder of the vocabulary"
        ) from error
    if isinstance(config, dict) and config.get("do_lower_case") is False:
        raise DataError(_CASED.format(name=f"the tokenizer of {path.parent}"))


def _from_hub(name: str) -> Tokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DataError(
            f"there is no file or folder {name!r}, and looking it up as a Hugging Face name needs the transformers "
            "package: pip install transformers"
        ) from error
    try:
        loaded = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # offline, misspelt, gated: the user can correct all of them
        raise DataError(
            f"there is no file or folder {name!r}, and it could not be loaded as a Hugging Face name "
            f"({type(error).__name__}): give the path of a vocab.txt, or check the name and the network"
        ) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise DataError(f"the Hugging Face tokenizer {name!r} is not a fast WordPiece tokenizer")
    return _from_tokenizers(backend, f"the Hugging Face tokenizer {name!r}")
