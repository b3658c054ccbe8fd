"""The words of the labeler: what findings are called, and what denies or doubts them. A new wording is one more line.

Entries are regular expressions on one sentence in lower case, and match whole words unless said otherwise. Repetition
is bounded throughout, so that no text makes a match slow. What the CheXpert labeler (Irvin et al. 2019) counts as a
mention was learnt from labels that it gave to public reports; its phrase files are not used.
"""

from __future__ import annotations

POSITIVE, NEGATIVE, UNCERTAIN, ABSENT = 1, 0, -1, -2
# Stands for all findings outside of the 14, which count for "No Finding" only.
OTHER = "other"

Table = dict[str, tuple[str, ...]]

# Finding -> wordings that say it is there, unless something in reach denies or doubts them.
MENTIONS: Table = {
    "Atelectasis": (
        r"atelecta\w{1,6}",
        r"(?:lung|lobe|lobar|segmental|volume) collapse",
        r"collapsed? (?:of )?(?:the )?(?:(?:right|left|middle|upper|lower) ){0,2}(?:lung|lobe)",
    ),
    "Cardiomegaly": (
        r"cardiomegaly",
        r"(?:cardiac|heart) enlargement",
        r"enlargement of (?:the )?(?:heart|cardiac (?:silhouette|contour|shadow))",
    ),
    "Consolidation": (r"consolidat\w{1,6}",),
    "Edema": (r"o?edema(?:tous)?", r"(?:congestive )?heart failure", r"chf"),
    "Enlarged Cardiomediastinum": (
        r"widening of (?:the )?(?:upper |superior )?(?:cardio)?mediastinum",
        r"mediastinal (?:widening|enlargement)",
    ),
    "Fracture": (r"fractur(?:e|es|ed|ing)",),
    "Lung Lesion": (
        r"nodul(?:e|es|ar (?:density|densities|opacity|opacities|lesions?|mass(?:es)?))",
        r"mass(?:es)?",
        r"mass-?like",
        r"tumou?rs?",
        r"neoplas\w{1,5}",
        r"carcinomas?",
        r"cavitary (?:lung )?lesions?",
        r"(?:lung|pulmonary|parenchymal) lesions?",
    ),
    "Lung Opacity": (
        r"opaci\w{1,9}",
        r"air ?-?space (?:disease|process)s?",
        r"infiltrat\w{1,5}",
        r"interstitial (?:markings?|lung (?:changes|disease|markings)|disease|pattern)",
        r"reticula(?:r|tion)s?",
        r"increased densit(?:y|ies)",
        r"scar(?:s|ring|red)?",
        r"(?:peri)?bronchial (?:wall )?(?:thickening|cuffing)",
    ),
    "Pleural Effusion": (r"effusions?", r"pleural fluid", r"hydrothora(?:x|ces)", r"ha?emothora(?:x|ces)"),
    # Fibrosis belongs to the lung; the CheXpert labeler has it here, as long as it is not called pulmonary.
    "Pleural Other": (r"pleural[ -](?:thickening|scar(?:ring)?|plaques?|calcifications?)", r"fibro(?:sis|thorax)"),
    "Pneumonia": (r"(?:broncho)?pneumonias?", r"infect(?:ions?|ious (?:process|etiology|infiltrates?))"),
    "Pneumothorax": (r"(?:hydro)?pneumothora(?:x|ces|xes)",),
    "Support Devices": (
        r"catheters?",
        r"tubes?",
        r"tubing",
        r"pace ?-?makers?",
        r"(?:central|venous|picc|subclavian|jugular|ij|arterial|access|tunneled|suture|midline) lines?",
        r"lines",
        r"picc",
        r"(?:medi|chemo)-?ports?",
        r"port(?:-?a-?| )?cath\w{0,5}",
        r"ports?(?! of)",
        r"valves?",
        r"devices?",
        r"(?:aicd|icd|defibrillator)s?",
        r"(?:monitoring|pacer|pacing|pacemaker|icd) leads?",
        r"intubated",
        r"ett|ngt|ogt",
        r"swan-?ganz",
        r"balloon pump",
        r"(?:chest|pleural|pigtail) drains?",
        r"screws?",
        r"coils?",
    ),
    OTHER: (
        r"degenerat\w{1,5}",
        r"calcifi\w{1,7}",
        r"granulom\w{1,8}",
        r"atheroscl\w{1,8}",
        r"hernias?",
        r"(?:levo|dextro)?scoliosis",
        r"emphysem\w{1,6}",
        r"copd",
        r"eventration",
        r"lymph(?:adenopathy)?",
        r"blunt(?:ing|ed)",
        r"prominen(?:ce|t)",
        r"deformity",
        r"hyper(?:expansion|inflation|aeration)",
        r"flattening",
        r"elevation",
        r"volume loss",
        r"bullae?",
        r"bullous",
        r"(?:vascular|venous|pulmonary) congestion",
        r"densit(?:y|ies)",
        r"lesions?",
        r"ectasia",
        r"bronchiectasis",
        r"tracheostomy",
        r"bullets?",
    ),
}
# What looks like a mention and is another thing.
NOT_MENTIONS: Table = {
    "Edema": (r"(?:laryngeal|soft tissue|subcutaneous|cerebral|leg|pedal|ankle) o?edema",),
    "Lung Lesion": (r"mass effect", r"calcified nodules?"),
    "Lung Opacity": (r"pleural[ -]scar(?:ring)?",),
    "Pleural Effusion": (r"(?:pericardial|joint|subdural|knee) effusions?",),
    "Pleural Other": (r"(?:pulmonary|lung) fibrosis",),
    "Support Devices": (r"(?:fracture|pleural|paratracheal|kerley b?|septal|psoas|fat) lines?",),
}
# Finding -> parts of words, one of which is in whatever any wording of it matches.
HINTS: dict[str, str] = {
    "Atelectasis": "atelec collaps",
    "Cardiomegaly": "cardi heart",
    "Consolidation": "consolid",
    "Edema": "dema failure chf",
    "Enlarged Cardiomediastinum": "mediast contour",
    "Fracture": "fractur",
    "Lung Lesion": "lumpect nodul mass tumo neoplas carcin lesion",
    "Lung Opacity": "opaci space infiltr interst reticul densit scar bronch",
    "Pleural Effusion": "effus fluid thora",
    "Pleural Other": "pleural fibro",
    "Pneumonia": "pneumon infect",
    "Pneumothorax": "pneumothora",
    "Support Devices": "cath tub pace line picc port valve device icd defib lead intub swan pump drain marker screw "
    "coil plate ett ngt ogt",
    OTHER: "degen calcif granulo athero hernia scolio emphys copd eventr lymph blunt promin deform hyper flatten "
    "elevat volume bull congest densit tracheost lesion ectasi",
}

# Organs that are named in sickness and in health: what is said about their size in the same clause decides.
SUBJECTS: Table = {
    "Cardiomegaly": (
        r"(?<!left )(?<!right )heart(?! (?:failure|rate|enlargement|disease|valve))"
        r"(?: (?:size|silhouette|shadow|contours?))?",
        r"cardiac (?:size|silhouettes?|contours?|shadow)",
        r"cardiac(?=(?:,| and) (?:mediastinal|hilar))",
    ),
    "Enlarged Cardiomediastinum": (
        r"(?:upper |superior )?mediastinum",
        r"(?:upper |superior |senescent )?mediastinal (?:and (?:hilar|cardiac) )?"
        r"(?:silhouettes?|contours?|size|width|borders?)",
        r"cardio-? ?mediastinal (?:and hilar )?(?:silhouettes?|contours?|size|border)",
    ),
}
HEALTHY = (
    r"(?:top[ -])?normal",
    r"unremarkable",
    r"within (?:the )?(?:\w{1,10} )?limits",
    r"limits? of normal",
    r"not (?:\w{1,14} ){0,2}(?:enlarged|widened)",
    r"nonenlarged",
    r"clear",
    r"intact",
)
ENLARGED = (
    r"enlarge(?:d|ment)",
    r"widen(?:ed|ing)",
    r"wide",
    r"prominent",
    r"larger?",
    r"big",
    r"increased?",
    r"dilated",
    r"borderline",
)
# The organ could not be judged.
UNREAD = (r"(?:cannot|not|difficult|limited) (?:\w{1,14} ){0,3}(?:assess|evaluat|identif)\w{0,5}",)
SAME = (r"stable", r"unchanged", r"unaltered", r"similar", r"maintained", r"no (?:\w{1,14} ){0,2}change")

# Before a finding, these deny it ...
DENIES_AHEAD = (
    r"no(?! (?:interval |significant |other |real |further |appreciable ){0,2}"
    r"(?:change|increase|decrease|improvement|longer|doubt))",
    r"not(?! (?:only|changed|significantly changed))",
    r"without(?! (?:significant |interval |any ){0,2}change)",
    r"negative (?:for|of)",
    r"(?:clear|free) of",
    r"clear(?= air ?space)",
    r"absen(?:ce|t)(?: of)?",
    r"(?:removal|resolution|clearing|disappearance) of",
    r"(?:rules|ruled|ruling) out",
    r"den(?:ies|y|ied)",
    r"no longer",
    r"unlikely(?: to be| to represent| to reflect)?",
    r"nor",
    r"neither",
    r"never",
)
# ... and so do these after it.
DENIES_BACK = (
    r"(?:is|are|was|were|has been|have been|has|have) (?:now |also |completely |fully |since |previously ){0,2}"
    r"(?:resolved|cleared|disappeared|absent|excluded|ruled out|negative|removed)",
    r"(?:is|are|was|were) (?:not|no longer) (?:\w{1,14} ){0,2}"
    r"(?:seen|identified|present|visuali[sz]ed|evident|demonstrated|detected|appreciated|noted|visible|apparent|found)",
    r"(?:completely|fully) (?:resolved|cleared)",
    r"(?:is|are|seems?|appears?|felt|thought) (?:\w{1,14} ){0,2}(?:unlikely|not likely|less likely)",
    r"unlikely",
)
# Denies to a person, but not to the CheXpert labeler.
DENIES_AHEAD_PLAIN = (r"resolved",)
_CANNOT = r"(?:cannot|can not|can't|could not|not) (?:be )?(?:\w{1,14} )?"
# Likewise for doubts.
DOUBTS_AHEAD = (
    r"possib(?:le|ly|ility)(?: of)?",
    r"probabl[ey]",
    r"likely",
    r"may",
    r"might",
    r"could",
    r"perhaps",
    r"question(?:able|ed)?(?: of)?",
    r"suspect(?:ed)?",
    r"suspicio(?:n|us) (?:for|of)",
    r"concern(?:ing)? (?:for|of)",
    r"worrisome for",
    r"suggestion of",
    r"differential(?: diagnosis)?(?: includes?| considerations?(?: includes?)?)?",
    r"either",
    _CANNOT + r"(?:excluded?|rule out)",
    r"(?:difficult|hard|impossible) to exclude",
    r"(?:to )?(?:rule out|exclude|evaluate for|assess for)",
    r"r/o",
)
DOUBTS_BACK = (
    _CANNOT + r"(?:excluded?|ruled out)",
    r"(?:is|are|was|were|remains?) (?:\w{1,14} )?"
    r"(?:likely|probable|possible|suspected|questioned|questionable|not excluded|in question|considered|"
    r"a consideration)",
    r"difficult to exclude",
    r"(?:should|must) be (?:considered|excluded)",
)
# After a doubt about something else, these state what follows.
AFFIRMS = (r"suggestive of", r"consistent with", r"compatible with")
# Where the reach of denials and doubts ends, in either direction.
BREAKS = (
    r"but",
    r"however",
    r"although",
    r"though",
    r"except",
    r"apart from",
    r"aside from",
    r"other than",
    r"otherwise",
    r"nevertheless",
    r"yet",
    r"while",
    r"whereas",
    r"which",
    r"because",
    r"(?<!be )(?:secondary|due) to",
    r"there (?:is|are|has|was|were)",
    r"(?<!consistent )(?<!compatible )(?<!associated )with",
    r"and (?:the|there|a|an|small|mild|moderate|large|stable|unchanged|persistent|new|left|right|bilateral)",
)
# After a comma these begin something new, out of reach of a denial before it: "no effusion, stable cardiomegaly".
FRESH = (
    r"stable|persistent|unchanged|chronic|mild|mildly|minimal|small|moderate|severe|large|old|new",
    r"there|the|a|an|left|right|bilateral|bibasilar",
    r"heart|cardiac|lungs?",
    r"possible|possibly|probable|probably|suspected|questionable|likely",
)
VERBS = (r"is|are|was|were|has|have", r"seen|identified|noted|present")

# Sections that tell about the patient or the examination, by words in their headers.
ASIDES = (
    r"indications?|history|reason|clinical|information",
    r"techniques?|procedure|views?|examinations?|exams?",
    r"comparisons?",
    r"notifications?|communication|dictated|signed|attending",
)

# Where the CheXpert labeler reads otherwise than a person: finding -> (pattern anywhere in a sentence, verdict).
# No whole reports are remembered here: every entry is a manner of misreading that many reports share.
HABITS: dict[str, tuple[tuple[str, int], ...]] = {
    "Cardiomegaly": (
        # Normal only by "is" and "are", not by other verbs.
        (r"the heart size [^,]{0,60}(?<!\w)(?:appears?|have|has become) [^,]{0,20}normal", POSITIVE),
        (r"heart size and [^,]{0,30} appear (?:stable|normal limits)", POSITIVE),
        (
            r"(?:heart size|the heart is|cardiac silhouette) [^,]{0,20}(?<!at the )upper limits? (?:of )?normal",
            POSITIVE,
        ),
        (r"enlarged (?:but )?(?:stable|unchanged)|stable enlarged|borderline heart size", UNCERTAIN),
    ),
    # Scopes come from a parser of syntax: a sentence without a verb loses its "no" where the last plural could be one,
    # or where "air space" falls apart.
    "Consolidation": (
        (r"^no (?:focal )?air ?space consolidations$", POSITIVE),
        (r"^no [^,]{1,40}, [^,]{1,40}, or \w{1,20} air space consolidation", POSITIVE),
    ),
    "Fracture": ((r"no (?:[\w,]{1,20} ){1,5}fractures(?: identified| visualized)?$", POSITIVE),),
    "Lung Opacity": ((r"^no (?:focal )?air space opacities$", POSITIVE),),
    "Pneumothorax": ((r"^no pleural effusions or pneumothorax$", POSITIVE),),
    "Enlarged Cardiomediastinum": (
        (r"mediastinum of normal", POSITIVE),
        (r"mediastin(?:um|al \w{1,12}) (?:has|have) (?:a )?normal", POSITIVE),
        (
            r"mediastinal (?:silhouette|contours?) (?:are maintained|appears? (?:stable|similar|normal limits))",
            POSITIVE,
        ),
        # Any contour is one of the mediastinum, be it of the aorta, a hilum or a rib.
        (
            r"^(?!.{0,300}(?<!\w)(?:no|not|normal|unremarkable|within|stable|unchanged|may|might|possibl[ey])(?!\w))"
            r".{0,300}(?<!\w)contours?(?!\w)",
            POSITIVE,
        ),
    ),
    # Phrases match parts of words: "lump", "plate", "tube".
    "Lung Lesion": ((r"lumpectomy", POSITIVE),),
    "Support Devices": (
        (r"(?<![\w-])(?:endplates?|platelike)(?!\w)", POSITIVE),
        (
            r"^(?!.{0,200}(?<!\w)(?:no|without|removed|removal)(?!\w)).{0,200}"
            r"(?<!\w)(?:(?<!pleural )(?<!fracture )line|markers?)(?!\w)",
            POSITIVE,
        ),
        (r"^(?!.{0,200}no \w{1,12} of).{0,200}tubercul", POSITIVE),
    ),
}
