"""Films and texts as MedViLL takes them, for `AutoProcessor.from_pretrained(FOLDER, trust_remote_code=True)`.

Films get the pixels, and texts the tokens, that they had in training. Written by medvill_jax; needs numpy, Pillow,
transformers and OpenCV (`pip install opencv-python-headless`), since other libraries resize to other pixels.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from PIL import Image, ImageOps
from tokenizers import decoders, models, normalizers, pre_tokenizers
from transformers import BatchFeature, ProcessorMixin

try:
    import cv2
except ImportError as error:  # transformers would tell users to install "cv2"
    raise ImportError("films are resized by OpenCV: pip install opencv-python-headless") from error

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# A path, the bytes of a file, an image, or pixels.
Film = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
FORMS = "a film is a path, bytes of a file, a PIL image or an array, uint8 or uint16 [H, W] or uint8 [H, W, 3]"
# Pillow's other readers start outside programs (EPS) or are for formats that no radiograph has.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")
JPEG_QUALITY = 95
MAX_PIXELS = 64_000_000
_EXIF_ORIENTATION = 0x0112
_END_OF_JPEG = b"\xff\xd9"
# What the released code removes from questions: notes of VQA-RAD's authors, and punctuation.
_DROPPED = ("? -yes/no", "? -open", "? - open", ",", "?", "...", ".")


class MedvillProcessor(ProcessorMixin):
    """Prepares films, reports and questions; turns written tokens into text.

    Args:
        tokenizer: holds the vocabulary.
        image_size: side of the network's input, pixels.
        text_len: word pieces that are kept of a text, T.
        record_size: pixels of the short side of films as they were stored for training; longer ones were reduced.
        record_square: whether films were fitted into a square of that size instead.
    """

    # Releases of transformers before 5 read these; later ones the arguments of __init__.
    attributes = ["tokenizer"]  # noqa: RUF012
    valid_kwargs = ["image_size", "text_len", "record_size", "record_square"]  # noqa: RUF012
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        image_size: int = 512,
        text_len: int = 253,
        record_size: int = 512,
        record_square: bool = False,
    ):
        super().__init__(tokenizer)
        self.image_size, self.text_len = image_size, text_len
        self.record_size, self.record_square = record_size, record_square

    def __call__(
        self,
        images: Film | Sequence[Film] | None = None,
        text: str | Sequence[str] | None = None,
        questions: str | Sequence[str] | None = None,
        return_tensors: str | None = "pt",
        **_: Any,
    ) -> BatchFeature:
        """The inputs of the model.

        Args:
            images: films, one or a list.
            text: reports, one or a list; words are read as they are.
            questions: instead of `text`; they are simplified as in training.
            return_tensors: "pt" or "np".

        Returns:
            `pixel_values` uint8 `[B, S, S]`; `input_ids` int64 `[B, T+1]`, the word pieces, [SEP], [PAD]...; and
            `attention_mask` int64 `[B, T+1]`, 0 at [PAD].

        Raises:
            ValueError: a film cannot be read, or a text has no word; the message names it.
        """
        content: dict[str, np.ndarray] = {}
        if images is not None:
            films: list[Any] = [*images] if isinstance(images, list | tuple) else [images]
            content["pixel_values"] = np.stack([self.pixels(film) for film in films])
        if questions is not None:
            text = [clean_question(question) for question in _listed(questions)]
        if text is not None:
            content |= self.tokens(_listed(text))
        return BatchFeature(content, tensor_type=return_tensors)

    def pixels(self, film: Film) -> np.ndarray:
        """A film as uint8 `[S, S]`: gray, stored as in training, padded to a square with black and resized."""
        name = os.fspath(film) if isinstance(film, str | os.PathLike) else None
        try:
            return square(self._stored(film), self.image_size)
        except OSError as error:
            raise ValueError(f"{name or 'the film'} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if name else str(error)) from error

    def tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask` of texts."""
        reader = self._reader()
        pad, sep = (reader.token_to_id(token) for token in ("[PAD]", "[SEP]"))
        ids = np.full((len(texts), self.text_len + 1), pad, np.int64)
        for number, (row, text) in enumerate(zip(ids, texts, strict=True), 1):
            pieces = reader.encode(text, add_special_tokens=False).ids[: self.text_len]
            if not pieces:
                raise ValueError(f"text {number} of {len(texts)} has no word")
            row[: len(pieces) + 1] = [*pieces, sep]
        lens = (ids == sep).argmax(axis=1) + 1
        return {"input_ids": ids, "attention_mask": (np.arange(ids.shape[1]) < lens[:, None]).astype(np.int64)}

    def batch_decode(self, sequences: Any, **_: Any) -> list[str]:
        """The texts of rows of token ids, without special tokens."""
        return [self.decode(sequence) for sequence in sequences]

    def decode(self, token_ids: Any, **_: Any) -> str:
        """The text of token ids, without special tokens."""
        reader = self._reader()
        tokens = [str(reader.id_to_token(int(number))) for number in token_ids]
        tokens = [token for token in tokens if token not in SPECIAL_TOKENS]
        if not tokens:
            return ""
        tokens[0] = tokens[0].removeprefix("##") or tokens[0]
        return decoders.WordPiece(prefix="##", cleanup=True).decode(tokens)

    def _reader(self) -> tokenizers.Tokenizer:
        vocabulary = self.tokenizer.get_vocab()
        return word_pieces(tuple(sorted(vocabulary, key=vocabulary.__getitem__)))

    def _stored(self, film: Film) -> np.ndarray:
        """Pixels uint8 `[H, W]` as they come out of the JPEG that training stored."""
        if isinstance(film, str | os.PathLike):
            film = Path(film).read_bytes()
        if isinstance(film, bytes):
            pixels, ready = decode(film)
            height, width = pixels.shape
            square_already = height == width == self.record_size
            if ready and (square_already if self.record_square else min(height, width) <= self.record_size):
                return read_jpeg(film)
        else:
            pixels = upright_gray(film if isinstance(film, Image.Image) else image_of(film))
        if self.record_square:
            pixels = fitted(pixels, self.record_size)
        elif min(pixels.shape) > self.record_size:
            size = [max(1, round(side * self.record_size / min(pixels.shape))) for side in pixels.shape[::-1]]
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
        return read_jpeg(buffer.getvalue())


@functools.lru_cache(maxsize=4)
def word_pieces(vocabulary: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Lower-casing BERT WordPiece over tokens in the order of their ids."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    reader = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    reader.normalizer = normalizers.BertNormalizer(lowercase=True)
    reader.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return reader


def clean_question(question: str) -> str:
    """A question in lower case without punctuation, as in the released code."""
    question = question.lower()
    for dropped in _DROPPED:
        question = question.replace(dropped, "")
    return " ".join(question.replace("'s", " 's").split()).replace("x ray", "x-ray")


def decode(data: bytes) -> tuple[np.ndarray, bool]:
    """An image file -> uint8 `[H, W]`, and whether it is a gray JPEG that training stored as it was.

    Raises:
        ValueError: no image, or a damaged one, half of which would look like a pathology.
    """
    if data[128:132] == b"DICM":
        raise ValueError("DICOM is read by medvill_jax only: convert it to PNG with the window that you want to see")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.format == "JPEG" and _END_OF_JPEG not in data:
                raise ValueError("the file is cut off: it has no end-of-image mark")
            gray_jpeg = image.format == "JPEG" and image.mode == "L"
            return upright_gray(image), gray_jpeg and image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1)
    except Exception as error:  # bad bytes make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ValueError(f"not an image, or damaged ({error})") from error


def image_of(array: np.ndarray) -> Image.Image:
    """An image of pixels. Raises `ValueError` for anything else."""
    gray = isinstance(array, np.ndarray) and array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = isinstance(array, np.ndarray) and array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (gray or colour) or not array.size:
        raise ValueError(FORMS)
    return Image.fromarray(np.ascontiguousarray(array))


def upright_gray(image: Image.Image) -> np.ndarray:
    """uint8 `[H, W]` of an image of any mode.

    Transparent pixels become black, the colour of air. Values of more than 8 bits are scaled by the smallest bit depth
    that holds the brightest pixel, so that 12-bit images stored in 16 bits keep their brightness.
    """
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise ValueError(f"an image of {image.width} x {image.height} pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a pixel is not a finite number")
        values -= min(values.min(), 0)
        bits = max(8, int(np.ceil(np.log2(values.max() + 1))))
        return np.round(values * (255 / (2**bits - 1))).astype(np.uint8)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour)
    elif image.mode == "P":
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def read_jpeg(data: bytes) -> np.ndarray:
    """uint8 `[H, W]` of a gray JPEG."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError("the JPEG cannot be decoded; save it in another format")
    return pixels


def fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 `[H, W]` -> `[side, side]`: the whole image, as large as it fits, centred on black."""
    height, width = pixels.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    inner = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((side, side), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = inner
    return canvas


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 `[H, W]` -> `[size, size]`: padded to a square with black, then resized."""
    height, width = pixels.shape
    side = max(height, width)
    top, left = -round((height - side) / 2), -round((width - side) / 2)
    padded = np.zeros((side, side), np.uint8)
    padded[top : top + height, left : left + width] = pixels
    return cv2.resize(padded, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)


def _listed(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
