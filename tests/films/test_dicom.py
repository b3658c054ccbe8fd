"""DICOM: windows, bit depths, photometric interpretation, compression, and what must be refused."""

import io
import itertools
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep import images, mimic_cxr
from data_prep.phantom import write_tree
from medvill_jax.data import records
from medvill_jax.data.records import DataError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from data_prep import dicom  # noqa: E402
from medvill_jax.films import dicom_file  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom"
RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))  # [48, 64], dark on the left


def dataset(values: np.ndarray, *, bits: int, inverted: bool = False, **tags) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * values.itemsize, bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def written(data: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def stored(bits: int, inverted: bool = False, kind: str = "u") -> np.ndarray:
    ramp = (1 - RAMP if inverted else RAMP) * (2**bits - 1)
    values = np.round(ramp - (2 ** (bits - 1) if kind == "i" else 0))
    return values.astype(f"{kind}{1 if bits <= 8 else 2}")


def gray(data: Dataset, normalization: str = "window") -> np.ndarray:
    return dicom.to_gray(written(data), normalization).astype(int)


@pytest.mark.parametrize(("bits", "inverted"), list(itertools.product((8, 10, 12, 15, 16), (False, True))))
def test_every_bit_depth_comes_out_bone_white(bits, inverted):
    shown = gray(dataset(stored(bits, inverted), bits=bits, inverted=inverted))
    assert np.abs(shown - RAMP * 255).max() <= 1


def test_signed_values_and_rescale():
    signed = dataset(stored(12, kind="i"), bits=12)
    assert np.abs(gray(signed) - RAMP * 255).max() <= 1
    slope = dataset(stored(12), bits=12, RescaleSlope="2", RescaleIntercept="-1000")
    slope.WindowCenter, slope.WindowWidth = "3095.5", "8191"
    assert np.abs(gray(slope) - RAMP * 255).max() <= 1


def test_windows():
    values = stored(12)
    data = dataset(values, bits=12, WindowCenter=["2048", "100"], WindowWidth=["1001", "10"])
    expected = np.clip((values.astype(float) - 2047.5) / 1000 + 0.5, 0, 1) * 255
    assert np.abs(gray(data) - expected).max() <= 1
    data.VOILUTFunction = "LINEAR_EXACT"
    assert np.abs(gray(data) - np.clip((values - 2048.0) / 1001 + 0.5, 0, 1) * 255).max() <= 1
    data.VOILUTFunction = "SIGMOID"
    assert np.abs(gray(data) - 255 / (1 + np.exp(-4 * (values - 2048.0) / 1001))).max() <= 1
    assert np.abs(gray(data, "range") - RAMP * 255).max() <= 1
    for centre, width in (("nan", "5"), ("5", "0"), ("90000", "2"), ("", "")):
        data = dataset(values, bits=12, WindowCenter=centre, WindowWidth=width)
        assert np.abs(gray(data) - RAMP * 255).max() <= 1, (centre, width)


def test_lookup_table():
    table = Dataset()
    table.LUTDescriptor = [256, 0, 10]
    table.LUTData = [int((i / 255) ** 2 * 1023) for i in range(256)]
    data = dataset(stored(8), bits=8, VOILUTSequence=[table])
    data["VOILUTSequence"].value[0]["LUTDescriptor"].VR = "US"
    data["VOILUTSequence"].value[0]["LUTData"].VR = "US"
    assert np.abs(gray(data) - RAMP**2 * 255).max() <= 2


def test_equalize_is_what_made_mimic_cxr_jpg():
    values = np.round(RAMP**2 * 4095).astype(np.uint16)
    expected = cv2.equalizeHist(np.round(RAMP**2 * 255).astype(np.uint8)).astype(int)
    for inverted in (False, True):
        data = dataset(4095 - values if inverted else values, bits=12, inverted=inverted, WindowCenter="9")
        assert np.abs(gray(data, "equalize") - expected).max() <= 5


def test_overlay_bits_and_padding():
    values = stored(12).copy()
    values[0, 0] |= 0x8000
    assert np.abs(gray(dataset(values, bits=12)) - RAMP * 255).max() <= 1
    values = stored(12, kind="i").copy()
    values[:, :4] = -32768
    data = dataset(values, bits=16, PixelPaddingValue=-32768)
    assert np.abs(gray(data)[:, 4:] - np.interp(RAMP, (RAMP[0, 4], 1), (0, 255))[:, 4:]).max() <= 1


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.filterwarnings("ignore")
def test_compressed(syntax):
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg")
    data = dataset(stored(12), bits=12)
    data.compress(syntax, generate_instance_uid=False)
    whole = written(data)
    assert np.abs(dicom.to_gray(whole).astype(int) - RAMP * 255).max() <= 1
    for cut in (len(whole) // 2, len(whole) - 60):
        with pytest.raises(images.ImageError):
            dicom.to_gray(whole[:cut])
    if syntax == JPEG2000Lossless:
        data.Rows, data.Columns = 30000, 2000
        with pytest.raises(images.ImageError, match="the header says"):
            dicom.to_gray(written(data))


def test_what_is_no_radiograph_is_refused():
    good = dataset(stored(12), bits=12)
    whole = written(good)
    for cut in (200, len(whole) // 2, len(whole) - 1):
        with pytest.raises(images.ImageError) as caught:
            images.to_jpeg(whole[:cut], 512)
        assert caught.value.reason == "unreadable_image"
    for tags, reason in (
        ({"Rows": 60000, "Columns": 60000}, "oversized_image"),
        ({"Rows": 0}, "unreadable_image"),
        ({"NumberOfFrames": "500"}, "unreadable_image"),
        ({"SamplesPerPixel": 7}, "unreadable_image"),
        ({"BitsStored": 0}, "unreadable_image"),
    ):
        with pytest.raises(images.ImageError) as caught:
            images.to_jpeg(written(dataset(stored(12), bits=12, **tags)), 512)
        assert caught.value.reason == reason, tags
    del good.PixelData
    with pytest.raises(images.ImageError, match="PixelData"):
        dicom.to_gray(written(good))


def after_meta(whole: bytes) -> int:
    """Where the data set starts: behind the group whose length its first element says."""
    return 132 + 12 + int.from_bytes(whole[140:144], "little")


def deflated_bomb(size: int) -> bytes:
    """A sound film with `size` zeros behind its pixels, deflated: a thousandth of that on disk."""
    plain = written(dataset(stored(12), bits=12))
    small = dataset(stored(12), bits=12)
    small.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = written(small)
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    parts = [head[: after_meta(head)], deflater.compress(plain[after_meta(plain) :])]
    parts.append(deflater.compress(struct.pack("<HH2sHI", 0x7FE1, 0x1010, b"OB", 0, size)))
    parts += [deflater.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, deflater.flush()])


def test_a_deflated_data_set_is_bounded_before_it_is_inflated(tmp_path):
    sound = dataset(stored(12), bits=12, ViewPosition="PA")
    sound.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "film.dcm"
    path.write_bytes(written(sound))
    assert np.abs(dicom.to_gray(path.read_bytes()).astype(int) - RAMP * 255).max() <= 1
    assert dicom.view_position(path) == "PA"
    assert np.abs(dicom.to_gray(deflated_bomb(8 << 20)).astype(int) - RAMP * 255).max() <= 1
    bomb = deflated_bomb(300 << 20)
    path.write_bytes(bomb)
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    with pytest.raises(images.ImageError, match="deflated data set expands") as caught:
        images.to_jpeg(bomb, 512)
    assert dicom.view_position(path) is None
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == "oversized_image"
    assert most < 16 << 20
    os.mkfifo(tmp_path / "pipe.dcm")
    assert dicom.view_position(tmp_path / "pipe.dcm") is None


def test_an_expanding_run_length_segment_is_not_decoded():
    data = dataset(stored(8), bits=8)
    data.compress(RLELossless, generate_instance_uid=False)
    [frame] = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1)
    data.PixelData = pydicom.encaps.encapsulate([frame + b"\x81\0" * (2 << 20)])
    with pytest.raises(images.ImageError, match="run-length segment expands") as caught:
        dicom.to_gray(written(data))
    assert caught.value.reason == "oversized_image"
    data.PixelData = pydicom.encaps.encapsulate([frame])
    data.BitsAllocated, data.Rows, data.Columns = 120, 8000, 8000
    with pytest.raises(images.ImageError, match="the image expands"):
        dicom.to_gray(written(data))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.filterwarnings("ignore")
def test_a_compressed_image_may_not_be_larger_than_its_header_says():
    pytest.importorskip("openjpeg")
    data = dataset(stored(12), bits=12)
    data.compress(JPEG2000Lossless, generate_instance_uid=False)
    [stream] = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1)

    def outcome(frame: bytes) -> str:
        data.PixelData = pydicom.encaps.encapsulate([frame])
        try:
            return "right" if np.abs(dicom.to_gray(written(data)).astype(int) - RAMP * 255).max() <= 1 else "wrong"
        except images.ImageError as error:
            return str(error)

    signature = dicom_file.JP2_BOXES + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    header = box(b"ihdr", struct.pack(">IIHBBBB", 48, 64, 1, 11, 7, 0, 0)) + box(b"colr", b"\1\0\0\0\0\0\x11")
    boxed = signature + box(b"jp2h", header)
    assert outcome(stream) == "right"
    assert outcome(boxed + box(b"jp2c", stream)) == "right"
    huge = stream[:8] + struct.pack(">II", 60000, 60000) + stream[16:]
    for frame in (huge, boxed + box(b"jp2c", huge), boxed + box(b"uuid", stream) + box(b"jp2c", huge)):
        assert "60000 x 60000 of 1" in outcome(frame)
    assert "64 x 48 of 16384" in outcome(stream[:40] + struct.pack(">H", 16384) + stream[42:])
    palette = signature + box(b"jp2h", header + box(b"pclr", bytes(4))) + box(b"jp2c", stream)
    assert "no header with its size" in outcome(palette)


@pytest.mark.parametrize("hidden", [b"\xff\x01", b"\xff\xd8", b"\xff\xd0", b"\xff\xde\0\x0b", b"\0"])
def test_no_marker_hides_the_frame_of_a_jpeg(hidden):
    small = cv2.imencode(".jpg", np.zeros((48, 64), np.uint8))[1].tobytes()
    data = dataset(stored(8), bits=8)
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    for frame, right in ((small, True), (small[:2] + hidden + small[2:], False)):
        data.PixelData = pydicom.encaps.encapsulate([frame])
        data["PixelData"].VR = "OB"
        if right:
            assert dicom.to_gray(written(data)).max() == 0
        else:
            with pytest.raises(images.ImageError, match="no header with its size"):
                dicom.to_gray(written(data))


def test_colour_becomes_gray():
    values = np.repeat(stored(8)[..., None], 3, axis=-1)
    data = dataset(values, bits=8, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB")
    assert np.abs(gray(data) - RAMP * 255).max() <= 1


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dicom") / "tree"
    write_tree(out, studies=24, seed=0, image_size=96, dicom=True, progress=False)
    return out


def test_dicom_and_jpeg_trees_give_the_same_records(tree: Path, tmp_path: Path) -> None:
    """Everything is equal but the pixels: those to two grays on average, the loss of the JPEG file and of the DICOM
    file's 12 bits."""
    common = {"views": (), "progress": False, "image_size": 96}
    jpg = mimic_cxr.prepare(tree, tmp_path / "jpg", images="jpg", **common)
    dcm = mimic_cxr.prepare(tree, tmp_path / "dicom", images="dicom", **common)
    assert jpg["checksum_of_ids"] == dcm["checksum_of_ids"]
    assert jpg["splits"] == dcm["splits"]
    for split in jpg["splits"]:
        pairs = zip(
            records.open_split(tmp_path / "jpg", split), records.open_split(tmp_path / "dicom", split), strict=True
        )
        for one, two in pairs:
            for key in one:
                if key != "image":
                    assert np.array_equal(one[key], two[key]), key
            a, b = (np.asarray(Image.open(io.BytesIO(record["image"])), int) for record in (one, two))
            assert a.shape == b.shape
            assert np.abs(a - b).mean() < 2
            assert np.abs(a - b).max() < 24


def test_the_dicom_distribution_alone(tree: Path, tmp_path: Path) -> None:
    """MIMIC-CXR without MIMIC-CXR-JPG: no tables but the lists, views from the files, splits by subject."""
    source = tmp_path / "mimic-cxr"
    (source / "files").parent.mkdir()
    for path in tree.rglob("*"):
        if path.suffix in (".dcm", ".txt"):
            target = source / path.relative_to(tree)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    (source / "cxr-record-list.csv.gz").symlink_to(tree / "cxr-record-list.csv.gz")
    with pytest.raises(DataError, match=r"(?s)2\.0\.0-split\.csv\.gz.*--split=subject.*--labels=report"):
        mimic_cxr.prepare(source, tmp_path / "out", progress=False)
    (source / "mimic-cxr-2.0.0-chexpert.csv.gz").symlink_to(tree / "mimic-cxr-2.0.0-chexpert.csv.gz")
    whole = mimic_cxr.prepare(tree, tmp_path / "jpg", progress=False)
    report = mimic_cxr.prepare(tmp_path, tmp_path / "out", split="subject", progress=False)
    assert report["kept"] == whole["kept"]
    assert report["checksum_of_ids"] == whole["checksum_of_ids"]
    assert report["views_not_selected"] == whole["views_not_selected"]
    assert report["subjects_in_several_splits"] == 0


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the DICOM files at {REAL}")
@pytest.mark.parametrize("normalization", list(dicom.NORMALIZATIONS))
def test_real_files(normalization):
    shown = {path.stem: dicom.to_gray(path.read_bytes(), normalization) for path in REAL.glob("*.dcm")}
    chest = shown["RG1_J2KI"].astype(int)
    height, width = chest.shape
    lung = chest[height // 4 : height // 2, width // 6 : width // 3]
    spine = chest[height // 4 : height // 2, width * 9 // 20 : width * 11 // 20]
    assert spine.mean() > lung.mean() + 20
    one, two = (shown[f"rsna_kaggle_pa_mono{n}_jpeg"].astype(int) for n in ("1tag", "2"))
    assert np.abs(one + two - 255).max() <= (3 if normalization == "equalize" else 0)
    assert two[300:600, 480:540].mean() > two[300:600, 250:350].mean() + 20
