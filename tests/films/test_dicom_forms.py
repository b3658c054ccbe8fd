"""DICOM as it really comes: what a form is read as, or the reason that it is refused with; and any of them together."""

import io
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_prep.images import ImageError, ImageOptions, encode
from tests.films.test_dicom import dataset, written

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.filewriter import write_file_meta_info  # noqa: E402
from pydicom.uid import (  # noqa: E402
    BasicTextSRStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from data_prep import dicom  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
PLAIN = RAMP / 4095 * 255
BIG = RAMP.astype(np.int64)
SIGNED = (BIG - 2048).astype(np.int16)
BYTES = (RAMP >> 4).astype(np.uint8)
COLOURS = np.repeat(BYTES[..., None], 3, axis=-1)


def film(pixels: np.ndarray = RAMP, *, bits: int = 12, **tags) -> Dataset:
    return dataset(pixels, bits=bits, **tags)


def shown(data: Dataset | bytes, normalization: str = "window") -> np.ndarray:
    return dicom.to_gray(data if isinstance(data, bytes) else written(data), normalization).astype(int)


def without(data: Dataset, *names: str) -> Dataset:
    if "PixelData" in data:
        data["PixelData"].VR = "OW"
    for name in names:
        del data[name]
    return data


def patched(data: Dataset, old: bytes, new: bytes) -> bytes:
    """A file with text that pydicom would not write."""
    whole = written(data)
    assert len(old) == len(new)
    assert whole.count(old) == 1
    return whole.replace(old, new)


def parts(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> tuple[bytes, bytes]:
    """File header behind the preamble, and data set, of a film in a transfer syntax."""
    data.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        size = 4 if data.BitsAllocated == 32 else 2
        data.PixelData = np.frombuffer(data.PixelData, f"<u{size}").byteswap().tobytes()
        data["PixelData"].VR = "OW"
    whole = written(data)
    end = 132 + 12 + int.from_bytes(whole[140:144], "little")
    return whole[132:end], whole[end:]


def header(syntax: str) -> bytes:
    data, buffer = film(), io.BytesIO()
    data.file_meta.TransferSyntaxUID = syntax
    write_file_meta_info(buffer, data.file_meta)
    return buffer.getvalue()


def table(first: int, entries, *, bits: int = 16, count: int | None = None, kind: str = "<u2") -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) if count is None else count, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries).astype(kind).tobytes())
    return [item]


def enhanced(centre: int, width: int) -> list[Dataset]:
    groups, window = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = centre, width
    groups.FrameVOILUTSequence = [window]
    return [groups]


def padded(pixels: np.ndarray, value: int) -> np.ndarray:
    pixels = pixels.copy()
    pixels[:, :8] = value
    return pixels


def seen(pixels: np.ndarray, inverted: bool = False) -> np.ndarray:
    """The grays of `padded` pixels: their range without the first eight columns, which are black."""
    inside = pixels[:, 8:].astype(float)
    gray = (inside - inside.min()) / np.ptp(inside) * 255
    return np.hstack([np.zeros((64, 8)), 255 - gray if inverted else gray])


def linear(centre: float, width: float) -> np.ndarray:
    return np.clip((BIG - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255


def jpeg_of_gray() -> Dataset:
    smooth = cv2.imencode(".jpg", COLOURS, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    data = film(COLOURS, bits=8, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="YBR_FULL_422")
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.PixelData = encapsulate([smooth])
    return data


PAD = {"PixelPaddingValue": 65000}
HIGH = RAMP // 2 + 1000
CUT = np.clip(BIG, 1000, 3000)
READ = {
    # padding
    "padding and intercept": (
        film(padded(HIGH, 65000), bits=16, RescaleIntercept=-1024, RescaleSlope=1, **PAD),
        seen(HIGH),
    ),
    "padding and slope": (
        film(padded(HIGH, 65000), bits=16, RescaleIntercept=7, RescaleSlope="0.25", **PAD),
        seen(HIGH),
    ),
    "padding, MONOCHROME1": (film(padded(HIGH, 65000), bits=16, inverted=True, **PAD), seen(HIGH, True)),
    "padding and window": (
        film(padded(RAMP, 4095), WindowCenter=2048, WindowWidth=4096, PixelPaddingValue=4095),
        np.where(padded(RAMP, 4095) == 4095, 0, PLAIN),
    ),
    "padding range": (
        film(padded(HIGH, 60500), bits=16, PixelPaddingValue=60000, PixelPaddingRangeLimit=61000),
        seen(HIGH),
    ),
    "padding range, the other way round": (
        film(padded(HIGH, 60500), bits=16, PixelPaddingValue=61000, PixelPaddingRangeLimit=60000),
        seen(HIGH),
    ),
    "padding of signed pixels": (
        film(padded(SIGNED, -32768), bits=16, PixelPaddingValue=-32768, RescaleIntercept=-1024, RescaleSlope=1),
        seen(SIGNED),
    ),
    "padding of everything is none": (film(RAMP, PixelPaddingValue=0, PixelPaddingRangeLimit=4095), PLAIN),
    "padding above the stored bits": (film(padded(RAMP, 0xFFFF), PixelPaddingValue=0xFFFF), seen(RAMP)),
    "padding that no pixel has": (film(PixelPaddingValue=40000), PLAIN),
    "padding of 8 bits": (film(padded(BYTES // 2, 255), bits=8, PixelPaddingValue=255), seen(BYTES // 2)),
    # bits
    "dirty unused bits": (film(RAMP | 0xF000), PLAIN),
    "signed, sign not extended": (film((SIGNED & 0xFFF).astype(np.int16)), PLAIN),
    "signed, overlay in the upper bits": (film(((SIGNED & 0xFFF) | 0x5000).astype(np.int16)), PLAIN),
    "8 bits in 16": (film(RAMP >> 4, bits=8), BYTES),
    "32 bits": (film(RAMP.astype(np.uint32) * 1_000_000, bits=32), PLAIN),
    "32 bits, signed": (film((SIGNED.astype(np.int32) * 1000), bits=32), PLAIN),
    "no HighBit": (without(film(), "HighBit"), PLAIN),
    "no BitsStored": (without(film(), "BitsStored"), PLAIN),
    "neither": (without(film(), "BitsStored", "HighBit"), PLAIN),
    "no PixelRepresentation": (without(film(), "PixelRepresentation"), PLAIN),
    "no BitsAllocated": (without(film(), "BitsAllocated"), PLAIN),
    "no BitsAllocated, 8 bits": (without(film(BYTES, bits=8), "BitsAllocated"), BYTES),
    "no BitsAllocated, implicit": (
        parts(without(film(PixelPaddingValue=5000), "BitsAllocated"), ImplicitVRLittleEndian)[1],
        PLAIN,
    ),
    "VOI LUT, implicit": (parts(film(VOILUTSequence=table(0, BIG.ravel())), ImplicitVRLittleEndian)[1], PLAIN),
    "VOI LUT, big endian": (
        parts(film(VOILUTSequence=table(0, BIG.ravel(), kind=">u2")), ExplicitVRBigEndian)[1],
        PLAIN,
    ),
    "no SamplesPerPixel": (without(film(), "SamplesPerPixel"), PLAIN),
    "NumberOfFrames 0": (film(NumberOfFrames=0), PLAIN),
    "NumberOfFrames 1": (film(NumberOfFrames=1), PLAIN),
    "spaces around MONOCHROME2": (patched(film(), b"MONOCHROME2 ", b" MONOCHROME2"), PLAIN),
    # modality
    "slope alone": (
        film(WindowCenter=4096, WindowWidth=4001, RescaleSlope=2),
        np.clip((2 * BIG - 4095.5) / 4000 + 0.5, 0, 1) * 255,
    ),
    "intercept alone": (film(WindowCenter=1024, WindowWidth=4096, RescaleIntercept=-1024), linear(2048, 4096)),
    "negative slope": (film(RescaleSlope=-1, RescaleIntercept=4095), 255 - PLAIN),
    "modality LUT": (film(ModalityLUTSequence=table(0, 4095 - BIG.ravel(), bits=12)), 255 - PLAIN),
    "modality LUT beside a rescale": (
        film(ModalityLUTSequence=table(0, 4095 - BIG.ravel()), RescaleSlope="0.01", RescaleIntercept=5),
        255 - PLAIN,
    ),
    "modality LUT, then window": (
        film(ModalityLUTSequence=table(0, 2 * BIG.ravel()), WindowCenter=4096, WindowWidth=4001),
        np.clip((2 * BIG - 4095.5) / 4000 + 0.5, 0, 1) * 255,
    ),
    # VOI LUT
    "VOI LUT narrower than declared": (film(VOILUTSequence=table(0, BIG.ravel())), PLAIN),
    "VOI LUT narrower, not to a power of two": (film(VOILUTSequence=table(0, BIG.ravel() // 5)), BIG // 5 / 819 * 255),
    "VOI LUT wider than declared": (film(VOILUTSequence=table(0, BIG.ravel(), bits=8)), PLAIN),
    "VOI LUT that never gets white": (
        film(VOILUTSequence=table(0, BIG.ravel() * 3 // 4, bits=12)),
        BIG * 3 // 4 / 4095 * 255,
    ),
    "VOI LUT, 8 bits in words": (film(VOILUTSequence=table(0, BIG.ravel() >> 4, bits=8)), BYTES),
    "VOI LUT, 8 bits packed": (film(VOILUTSequence=table(0, BIG.ravel() >> 4, bits=8, kind="u1")), BYTES),
    "VOI LUT, 65536 entries": (
        film(RAMP * 16, bits=16, VOILUTSequence=table(0, 65535 - np.arange(65536), count=0)),
        255 - BIG * 16 / 65535 * 255,
    ),
    "VOI LUT from a negative value": (film(SIGNED, VOILUTSequence=table(-2048, BIG.ravel(), bits=12)), PLAIN),
    "VOI LUT from a negative value, without its sign": (
        film(SIGNED, VOILUTSequence=table(63488, BIG.ravel(), bits=12)),
        PLAIN,
    ),
    "VOI LUT of a part": (
        film(VOILUTSequence=table(1000, np.arange(2001), bits=11)),
        np.clip(BIG - 1000, 0, 2000) / 2047 * 255,
    ),
    "VOI LUT of 0 bits": (film(VOILUTSequence=table(0, BIG.ravel(), bits=0)), PLAIN),
    "VOI LUT beside a window": (film(VOILUTSequence=table(0, BIG.ravel()), WindowCenter=9, WindowWidth=9), PLAIN),
    "VOI LUT without data": (film(VOILUTSequence=[Dataset()], WindowCenter=2000, WindowWidth=999), linear(2000, 999)),
    # windows
    "window": (film(WindowCenter=2000, WindowWidth=1001), linear(2000, 1001)),
    "window before inversion": (film(inverted=True, WindowCenter="500.5", WindowWidth=1001), 255 - linear(500.5, 1001)),
    "several windows": (film(WindowCenter=[2000, 9], WindowWidth=[1001, 9]), linear(2000, 1001)),
    "first window empty": (
        patched(film(WindowCenter=["1111", "2000"], WindowWidth=["1001", "1001"]), b"1111\\2000", b"    \\2000"),
        linear(2000, 1001),
    ),
    "decimal comma": (
        patched(film(WindowCenter="2000.5", WindowWidth=1001), b"2000.5", b"2000,5"),
        linear(2000.5, 1001),
    ),
    "decimal comma, implicit": (
        b"".join(parts(film(WindowCenter="2000.5", WindowWidth=1001), ImplicitVRLittleEndian)).replace(
            b"2000.5", b"2000,5"
        ),
        linear(2000.5, 1001),
    ),
    "decimal comma in a rescale": (
        patched(film(WindowCenter=1000, WindowWidth=501, RescaleSlope="0.5000"), b"0.5000", b"0,5000"),
        np.clip((BIG / 2 - 999.5) / 500 + 0.5, 0, 1) * 255,
    ),
    "garbage in a window": (patched(film(WindowCenter="1111", WindowWidth=9), b"1111", b"abcd"), PLAIN),
    "centre without width": (film(WindowCenter=100), PLAIN),
    "width 0": (film(WindowCenter=100, WindowWidth=0), PLAIN),
    "width -5": (film(WindowCenter=100, WindowWidth=-5), PLAIN),
    "width 1": (film(WindowCenter=2000, WindowWidth=1), np.where(BIG > 1999.5, 255, 0)),
    "width 0.5, LINEAR_EXACT": (
        film(WindowCenter=2000, WindowWidth="0.5", VOILUTFunction="LINEAR_EXACT"),
        np.clip((BIG - 2000) / 0.5 + 0.5, 0, 1) * 255,
    ),
    "SIGMOID": (
        film(WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID"),
        255 / (1 + np.exp(-4 * (BIG - 2000) / 1000)),
    ),
    "window far away": (film(WindowCenter=-9000, WindowWidth=10), PLAIN),
    "window of values far from zero": (
        film(WindowCenter=16_002_048, WindowWidth=11, RescaleIntercept=16_000_000, RescaleSlope=1),
        linear(2048, 11),
    ),
    "window of an enhanced image": (film(SharedFunctionalGroupsSequence=enhanced(2000, 1001)), linear(2000, 1001)),
    # presentation
    "MONOCHROME1, INVERSE": (film(inverted=True, PresentationLUTShape="INVERSE"), 255 - PLAIN),
    "MONOCHROME2, IDENTITY": (film(PresentationLUTShape="IDENTITY"), PLAIN),
    "gray as RGB": (
        film(COLOURS, bits=8, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB"),
        BYTES,
    ),
    "gray as RGB, by plane": (
        film(
            COLOURS,
            bits=8,
            SamplesPerPixel=3,
            PlanarConfiguration=1,
            PhotometricInterpretation="RGB",
            PixelData=np.moveaxis(COLOURS, -1, 0).tobytes(),
        ),
        BYTES,
    ),
    "gray as YBR": (
        film(
            np.dstack([BYTES, np.full_like(COLOURS[..., :2], 128)]),
            bits=8,
            SamplesPerPixel=3,
            PlanarConfiguration=0,
            PhotometricInterpretation="YBR_FULL",
        ),
        BYTES,
    ),
    "gray as compressed YBR": (jpeg_of_gray(), BYTES),
    # how it is written
    "implicit": (b"\0" * 128 + b"DICM" + b"".join(parts(film(), ImplicitVRLittleEndian)), PLAIN),
    "big endian": (b"\0" * 128 + b"DICM" + b"".join(parts(film(), ExplicitVRBigEndian)), PLAIN),
    "big endian, 8 bits in words": (b"".join(parts(film(BYTES, bits=8), ExplicitVRBigEndian)), BYTES),
    "no preamble": (b"".join(parts(film())), PLAIN),
    "no preamble, implicit": (b"".join(parts(film(), ImplicitVRLittleEndian)), PLAIN),
    "DICM without preamble": (b"DICM" + b"".join(parts(film())), PLAIN),
    "data set alone": (parts(film())[1], PLAIN),
    "data set alone, implicit": (parts(film(), ImplicitVRLittleEndian)[1], PLAIN),
    "data set alone, big endian": (parts(film(), ExplicitVRBigEndian)[1], PLAIN),
    "preamble without header": (b"\0" * 128 + b"DICM" + parts(film())[1], PLAIN),
    "preamble without header, implicit": (b"\0" * 128 + b"DICM" + parts(film(), ImplicitVRLittleEndian)[1], PLAIN),
    "says implicit, is explicit": (header(ImplicitVRLittleEndian) + parts(film())[1], PLAIN),
    "says explicit, is implicit": (header(ExplicitVRLittleEndian) + parts(film(), ImplicitVRLittleEndian)[1], PLAIN),
    "says big endian, is little": (header(ExplicitVRBigEndian) + parts(film())[1], PLAIN),
    "says little endian, is big": (header(ExplicitVRLittleEndian) + parts(film(), ExplicitVRBigEndian)[1], PLAIN),
    "bytes behind the pixels": (film(PixelData=RAMP.tobytes() + b"\0" * 100), PLAIN),
    "pixels wider than high": (film(PixelSpacing=["0.15", "0.15"]), PLAIN),
}


@pytest.mark.parametrize("form", READ)
def test_read(form):
    data, expected = READ[form]
    assert np.abs(shown(data) - expected).max() <= 0.51


def compressed(syntax: str) -> Dataset:
    data = film(BYTES, bits=8)
    data.compress(RLELossless, generate_instance_uid=False)
    data.file_meta.TransferSyntaxUID = syntax
    return data


def colour(photometric: str = "RGB", **tags) -> Dataset:
    values = COLOURS.copy()
    values[:5, :5, 0] ^= 0x40
    common = {"bits": 8, "SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": photometric}
    return film(values, **{**common, **tags})


REFUSED = {
    "multi-frame": (film(NumberOfFrames=3, PixelData=RAMP.tobytes() * 3), "a multi-frame image \\(3 frames\\)"),
    "palette": (film(BYTES, bits=8, PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR"),
    "palette, no samples": (
        without(film(PhotometricInterpretation="PALETTE COLOR"), "SamplesPerPixel"),
        "PALETTE|Samples",
    ),
    "HSV": (colour("HSV"), "photometric interpretation HSV"),
    "a colour": (colour(), "a colour image \\(RGB\\)"),
    "16-bit colours": (colour(BitsAllocated=16, BitsStored=16, HighBit=15, Columns=32), "colours of 16 bits"),
    "one sample of RGB": (film(PhotometricInterpretation="RGB"), "1 samples a pixel are no RGB image"),
    "three of MONOCHROME2": (colour("MONOCHROME2"), "3 samples a pixel are no MONOCHROME2 image"),
    "no photometric": (without(film(), "PhotometricInterpretation"), "DICOM without PhotometricInterpretation"),
    "HighBit 15": (film(HighBit=15), "HighBit 15 with BitsStored 12"),
    "HighBit 0": (film(HighBit=0), "HighBit 0 with BitsStored 12"),
    "BitsStored 20": (film(BitsStored=20, HighBit=19), "BitsStored 20 .* BitsAllocated 16"),
    "BitsStored 0": (film(BitsStored=0), "BitsStored 0"),
    "1 bit": (film(BYTES, bits=1, BitsAllocated=1), "BitsAllocated 1"),
    "64 bits": (film(RAMP.astype(np.uint64), bits=64), "BitsAllocated 64"),
    "12 bits packed": (film(BitsAllocated=12), "BitsAllocated 12"),
    "PixelRepresentation 3": (film(PixelRepresentation=3), "PixelRepresentation 3"),
    "shape against photometric": (film(PresentationLUTShape="INVERSE"), "contradict each other"),
    "photometric against shape": (film(inverted=True, PresentationLUTShape="IDENTITY"), "contradict each other"),
    "slope 0": (film(RescaleSlope=0, RescaleIntercept=0), "RescaleSlope 0"),
    "rescale that is none": (patched(film(RescaleSlope="1111"), b"1111", b"abcd"), "RescaleSlope is no number"),
    "unknown function": (film(WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC"), "VOILUTFunction CUBIC"),
    "VOI LUT cut off": (film(VOILUTSequence=table(0, range(9), count=4096)), "VOILUTSequence has 9 of its 4096"),
    "VOI LUT without descriptor": (
        film(VOILUTSequence=[without(table(0, range(9))[0], "LUTDescriptor")]),
        "no LUTDescriptor of three",
    ),
    "modality LUT cut off": (film(ModalityLUTSequence=table(0, range(9), count=10)), "ModalityLUTSequence has 9 of"),
    "presentation LUT": (film(PresentationLUTSequence=table(0, range(4096))), "PresentationLUTSequence"),
    "pixels cut off": (film(PixelData=RAMP.tobytes()[:-2]), "less than expected"),
    "pixels twice": (film(PixelData=RAMP.tobytes() * 2 + b"\0\0"), "bytes of pixels for an image of"),
    "long pixels": (film(PixelSpacing=["0.9", "0.1"]), "PixelSpacing makes pixels 9 times"),
    "no image": (without(film(), "PixelData"), "DICOM without PixelData: Computed Radiography Image Storage"),
    "report": (without(film(SOPClassUID=BasicTextSRStorage), "PixelData"), "without PixelData: Basic Text SR Storage"),
    "presentation state": (
        without(film(SOPClassUID=GrayscaleSoftcopyPresentationStateStorage), "PixelData"),
        "without PixelData: Grayscale Softcopy Presentation State Storage",
    ),
    "unknown kind": (without(film(SOPClassUID="1.2.3", Modality="SR"), "PixelData"), "without PixelData: SR"),
    "floats": (
        without(film(FloatPixelData=np.ones((64, 64), "<f4").tobytes()), "PixelData"),
        "PixelData: .*FloatPixelData",
    ),
    "no rows": (without(film(), "Rows"), "DICOM without Rows"),
    "no first element": (b"\x20" + parts(film())[1], "neither the prefix DICM nor a DICOM element"),
    "header alone": (b"\0" * 128 + b"DICM" + header(ExplicitVRLittleEndian), "DICOM"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_refused_with_the_reason(form):
    data, reason = REFUSED[form]
    with pytest.raises(ImageError, match=reason) as caught:
        shown(data)
    assert caught.value.reason == "unreadable_image"


def test_garbage_frames():
    with pytest.raises(ImageError, match="NumberOfFrames is not an integer"):
        shown(patched(film(NumberOfFrames=1234), b"1234", b"abcd"))


@pytest.mark.parametrize("declared", [RLELossless, JPEGBaseline8Bit, ExplicitVRLittleEndian, None])
def test_the_stream_says_how_it_is_compressed(declared):
    data = compressed(RLELossless)
    head = b"" if declared is None else header(declared)
    assert np.abs(shown(head + parts(data, RLELossless)[1]) - BYTES).max() == 0


def test_pixels_that_are_said_to_be_compressed_and_are_not():
    assert np.abs(shown(header(JPEGBaseline8Bit) + parts(film())[1]) - PLAIN).max() <= 0.51


def test_compressed_in_a_way_that_nothing_tells():
    data = compressed(RLELossless)
    data.PixelData = encapsulate([bytes(range(100))])
    with pytest.raises(ImageError, match="compressed in an unknown way"):
        shown(parts(data, RLELossless)[1])


def test_a_deflated_data_set_that_is_none():
    data = film()
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    whole = written(data)
    end = 132 + 12 + int.from_bytes(whole[140:144], "little")
    assert zlib.decompress(whole[end:], -zlib.MAX_WBITS)
    with pytest.raises(ImageError, match="DICOM, error"):
        shown(whole[:end] + parts(film())[1])


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ({"PixelSpacing": ["0.2", "0.1"]}, (128, 64)),
        ({"ImagerPixelSpacing": ["0.1", "0.2"]}, (64, 128)),
        ({"PixelAspectRatio": ["3", "2"]}, (96, 64)),
        ({"PixelSpacing": ["0.1", "0.1"], "PixelAspectRatio": ["3", "2"]}, (64, 64)),
        ({"PixelSpacing": ["0.1755", "0.1750"]}, (64, 64)),
        ({"PixelSpacing": ["0", "0.1"], "PixelAspectRatio": ["1", "1"]}, (64, 64)),
    ],
)
def test_pixels_that_are_not_square(tags, shape):
    gray = shown(film(**tags))
    assert gray.shape == shape
    assert (gray.min(), gray.max()) == (0, 255)


@pytest.mark.parametrize("form", ["no preamble", "data set alone, implicit", "data set alone, big endian"])
def test_a_file_without_preamble_is_taken_for_dicom(form):
    assert encode(READ[form][0], ImageOptions(64)).width == 64


def test_equalize_and_range_leave_padding_out():
    data = film(padded(HIGH, 65000), bits=16, WindowCenter=9, WindowWidth=9, RescaleIntercept=-1024, **PAD)
    assert np.abs(shown(data, "range") - seen(HIGH)).max() <= 0.51
    gray = shown(data, "equalize")
    assert gray[:, :8].max() == 0
    assert gray[:, 8:].max() == 255


# ---------------------------------------------------------------------------------------------------------------------
# Any of it together, beside the formulas of the standard.

SLOPES = (None, 1, 2, 0.5, -1, 0.25, 3)
WINDOWS = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from((None, "LINEAR", "LINEAR_EXACT", "SIGMOID")),
        st.integers(-3000, 70000).map(lambda n: n / 2),
        st.integers(-2, 20000).map(lambda n: n / 2),
    ),
)


@st.composite
def forms(draw):
    allocated = draw(st.sampled_from((8, 16, 16, 32)))
    stored = draw(st.integers(1, allocated))
    return {
        "allocated": allocated,
        "stored": stored,
        "high": draw(st.sampled_from((stored - 1,) * 9 + (allocated - 1, stored))),
        "signed": draw(st.booleans()),
        "inverted": draw(st.booleans()),
        "slope": draw(st.sampled_from(SLOPES)),
        "intercept": draw(st.sampled_from((None, 0, -1024, 7.5))),
        "window": draw(WINDOWS),
        "padding": draw(st.sampled_from((None, 0, 1, -1, -2000, 255, 63536, 65535))),
        "limit": draw(st.sampled_from((None, None, 3, -5))),
        "syntax": draw(st.sampled_from((ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian))),
        "words": draw(st.lists(st.integers(0, 2**allocated - 1), min_size=12, max_size=12)),
    }


def two_complement(number: int, bits: int, signed: bool) -> int:
    number %= 1 << bits
    return number - (1 << bits) if signed and number >> (bits - 1) else number


def by_the_standard(form: dict) -> tuple[list[float | None], bool]:
    """For every word its gray in 0..255, None for padding; and whether rounding decides what is shown."""
    signed, stored, allocated = form["signed"], form["stored"], form["allocated"]
    values = [two_complement(word, stored, signed) for word in form["words"]]
    words = [two_complement(word, allocated, signed) for word in form["words"]]
    padding = [False] * len(values)
    if form["padding"] is not None:
        ends = [
            two_complement(end, min(16, allocated), signed)
            for end in (form["padding"], form["limit"])
            if end is not None
        ]
        fits = all(two_complement(end, stored, signed) == end for end in ends)
        padding = [min(ends) <= value <= max(ends) for value in (values if fits else words)]
        padding = [False] * len(values) if all(padding) else padding
    slope, intercept = form["slope"], form["intercept"]
    output = [value * (1 if slope is None else slope) + (intercept or 0) for value in values]
    inside = [value for value, pad in zip(output, padding, strict=True) if not pad]
    low, high = min(inside), max(inside)
    choices = [[(value - low) / max(high - low, 1e-6) for value in output]]
    if form["window"] is not None:
        function, centre, width = form["window"]
        if function == "SIGMOID" and width > 0:
            choices.insert(0, [1 / (1 + np.exp(np.clip(-4 * (value - centre) / width, -700, 700))) for value in output])
        elif function == "LINEAR_EXACT" and width > 0:
            choices.insert(0, [(value - centre) / width + 0.5 for value in output])
        elif function in (None, "LINEAR") and width >= 1:
            below = centre - 0.5
            if width == 1:
                choices.insert(0, [float(value > below) for value in output])
            else:
                choices.insert(0, [(value - below) / (width - 1) + 0.5 for value in output])
    for choice in choices:
        grays = [255 * min(max(gray, 0), 1) for gray in choice]
        alike = {
            len({round(gray + nudge) for gray, pad in zip(grays, padding, strict=True) if not pad}) == 1
            for nudge in (-0.01, 0, 0.01)
        }
        if alike == {False} or low == high or choice is choices[-1]:
            break
        if len(alike) == 2:
            return [], True
    grays = [255 - gray if form["inverted"] else gray for gray in grays]
    return [None if pad else gray for gray, pad in zip(grays, padding, strict=True)], False


@settings(max_examples=300, deadline=None)
@given(forms())
def test_any_form_has_the_pixels_of_the_standard_or_a_reason(form):
    allocated, signed = form["allocated"], form["signed"]
    pixels = np.array(form["words"], f"<u{allocated // 8}").reshape(3, 4)
    data = film(pixels, bits=form["stored"], inverted=form["inverted"], HighBit=form["high"])
    data.PixelRepresentation = int(signed)
    if form["slope"] is not None:
        data.RescaleSlope = form["slope"]
    if form["intercept"] is not None:
        data.RescaleIntercept = form["intercept"]
    if form["window"] is not None:
        function, data.WindowCenter, data.WindowWidth = form["window"]
        if function is not None:
            data.VOILUTFunction = function
    for name, end in (("PixelPaddingValue", form["padding"]), ("PixelPaddingRangeLimit", form["limit"])):
        if end is not None:
            data.add_new(name, "SS" if end < 0 else "US", end)
    whole = b"".join(parts(data, form["syntax"]))
    if form["high"] != form["stored"] - 1:
        with pytest.raises(ImageError, match="HighBit"):
            dicom.to_gray(whole)
        return
    expected, undecided = by_the_standard(form)
    assume(not undecided)
    for gray, right in zip(dicom.to_gray(whole).ravel(), expected, strict=True):
        assert gray == 0 if right is None else abs(float(gray) - right) <= 0.51


WHOLE = written(film(RAMP[:4, :8], VOILUTSequence=table(0, range(32)), PixelPaddingValue=3, WindowCenter=9))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(128, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_bytes_end_in_a_traceback(changes):
    """Whatever is changed in a file, it is read, or refused."""
    whole = bytearray(WHOLE)
    for place, byte in changes:
        whole[place] = byte
    try:
        gray = dicom.to_gray(bytes(whole))
    except ImageError:
        return
    assert gray.dtype == np.uint8
