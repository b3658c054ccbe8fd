"""Forms of reports that the labeler knows: headings, de-identification marks, short forms, ways to write items.

Entries are regular expressions as in `clinical_phrases`. A new form is one more line.
"""

from __future__ import annotations

from medvill_jax.metrics.clinical_phrases import SEEN

# (section that a heading opens, position of the pattern) -> patterns; the first match decides. Sections about the
# patient or the examination are "left out"; those that describe the image are "read". A pattern matches the "end" of
# the words before the colon (a line may hold several sections), "all" of them, or is "within" them. Other words before
# a colon may name an item: "Heart: normal."
_FILM = (
    r"(?:pa|ap|frontal|lateral|portable|upright|supine|erect|single|one|two|three|\d|chest|view|views|radiographs?|x-?ray|"
    r"film|digital|of|the|and|with)"
)
_AND = r"(?: ?/ ?| and | & |, )"
HEADINGS: dict[tuple[str, str], tuple[str, ...]] = {
    ("left out", "all"): (
        r"(?:type of )?(?:exam(?:ination)?s?|stud(?:y|ies)|views?|modality|protocol)(?: (?:type|date|performed))?",
        r"(?:\w{1,14} ){0,2}(?:dates?|times?|patient|physician|department|mrn|accession|age|sex)",
        r"priors?|pmhx?|psh|hpi|cc|dx|rfe|requests?|requested|referral|concerns?|medications|(?:\w{1,14} )?complaints?",
        r"(?:signs?|symptoms?)(?: ?/ ?| and )?(?:symptoms)?",
        r"(?:admitting|admission|working|provisional|clinical|referring|ordering|pre-?operative) diagnos[ie]s",
        r"(?:underlying )?(?:medical )?condition",
        # Common misspellings.
        r"indicatons?|indictions?|indcations?|idications?|ndications?|indicatoins?|histroy|comparsions?|compairsons?",
    ),
    ("left out", "end"): (
        r"(?:(?:clinical|brief|patient|medical|past|surgical|social|relevant) )*(?:indications?|history|hx)"
        rf"(?:{_AND}(?:indications?|history|reason))?",
        r"(?:indications?|reasons?|history) (?:for|of) (?:this |the )?(?:study|exam(?:ination)?|test|present illness)",
        r"clinical (?:information|details|data|statement|question|concern|context|background)",
        r"comparisons?(?: (?:stud(?:y|ies)|exam(?:ination)?s?|films?|dates?))?",
        rf"techniques?(?:{_AND}(?:views?|comparisons?))?",
        r"recommendations?(?:\(s\))?",
    ),
    ("read", "end"): (
        rf"(?:(?:final|chest|radiographic|pertinent|other|additional) )*"
        rf"(?:(?:findings?|impressions?|conclusions?){_AND})?(?:findings?|impressions?|conclusions?)(?:\(s\))?",
        r"interpretations?|opinion|report|summary|assessment|description",
        # These begin a description: "AP chest compared to ___:".
        r"(?:.* )?(?:views?|radiographs?|x-?rays?|cxr|films?|chest) (?:(?:was|were|is|are) )?"
        r"(?:compared|in comparison) (?:to|with)(?: .*)?",
        r"in comparison (?:to|with)(?: .*)?",
        # Titles of films.
        rf"(?:{_FILM}[ ,&/-]{{1,3}})*(?:views?|radiographs?|x-? ?rays?|cxr|films?|chest)(?: of (?:the )?chest)?",
    ),
    ("left out", "within"): (
        r"indications?|history|reason|clinical|information|questions?",
        r"techniques?|procedure",
        r"comparisons?|compared|prior (?:stud|exam|film|radiograph|imag)\w{0,8}",
    ),
    ("left out to its end", "within"): (r"notifications?|communication|dictated|signed|attending",),
    ("read", "within"): (
        r"views?|radiographs?|x-? ?rays?|cxrs?|films?|exam(?:ination)?|study",
        r"portable|pa|ap|upright|supine|semi-?(?:erect|upright)",
    ),
    ("read", "all"): (r"(?:wet read|preliminary|final)(?: report)?",),
}
# Sentences that continue an indication.
INDICATIONS = (
    r"(?:please |to |for )?(?:evaluat|assess|rule out|r/o|exclu|quer|question|\?|concern|check)",
    r"(?:history|h/o|status post|s/p|known|presents?|presenting|with) ",
    r"(?:concern|suspicion) for",
)
# Sentences about the patient or an earlier film, in any section.
PATIENT = (
    r"year[ -]olds?|y/o|yo [mf]",
    r"^comparison (?:is|was) (?:made )?(?:to|with)(?!.{0,300}(?<!\w)(?:there|now|new|has|have|shows?)(?!\w))",
)
# De-identification marks, which replace names and dates.
DEIDENTIFIED = (
    r"\[\*\*.{0,80}?\*\*\]",
    r"_{2,}",
    r"(?<![A-Za-z])[Xx]{3,}(?:[/-][Xx]{2,})*(?![A-Za-z])",
    r"[\[<](?:REDACTED|NAME|DATE|TIME|AGE|ID|PERSON|PATIENT|DOCTOR|HOSPITAL|LOCATION|PHONE)[\]>]",
)
# Abbreviations, in upper or lower case -> what they stand for.
SHORT: tuple[tuple[str, str], ...] = (
    (r"(?<!\w)(vs|dr|approx|incl)\.", r"\1"),
    (r"(?:(?<!\S)\?|(?:^|(?<=[,;(.:] ))\? )(?=[a-z])", "possible "),
    (r"(?<!\w)poss\.", "possible"),
    (r"(?<!\w)prob\.", "probable"),
    (r"(?<!\w)neg\.(?= (?:for|of))", "negative"),
    (r"(?<!\w)(is|are|was|were|does|do|did|has|have|could)n't", r"\1 not"),
    (r"(?<!\w)w/o(?!\w)", "without"),
    (r"(?<!\w)w/ ?(?=[a-z])", "with "),
    (r"(?<!\w)c/w(?!\w)", "consistent with"),
    (r"(?<!\w)s/p(?!\w)", "status post"),
    (r"(?<!\w)(?:h/o|hx of)(?!\w)", "history of"),
    (r"[<\[]([a-z ]{0,20}(?:indication|history|comparison|technique|findings|impression))[>\]]:?", r"\1:"),
)
_YES = r"(?:\[ ?[x+v✓✔] ?\]|\( ?[x✓✔] ?\)|[☑☒✓✔✅])"
_NO = r"(?:\[ ?[-_o]? ?\]|\( ?\)|[☐❌✗✘])"
_TICKED_YES, _UNTICKED_YES = (rf"(?:yes ?{box}|{box} ?yes)" for box in (_YES, _NO))
_TICKED_NO, _UNTICKED_NO = (rf"(?:no ?{box}|{box} ?no)" for box in (_YES, _NO))
_TICKED = r" ?([^\[\]()☑☒✓✔✅☐❌✗✘:;]{2,80})"
# Ways to write an item -> "finding: value", on a sentence in lower case. Applied until nothing changes.
ITEMS: tuple[tuple[str, str], ...] = (
    # One box for yes and one for no.
    (rf"{_UNTICKED_YES},? {_TICKED_NO}|{_TICKED_NO},? {_UNTICKED_YES}", "no"),
    (rf"{_TICKED_YES},? {_UNTICKED_NO}|{_UNTICKED_NO},? {_TICKED_YES}", "yes"),
    (rf": ?{_YES}(?! ?\w)", ": yes;"),
    (rf": ?{_NO}(?! ?\w)", ": no;"),
    # A tick list; an empty box denies.
    (rf"^((?:[^:;]+: (?:yes|no);)*) ?{_YES}{_TICKED}", r"\1\2: yes;"),
    (rf"^((?:[^:;]+: (?:yes|no);)*) ?{_NO}{_TICKED}", r"\1\2: no;"),
    (rf"(?<=\w) ?{_YES}", ": yes;"),
    (rf"(?<=\w) ?{_NO}", ": no;"),
    (r"(?<=\w) ?[(\[](?:-|neg(?:ative)?|no|none|absent|nil|not seen)[)\]](?! \w)", ": no;"),
    (r"(?<=\w) ?[(\[](?:\+|pos(?:itive)?|yes|present)[)\]]", ": yes;"),
    (r"(?<=\w) ?[(\[](?:\?|possible|questionable|uncertain)[)\]]", ": possible;"),
    (r"^\((?:-|neg|negative)\) ?|(?<=[,;] )-(?=[a-z]{3})", "no "),
    (r"^\((?:\+|pos|positive)\) ?", ""),
    (r"^(?:is|are) there (?:an? |any )?(?:evidence of )?([^?:]{3,80})\? ?", r"\1: "),
    # The verdict is the heading.
    (
        rf"^(?:no|none(?: of the following)?|not {SEEN}|(?:pertinent )?negatives?|absent|negative for|resolved|"
        r"removed)(?: findings?)? ?[:=] ?",
        "no ",
    ),
    (r"^(?:yes|(?:pertinent )?positives?|present|seen)(?: findings?)? ?[:=] ?", ""),
    (
        r"^(?:possible|probable|likely|suspected|suspicious for|concern for|uncertain|questionable|equivocal|rule out|"
        r"r/o|cannot (?:exclude|be excluded)|differential(?: diagnosis)?|ddx|consider)(?: findings?)? ?[:=] ?",
        "possible ",
    ),
)
# Separators of a finding and its value other than a colon, if the value is one of `CUES` and nothing else follows.
SEPARATORS = r" ?[-=|>]+ ?| ?\.{2,} ?|\? "
# Other names of items; they end the item before them.
ORGANS = (
    r"lungs?(?: (?:fields?|volumes?|parenchyma))?|pleurae?|pleural (?:spaces?|surfaces?)|airways?|trachea",
    r"hil(?:a|um)|bon(?:es?|y)(?: (?:thorax|structures))?|osseous structures?|ribs?|spine|chest wall|soft tissues?",
    r"diaphragms?|(?:upper )?abdomen|aorta|vessels|(?:pulmonary )?vasculature|vascularity|free air|other|findings",
)
# Words that may be part of an item's name, before or after the finding.
QUALIFIERS = (
    r"left|right|bilateral|acute|new|any|focal|pulmonary|pleural|lung|rib|pericardial|apical|basilar|displaced|other|"
    r"airspace|interstitial|suspicious|support|visible|tension|compression|upper|lower|middle|lobe|hilar|osseous|"
    r"presence of|evidence of|size|status|positions?|placement|seen|present|identified|noted"
)
# Words that a sentence has and the name of an item has not.
STATING = (
    r"is|are|was|were|has|have|there|this|these|may|might|could|no|not|without|shows?|demonstrates?|consistent|"
    r"with|possibl[ey]|probabl[ey]|likely|suspected|questionable",
)
