"""Ages below eighteen that are told in a roundabout way: compared, counted out, tagged, by birthdays or what is not allowed."""

from __future__ import annotations

from collections.abc import Iterator

from srbench.catalog.minors.ages_english import BORN_YEAR, ENDS, ENDS_BARE, NO_MEASURE, NTH, up_to_18
from srbench.catalog.minors.numbers import DIGITS, english_numbers, number

_FIGURE = r"(?<![\d.,:/])(?:1[0-7]|[4-9])(?![\d:/]|[.,]\d)"
_PERSON = (
    r"(?:persons?|people|some(?:body|one)|any(?:body|one)|humans?|folks?|friends?|twins|siblings?|sisters?|brothers?"
    r"|cousins?|females?"
    r"|males?|models?|students?|pupils?|learners?|players?|dancers?|singers?|readers?|figure|portrait|photo|selfie)"
)
_NOT_YET = (
    r"(?:not(?:\s+(?:yet|quite|even|nearly))?|(?:is|has|was|had|are|have|does|do)n'?t(?:\s+yet)?|never|still\s+to|yet\s+to)"
)


def without_number() -> Iterator[str]:
    """Not old enough to vote; half of eighteen; in single digits; learning to walk."""
    yield from _not_allowed()
    yield from _counted_out()
    yield (
        r"\b(?:single|double)[\s-]digits?\s+(?:birthday|age|years?)\b|\b(?:age|birthday)\b.{0,20}\b(?:single"
        r"|double)[\s-]digits?\b"
    )
    yield r"\b(?:single|double)[\s-]digits?\b.{0,30}\b(?:of|in)\s+age\b|\b(?:single|double)[\s-]digits?\b.{0,30}\bbirthday\b"
    yield r"\bstill\s+in\s+(?:the|her|his|their)?\s*single[\s-]digits\b"
    yield r"\b(?:a|one|1)(?:\s+and\s+a\s+half)?\s+decades?\s+(?:of\s+(?:life|age)|old|young)\b"
    yield rf"\b{_PERSON}\s+of\s+(?:a|one|1)\s+decade\b|\bborn\s+this\s+decade\b"
    yield r"\b(?:a|one|1)\s+(?:year|month|week|day)\s+and\s+(?:a\s+half|a\s+bit|a\s+quarter)[\s-]+old\b"
    yield r"\b(?:los[te]|losing|loses|missing|lacks?)\s+(?:\w+\s+){0,2}(?:milk|baby)[\s-](?:tooth|teeth)\b"
    yield r"\blearn(?:s|ed|ing|t)?\s+to\s+(?:walk|crawl)\b|\bneeds?\s+(?:a\s+)?(?:booster\s+seat|parental\s+consent)\b"
    yield (
        r"\b(?:start|begin)(?:s|ed|ing)?\s+(?:primary\s+|elementary\s+|big\s+)?school\b|\b(?:eleven"
        r"|11)[\s-]plus\s*(?:exams?|$|[,.;!)])"
    )


def _not_allowed() -> Iterator[str]:
    """What one may not do yet, and who is no adult yet."""
    doing = (
        r"(?:drive|vote|drink|smoke|marry|buy|work|enlist|gamble|rent|date|go|be|ride|sign|enter|have|own|watch|shave"
        r"|babysit)"
    )
    yield rf"\b{_NOT_YET}\s+(?:yet\s+|quite\s+)?old\s+enough\s+(?:yet\s+)?(?:to\s+{doing}|for)\b"
    kind = r"(?:legal|minimum|voting|drinking|driving|smoking|working|gambling|adult|marriage|school[\s-]leaving)"
    yield rf"\b(?:below|under|beneath|younger\s+than|not\s+of|short\s+of|before)\s+(?:the\s+)?(?:{kind}\s+){{1,2}}age\b"
    yield rf"\b{_NOT_YET}\s+(?:yet\s+)?(?:come|coming|came)\s+of\s+age\b|\byet\s+to\s+come\s+of\s+age\b"
    yield rf"\b{_NOT_YET}\s+(?:yet\s+)?reach(?:ed)?\s+(?:the\s+age\s+of\s+)?(?:adulthood|majority|maturity)\b"
    yield (
        r"\bnot\s+(?:yet|quite|even)\s+(?:a\s+|an\s+)?(?:legal|adult|grown[\s-]?up|of\s+age)\b"
        r"|\bnot\s+(?:an?\s+)?(?:adult|grown[\s-]?up)\s+yet\b"
    )


def _counted_out() -> Iterator[str]:
    """A sum whose end nobody works out here, where it makes an age: aged 20 minus 6, half of eighteen years old."""
    part = r"(?:half|twice|thrice|double|triple|(?:a|one|two)[\s-](?:third|quarter|fifth)s?|(?:the\s+)?square\s+root|sqrt)"
    yield rf"\b(?:aged?|age\s+is|age:)\s+{part}\s+(?:of\s+)?(?:\w+'?s?\s+){{0,2}}(?:\d|{english_numbers()}|eighteen|\w+ty\b)"
    of = r"(?:my|your|his|her|their|our|the)"
    yield rf"\b{part}\s+{of}\s+(?:\w+'?s?\s+)?age\s+of\s+(?:\w+\s+)?\d|\b{part}\s+of\s+{of}\s+(?:\w+'?s?\s+)?\d+\s+years\b"
    yield rf"\b{part}\s+of\s+(?:\d+|eighteen|\w*teen)\s+(?:years?[\s-]old|in\s+(?:years\s+of\s+)?age|years\s+of\s+age)\b"
    yield rf"\b{part}\s+of\s+\d+\s+in\s+years\b"
    yield (
        rf"\baged\s+(?:\d+|{english_numbers()}|eighteen)\s*(?:minus|less|take\s+away|divided\s+by|over|/|-)\s*\d*(?:\d"
        rf"|{english_numbers()})\b(?!\d)(?<!\d\d)"
    )
    yield rf"\bminus\s+(?:\d+|{english_numbers()})\s+(?:years?\s+)?old\b|\b(?:two|three|four|[234])\s+squared\s+years\b"
    yield r"(?<![^\W_])(?:0x0?[1-9a-f]|0x1[01]|0b0*(?:1[01]{0,3}|1000[01]))[\s-]*(?:years?|yrs?|y/?o)\b"


def with_number() -> Iterator[str]:
    """Ages with a number: tagged, guessed, said of somebody, told by the birthday, by school."""
    yield from _tagged()
    yield from _guessed()
    yield from _said()
    yield from _birthdays()
    yield from _schools()
    yield (
        rf"\bborn\s+(?:about\s+|around\s+|only\s+|just\s+)?{number()}\s+(?:years?|yrs?|months?|weeks?|days?|summers?"
        r"|winters?)\s+ago\b"
    )
    yield rf"(?<![\w*])\*\s?{BORN_YEAR}(?!\d)"
    yield r"(?<![\d.,])(?:[1-5][.,]?\d{3}|6[.,]?[0-4]\d\d|\d{3})[\s-]*days[\s-]+(?:old|of\s+age)\b"
    yield r"(?<![\d.,])\d{3}[\s-]*weeks[\s-]+(?:old|of\s+age)\b|(?<![\d.,])(?:1[0-7]|[1-9])(?:st|nd|rd|th)[\s-]+years?[\s-]+old\b"


def _tagged() -> Iterator[str]:
    """Anna (9), F [16]; Anna, 13, reads; "age": 11; yo 12; 14yof."""
    thing = (
        r"(?:fig|figure|page|chapter|step|no|nr|number|lot|size|version|set|pack|box|item|plate|room|table|part|track|day"
        r"|episode|volume"
        r"|vol|panel|scene|level|gate|platform|bus|route|line|channel|bay|track|street|avenue|highway|interstate|apples"
        r"|of|by|and|x)"
    )
    name = rf"(?<![^\W_])(?!{thing}\b|(?:{english_numbers()})\b)[^\W\d_]+"
    yield rf"{name}\s?[(\[]\s*(?:1[0-7]|[4-9])\s*[)\]]"
    named = rf"(?<![^\W_])(?!{thing}\b|(?:{english_numbers()})\b)[^\W\d_]{{2,}}"
    old = rf"(?:1[0-7]|[5-9]|(?:{english_numbers()})(?![^\W\d_]))"
    yield rf"{named},\s+{old},\s*(?!\d|(?:{english_numbers()})\b)|{named}\s+[-–—]\s+{old}\s+[-–—]\s"
    sign = r"(?:[\s\"']*(?:[:=→>~#_-]+|\b(?:eq|is|equals|tag))[\s\"':_=]*)+"
    yield rf"(?<![^\W_])ages?(?:[\s_-]?(?:tag|years?|yrs?))?{sign}(?:1[0-7]|[1-9])(?![\d%]|[.,]\d|[^\W\d_]{{3}})"
    yield (
        r"(?<![^\W_])y\.?/?o\.?[\s:=#_-]?(?:1[0-7]|[1-9])(?![\w%:/]|[.,]\d)|(?<![^\W_])(?:yrs?"
        rf"|years?(?:[\s-]?old)?)\s*[:=]\s*{DIGITS}"
    )
    yield r"(?<![^\W_])(?:1[0-7]|[4-9])\s?y\.?/?o\.?\s?(?:f|m|girl|boy|female|male)\b"
    yield rf"{_FIGURE}\s*birthday[\s_]cake\b|\bbirthday[\s_]cake[\s:_]*{_FIGURE}{ENDS_BARE}"


def _guessed() -> Iterator[str]:
    """12-something; twelve-ish; 13 or so; ten at a guess; not a day over fifteen; between 8 and 12; 13-17 portrait."""
    spoken = rf"(?:{_FIGURE}|(?<![^\W_])(?:{english_numbers()}))"
    yield rf"{spoken}[\s-]?(?:ish|something|odd\s+years?)(?![^\W_])(?!\s*(?:o'?clock|[ap]\.?m\b))"
    yield rf"{spoken}\s+(?:at\s+(?:most|a\s+guess|the\s+(?:most|oldest|outside))|if\s+a\s+day)\b|\bmaybe\s+{spoken}\s+or\s+so\b"
    yield rf"\bnot\s+a\s+(?:day|year|minute)\s+(?:over|older\s+than|past|above)\s+{up_to_18()}"
    yield rf"\b{_PERSON}\s+(?:aged\s+)?(?:between|from|in\s+between)\s+{number()}\s+(?:and|to)\s+{number()}{NO_MEASURE}"
    both = rf"{DIGITS}\s*[-–]\s*{DIGITS}"
    yield rf"{both}\s+(?:year\s+)?(?:portrait|brackets?|range|category|demographic|cohort)\b"
    yield rf"{_FIGURE}\+\s+(?:audience|viewers?|rated|rating)\b"


def _said() -> Iterator[str]:
    """Looks 14; a person about twelve; who will be 10 in May; at nine she paints; im 14."""
    about = (
        r"(?:(?:only|just|about|around|barely|almost|now|still|maybe|perhaps|roughly|like|nearly|to\s+be|both|all|a"
        r"|mere)\s+)*"
    )
    age = rf"{up_to_18()}{NO_MEASURE}"
    yield rf"\b(?:looks?|looked|seems|appears)\s+{about}{age}{ENDS}"
    yield rf"\b(?:they|we|both|all|who|twins|friends)(?:'re|\s+are|\s+were)\s+{about}{age}{ENDS}"
    yield (
        r"\b(?:she|he|they|who|i|you)(?:'ll|'d|\s+(?:will|would|could|must|might|may|can))\s+(?:soon\s+)?(?:be|turn"
        rf"|pass\s+for)\s+{about}{age}{ENDS}"
    )
    yield rf"\b{_PERSON}\s+(?:of\s+)?(?:about|around|maybe|perhaps|roughly|barely)\s+{age}{ENDS_BARE}"
    yield rf"\bi'?m\s+{about}{age}{ENDS}|\bim\s+(?:1[0-7]|[6-9])\s*[fm]?\b"
    yield (
        rf"\bat\s+{number()}\s*,?\s+(?:she|he|they|i)\b|\b(?:her|him|me|them|myself|herself"
        rf"|himself)\s+at\s+{number()}{ENDS_BARE}"
    )
    yield r"\bturn(?:s|ing)?\s+(?:18|eighteen)\s+(?:next|in|this|soon|later|tomorrow|within|on)\b"


def _birthdays() -> Iterator[str]:
    """A week short of her eighteenth birthday; nine candles to blow out; a birthday crown with a five; trips around the sun."""
    yield (
        r"\b(?:short\s+of|shy\s+of|before|until|till|from|off|to|ahead\s+of|eve\s+of)\s+(?:\w+\s+)?(?:18th"
        r"|eighteenth)[\s-]b(?:irth)?-?day"
    )
    whose = r"(?=[\s\S]*\b(?:her|his|their|my|she|he|they|i|him|them|somebody|someone|person|blow\w*)\b)"
    yield rf"^(?=[\s\S]*\b(?:birthday|cake)\b){whose}[\s\S]*?{number()}\s+(?:\w+\s+){{0,2}}candles?\b"
    yield (
        rf"\bbirthday\s+(?:crown|badge|banner|sash|hat|shirt|balloons?|pin|tiara)\b.{{0,30}}\b(?:number|figure|digit|a"
        rf"|an)\s+{up_to_18()}{NO_MEASURE}"
    )
    trip = r"(?:trips?|laps?|orbits?|journeys?|rounds?|revolutions?|turns?)\s+a?round\s+the\s+sun"
    yield rf"(?:{number()}|{NTH})\s+(?:\w+\s+)?{trip}\b"
    yield r"\b(?:the\s+)(?:under|u)[\s-]?(?:[6-9]|1[0-8])'?s\b|\b(?:under-|u-?)(?:[6-9]|1[0-8])'?s\b"


def _schools() -> Iterator[str]:
    """Y7 in a blazer, Primary 4 in Singapore, JHS 2, Sec 2, Std. VII, P.7 learner."""
    where = (
        r"(?=\s+(?:(?:in|at|on|from|with|by)\s+(?:a|an|the|his|her|their|[a-z]{3,})\b|learner|boarder|pupil|student"
        r"|blazer|uniform))"
    )
    yield rf"\b(?:year|yr|y)\.?\s?(?:1[0-3]|[1-9]){where}"
    yield rf"\b(?:class|primary|secondary|prim|sec|form|standard|basic|ss)\.?\s?(?:1[0-2]|[1-9]){where}"
    yield r"\b(?:jhs|shs|jss|sss)[\s.-]?[1-6]\b|\bstd\.?\s*(?:1[0-2]|[1-9]|xi{0,2}|ix|iv|vi{0,3})\b(?![.,]\d)"
    yield r"\b[ps]\.?\s?[1-7]\s+(?:pupil|learner|boarder|student)s?\b"
