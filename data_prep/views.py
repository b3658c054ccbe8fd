"""The view of a radiograph, from the fields of a DICOM file or a table.

ViewPosition decides if it is filled in; a spelling of one view becomes the usual name. Otherwise the codes and words of
other fields decide: they must agree, and a field that names several views only excludes all others. Nothing is guessed:
a view that is not certain is unknown.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_prep.ids import MISSING

# Fields about the image, which count first, and about the study, for images whose own fields name no view.
IMAGE_FIELDS = (
    "ViewCodeSequence",
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "AcquisitionDeviceProcessingCode",
    "AcquisitionProtocolName",
    "ProjectionEponymousNameCodeSequence",
)
STUDY_FIELDS = (
    "PerformedProcedureStepDescription",
    "StudyDescription",
    "RequestedProcedureDescription",
    "ProcedureCodeSequence",
)
# The directions of the rows and columns of the image in the patient.
ORIENTATION = "PatientOrientation"
FIELDS = ("ViewPosition", *IMAGE_FIELDS, *STUDY_FIELDS, ORIENTATION)
# Values of ViewPosition that name no view.
UNSAID = frozenset(map(str.upper, MISSING)) | {"-", "UNK", "UNKNOWN", "UNDEFINED", "UNSPECIFIED"}
# View -> the more general view.
KINDS = {"AP": "FRONTAL", "PA": "FRONTAL", **dict.fromkeys(("LL", "RL", "XTABLE LATERAL"), "LATERAL")}
# View -> words for it, in capitals and with single spaces; the longest match in a text counts.
WORDS = {
    "AP": (
        *("AP", "A P", "ANTEROPOSTERIOR", "ANTERO POSTERIOR", "ANTERIOR POSTERIOR", "ANTERIOR TO POSTERIOR"),
        *("ANTERIORPOSTERIOR", "ANTEROPOSTERIEUR", "ANTERO POSTERIEUR", "ANTEROPOSTERIORE", "ANTERO POSTERIORE"),
    ),
    "PA": (
        *("PA", "P A", "POSTEROANTERIOR", "POSTERO ANTERIOR", "POSTERIOR ANTERIOR", "POSTERIOR TO ANTERIOR"),
        *("POSTERIORANTERIOR", "POSTEROANTERIEUR", "POSTERO ANTERIEUR", "POSTEROANTERIORE", "POSTERO ANTERIORE"),
    ),
    "FRONTAL": ("FRONTAL", "FRONTALE", "FRENTE"),
    "LATERAL": (
        *("LATERAL", "LAT", "LATERALE", "LATEROLATERAL", "LATERO LATERAL", "LATEROLATERALE", "LATERO LATERALE"),
        *("SEITLICH", "PROFIL", "PERFIL"),
    ),
    "LL": ("LL", "L L", "LLAT", "L LAT", "L LATERAL", "LT LAT", "LT LATERAL", "LEFT LAT", "LEFT LATERAL"),
    "RL": ("RL", "R L", "RLAT", "R LAT", "R LATERAL", "RT LAT", "RT LATERAL", "RIGHT LAT", "RIGHT LATERAL"),
    "XTABLE LATERAL": ("XTABLE LATERAL", "X TABLE LATERAL", "CROSS TABLE LATERAL", "CROSSTABLE LATERAL", "XTABLE LAT"),
    "LLD": (
        *("LLD", "LEFT LATERAL DECUBITUS", "LT LATERAL DECUBITUS", "L LATERAL DECUBITUS", "LEFT LAT DECUB"),
        *("LT LAT DECUB", "L LAT DECUB", "LEFT DECUBITUS", "LT DECUB", "L DECUB"),
    ),
    "RLD": (
        *("RLD", "RIGHT LATERAL DECUBITUS", "RT LATERAL DECUBITUS", "R LATERAL DECUBITUS", "RIGHT LAT DECUB"),
        *("RT LAT DECUB", "R LAT DECUB", "RIGHT DECUBITUS", "RT DECUB", "R DECUB"),
    ),
    "DECUBITUS": ("DECUBITUS", "DECUB", "LATERAL DECUBITUS", "LAT DECUBITUS", "LAT DECUB"),
    "LAO": ("LAO", "LEFT ANTERIOR OBLIQUE"),
    "RAO": ("RAO", "RIGHT ANTERIOR OBLIQUE"),
    "LPO": ("LPO", "LEFT POSTERIOR OBLIQUE"),
    "RPO": ("RPO", "RIGHT POSTERIOR OBLIQUE"),
    "LLO": ("LLO", "LEFT LATERAL OBLIQUE"),
    "RLO": ("RLO", "RIGHT LATERAL OBLIQUE"),
    "OBLIQUE": (
        "OBLIQUE",
        "OBLIQ",
        "OBL",
        "AP OBLIQUE",
        "PA OBLIQUE",
        "LATERAL OBLIQUE",
        "LEFT OBLIQUE",
        "RIGHT OBLIQUE",
    ),
    "AXIAL": ("AXIAL",),
    "LORDOTIC": ("LORDOTIC", "APICAL LORDOTIC", "AP LORDOTIC", "LORDOTIC AP"),
    "SWIMMERS": ("SWIMMERS", "SWIMMER S"),
}
# Phrases with the words of a view that name no view.
NO_VIEW = ("PA CATHETER", "PA LINE")
# View -> its codes in DICOM's context group 4010 (SNOMED RT, as in older files, and SNOMED CT) and RadLex.
CODES = {
    "AP": ("R-10206", "399348003", "RID43583"),
    "PA": ("R-10214", "R-40888", "272479007", "RID43594"),
    "FRONTAL": ("R-10202", "399033003", "RID10521"),
    "LATERAL": ("R-102CD", "399067008", "G-A104", "49370004", "RID43591"),
    "LL": ("R-10236", "399173006"),
    "RL": ("R-10232", "399198007"),
    "LAO": ("R-10220", "399135007"),
    "RAO": ("R-40985", "399356000"),
    "LPO": ("R-10212", "399006002"),
    "RPO": ("R-10210", "399038007"),
    "OBLIQUE": ("R-102C1", "399182000", "R-10208", "399312000", "R-10216", "399059000", "R-10234", "R-10238"),
    "AXIAL": ("R-10241", "399061009"),
}
# First letters of the directions in which rows and columns run -> view.
ORIENTATIONS = {
    **dict.fromkeys(("LF", "RF", "LH", "RH"), "FRONTAL"),
    **dict.fromkeys(("AF", "PF", "AH", "PH"), "LATERAL"),
}
_OF_WORDS = {words: view for view, choices in WORDS.items() for words in choices} | dict.fromkeys(NO_VIEW, "")
_OF_CODES = {code: view for view, codes in CODES.items() for code in codes}
_ANY_WORDS = re.compile(rf"\b(?:{'|'.join(sorted(_OF_WORDS, key=len, reverse=True))})\b")


@dataclass(frozen=True)
class View:
    """A view; if `name` is "", `unknown` says why."""

    name: str
    unknown: str = ""


def find(fields: Mapping[str, Sequence[str]]) -> View:
    """The view of an image from its `FIELDS`, each a list of texts or codes."""
    position = " ".join(fields.get("ViewPosition", ())).strip().upper()
    if position not in UNSAID:
        named = views_in(position)
        return View(next(iter(named)) if len(named) == 1 else position)
    views_by_field = _views_by_field(fields, IMAGE_FIELDS)
    if not views_by_field:
        # A study field that names several views says nothing about a single image.
        views_by_field = {
            name: views for name, views in _views_by_field(fields, STUDY_FIELDS).items() if len(views) == 1
        }
        directions = "".join(part.strip()[:1].upper() for part in fields.get(ORIENTATION, ())[:2])
        if directions in ORIENTATIONS:
            views_by_field[ORIENTATION] = {ORIENTATIONS[directions]}
    if not views_by_field:
        return View("", "no field says which view it is")
    possible = functools.reduce(_common, views_by_field.values())
    if len(possible) == 1:
        return View(next(iter(possible)))
    return View("", "; ".join(f"{name} says {' and '.join(sorted(views))}" for name, views in views_by_field.items()))


def views_in(text: str) -> set[str]:
    """The views that a code or a text names, without more general ones."""
    if text.strip().upper() in _OF_CODES:
        return {_OF_CODES[text.strip().upper()]}
    plain = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)).encode("ascii", "ignore").decode()
    named = {_OF_WORDS[words] for words in _ANY_WORDS.findall(re.sub(r"[^A-Z]+", " ", plain.upper()))}
    return _narrowed(named - {""})


def _views_by_field(fields: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, set[str]]:
    views_by_field = {name: _narrowed(set().union(*map(views_in, fields.get(name, ())))) for name in names}
    return {name: views for name, views in views_by_field.items() if views}


def _narrowed(views: set[str]) -> set[str]:
    """Without views that are more general than another one among them."""
    return views - {KINDS[view] for view in views if view in KINDS}


def _common(first: set[str], second: set[str]) -> set[str]:
    """The views that two fields both allow."""
    either = ((first, second), (second, first))
    return {view for these, those in either for view in these if view in those or KINDS.get(view) in those}
