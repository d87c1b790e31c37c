"""How ages below eighteen are written in other languages, as regular expressions for small plain letters."""

from __future__ import annotations

from collections.abc import Iterator

from srbench.catalog.minors.normalise import bare
from srbench.catalog.minors.numbers import DIGITS, MEASURE, ROMAN, either, languages, unit, units_written
from srbench.catalog.minors.wordlist import has_no_blanks

_SHORT_UNITS = {
    "cs": "let|rok|roku", "pl": "lat|rok", "fr": "ans", "ro": "ani|an", "it": "anni|anno", "ja-latin": "sai", "zh-latin": "sui",
    "sv": "ar", "da": "ar", "hu": "ev", "id": "thn",
}  # fmt: skip
"""Units that are words in other languages, and so count behind a number word of their own language alone."""
_GLUED_ENDS = {
    "de": ("jahrig", "jaehrig"), "nl": ("jarig",), "sv": ("aring", "arig", "arsdag"), "da": ("aring", "arig"), "hu": ("eves",),
    "fi": ("vuotias", "vuotiaa"), "pl": ("letni", "latk", "latek", "roczn"), "ru": ("летн", "летк", "годовал"), "tr": ("yas",),
    "uk": ("річн", "літн"), "cs": ("let",), "es": ("añer",),
}  # fmt: skip
_GLUED_WHOLE = (
    "roczna", "roczny", "roczne", "годовал", "quinceaner", "treceaner", "novenn", "decenn", "undicenn", "dodicenn", "tredicenn",
    "quattordicenn", "quindicenn", "sedicenn", "diciassettenn", "ottenn", "settenn",
)  # fmt: skip
_UNDER = (
    "menor de|menores de|menos de|moins de|unter|onder de|onder|jonger dan|junger als|younger|mladsi|mladsze|mlodsz\\w* niz"
    "|ponizej|младше|моложе|до|молодше|under|sub|menos que|minore di|sotto i|sotto|meno di|au dessous de"
    "|en dessous de|below|di bawah|dibawah|duoi|chua"
    "|alatti?|alle|κατω των|κατω απο|תחת|מתחת ל|تحت|دون|اقل من|أقل من|زیر|کمتر از|未满|未滿|不满|不到|年下|से कम|से नीचे"
)
_EIGHTEEN = (
    "18|dieciocho|dix[\\s-]huit|achtzehn|achttien|dezoito|diciotto|osiemnast\\w*|восемнадцати|вісімнадцяти|delapan belas|هجده"
)
_AGED = (
    "edad|de edad|agee?s?(?: de)?|alter|im alter von|leeftijd|idade|eta|di eta|возраст\\w*|в возрасте|вік\\w*|у віці"
    "|w wieku|wiek|yas"
    "|yasi|عمر\\w*|بعمر|سن|उम्र|आयु|umur|usia|berusia|berumur|tuoi|alder|alder pa|i alderen|年齢|年龄|年齡|나이|ηλικια\\w*|בגיל"
    "|גיל|בת|בן|ve veku|veku|eves|varsta|de varsta|ialla|ian|ika|edat"
)
_LETTERS_AHEAD = r"(?![^\W\d_])"


def in_figures() -> Iterator[str]:
    """A figure and what makes it an age: 9 años, 12-летняя, 9歳; below eighteen; aged 9."""
    yield rf"(?:{DIGITS}|{ROMAN})[\s\-–—_.]{{0,3}}(?:de\s+|a\s+|и\s+)?{unit()}(?!')"
    numbers = either(form for _, forms, _ in languages() for each in forms for form in each if has_no_blanks(form))
    after = either(unit.strip("*") for unit in units_written() if has_no_blanks(unit))
    part_of_more = "一二三四五六七八九十百두세네십이삼사오육칠팔구물른흔สบ"
    yield rf"(?:{DIGITS}|(?<![{part_of_more}])(?:{numbers}))\s*(?:{after})"
    figure = r"(?<![\d.,])(?:1[0-7]|[1-9])"
    yield rf"{figure}\s*(?:\(|-)?\s*(?:jahrig|летн|річн|letni|jarig|aring|arig)\w*"
    yield rf"{figure}\s?ar(?:ing\w*|ig\w*|s)?\s+gam\w*"
    yield rf"(?<![^\W_])(?:лет|годиков|годика|років)\s+(?:так\s+)?{DIGITS}"
    joint = r"(?:\s*[:=]\s*|\s+)(?:(?:es|is|ist|de|von|di|van|от|de los)\s+)?"
    yield rf"(?<![^\W_])(?:{_AGED}){joint}{DIGITS}(?!\s*{MEASURE}{_LETTERS_AHEAD}|[^\W\d_])"
    yield from _under_18()


def _under_18() -> Iterator[str]:
    whose = r"(?:os\s+|los\s+|i\s+|les\s+|سن\s+|سن ال)?"
    yield rf"(?<![^\W_])(?:{_UNDER})\s*{whose}(?:{_EIGHTEEN})(?!\d|\s*{MEASURE}{_LETTERS_AHEAD})"
    yield r"(?:18|十八)\s*(?:歳|才|岁|歲)?\s*(?:未満|未满|以下|未滿)|(?:未満|未满|未滿|不满|不到)\s*(?:18|十八)"
    yield r"(?:18|십팔)\s*(?:세|살)\s*(?:미만|이하)"
    yield r"18\s+(?:साल|वर्ष|saal|sal)\w*\s+(?:से|se)\s+(?:कम|नीचे|छोट\w*|kam|chot\w*)"
    yield r"\b(?:18|on sekiz)\s+yas\w*\s+(?:\w+\s+)?(?:kucuk|alti|asagi)"


def in_words() -> Iterator[str]:
    """A number word of another language, and what makes it an age."""
    written = [each for each in units_written() if not has_no_blanks(each)]
    stems = either(each.rstrip("*") for each in written if each.endswith("*") and each != "saal*")
    longer = either(each for each in written if not each.endswith("*") and (len(each) > 3 or not each.isascii()))
    for language, forms, _ in languages():
        words = either(form for each in forms for form in each)
        if language == "en" or has_no_blanks(forms[0][0]):
            continue
        behind = rf"(?:(?:{stems})\w*|(?:{longer}|{_SHORT_UNITS.get(language, '(?!)')})(?![^\W_]))"
        yield rf"(?<![^\W_])(?:{words})[\s\-–—_.]{{0,3}}(?:и\s+|de\s+)?{behind}(?!')"


def glued() -> Iterator[str]:
    """How words begin that are ages by themselves: zwölfjährig, dwunastolatka, двенадцатилетняя, dodicenne."""
    for language, forms, _ in languages():
        yield from (form + bare(end) for each in forms for form in each for end in _GLUED_ENDS.get(language, ()))
    yield from _GLUED_WHOLE
