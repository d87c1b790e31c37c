"""Ages below eighteen in a text: in digits of any script, in words of many languages, as birthdays, school years and years of birth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.resources import files

from srbench.catalog.minors.normalise import bare, folded
from srbench.catalog.minors.wordlist import entries

BORN_SINCE = 2007
"""Who was born in this year or later is taken for a minor, in whatever year that is read: no clock changes what is dropped."""

_NUMBERLESS = "(?#no number)"
"""Marks a pattern that is tried on texts without a number."""


# --- numbers ----------------------------------------------------------------------------------------------------------------


@cache
def _languages() -> tuple[tuple[str, list[list[str]], list[str]], ...]:
    """(language, the forms of one to seventeen, the tens from twenty on), in plain letters."""
    found = []
    for line in (files(__package__) / "words" / "_numbers.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        language, _, rest = line.partition(":")
        numbers, _, tens = rest.partition("+")
        forms = [[bare(folded(form.replace("_", " "))) for form in each.split("|")] for each in numbers.split()]
        found.append((language, forms, [bare(folded(each.replace("_", " "))) for each in tens.split()]))
    return tuple(found)


def _either(words: Iterable[str]) -> str:
    return "|".join(re.escape(word).replace(r"\ ", r"[\s-]?") for word in sorted(set(words), key=len, reverse=True))


@cache
def _english_numbers(first: int = 1, last: int = 17) -> str:
    return _either(form for language, forms, _ in _languages() if language == "en" for each in forms[first - 1 : last] for form in each)


DIGITS = r"(?<![\d.,])(?:0?[1-9]|1[0-7])(?:[.,]\d(?!\d))?(?!\d)"
ROMAN = r"(?<![^\W_])(?:x[vi]{1,3}|xiv|xvii|xi{1,3}|vi{1,3}|i[xv]|i{2,3}|[xv])(?![^\W_])"
_GAP = r"[\s\-_.]*"
_UNIT = (
    r"(?:[kcm]?ms?|metres?|meters?|ft|feet|foot|inch(?:es)?|yards?|miles?|degrees?|°|%|percent|[kcm]?g|grams?|lbs?|pounds?|tons?|tonnes?|hours?|hrs?"
    r"|minutes?|mins?|seconds?|secs?|o'?clock|[ap]\.?m\b|mph|km/h|volts?|watts?|dollars?|euros?|cents|wheel\w*|holes?|stor(?:ies|eys|ey|y)|floors?"
    r"|litres?|liters?|points?|knots?|fps|bits?|mp|st|nd|rd|th|x|:|/|[km]?b\b|\d)"
)
_NO_UNIT = rf"(?![\d%°:]|[.,]\d|\s*{_UNIT}(?![^\W\d_]))"
_STOP = (
    r"(?=\s*(?:$|[.,;:!?)\]}\"'…|]|[-–—]\s|(?:and|or|in|on|at|with|who|wearing|wears|standing|stands|sitting|sits|holding|holds|now|yet|but|as|for|by"
    r"|next|this|today|soon|years?|yrs?|yo|old|smiling|looking|posing|portrait|dressed|playing|running|walking)\b))"
)


@cache
def _number() -> str:
    """A number from one to seventeen: digits or an English word."""
    return rf"(?:{DIGITS}|(?<![^\W_])(?:{_english_numbers()})(?![^\W\d_]))"


# --- English ----------------------------------------------------------------------------------------------------------------

_TO_18 = r"(?:1[0-8]|[1-9])(?![\d.]|,\d)"
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth"
).split()
_NTH = rf"(?<![^\W_])(?:(?:1[0-7]|[1-9])(?:st|nd|rd|th)|{'|'.join(_ORDINALS)})"
_GRADE_NTH = rf"(?<![^\W_])(?:(?:1[0-2]|[1-9])(?:st|nd|rd|th)|{'|'.join(_ORDINALS[:12])})"
_BORN_YEAR = rf"(?:{'|'.join(str(year) for year in range(BORN_SINCE, 2010))}|20[1-9]\d|2k(?:0?[789]|[1-9]\d)|'(?:0[789]|1\d|2\d)(?!\d))"
_SEX = r"(?:females?|males?|fem|f|m|girl|boy)"


def _english() -> Iterator[str]:
    """Patterns of ages in English."""
    number, words = _number(), _english_numbers()
    upto = rf"(?:{_TO_18}|(?:{words}|eighteen)(?![^\W\d_]))"
    yield rf"(?:{number}|{ROMAN}){_GAP}(?:(?:and|&)\s+(?:a\s+)?(?:half|quarter|three quarters)\s+|ish{_GAP}|or so\s+|plus\s+)?" + (
        rf"(?:years?|yeears?|yesrs?|yrs?|y\.?{_GAP}/?o|y\.?{_GAP}/?{_GAP}old|summers?|winters?|springs?|autumns?|birthdays)(?![^\W_])(?!\s+(?:ago|later|hence)\b)"
    )
    yield rf"(?:{DIGITS}|(?<![^\W_])(?:{words})){_GAP}(?:years?|yrs?)(?:old|s?olds?|young)"  # 9yearold
    yield rf"{DIGITS}\s?y(?![^\W_])"
    yield rf"(?<![\d.,])(?:\d{{1,2}}|1\d\d|20\d|21[0-5]){_GAP}(?:months?|mos?|mths?|weeks?|wks?|days?|hours?){_GAP}(?:old|of age|young)\b"
    yield rf"(?<![\d.,])\d{{1,2}}{_GAP}(?:mos?\b(?!\s?\d)|m[/.]{_GAP}?o\b|months?\s+(?:baby|infant))"
    yield _NUMBERLESS + r"\b(?:months?|weeks?|days?|hours?|minutes?)[\s-]*old\b"
    yield _NUMBERLESS + r"(?:^|\b(?:a|an|one|half|half-a|the|few|single|1)|[^\w\s-])[\s-]*(?:a[\s-]+)?(?:years?|yrs?)[\s-]old\b"
    yield _NUMBERLESS + r"\b(?:a|one|half a|1)\s+(?:decade|dozen\s+years?)\s+old\b|\bdozen[\s-]+years?[\s-]+(?:old|of age)\b"
    yield (
        rf"\b(?:aged?|ages|aging|age[sd]?)[\s\-_.:=~≈(\[<≤]*(?:(?:of|is|was|about|around|approx\.?|approximately|only|just|barely|roughly|between|at|from"
        rf"|group|range|in years|not over|circa|ca\.?|to)[\s:=]*)*(?:{DIGITS}(?!%|[^\W\d_]{{3}})|(?:{words})(?![^\W\d_])|{ROMAN})"
    )
    yield rf"{number}{_GAP}(?:aged|of age|in age)\b"
    yield _NUMBERLESS + r"\b(?:single[\s-]digit|tender|young|minor|school|kindergarten|nursery)[\s-]+ages?\b"
    yield (
        rf"(?:\b(?:under|below|beneath|underneath|not\s+(?:even|quite|yet)|n[o']t(?:\s+yet)?|never|younger\s+than|less\s+than|fewer\s+than|before|sub|pre|prior\s+to"
        rf"|shy\s+of|short\s+of|almost|nearly|barely|close\s+to|approaching|about\s+to\s+(?:turn|be)|soon|soon\s+to\s+be|yet\s+to\s+(?:turn|be)"
        rf"|turned|turning|until|till|minus|lower\s+than|lt)[\s-]+(?:the\s+)?(?:ages?\s+(?:of\s+)?|turning\s+|turned\s+|years\s+of\s+)?|<\s*=?\s*|≤\s*|＜\s*)"
        rf"(?:18|eighteen)(?![^\W\d_]|\d|\.\d|,\d){_NO_UNIT}"
    )
    yield (
        rf"\b(?:under|below|younger\s+than|less\s+than|no\s+older\s+than|not\s+older\s+than|at\s+most|not\s+yet|not\s+even|not\s+quite|barely|almost|nearly"
        rf"|just|only|still|going\s+on|soon|about\s+to\s+(?:turn|be)|approaching)\s+(?:the\s+age\s+of\s+)?{upto}(?:'?s\b)?{_NO_UNIT}{_STOP}"
    )
    yield rf"\b(?:under|u|sub|pre)[\s-]?(?:[6-9]|1[0-8])'?s?\b(?![.,:/]?\d|\s*{_UNIT}\b)(?<!pre 6)" + _STOP
    yield rf"(?:<|≤)\s*=?\s*{_TO_18}{_NO_UNIT}"
    yield rf"(?<![\d.,:/]){_TO_18}\s*(?:-|and|&|or|n)?\s*(?:under|unders|younger|below|less)\b"
    yield r"\b(?:[4-9]|1[0-8])u\b"
    yield r"\b(?:17|seventeen)\s+(?:and\s+)?(?:under|a\s+half)\b|\bsub[\s-]?eighteen\b|\bu\s?18\b|\bpre[\s-]?18\b"
    yield rf"\b(?:is|was|isn'?t|wasn'?t|aren'?t|hasn'?t|not|won'?t)\s+(?:(?:even|be|turned|yet|quite|reached|over)\s+)*(?:18|eighteen)\b{_NO_UNIT}(?=.{{0,12}}yet|.{{0,12}}until|\s*$|[.,;!)])" + ""
    yield (
        rf"\b(?:she|he|they|i|who|they|it|whom|you|girl|boy|daughter|son)(?:'?s|'?re|'?m|\s+is|\s+was|\s+are|\s+am|\s+were|\s+looks?|\s+looked|\s+looking|\s+seems|\s+appears)"
        rf"\s+(?:(?:only|just|about|around|barely|almost|now|still|maybe|like|nearly|to\s+be|a\s+mere|like\s+a|not\s+yet|turning)\s+)*{upto}{_NO_UNIT}{_STOP}"
    )
    yield rf"\bturn(?:s|ed|ing)[\s-]+(?:only\s+|just\s+)?{number}{_NO_UNIT}"
    yield rf"{number}\s+(?:this|next)\s+(?:year|month|week|birthday|spring|summer|autumn|fall|winter|january|may|june|july)\b"
    yield rf"{number}\s+going\s+on\b|\bat\s+(?:thirteen|fourteen|fifteen|sixteen|seventeen)(?![^\W_]){_NO_UNIT}{_STOP}"
    yield rf"{_NTH}[\s-]*(?:birthdays?|bdays?|b-days?|b'days?|year\s+of\s+(?:life|age)|summer|winter)\b"
    yield rf"\bbirthday\s+(?:number|no\.?|nr\.?|#)\s*{upto}|\b{upto}\s+birthday\s+candles|\bsweet[\s-]*(?:16|sixteen|fifteen|15)\b"
    yield rf"\bin\s+(?:her|his|their|its|the)\s+(?:{_NTH})\s+year\b"
    yield rf"\b(?:born|birth\w*|b\.|d\.?o\.?b\.?|year\s+of\s+birth|yob|born-in)(?![a-z])[^a-z0-9]{{0,4}}(?:(?:in|on|of|year|date|day|the|early|late|mid|around|about|after|since|is|was)\W+)*(?:[\w']{{1,9}}[\s,./-]+){{0,3}}?[\s\-./]*{_BORN_YEAR}"
    yield rf"(?:19|20)?\d\d-born\b(?<=20[1-9]\d-born)|\b(?:20[1-9]\d|200[789])[\s-]born\b"
    yield r"\bclass\s+of\s+(?:20(?:2[7-9]|[3-9]\d)|'(?:2[7-9]|3\d))\b"
    yield from _letters_and_digits()
    yield from _school_years()


def _letters_and_digits() -> Iterator[str]:
    """13f, f/13, m14: see `_is_measure` for those that are none."""
    yield rf"(?<![^\W_])(?P<figure>(?:1[0-7]|[4-9])\s?[/|,\-]?\s?(?:f|m)|(?:f|m)\s?[/|,\-]?\s?(?:1[0-7]|[5-9]))(?![^\W_]|[.,]\d|\s?°)"
    yield rf"(?<![^\W_])(?:1[0-7]|[1-9])\s?[/|,\-]?\s*(?:females?|males?|girls?|boys?|fem)(?![^\W_])"
    yield rf"(?<![^\W_])(?:females?|males?|girls?|boys?|fem)\s?[/|,\-:(]?\s*(?:1[0-7]|[1-9])(?![^\W_]|[.,]\d)"


def _school_years() -> Iterator[str]:
    words = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    figure = rf"(?:1[0-2]|[1-9]|{words}|k)(?![^\W_])"
    yield rf"\bgrades?[\s\-:]+(?:{figure})(?!\s*(?:steel|titanium|bolts?|alumini?um|listed|route|climb\w*|rapids|hill|piece|stainless|screws?|alloy|[.,]\d))"
    yield rf"{_GRADE_NTH}[\s-]*(?:grad(?:e|er|ers|es)|graders|standard|form|year\s+(?:pupils?|students?|at\s+school|of\s+school|primary))\b"
    yield rf"\b(?:years?|yr|form|class|standard|std|classes|stage|ks)[\s\-]*(?:1[0-3]|[1-9]|{words}|x|xi{{0,2}}|ix|vi{{0,3}}|iv)s?\s+(?:pupil|student|class|schooler|kid|learner|school|leaver|uniform)\w*"
    yield r"\by(?:ea)?rs?\s*(?:1[0-3]|[1-9])s\b|\byear\s+(?:seven|eight|nine|ten|eleven)s\b"
    yield r"\b(?:class\s+(?:of\s+)?(?:[1-9]|1[0-2])(?:st|nd|rd|th)|(?:[4-9]|1[0-2])th[\s-]class)\b|\byears?\s*(?:[1-9]|1[0-3]|one|two|three|four|five|six|seven|eight|nine|ten)\b(?!\s*(?:of|bc|ad|[.,:]?\d))"
    yield _NUMBERLESS + r"\bpre[\s-]?k(?:inder\w*)?\b|\bk[\s-](?:1[0-2]|[1-9])\b|\bkey\s+stage\s+\w+"
    yield r"\b(?:in|of)\s+(?:the\s+)?year\s+(?:[1-9]|1[0-3])\s+(?:at|of)\s+school\b|\b(?:[1-9]|1[0-2])(?:st|nd|rd|th)[\s-]?(?:graders?|formers?)\b"


_SHORT_UNITS = {"cs": "let|rok|roku", "pl": "lat|rok", "fr": "ans", "ro": "ani|an", "it": "anni|anno", "ja-latin": "sai", "zh-latin": "sui", "sv": "ar", "da": "ar", "hu": "ev", "id": "thn"}
"""Units that are words in other languages, and so count behind a number word of their own language alone."""


# --- other languages --------------------------------------------------------------------------------------------------------


@cache
def _unit() -> str:
    """What stands behind a number in any language that writes blanks."""
    alike = [unit for unit in _units() if not _has_no_blanks(unit)]
    stems = _either(unit.rstrip("*") for unit in alike if unit.endswith("*"))
    return rf"(?:(?:{stems})\w*|(?:{_either(unit for unit in alike if not unit.endswith('*'))})(?![^\W_]))"


@cache
def _units() -> list[str]:
    return [bare(entry) for entry in entries("_units")]


def _foreign() -> Iterator[str]:
    """Patterns of ages in the other languages: a figure and what makes it an age."""
    yield rf"(?:{DIGITS}|{ROMAN})[\s\-–—_.]{{0,3}}(?:de\s+|a\s+|и\s+)?{_unit()}(?!')"
    numbers = _either(form for _, forms, _ in _languages() for each in forms for form in each if _has_no_blanks(form))
    after = _either(unit.strip("*") for unit in _units() if _has_no_blanks(unit))
    yield rf"(?:{DIGITS}|(?<![一二三四五六七八九十百두세네십이삼사오육칠팔구물른흔สบ])(?:{numbers}))\s*(?:{after})"
    yield r"(?<![\d.,])(?:1[0-7]|[1-9])\s*(?:\(|-)?\s*(?:jahrig\w*|летн\w*|річн\w*|letni\w*|jarig\w*|aring\w*|arig\w*)"
    yield r"(?<![\d.,])(?:1[0-7]|[1-9])\s?ar(?:ing\w*|ig\w*|s)?\s+(?:gam\w*|gammal\w*)|(?<![\d.,])(?:1[0-7]|[1-9])-?\s?(?:arig\w*|aring\w*)"
    yield r"(?<![^\W_])(?:лет|годиков|годика|років)\s+(?:так\s+)?" + DIGITS
    yield from _under_age()


def _in_words() -> Iterator[str]:
    """Patterns of ages whose number is a word of another language."""
    alike = [unit for unit in _units() if not _has_no_blanks(unit)]
    stems = _either(unit.rstrip("*") for unit in alike if unit.endswith("*") and unit not in ("saal*", "sale*"))
    longer = _either(unit for unit in alike if not unit.endswith("*") and (len(unit) > 3 or not unit.isascii()))
    for language, forms, _ in _languages():
        words = _either(form for each in forms for form in each)
        if language == "en" or _has_no_blanks(forms[0][0]):
            continue
        short = _SHORT_UNITS.get(language, r"(?!)")
        yield rf"(?<![^\W_])(?:{words})[\s\-–—_.]{{0,3}}(?:и\s+|de\s+)?(?:(?:{stems})\w*|(?:{longer}|{short})(?![^\W_]))(?!')"


def _under_age() -> Iterator[str]:
    """Below eighteen, in other languages; aged N."""
    under = (
        "menor de|menores de|menos de|moins de|unter|onder de|onder|jonger dan|junger als|younger|mladsi|mladsze|mlodsz\\w* niz|ponizej|мадше|младше|моложе|до|молодше|"
        "under|sub|menos que|minore di|sotto i|sotto|meno di|au dessous de|en dessous de|below|di bawah|dibawah|duoi|chua|ještě ne|alatti?|alle|αιωτερ\\w*|κατω των|κατω απο|תחת|מתחת ל|"
        "تحت|دون|اقل من|أقل من|زیر|کمتر از|未满|未滿|不满|不到|年下|से कम|से नीचे"
    )
    yield rf"(?<![^\W_])(?:{under})\s*(?:os\s+|los\s+|i\s+|les\s+|سن\s+|سن ال)?(?:18|dieciocho|dix[\s-]huit|achtzehn|achttien|dezoito|diciotto|osiemnast\w*|восемнадцати|вісімнадцяти|delapan belas|هجده)(?![\d]|\s*{_UNIT}(?![^\W\d_]))"
    yield r"(?:18|十八)\s*(?:歳|才|岁|歲)?\s*(?:未満|未满|以下|未滿)|(?:18|십팔)\s*(?:세|살)\s*(?:미만|이하)|(?:未満|未满|未滿|不满|不到)\s*(?:18|十八)"
    yield r"18\s+(?:साल|वर्ष|saal|sal)\w*\s+(?:से|se)\s+(?:कम|नीचे|छोट\w*|kam|chot\w*)"
    yield r"\b18\s+yas(?:indan|in)?\s+(?:kucuk|alti|asagi)|\b(?:18|on sekiz)\s+yas\w*\s+\w*\s*(?:kucuk|alti)"
    aged = (
        "edad|de edad|agee?s?(?: de)?|alter|im alter von|leeftijd|idade|eta|di eta|возраст\\w*|в возрасте|вік\\w*|у віці|w wieku|wiek|yas|yasi|عمر\\w*|بعمر|سن|उम्र|आयु|umur|usia|berusia|berumur|tuoi|alder|alder pa|i alderen|"
        "年齢|年龄|年齡|나이|ηλικια\\w*|בגיל|גיל|בת|בן|ve veku|veku|eves|varsta|de varsta|ialla|ian|ika|edat"
    )
    yield rf"(?<![^\W_])(?:{aged})(?:\s*[:=]\s*|\s+)(?:(?:es|is|ist|de|von|di|van|от|de los)\s+)?{DIGITS}(?!\s*{_UNIT}(?![^\W\d_])|[^\W\d_])"


def _has_no_blanks(word: str) -> bool:
    """Whether `word` is of a script that puts no blanks between words."""
    return any("\u0e00" <= each <= "\u0e7f" or "\u3040" <= each <= "\u9fff" or "\uac00" <= each <= "\ud7a3" for each in word)


def _glued_ages() -> Iterator[str]:
    """Number words that end as ages do: zwölfjährig, dwunastolatka, двенадцатилетняя, dodicenne."""
    ends = {
        "de": ("jahrig", "jaehrig"), "nl": ("jarig",), "sv": ("aring", "arig", "arsdag"), "da": ("aring", "arig"), "fi": ("vuotias", "vuotiaa"), "hu": ("eves",),
        "pl": ("letni", "latk", "latek", "roczn"), "ru": ("летн", "летк", "годовал"), "uk": ("річн", "літн", "рiчн"), "cs": ("let",), "es": ("añer",), "tr": ("yas",),
    }  # fmt: skip
    for language, forms, _ in _languages():
        yield from (form + bare(end) for each in forms for form in each for end in ends.get(language, ()))
    yield from ("roczna", "roczny", "roczne", "годовал", "quinceaner", "treceaner")
    stems = "novenn decenn undicenn dodicenn tredicenn quattordicenn quindicenn sedicenn diciassettenn ottenn settenn"
    yield from stems.split()


# --- a text -----------------------------------------------------------------------------------------------------------------


def _compiled(patterns: Iterable[str]) -> list[re.Pattern[str]]:
    return [re.compile(each) for each in patterns]


@cache
def _patterns() -> dict[str, list[re.Pattern[str]]]:
    """Patterns by what a text must hold that they are tried on."""
    english, foreign = list(_english()), [bare(each) for each in _foreign()]
    return {
        "anything": _compiled(each for each in english if _NUMBERLESS in each),
        "number": _compiled([*(each for each in english if _NUMBERLESS not in each), *foreign]),
        "unit": _compiled(map(bare, _in_words())),
    }


@cache
def _has_number() -> re.Pattern[str]:
    return re.compile(rf"\d|eighteen|(?:{_english_numbers()})|{'|'.join(_ORDINALS)}|{ROMAN}|grade|born|birth|pre|k\b|[一-鿿ぁ-ゟ가-힣\u0e00-\u0e7f]|dieciocho|dix|achtz|acht|dezoito|diciotto|osiem|восем|вісім|belas|هجده")


@cache
def _has_unit() -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){_unit()}")


@cache
def _glued() -> tuple[frozenset[str], int]:
    """The beginnings of words that are ages by themselves, and how short the shortest is."""
    words = frozenset(bare(each) for each in _glued_ages())
    return words, min(map(len, words))


@cache
def _grown_up() -> re.Pattern[str]:
    """A number word from twenty on, whose last part would be taken for an age by itself: twenty-five, veinte y cinco."""
    tens = [ten for _, _, tens in _languages() for ten in tens]
    joint = r"(?:[\s-]+(?:y|e|et|and|og|och|und|si|و)[\s-]+|[\s-]*)"
    ones = _either(form for _, forms, _ in _languages() for each in forms for form in each if not _has_no_blanks(form))
    return re.compile(rf"(?<![^\W_])(?:{_either(tens)})(?:{joint}(?:{ones}))?(?![^\W_])")


_CAMERA = re.compile(r"\b(?:lens|mm|apertures?|iso|photo\w*|camera|shot|bokeh|exposure|shutter|dslr|nikon|canon|sony|leica|depth of field|macro|sharp|focus)\b|mm\b")
_CRAFT = re.compile(
    r"\b(?:jets?|fighters?|aircraft|planes?|airplanes?|air\s?shows?|airbase|runway|flying|flies|formula|racing|race|cars?|bmw|engine|rifles?|bolts?|screws?"
    r"|nut|galaxy|nebula|messier|cluster|tanks?|motorway|highway|chip|mac(?:book)?|apple|pistons?|wrench|thread\w*|star\s?fighter|tomcat|falcon|eagle|truck|road|bus|bit)\b"
)
_LENGTH = re.compile(r"\b(?:tall|long|high|wide|deep|length|height|width|depth|above|below|pole|tower|boat|yacht|wall|run|sprint|diameter|distance|x|cable|rope|sea level|waves?)\b")


def _is_measure(match: re.Match[str], text: str) -> bool:
    """Whether a letter and a number are an aperture, a length, a craft or a part rather than a sex and an age."""
    figure = match.groupdict().get("figure")
    if figure is None:
        return False
    if figure.startswith("f/") or figure.startswith("f1"):
        return bool(_CAMERA.search(text) or _CRAFT.search(text))
    if figure[0] in "fm":
        return bool(_CRAFT.search(text)) or (figure[0] == "f" and bool(_CAMERA.search(text)))
    return figure.endswith("m") and bool(_LENGTH.search(text))


_LEET = str.maketrans("013457@$!|", "oieastasil")
_LEET_TOKEN = re.compile(r"(?<![^\s\-])(?=[^\s\d]*\d|\S*[@$!|])(?:[a-z]|@)[\w@$!|]*|\b0ld\b")
_LEET_AGE = re.compile(r"(?<![^\W_])(?=[a-z|!]?\d|\d[a-z])([1il|!]?[\doilzsebg|!])(?=[\s\-_.]*(?:years?[\s-]*old|yrs?\b|y\.?/?o\b|years?\b))")
_AS_DIGITS = str.maketrans("oilzsebg|!", "0112538911")
_SPELLED = re.compile(r"(?<!\S)(?:\S[ ]){2,}\S(?!\S)")


def _forms(reading: str) -> dict[str, None]:
    """The text in plain letters; where it has any, with signs in words as letters, letters in numbers as digits, letters put together."""
    plain = bare(reading).replace("’", "'")
    found = {plain: None}
    if not reading.isascii() or _LEET_TOKEN.search(plain) or _LEET_AGE.search(plain):
        for signs in (_LEET, _LEET | {ord("1"): "l"}):
            found[_LEET_TOKEN.sub(lambda token, signs=signs: token[0].translate(signs), plain)] = None
        lettered = next(reversed(found))
        found[_LEET_AGE.sub(lambda age: age[0].translate(_AS_DIGITS), lettered)] = None
    if _SPELLED.search(plain):
        found[_SPELLED.sub(lambda run: run[0].replace(" ", ""), plain)] = None
        found[_SPELLED.sub(lambda run: re.sub(r"(?<=[a-z]) (?=[a-z])|(?<=\d) (?=\d)", "", run[0]), plain)] = None
    return found


@lru_cache(maxsize=65_536)
def found_in(reading: str) -> bool:
    """Whether an age below eighteen stands in a reading of a text (`normalise.readings`)."""
    return any(_found_in(form) for form in _forms(reading))


def _found_in(text: str) -> bool:
    patterns = _patterns()
    if any(pattern.search(text) and pattern.search(_without_grown_up(text)) for pattern in patterns["anything"]) or _has_glued(text):
        return True
    unit, number = _has_unit().search(text), _has_number().search(text)
    if not unit and not number:
        return False
    grown = _without_grown_up(text)
    asked = (patterns["number"] if number else []) + (patterns["unit"] if unit else [])
    return any(not _is_measure(match, grown) for pattern in asked for match in pattern.finditer(grown))


def _without_grown_up(text: str) -> str:
    """`text` with the numbers of `_grown_up` as a figure that is nobody's age."""
    return _grown_up().sub(" 99 ", text)


def _has_glued(text: str) -> bool:
    words, shortest = _glued()
    return any(word[:end] in words for word in re.findall(r"[^\W\d_]{6,}", text) for end in range(shortest, len(word) + 1))
