"""Lower-casing BERT WordPiece: text <-> ids over a `vocab.txt`.

The same normaliser, pre-tokeniser and vocabulary format as `bert-base-uncased` (Devlin et al. 2019), so published
checkpoints fit; built on Hugging Face `tokenizers`, which is fast and needs no network.
"""

from __future__ import annotations

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
_MAX_ALPHABET = 1000


class Tokenizer:
    """Immutable WordPiece tokenizer; picklable, so that data workers can carry it.

    Args:
      vocab: token -> id, ids being 0 .. len(vocab) - 1.
      name: what error messages call the vocabulary.

    Raises `DataError` if a special token is missing or the ids have gaps.
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
        self._tokens = tuple(sorted(vocab, key=vocab.__getitem__))
        self._tokenizer = _bert(dict(vocab))
        self._tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (vocab[token] for token in SPECIAL_TOKENS)
        self.special_ids = tuple(vocab[token] for token in SPECIAL_TOKENS)

    @classmethod
    def from_file(cls, path: Place) -> Tokenizer:
        """Reads a `vocab.txt` (one token per line, id = line number from 0) or a `tokenizer.json`."""
        path = place(path)
        if not path.is_file():
            raise DataError(f"there is no vocabulary file at {path}")
        if path.suffix == ".json":
            return _from_tokenizers(_read_json(path), str(path))
        try:
            # Not splitlines(): BERT vocabularies hold characters that it takes for line ends.
            lines = path.read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
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

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens, in the order of their ids."""
        return self._tokens

    def encode(self, text: str) -> np.ndarray:
        """Ids int32 `[n]` of a text, no special tokens added; a word that no pieces spell becomes UNK."""
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of every text, computed in parallel."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, np.int32) for encoding in encodings]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of ids `[n]`: word pieces merged, special tokens dropped, no space before punctuation."""
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

    Only a name that is no path here is looked up through `transformers.AutoTokenizer`, which may use the network.
    Raises `DataError` if nothing is found, or if it is no lower-casing WordPiece.
    """
    path = place(source)
    if path.is_dir():
        for name in ("vocab.txt", "tokenizer.json"):
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
    The result depends on the word counts of the texts only: not on their order, the process or the number of cores.

    Raises `DataError` if there is no word in the texts or `vocab_size` cannot hold their characters.
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
    # differ. Handing it every single-character piece as a special token fixes the numbers, and with them the result.
    alphabet = sorted(common)
    given = [*SPECIAL_TOKENS, *alphabet, *("##" + character for character in alphabet)]
    if vocab_size < len(given):
        raise DataError(f"vocab_size={vocab_size} is too small: the characters of these texts alone need {len(given)}")
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(dict.fromkeys(given)), show_progress=False, min_frequency=2
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
        raise DataError(f"{name} keeps upper case; this model reads lower-case WordPiece, as bert-base-uncased has it")
    return Tokenizer(tokenizer.get_vocab(), name=name)


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
    except Exception as error:  # offline, misspelt, gated: all of them are the user's to fix
        raise DataError(
            f"there is no file or folder {name!r}, and it could not be loaded as a Hugging Face name "
            f"({type(error).__name__}): give the path of a vocab.txt, or check the name and the network"
        ) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise DataError(f"the Hugging Face tokenizer {name!r} is not a fast WordPiece tokenizer")
    return _from_tokenizers(backend, f"the Hugging Face tokenizer {name!r}")
