"""The words of the labeler: how findings are named, and which words deny or doubt them. A new wording is one more line.

Entries are regular expressions on one sentence in lower case; they match whole words unless a comment says otherwise.
Repetition is bounded, so that no pattern is slow on a long text. Which words the CheXpert labeler (Irvin et al. 2019)
counts as a mention was derived from its labels of public reports; its phrase files are not used.
"""

from __future__ import annotations

from medvill_jax.findings import ABSENT, NEGATIVE, POSITIVE, UNCERTAIN

# All findings other than the 14; they only count for "No Finding".
OTHER = "other"

Table = dict[str, tuple[str, ...]]

# Finding -> wordings that state it, unless a cue in reach denies or doubts them.
MENTIONS: Table = {
    "Atelectasis": (
        r"atelecta\w{1,6}",
        r"(?:lung|lobe|lobar|segmental|volume) collapse",
        r"collapsed? (?:of )?(?:the )?(?:(?:right|left|middle|upper|lower) ){0,2}(?:lung|lobe)",
        r"collapse of (?:\w{1,14} ){1,6}(?:lung|lobe)",
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
        r"enlarged cardiomediastinum",
    ),
    "Fracture": (r"fractur(?:e|es|ed|ing)",),
    "Lung Lesion": (
        r"(?:reticul\w{1,3}-)?nodul(?:e|es|ar (?:density|densities|opacity|opacities|lesions?|mass(?:es)?))",
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
    # The CheXpert labeler counts fibrosis as pleural, unless it is called pulmonary.
    "Pleural Other": (
        r"pleural[ -](?:thickening|scar(?:ring)?|plaques?|calcifications?)",
        r"fibro(?:sis|thorax)",
        r"pleural other",
    ),
    "Pneumonia": (r"(?:broncho)?pneumonias?", r"pna", r"infect(?:ions?|ious (?:process|etiology|infiltrates?))"),
    "Pneumothorax": (r"(?:hydro)?pneumothora(?:x|ces|xes)", r"ptx"),
    "Support Devices": (
        r"catheters?|tubes?|tubing|pace ?-?makers?",
        r"(?:central|venous|picc|subclavian|jugular|ij|arterial|access|tunneled|suture|midline) lines?|lines|picc",
        r"(?:medi|chemo)-?ports?|port(?:-?a-?| )?cath\w{0,5}|ports?(?! of)|valves?|devices?",
        r"(?:aicd|icd|defibrillator)s?|(?:monitoring|pacer|pacing|pacemaker|icd) leads?|intubated|ett|ngt|ogt",
        r"swan-?ganz|balloon pump|(?:chest|pleural|pigtail) drains?|screws?|coils?",
    ),
    OTHER: (
        r"degenerat\w{1,5}|calcifi\w{1,7}|granulom\w{1,8}|atheroscl\w{1,8}|hernias?|(?:levo|dextro)?scoliosis",
        r"emphysem\w{1,6}|copd|eventration|lymph(?:adenopathy)?|blunt(?:ing|ed)|prominen(?:ce|t)|deformity",
        r"hyper(?:expansion|inflation|aeration)|flattening|elevation|volume loss|bullae?|bullous",
        r"(?:vascular|venous|pulmonary) congestion|densit(?:y|ies)|lesions?|ectasia|bronchiectasis|tracheostomy",
        r"bullets?",
    ),
}
# Finding -> wordings that look like a mention but mean something else.
NOT_MENTIONS: Table = {
    "Edema": (r"(?:laryngeal|soft tissue|subcutaneous|cerebral|leg|pedal|ankle) o?edema",),
    "Lung Lesion": (r"mass effect", r"calcified nodules?"),
    "Lung Opacity": (r"pleural[ -]scar(?:ring)?",),
    "Pleural Effusion": (r"(?:pericardial|joint|subdural|knee) effusions?",),
    "Pleural Other": (r"(?:pulmonary|lung) fibrosis",),
    "Support Devices": (r"(?:fracture|pleural|paratracheal|kerley b?|septal|psoas|fat) lines?",),
}
# Finding -> parts of words; every match of a wording of the finding contains one of them.
HINTS: dict[str, str] = {
    "Atelectasis": "atelec collaps",
    "Cardiomegaly": "cardi heart silhouette",
    "Consolidation": "consolid",
    "Edema": "dema failure chf",
    "Enlarged Cardiomediastinum": "mediast contour",
    "Fracture": "fractur",
    "Lung Lesion": "lumpect nodul mass tumo neoplas carcin lesion",
    "Lung Opacity": "opaci space infiltr interst reticul densit scar bronch",
    "Pleural Effusion": "effus fluid thora",
    "Pleural Other": "pleural fibro",
    "Pneumonia": "pneumon pna infect",
    "Pneumothorax": "pneumothora ptx",
    "Support Devices": "cath tub pace line picc port valve device icd defib lead intub swan pump drain marker screw "
    "coil plate ett ngt ogt",
    OTHER: "degen calcif granulo athero hernia scolio emphys copd eventr lymph blunt promin deform hyper flatten "
    "elevat volume bull congest densit tracheost lesion ectasi",
}

# Finding -> organs; a statement about the organ's size in the same clause decides on the finding.
SUBJECTS: Table = {
    "Cardiomegaly": (
        r"(?<!left )(?<!right )heart(?! (?:failure|rate|enlargement|disease|valve))"
        r"(?: (?:size|silhouette|shadow|contours?))?",
        r"cardiac (?:size|silhouettes?|contours?|shadow)",
        r"cardiac(?=(?:, | and | ?/ ?)(?:mediastinal|hilar))",
        r"^(?:the )?silhouettes?",
        r"^cardiac$",
    ),
    "Enlarged Cardiomediastinum": (
        r"(?:upper |superior )?(?:cardio)?mediastinum",
        r"(?:upper |superior |senescent )?mediastinal (?:and (?:hilar|cardiac) )?"
        r"(?:silhouettes?|contours?|size|width|borders?)",
        r"cardio-? ?mediastinal (?:and hilar )?(?:silhouettes?|contours?|size|border)",
    ),
}
HEALTHY = (
    r"(?:top[ -])?normal|unremarkable|within (?:the )?(?:\w{1,10} )?limits|wnl|limits? of normal",
    r"not (?:\w{1,14} ){0,2}(?:enlarged|widened)|non-?enlarged|nl|clear|intact",
)
ENLARGED = (r"enlarge(?:d|ment)|widen(?:ed|ing)|wide|prominent|larger?|big|increased?|dilated|borderline",)
# A doubt about the size of an organ in the plain style.
BORDERLINE = r"borderline(?! in size| (?:\w{1,14} ){0,2}enlarge)"
# The organ could not be assessed.
NOT_ASSESSED = (r"(?:cannot|not|difficult|limited) (?:\w{1,14} ){0,3}(?:assess|evaluat|identif)\w{0,5}",)
SAME = (r"stable", r"unchanged", r"unaltered", r"similar", r"maintained", r"no (?:\w{1,14} ){0,2}change")

# (position of a cue, its verdict on a finding) -> patterns. Positions: "before" and "after" the finding in a sentence;
# "value", at the beginning of the value of an item ("Pneumothorax: none"). "before, plain": in sentences, only in the
# plain style, as the CheXpert labeler does not know it.
SEEN = (
    r"(?:seen|identified|present|visuali[sz]ed|evident|demonstrated|detected|appreciated|noted|visible|apparent|found|"
    r"observed|shown|suspected)"
)
_IS = r"(?:is|are|was|were)"
_CANNOT = r"(?:cannot|can not|can't|could not|not) (?:be )?(?:\w{1,14} )?"
_CHANGE = (
    r"(?! (?:(?:evidence|sign) of |interval |significant |substantial |notable |marked |relevant |major |new |other |"
    r"real |further |appreciable |definite |obvious ){0,3}(?:changes?|increase|decrease|improvement|longer|doubt|"
    r"(?:worsening|progression) (?:of|in))(?!\w))"
)
# Statements about the past: "not seen on the prior film".
_BEFORE = r"(?! (?:(?:(?:on|in) )?(?:the )?(?:prior|previous)|previously|before|earlier))"
_END = r"(?=$|[,;)])"
CUES: dict[tuple[str, int], tuple[str, ...]] = {
    ("before", NEGATIVE): (
        rf"no(?!$|[,;)]){_CHANGE}",
        r"not(?! (?:only|changed|significantly changed))",
        r"without(?! (?:significant |interval |any ){0,2}change)",
        r"neg(?:ative)? (?:for|of)",
        r"-ve for",
        r"(?:clear|free|devoid) of",
        r"free from",
        r"clear(?= air ?space)",
        r"absence(?: of)?",
        r"absent(?!$|[,;)]| and)",
        r"lack of|nil|nothing|excludes",
        r"fail(?:s|ed)? to (?:show|reveal|demonstrate)",
        r"(?:removal|(?<!partial )(?<!incomplete )(?<!near )(?<!nearly )(?<!near[ -]complete )(?<!nearly complete )"
        r"resolution|(?<!partial )(?<!incomplete )clearing|disappearance) of",
        r"^removed",
        r"(?:rules|ruled|ruling) out",
        r"den(?:ies|y|ied)",
        r"no longer",
        r"unlikely(?: to be| to represent| to reflect)?",
        r"(?:rather than|instead of|as opposed to)",
        r"nor|neither|never",
    ),
    ("before, plain", NEGATIVE): (r"resolved",),
    ("after", NEGATIVE): (
        rf"(?:{_IS}|has been|have been|has|have) (?:now |also |both |all |completely |fully |since |previously |"
        r"entirely ){0,2}(?:resolved|cleared|disappeared|absent|excluded|ruled out|negative|removed|gone)",
        rf"{_IS} (?:not|no longer|no more) (?:\w{{1,14}} ){{0,2}}{SEEN}{_BEFORE}",
        rf"(?:not|no longer|no more|never) (?:now |currently |definitely |clearly )?{SEEN}{_BEFORE}",
        rf"(?:cannot|can not|can't|could not|(?:can|could) no longer) be {SEEN}|can be (?:excluded|ruled out)",
        rf"(?:absent|neg|negative|-ve|(?:completely |fully |now )?(?:resolved|cleared|removed)){_END}",
        rf"(?:no|none(?: {SEEN})?){_END}",
        r"(?:completely|fully) (?:resolved|cleared)",
        rf"(?:{_IS}|seems?|appears?|felt|thought) (?:\w{{1,14}} ){{0,2}}(?:unlikely|not likely|less likely)",
        r"unlikely",
    ),
    ("value", NEGATIVE): (
        rf"no(?![\w.]){_CHANGE}",
        r"(?:none|nil|nothing|nope|n|never|false|0|-|neg|negative|-ve)(?![\w./])",
        r"(?:absent|absence|free|clear|normal|unremarkable|intact|resolved|removed|gone|excluded|ruled out)(?!\w)",
        r"(?:not|no longer) (?:\w{1,14} ){0,2}" + SEEN,
        r"(?:with)?in (?:the )?(?:\w{1,10} )?limits|wnl",
    ),
    ("long value", NEGATIVE): (
        r"(?:[\w/-]{1,20} ){1,3}(?:is|are|appears?|looks?) (?:clear|normal|unremarkable|intact|free)",
    ),
    ("before", UNCERTAIN): (
        r"possib(?:le|ly|ility)(?: of)?",
        r"probabl[ey]",
        r"likely|may|maybe|might|could(?! not)|perhaps|query|uncertain|either|doubtful|consider",
        # A device of a presumed kind is present.
        r"presum(?:ed|ably)(?! (?:\w{1,14} ){0,2}(?:device|tube|line|catheter|drain|lead|port)s?)",
        r"potential(?:ly)?",
        r"equivocal(?: for)?",
        r"question(?:able|ed)?(?: of)?",
        r"suspect(?:ed)?",
        r"suspicio(?:n|us) (?:for|of)",
        r"concern(?:ing)? (?:for|of)",
        r"worrisome for",
        r"suggestion of",
        r"differential(?: diagnosis)?(?: includes?| considerations?(?: includes?)?)?",
        _CANNOT + r"(?:excluded?|ruled?[ -]out)",
        r"(?:can't|cannot) r/o",
        r"(?:difficult|hard|impossible) to (?:exclude|rule out)",
        r"(?:to )?(?:rule[ -]out|exclude|evaluate for|assess for)",
        r"r/o",
    ),
    ("after", UNCERTAIN): (
        _CANNOT + r"(?:excluded?|ruled out)",
        rf"(?:{_IS}|remains?) (?:\w{{1,14}} )?"
        r"(?:likely|probable|possible|suspected|questioned|questionable|not excluded|in question|considered|equivocal|"
        r"uncertain|indeterminate|a consideration|a possibility)",
        r"(?:may|might|could) (?:also )?be (?:present|there)",
        r"(?:difficult|hard|impossible) to (?:exclude|rule out)",
        r"(?:should|must) be (?:considered|excluded)",
        rf"(?:possible|probable|suspected|questionable|likely|uncertain|equivocal){_END}",
    ),
    ("value", UNCERTAIN): (
        r"(?:possibl[ey]|probabl[ey]|questionable|suspected|likely|uncertain|equivocal|indeterminate|maybe|perhaps|"
        r"(?:may|might|could) be|borderline|suspicious|\+ ?/ ?-|\?)(?!\w)",
        _CANNOT + r"(?:excluded?|ruled? out)",
    ),
    # Also later in a value: "none on the right, small on the left".
    ("value", POSITIVE): (
        r"(?:yes|y|present|positive|pos|true|1|\+{1,3}|trace|tiny|small|minimal|mild|moderate|large|severe)(?![\w./])",
    ),
    # The value says nothing about the finding.
    ("value", ABSENT): (
        r"(?:n/?a|unknown|undetermined|pending|deferred)(?!\w)",
        r"(?:not|cannot be|could not be|unable to be|incompletely|suboptimally) (?:\w{1,14} )?"
        r"(?:evaluated|assess(?:ed|able)|applicable|included|imaged|mentioned|reported|addressed|stated)",
        r"(?:unable to|limited|cannot) (?:evaluat|assess)\w{1,4}",
        r"(?:see|as) (?:above|below|described|findings|impression)",
    ),
}
# These state the finding that follows, even after a doubt about another one.
AFFIRMS = (r"suggestive of", r"consistent with", r"compatible with")
# These end the reach of denials and doubts, in both directions.
BREAKS = (
    r"but|however|although|though|except|apart from|aside from|other than|otherwise|nevertheless|yet|while|whereas",
    r"which|because|(?<!be )(?:secondary|due) to|there (?:is|are|has|was|were)",
    r"(?<!consistent )(?<!compatible )(?<!associated )with",
    r"and (?:the|there|a|an|small|mild|moderate|large|stable|unchanged|persistent|new|left|right|bilateral)",
)
# After a comma these begin a statement that a denial before it does not reach: "no effusion, stable cardiomegaly".
NEW = (
    r"stable|persistent|unchanged|chronic|healed|healing|known|mild|mildly|minimal|small|moderate|severe|large|old|new",
    r"there|the|a|an|left|right|bilateral|bibasilar",
    r"heart|cardiac|lungs?(?! (?:$|opaci|lesion|nodul|mass|infiltr|collapse))",
)
FRESH = (*NEW, r"possible|possibly|probable|probably|suspected|questionable|likely")
VERBS = (r"is|are|was|were|has|have", r"(?<!previously )(?:seen|identified|noted|present)")

# Misreadings of the CheXpert labeler: finding -> (pattern anywhere in a sentence, its verdict). An entry holds for many
# reports; none is made for a single report.
HABITS: dict[str, tuple[tuple[str, int], ...]] = {
    "Cardiomegaly": (
        # It takes an organ as normal after "is" and "are", but not after other verbs.
        (r"the heart size [^,]{0,60}(?<!\w)(?:appears?|have|has become) [^,]{0,20}normal", POSITIVE),
        (r"heart size and [^,]{0,30} appear (?:stable|normal limits)", POSITIVE),
        (
            r"(?:heart size|the heart is|cardiac silhouette) [^,]{0,20}(?<!at the )upper limits? (?:of )?normal",
            POSITIVE,
        ),
        (r"enlarged (?:but )?(?:stable|unchanged)|stable enlarged(?! cardiomediastinum)", UNCERTAIN),
        (r"borderline heart size|heart size (?:is |remains )?borderline(?! enlarge)", UNCERTAIN),
    ),
    # It takes the scope of "no" from a syntax parser, which fails where a sentence without a verb ends in a plural that
    # could be one, or where it splits "air space".
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
        # It takes any contour as that of the mediastinum, even of the aorta, a hilum or a rib.
        (
            r"^(?!.{0,300}(?<!\w)(?:no|not|normal|unremarkable|within|stable|unchanged|may|might|possibl[ey])(?!\w))"
            r".{0,300}(?<!\w)contours?(?!\w)",
            POSITIVE,
        ),
    ),
    # Its phrases match parts of words: "lump", "plate", "tube".
    "Lung Lesion": ((r"lumpectomy", POSITIVE),),
    "Support Devices": (
        (r"(?<![\w-])(?:endplates?|platelike)(?!\w)", POSITIVE),
        (
            r"^(?!.{0,200}(?<!\w)(?:no|without|removed|removal)(?!\w)).{0,200}"
            r"(?<!\w)(?:(?<!pleural )(?<!fracture )line|markers?)(?!\w)",
            POSITIVE,
        ),
        (r"^(?!.{0,200}no (?:\w{1,12} )?of).{0,200}tubercul", POSITIVE),
    ),
}
