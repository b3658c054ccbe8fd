"""The command line of `python -m data_prep`: the flags of every command, their defaults and the reasons for them."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from data_prep import sources
from data_prep.sources import table
from medvill_jax import beam_runner, private
from medvill_jax.commands import Parser

DESCRIPTION = """\
Prepares data sets for training. Every command writes one folder, --out, with the ArrayRecord files, the vocabulary,
build_report.json (rows found, kept and rejected, label counts, text lengths), DATA.md (the same as text) and
rejected.jsonl (every row that was left out, with the reason). --out appears only once it is complete. Running the same
command again changes nothing; after a kill it resumes where it stopped.

  No data yet?   python -m data_prep phantom --out=TREE --studies=200 --seed=0 --vqa
                 python -m data_prep mimic_cxr --source=TREE --out=DATA
                 python -m data_prep vqa_rad --source=TREE/vqa --out=QUESTIONS --tokenizer=DATA/tokenizer
  MIMIC-CXR:     python -m data_prep mimic_cxr --source=/path/to/mimic --out=DATA
  Open-I:        python -m data_prep open_i --source=/path/to/open_i --out=DATA
  VQA-RAD:       python -m data_prep vqa_rad --source=/path/to/vqa_rad --out=DATA
  Your own data: python -m data_prep pairs --source=index.jsonl --out=DATA
  Others, below: python -m data_prep padchest --source=/path/to/padchest --out=DATA
  Then:          python run.py --config=configs/pretrain.py:small --config.data.path=DATA
"""

_PHANTOM = """\
Draws synthetic chest radiographs with their reports and labels, and writes them in the layout of MIMIC-CXR, so that
everything runs on them as on the real data. They show no patient.

--vqa adds questions about the AP films, in the layout of VQA-RAD, for vqa_rad --source=OUT/vqa: three to five per film,
on which findings are present, where they are and how large. Answers follow from the findings of the film, not from its
report; yes and no are about equally frequent; no patient of a test question has a training question.

--masks adds where each finding was drawn: OUT/masks/p10/p10000032/s50414267/<dicom_id>.png for the film of the same
path in OUT/files, 16 bits a pixel and without loss. Bit i is set where the film would be at least ten of 255 gray
values different without finding i of the 14 of CheXpert, in the order of the label tables; `data_prep.phantom.masks`
reads it.

--priors makes the studies of a patient follow each other: the same body, and findings that are larger, smaller or as
they were, which the reports call worse, improved or unchanged; for mimic_cxr --priors.

--erased adds every film without each of its findings, all else as it was: OUT/erased/<dicom_id>/<finding>.jpg, for
medvill audit --erased=OUT/erased.

--layout writes the studies in the official files of another data set instead, for the command of that name; truth.jsonl
then says what each record must be.
"""

_MIMIC = """\
Reads the official MIMIC-CXR-JPG files (images and csv tables, .csv or .csv.gz) and the MIMIC-CXR reports:

  SOURCE/mimic-cxr-jpg/mimic-cxr-2.0.0-{split,metadata,chexpert}.csv.gz     or all of this directly in SOURCE
  SOURCE/mimic-cxr-jpg/files/p10/p10000032/s50414267/<dicom_id>.jpg         or .dcm, as in mimic-cxr/
  SOURCE/mimic-cxr/files/p10/p10000032/s50414267.txt                        or in mimic-cxr-reports.zip

Older copies are read too: tables named mimic_cxr_split.csv and so on, images in 10000032/50414267/. For MIMIC-CXR alone
(DICOM and reports), --split=subject --labels=report replace the tables of MIMIC-CXR-JPG.

--second_view and --priors add the films that belong to an image: another view of its study (a lateral, else another
frontal), and the frontal film and text of the latest earlier study of the patient, never from another split. One that
cannot be read is absent; build_report.json counts these.

A record is one image of a chosen view with the chosen sections of its report. Studies whose report has none of these
sections are left out; that is expected and does not count towards --max_rejected. A heading that names the views or the
examination (CHEST, TWO VIEWS:) opens the findings. An addendum is a separate section: --sections=findings,addendum adds
it. DATA.md says how many addenda were left out, and how many texts come from which sections.
"""

_OPEN_I = """\
Reads Open-I, the chest radiographs of Indiana University, in either of its forms:

  SOURCE/ecgen-radiology/*.xml and SOURCE/NLMCXR_png/*.png                  as NLM distributes it
  SOURCE/indiana_reports.csv, indiana_projections.csv and images/*.png      the widespread tables

The XML files do not name the view of an image. Unless indiana_projections.csv is in SOURCE too, the first image of a
report by name counts as frontal, which is right for 89 of 100 reports. Splits are made by report.
"""

_VQA_RAD = """\
Reads VQA-RAD as its authors distribute it:

  SOURCE/VQA_RAD Dataset Public.json
  SOURCE/VQA_RAD Image Folder/synpic54610.jpg and so on

A record is one question with its image, its answer and its type. Answers are normalised; OUT/answers.json lists those
of the training questions, most frequent first.
"""

_PAIRS = """\
Reads a .jsonl index with one JSON object per line:

  {"id": "a1", "image": "images/a1.jpg", "text": "Small left effusion.", "split": "train",
   "labels": ["Pleural Effusion"], "subject_id": "p7", "view": "PA"}

  id, image, text  required; image is a path relative to the index (JPEG, PNG, TIFF, ..., DICOM; gray or colour);
                   a row with labels may leave text out, or give null: it is for classification only
  split            train / valid, validate, validation, val, dev / test; rows without one are split 80 / 10 / 10 by
                   subject, from --seed
  labels           a list of positive findings, or an object such as {"Edema": 1, "Pneumonia": -1, "Fracture": null}
                   with 1 positive, 0 negative, -1 uncertain, null not mentioned
  subject_id       (or patientid), study_id, view: optional; 7, 7.0 and "7.0" are one subject, "007" is another; a row
                   without subject_id has the subject of its study, or counts as a separate subject

The findings are those of --label_names, or of a labels.txt in the folder of the index (one per line), and no others;
without either, the 14 of CheXpert and all others that the index names.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` is the name of the chosen one."""
    root = Parser("python -m data_prep", DESCRIPTION)
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=description)

    _phantom(command("phantom", "synthetic studies for trying everything out", _PHANTOM))
    _mimic_cxr(command("mimic_cxr", "the official MIMIC-CXR files", _MIMIC))
    _open_i(command("open_i", "the Indiana University radiographs", _OPEN_I))
    _vqa_rad(command("vqa_rad", "questions and answers about images", _VQA_RAD))
    _pairs(command("pairs", "your own images and texts", _PAIRS))
    for name, source in table.sources().items():
        module = sources.module(name)
        _source(command(name, source.title, f"{module.HELP}\n{_about(source)}"), source, module)
    return root


def _phantom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to make, for mimic_cxr --source")
    parser.add_argument("--studies", type=int, required=True, help="how many studies")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same tree (default: 0)")
    parser.add_argument("--image_size", type=int, default=512, help="pixels along a side (default: 512)")
    parser.add_argument("--dicom", action="store_true", help="write DICOM files too")
    parser.add_argument("--vqa", action="store_true", help="also write questions and answers to OUT/vqa")
    parser.add_argument("--masks", action="store_true", help="also write where findings were drawn to OUT/masks")
    parser.add_argument(
        "--erased", action="store_true", help="also write films without one of their findings to OUT/erased"
    )
    parser.add_argument(
        "--priors",
        action="store_true",
        help="studies of one patient show one body, whose findings improve, stay or worsen, as the reports say",
    )
    _choice(
        parser,
        "--layout",
        ("mimic_cxr", *table.sources()),
        "the official files to write the studies in (default: mimic_cxr); the flags for masks, questions and so on are "
        "for mimic_cxr alone",
    )
    _choice(
        parser,
        "--difficulty",
        ("standard", "hard"),
        "hard: small and faint findings, overlapping shadows, uneven exposure, noise (default: standard)",
    )
    _quiet(parser)


def _mimic_cxr(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="your copy of MIMIC-CXR(-JPG), see above")
    _out(parser)
    parser.add_argument(
        "--views",
        type=_views,
        default=("AP",),
        help="e.g. AP,PA,LATERAL, or all (default: AP, the bedside views that MedViLL is trained on)",
    )
    parser.add_argument(
        "--one_image_per_study",
        action="store_true",
        help="take the first image of a study only (default: every image of these views, each with the report)",
    )
    _sections(parser)
    _choice(
        parser,
        "--labels",
        ("chexpert", "negbio", "report"),
        "a label file of MIMIC-CXR-JPG, or our labeler on the sections that describe the image, never on indications, "
        "histories and comparisons (default: chexpert, which published results use)",
    )
    _uncertain(parser)
    _choice(
        parser,
        "--split",
        ("official", "subject"),
        "the split file, or 80 / 10 / 10 by subject (default: official, so that results can be compared)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of --split=subject (default: 0)")
    _choice(
        parser,
        "--images",
        ("auto", "jpg", "dicom"),
        "which files to read where a copy has both (default: auto, JPEG if there are any, which is far faster)",
    )
    parser.add_argument("--reports", type=Path, help="folder or zip file of the reports, if it is outside SOURCE")
    parser.add_argument(
        "--second_view",
        action="store_true",
        help="also store another view of the study in each record, lateral first (default: the film alone), for "
        "config.model.views=2",
    )
    parser.add_argument(
        "--priors",
        action="store_true",
        help="also store the frontal film and the text of the patient's study before, by StudyDate and StudyTime, in "
        "the same split (default: none), for config.model.views=3",
    )
    _common(parser)


def _open_i(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="your copy of Open-I, see above")
    _out(parser)
    parser.add_argument(
        "--views",
        type=_views,
        default=("FRONTAL",),
        help="FRONTAL, LATERAL or all (default: FRONTAL, which shows most findings)",
    )
    _sections(parser)
    _choice(
        parser,
        "--labels",
        ("report", "none"),
        "our labeler on the findings and impression of the text, or all findings not mentioned (default: report)",
    )
    _uncertain(parser)
    _choice(
        parser,
        "--marks",
        ("drop", "keep"),
        "the XXXX that replace de-identified words; a text of marks alone is empty either way (default: drop, as with "
        "the ___ of MIMIC-CXR, so that no model learns to write them; R2Gen and its successors keep them)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split by report (default: 0)")
    _common(parser)


def _vqa_rad(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="your copy of VQA-RAD, see above")
    _out(parser)
    _choice(
        parser,
        "--split",
        ("official", "image_disjoint"),
        "the authors' 451 test questions, nearly all of whose images are in the train split too; or 80 / 20 by image "
        "(default: official, so that results can be compared)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of --split=image_disjoint (default: 0)")
    parser.add_argument(
        "--organs", type=_views, default=(), help="e.g. CHEST or HEAD,ABD: questions on these only (default: all)"
    )
    _common(parser)


def _pairs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="the .jsonl index, or the folder of its index.jsonl")
    _out(parser)
    parser.add_argument("--label_names", type=_label_names, help="findings as a,b,c or a .txt with one per line")
    _choice(
        parser,
        "--split",
        ("index", "subject"),
        "the splits of the index, or 80 / 10 / 10 by subject instead of them, for an index with one subject in several "
        "splits (default: index, so that results can be compared)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split by subject (default: 0)")
    _common(parser)


def _about(source: table.Source) -> str:
    """What the table says of a source, for its help."""
    columns = [
        f"  {name:<16} {field.column}{'' if field.cited else '   (not verified on an official page)'}"
        for name, field in source.fields.items()
    ]
    about = textwrap.fill(f"From {source.page}. Licence: {source.licence}.", 120, break_long_words=False)
    return "\n".join([about, "", "Our fields and the columns that they are read from:", "", *columns, ""])


def _source(parser: argparse.ArgumentParser, source: table.Source, module: Any) -> None:
    """The flags of a source of the table: those of all, and its own."""
    parser.add_argument("--source", type=Path, required=True, help=f"your copy of {source.title}, see above")
    _out(parser)
    module.add_flags(parser)
    parser.add_argument(
        "--views", type=_views, default=(), help="e.g. AP,PA or FRONTAL: films of these views only (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of splits by subject (default: 0)")
    parser.add_argument(
        "--accept_unverified",
        action="store_true",
        help="read columns that no official page was found to name; compare them with your copy first",
    )
    _common(parser)


def _choice(parser: argparse.ArgumentParser, flag: str, choices: tuple[str, ...], help: str) -> None:
    """A flag that takes one of `choices`; the first is the default."""
    parser.add_argument(flag, choices=choices, default=choices[0], help=help)


def _out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not hold anything else")


def _sections(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sections",
        type=_comma_list,
        default=("findings",),
        help="the text: findings, impression, findings+impression (or any others, in this order); last_paragraph "
        "(paragraphs without a heading below an indication, a history, ...) or preamble (text before any heading); or "
        "full (default: findings, which describe this image; an impression concludes from the whole patient record)",
    )
    parser.add_argument(
        "--fallback",
        type=_comma_list,
        default=(),
        help="the text of a report without --sections, best choice first, e.g. last_paragraph,impression (default: "
        "none: the study is left out, since other sections are a different kind of text)",
    )


def _uncertain(parser: argparse.ArgumentParser) -> None:
    _choice(
        parser,
        "--uncertain",
        ("separate", "positive", "negative", "ignore"),
        "labels of -1 stay, or become 1, 0 or not mentioned (default: separate, so that the training configuration "
        "decides)",
    )


def _common(parser: argparse.ArgumentParser) -> None:
    images = parser.add_argument_group("images")
    images.add_argument(
        "--image_size",
        type=int,
        default=512,
        help="pixels of the short side: larger images are reduced to it, with their aspect; none is enlarged (default: "
        "512, the input size of MedViLL)",
    )
    images.add_argument(
        "--square",
        action="store_true",
        help="fit every image into a square of --image_size instead, padded with black (default: aspect kept, so that "
        "training can crop)",
    )
    images.add_argument(
        "--dicom_normalize",
        choices=("window", "range", "equalize"),
        default="window",
        dest="dicom",
        help="how DICOM values become 8 bits: by the window of the file, from smallest to largest value, or by range "
        "and histogram equalisation as in MIMIC-CXR-JPG, to mix with its JPEG files (default: window, as a "
        "radiologist sees the image)",
    )
    images.add_argument("--contact_sheet", action="store_true", help="draw contact_sheet.png of 24 examples")
    texts = parser.add_argument_group("vocabulary")
    texts.add_argument(
        "--tokenizer",
        help="a vocab.txt, a folder with one, or a Hugging Face name such as bert-base-uncased (may download); "
        "default: a WordPiece vocabulary trained on the texts of the train split, at most 50,000 of them",
    )
    texts.add_argument("--vocab_size", type=int, help="largest vocabulary to train (default: 30522)")
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--max_rejected",
        type=float,
        default=0.01,
        help="fail if more than this share of the rows is faulty; OUT.rejected.jsonl lists them (default: 0.01; more "
        "faults mean a broken copy rather than a few broken files)",
    )
    rows.add_argument("--limit", type=int, help="take only this many rows, from the first, for a trial")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--workers", type=int, help="image threads per process (default: one per core, at most 16)")
    beam_runner.add_flags(
        speed,
        "make the shards with Apache Beam, not with threads of this process; every worker must see source and --out",
    )
    _quiet(parser)


def _quiet(parser: argparse.ArgumentParser) -> None:
    private.add_flag(parser)
    parser.add_argument("--quiet", dest="progress", action="store_false", help="no progress bar")


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _views(text: str) -> tuple[str, ...]:
    return () if text.strip().lower() == "all" else _comma_list(text)


def _label_names(text: str) -> tuple[str, ...]:
    path = Path(text)
    if path.suffix != ".txt":
        return _comma_list(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return tuple(line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip())
