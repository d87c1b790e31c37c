"""How ages below eighteen are written in English, as regular expressions for small plain letters."""

from __future__ import annotations

from collections.abc import Iterator

from srbench.catalog.minors.numbers import DIGITS, MEASURE, ROMAN, english_numbers, number

BORN_SINCE = 2007
"""Who was born in this year or later is taken for a minor, in whatever year that is read: no clock changes what is dropped."""
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth",
    "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth",
)  # fmt: skip
_GAP = r"[\s\-_.]*"
NO_MEASURE = rf"(?![\d%°:]|[.,]\d|\s*{MEASURE}(?![^\W\d_]))"
ENDS = (
    r"(?=\s*(?:$|[.,;:!?)\]}\"'…|]|[-–—]\s|(?:and|or|in|on|at|with|who|wearing|wears|standing|stands|sitting|sits"
    r"|holding|holds|now"
    r"|yet|but|as|for|by|next|this|today|soon|years?|yrs?|yo|old|smiling|looking|posing|portrait|dressed|playing"
    r"|running|walking)\b))"
)
"""What may follow a bare number that is an age: nothing that is counted."""
ENDS_BARE = r"(?=\s*(?:$|[,;!)]))"
_TO_18 = r"(?:1[0-8]|[1-9])(?![\d.]|,\d)"
_EIGHTEEN = r"(?:18|eighteen)(?![^\W\d_]|\d|\.\d|,\d)"
NTH = rf"(?<![^\W_])(?:(?:1[0-7]|[1-9])(?:st|nd|rd|th)|{'|'.join(ORDINALS)})"
_GRADE_NTH = rf"(?<![^\W_])(?:(?:1[0-2]|[1-9])(?:st|nd|rd|th)|{'|'.join(ORDINALS[:12])})"
BORN_YEAR = (
    rf"(?:{'|'.join(str(year) for year in range(BORN_SINCE, 2010))}|20[1-9]\d|2k(?:0?[789]|[1-9]\d)|'(?:0[789]|1\d|2\d)(?!\d))"
)
_ONE_TO_TWELVE = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"


_TENS_S = ("fives", "sixes", "sevens", "eights", "nines", "tens", "elevens", "twelves", *(f"{each}teens" for each in (
    "thir", "four", "fif", "six", "seven", "eigh",
)))  # fmt: skip
"""What teams of an age are called: under-tens."""


def up_to_18() -> str:
    return rf"(?:{_TO_18}|(?:{english_numbers()}|eighteen)(?![^\W\d_]))"


def without_number() -> Iterator[str]:
    """Ages that need no number: months-old, a year old, a tender age, pre-K."""
    yield r"\b(?:months?|weeks?|days?|hours?|minutes?)[\s-]*old\b"
    yield r"(?:^|\b(?:a|an|one|half|half-a|the|few|single|1)|[^\w\s-])[\s-]*(?:a[\s-]+)?(?:years?|yrs?)[\s-]old\b"
    yield r"\b(?:a|one|half a|1)\s+(?:decade|dozen\s+years?)\s+old\b|\bdozen[\s-]+years?[\s-]+(?:old|of age)\b"
    yield r"\b(?:single[\s-]digit|tender|young|minor|school|kindergarten|nursery)[\s-]+ages?\b"
    yield r"\bpre[\s-]?k(?:inder\w*)?\b|\bk[\s-](?:1[0-2]|[1-9])\b|\bkey\s+stage\s+\w+"


def with_number() -> Iterator[str]:
    """Ages with a number, in figures or words."""
    yield from _years()
    yield from _months()
    yield from _aged()
    yield from _under_18()
    yield from _said_of_somebody()
    yield from _birthdays()
    yield from _years_of_birth()
    yield from _letters_and_digits()
    yield from _school_years()


def _years() -> Iterator[str]:
    """9 years, nine-year-old, 9yo, 9 y/o, twelve summers, 9yearold."""
    age = rf"(?:{number()}|{ROMAN}){_GAP}"
    more = rf"(?:(?:and|&)\s+(?:a\s+)?(?:half|quarter|three quarters)\s+|ish{_GAP}|or so\s+|plus\s+)?"
    unit = rf"(?:years?|yeears?|yesrs?|yrs?|y\.?{_GAP}/?o|y\.?{_GAP}/?{_GAP}old|summers?|winters?|springs?|autumns?|birthdays)"
    yield rf"{age}{more}{unit}(?![^\W_])(?!\s+(?:ago|later|hence)\b)"
    yield rf"(?:{DIGITS}|(?<![^\W_])(?:{english_numbers()})){_GAP}(?:years?|yrs?)(?:old|s?olds?|young)"
    yield rf"(?:{DIGITS}|(?<!ty)(?:{english_numbers()})){_GAP}(?:years?|yrs?){_GAP}o{_GAP}l+{_GAP}d"
    yield rf"{DIGITS}\s?y(?![^\W_])"


def _months() -> Iterator[str]:
    """Up to 215 months, weeks or days old; 6mo, 9 m/o."""
    count = r"(?<![\d.,])(?:\d{1,2}|1\d\d|20\d|21[0-5])"
    yield rf"{count}{_GAP}(?:months?|mos?|mths?|weeks?|wks?|days?|hours?){_GAP}(?:old|of age|young)\b"
    yield rf"{number()}{_GAP}(?:months?|weeks?|days?){_GAP}(?:old|of age|young)\b"
    yield rf"(?:{count}|{number()}|eighteen){_GAP}months{ENDS_BARE}"
    yield rf"{count}{_GAP}(?:mths|mos)\b"
    yield r"(?<![\d.,:])0\s*(?:-|–|to)\s*(?:[1-9]|1[0-7])\s*(?:months?|years?|yrs?|mos?)\b"
    yield r"\b(?:newly|new|just|recently)[\s-]+born\b|\bborn\s+(?:yesterday|today|last\s+(?:night|week|month|year))\b"
    yield r"\bborn\s+this\s+(?:morning|week|month|year)\b"
    yield rf"(?<![\d.,])\d{{1,2}}{_GAP}(?:mos?\b(?!\s?\d)|m[/.]{_GAP}?o\b|months?\s+(?:baby|infant))"


def _aged() -> Iterator[str]:
    """aged 9, age: twelve, ages 9 to 12, 9 of age."""
    yield rf"\bages?\s+0\s*(?:-|–|to|through)\s*{DIGITS}|\b(?:ages?|aged)\s+(?:from\s+)?0\b"
    yield rf"(?<![\d.,]){DIGITS}\s*[-–]\s*{DIGITS}\s+age[\s-]+(?:group|range|bracket)"
    yield rf"\bbetween\s+{DIGITS}\s+and\s+{DIGITS}(?=\s*(?:$|[.,;!)]))"
    yield rf"{number()}\s*\(\s*\d{{1,2}}\s*\)\s*(?:years?|yrs?|y)"
    yield rf"{DIGITS}\s*/\s*y\.?o\b"
    spoken = rf"(?:{DIGITS}|(?<![^\W_])(?:{english_numbers()}))"
    part = r"(?:a[\s-]+half|three[\s-]+quarters?|a[\s-]+quarter)"
    yield rf"{spoken}[\s-]+and[\s-]+{part}(?=\s*(?:$|[.,;!)]|[\s-]+years?))"
    yield rf"{spoken}(?:[\s-]+(?:and|a|half|three|quarters?)){{1,4}}[\s-]+years?[\s-]+old"
    about = (
        r"(?:(?:of|is|was|about|around|approx\.?|approximately|only|just|barely|roughly|between|at|from|group|range|in years"
        r"|not over"
        r"|circa|ca\.?|to)[\s:=]*)*"
    )
    years = rf"(?:{DIGITS}(?!%|[^\W\d_]{{3}})|(?:{english_numbers()})(?![^\W\d_])|{ROMAN})"
    yield rf"\b(?:aged?|ages|aging|age[sd]?)[\s\-_.:=~≈(\[<≤]*{about}{years}"
    yield rf"{number()}{_GAP}(?:aged|of age|in age)\b"


def _under_18() -> Iterator[str]:
    """under 18, not yet eighteen, u-16, <18, 17 and under, 12U."""
    below = (
        r"under|below|beneath|underneath|not\s+(?:even|quite|yet)|n[o']t(?:\s+yet)?|never|younger\s+than|less\s+than"
        r"|fewer\s+than|before"
        r"|sub|pre|prior\s+to|shy\s+of|short\s+of|almost|nearly|barely|close\s+to|approaching|about\s+to\s+(?:turn|be)|soon"
        r"|soon\s+to\s+be|yet\s+to\s+(?:turn|be)|turned|turning|until|till|minus|lower\s+than|lt"
    )
    what = r"(?:the\s+)?(?:ages?\s+(?:of\s+)?|turning\s+|turned\s+|years\s+of\s+)?"
    yield rf"(?:\b(?:{below})[\s-]+{what}|<\s*=?\s*|≤\s*|＜\s*){_EIGHTEEN}{NO_MEASURE}"
    nearly = (
        r"under|below|younger\s+than|less\s+than|no\s+older\s+than|not\s+older\s+than|at\s+most|not\s+yet|not\s+even"
        r"|not\s+quite|barely"
        r"|almost|nearly|just|only|still|going\s+on|soon|about\s+to\s+(?:turn|be)|approaching"
    )
    yield rf"\b(?:{nearly})\s+(?:the\s+age\s+of\s+)?{up_to_18()}(?:'?s\b)?{NO_MEASURE}{ENDS}"
    yield rf"\b(?:under|u|sub|pre)[\s-]?(?:[6-9]|1[0-8])'?s?\b(?![.,:/]?\d|\s*{MEASURE}\b){ENDS}"
    sport = (
        r"(?:teams?|squads?|sides?|players?|match(?:es)?|games?|leagues?|cups?|tournaments?|champion\w*|finals?|kits?"
        r"|coach\w*|train\w+"
        r"|national|international|football\w*|soccer|rugby|hockey|basketball|netball|cricket|swim\w*|athlet\w*|goal\w*"
        r"|event|category)"
    )
    yield rf"\b(?:under|u)[\s-]?(?:[6-9]|1[0-8])'?s?\s+{sport}\b"
    yield rf"(?:<|≤)\s*=?\s*{_TO_18}{NO_MEASURE}"
    yield rf"(?<![\d.,:/]){_TO_18}\s*(?:-|and|&|or|n)?\s*(?:under|unders|younger|below|less)\b|\b(?:[4-9]|1[0-8])u\b"
    yield r"\b(?:17|seventeen)\s+(?:and\s+)?(?:under|a\s+half)\b|\b(?:sub|pre)[\s-]?(?:18|eighteen)\b|\bu\s?18\b"
    most = r"(?:rising|coming\s+up\s+to|nigh\s+on|getting\s+on\s+for|not?\s+more\s+than|not\s+over|not\s+above)"
    yield rf"\b{most}\s+{up_to_18()}{NO_MEASURE}{ENDS}"
    yield r"\bbefore\s+(?:\w+\s+)?(?:18th|eighteenth)\s+b(?:irth)?-?day|\byet\s+to\s+(?:turn|be|reach)\s+" + number()
    yield rf"{number()}\s+(?:and|or)\s+(?:under|younger|below)\b|\bunder[\s-](?:{'|'.join(_TENS_S)})\b"
    yield rf"\bnon[\s-]?18\b|(?<![\w.,:])-\s?18(?![\w.,:%°]|\s*{MEASURE})(?=\s*(?:$|[,;!)]))"
    yet = r"(?=.{0,12}yet|.{0,12}until|\s*$|[.,;!)])"
    not_yet = r"(?:is|was|isn'?t|wasn'?t|aren'?t|hasn'?t|not|won'?t)\s+(?:(?:even|be|turned|yet|quite|reached|over)\s+)*"
    yield rf"\b{not_yet}(?:18|eighteen)\b{NO_MEASURE}{yet}"


def _said_of_somebody() -> Iterator[str]:
    """she is 12; turned nine; 16 this year; 13 going on 30; at fifteen."""
    who = r"(?:she|he|they|i|who|it|whom|you|girl|boy|daughter|son)"
    verb = r"(?:'?s|'?re|'?m|\s+is|\s+was|\s+are|\s+am|\s+were|\s+looks?|\s+looked|\s+looking|\s+seems|\s+appears)"
    about = r"(?:(?:only|just|about|around|barely|almost|now|still|maybe|like(?:\s+a)?|nearly|to\s+be|a|mere|turning)\s+)*"
    yield rf"\b{who}{verb}\s+{about}{up_to_18()}{NO_MEASURE}{ENDS}"
    yield rf"\bturn(?:s|ed|ing)[\s-]+(?:only\s+|just\s+)?{number()}{NO_MEASURE}"
    when = r"(?:year|month|week|birthday|spring|summer|autumn|fall|winter|january|may|june|july)"
    yield rf"{number()}\s+(?:(?:this|next)\s+{when}|going\s+on)\b"
    yield rf"\bwas\s+(?:only\s+|just\s+)?(?:{english_numbers()})(?=\s*(?:$|[.,;!)]))|\bhappy\s+{NTH}\b"
    yield r"\bat\s+1[3-7](?=\s*(?:$|[,;!)]))"
    yield rf"\bat\s+(?:thirteen|fourteen|fifteen|sixteen|seventeen)(?![^\W_]){NO_MEASURE}{ENDS}"


def _birthdays() -> Iterator[str]:
    yield rf"{NTH}[\s-]*(?:birthdays?|bdays?|b-days?|b'days?|year\s+of\s+(?:life|age)|summer|winter)\b"
    yield rf"\bbirthday\s+(?:number|no\.?|nr\.?|#)\s*{up_to_18()}|\bsweet[\s-]*(?:16|sixteen|fifteen|15)\b"
    yield rf"\bin\s+(?:her|his|their|its|the)\s+(?:{NTH})\s+year\b"


def _years_of_birth() -> Iterator[str]:
    """born in 2015, b. 2012, dob 3 May 2014, 2015-born, class of 2030."""
    born = r"\b(?:born|birth\w*|b\.|d\.?o\.?b\.?|year\s+of\s+birth|yob|born-in)(?![a-z])[^a-z0-9]{0,4}"
    when = r"(?:(?:in|on|of|year|date|day|the|early|late|mid|around|about|after|since|is|was)\W+){0,5}"
    yield rf"{born}{when}(?:[\w']{{1,9}}[\s,./-]+){{0,3}}?[\s\-./]*{BORN_YEAR}"
    yield r"\b(?:20[1-9]\d|200[789])[\s-]born\b|\bclass\s+of\s+(?:20(?:2[7-9]|[3-9]\d)|'(?:2[7-9]|3\d))\b"


def _letters_and_digits() -> Iterator[str]:
    """13f, f/13, m14, girl13: see `ages.is_measure` for those that are none."""
    before = r"(?:1[0-7]|[4-9])\s?[/|,\-]?\s?(?:f|m)"
    after = r"(?:f|m)\s?[/|,\-]?\s?(?:1[0-7]|[5-9])"
    yield rf"(?<![^\W_])(?P<figure>{before}|{after})(?![^\W_]|[.,]\d|\s?°)"
    sex = r"(?:females?|males?|girls?|boys?|fem)"
    yield rf"(?<![^\W_])(?:{english_numbers()})\s*,?\s*(?:fe)?male(?![^\W_])|{DIGITS}\s*,\s*(?:fe)?male(?![^\W_])"
    yield rf"(?<![^\W_])(?:1[0-7]|[1-9])\s?[/|,\-]?\s*{sex}(?![^\W_])"
    yield rf"(?<![^\W_]){sex}\s?[/|,\-:(]?\s*(?:1[0-7]|[1-9])(?![^\W_]|[.,]\d)"


def _school_years() -> Iterator[str]:
    """grade 3, third grader, year 7, form 2 student, 5th form."""
    material = (
        r"(?:steel|titanium|bolts?|alumini?um|listed|route|climb\w*|rapids|hill|piece|stainless|screws?|alloy|[.,]\d)"
    )
    yield rf"\bgrades?[\s\-:]+(?:1[0-2]|[1-9]|{_ONE_TO_TWELVE}|k)(?![^\W_])(?!\s*{material})"
    year = r"year\s+(?:pupils?|students?|at\s+school|of\s+school|primary)"
    yield rf"{_GRADE_NTH}[\s-]*(?:grad(?:e|er|ers|es)|formers?|standard|form|{year})\b"
    level = r"(?:years?|yr|form|class|standard|std|classes|stage|ks)"
    which = rf"(?:1[0-3]|[1-9]|{_ONE_TO_TWELVE}|x|xi{{0,2}}|ix|vi{{0,3}}|iv)"
    yield rf"\b{level}[\s\-]*{which}s?\s+(?:pupil|student|class|schooler|kid|learner|school|leaver|uniform)\w*"
    pupil = r"(?:primary|secondary|elementary|pupil|std|standard|klasse|klass|klas|classe|kelas|clase|class)"
    ends = r"(?=\s*(?:$|[,;!)]|pupils?|students?|class|photo|kid))"
    yield rf"\b{pupil}\.?[\s\-]*(?:1[0-2]|[1-9]|{_ONE_TO_TWELVE}|xi{{0,2}}|ix|iv|vi{{0,3}}){ends}"
    yield rf"\b(?:year|yr)\.?\s*(?:1[0-3]|[1-9]){ends}|\by[1-9]{ends}"
    yield rf"\bgrades?[\s\-:]+(?:xi{{0,2}}|ix|iv|vi{{0,3}})(?![^\W_])|\bform\s+(?:[1-6]|one|two|three|four|five|six){ends}"
    yield rf"\b(?:ce[12]|cm[12]){ends}|\ben\s+(?:cp|ce[12]|cm[12])\b"
    yield r"\by(?:ea)?rs?\s*(?:1[0-3]|[1-9])s\b|\byear\s+(?:seven|eight|nine|ten|eleven)s\b"
    yield r"\b(?:class\s+(?:of\s+)?(?:[1-9]|1[0-2])(?:st|nd|rd|th)|(?:[4-9]|1[0-2])th[\s-]class)\b"
    yield rf"\byears?\s*(?:[1-9]|1[0-3]|{_ONE_TO_TWELVE})\b(?!\s*(?:of|bc|ad|[.,:]?\d))"
