"""A text as a reader takes it in: escapes decoded, invisible characters gone, letters that only look different made one.

The work is done in two steps. `readings` is about a whole text and gives one or more plain texts; `skeleton` is about one piece
of it and gives the letters that it looks like. Both are idempotent. Neither raises for any string.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import string
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from urllib.parse import unquote

ROUNDS = 3
"""Levels of nested escapes that are resolved: &amp;#103;"""
_ESCAPED = re.compile(r"[&%\\=<\[]|U\+", re.I)
_CODE = re.compile(r"\\u\{?([0-9a-f]{4,6})\}?|\\x\{?([0-9a-f]{2})\}?|\\U([0-9a-f]{8})|U\+([0-9a-f]{4,6})(?:\s(?=U\+))?", re.I)
_OCTAL = re.compile(r"\\([01][0-7]{2})")
_QUOTED_PRINTABLE = re.compile(r"(?:=[0-9A-F]{2}){2,}", re.I)
_TAG = re.compile(r"<!--.{0,400}?-->|</?[a-zA-Z][^<>]{0,400}>|\[/?[a-zA-Z]{1,8}(?:=[^\[\]]{0,40})?\]", re.S)
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that are invisible in print."""
_CODED = re.compile(r"[A-Za-z0-9][A-Z]|[A-Za-z]\d|\d[A-Za-z]|\d\d|[.\-·•−–_] ?[.\-·•−–_/ ]|==")
"""What a text without any code has not."""
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{4,400}={0,2}(?![A-Za-z0-9+/=_-])")
_HEX = re.compile(r"(?<![0-9a-zA-Z])(?:0x)?(?:[2-7][0-9a-fA-F][\s,:-]?(?:0x)?){3,100}(?![0-9a-zA-Z])")
_BINARY = re.compile(r"(?<!\d)(?:0[01]{7}[\s,]?){3,100}(?!\d)")
_DECIMAL = re.compile(r"(?<!\d)(?:(?:3[2-9]|[4-9]\d|1[01]\d|12[0-6])[\s,;]+){2,100}(?:3[2-9]|[4-9]\d|1[01]\d|12[0-6])(?!\d)")
_MORSE = re.compile(r"(?<!\S)(?:[.\-·•−–_]{1,4}[ /]+){2,100}[.\-·•−–_]{1,4}(?!\S)")
_MORSE_LETTERS = dict(zip(
    (
        ".-", "-...", "-.-.", "-..", ".", "..-.", "--.", "....", "..", ".---", "-.-", ".-..", "--", "-.", "---", ".--.", "--.-",
        ".-.",
        "...", "-", "..-", "...-", ".--", "-..-", "-.--", "--..",
    ), string.ascii_lowercase, strict=True,
))  # fmt: skip
_SIGNS = str.maketrans("❗❕⭕⚪⚫🔴🔵⚽🏀❌✖➕💲⛔🌕🌑", "!!ooooooo" + "xx+$ooo")
"""Emoji that are used as a letter."""
_FAMILY = {"👪": " child family ", "🎒": " school satchel ", "🏫": " school building "}
"""Emoji whose official names do not describe them."""


# --- a whole text -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def readings(text: str) -> tuple[str, ...]:
    """All readings of `text` in lower case and plain characters, such as with and without its markup."""
    texts = _decoded(text)
    forms = dict.fromkeys(plain for each in texts for plain in _plain_forms(each))
    return tuple(forms)


def _decoded(text: str) -> list[str]:
    """`text` with escapes resolved, with and without its tags, and the words that are encoded in it."""
    texts = [text]
    if _ESCAPED.search(text):
        opened = _resolved(text)
        texts = [opened] if not _TAG.search(opened) else [opened, _TAG.sub("", opened), _TAG.sub(" ", opened)]
    if not text.isascii():
        texts += [text[::-1]] if "\u202e" in text else []
        texts += [mended for each in texts[:1] if (mended := _mended(each)) != each]
    return [*texts, *_encoded(text)]


def _resolved(text: str) -> str:
    """HTML entities, URL escapes, \\u, \\x, octal and quoted-printable codes as the characters that they stand for."""
    for _ in range(ROUNDS):
        before = text
        text = html.unescape(text)
        text = unquote(text, errors="ignore") if "%" in text else text
        text = _CODE.sub(lambda code: _character(int(next(filter(None, code.groups())), 16)), text)
        text = _OCTAL.sub(lambda code: _character(int(code[1], 8)), text)
        text = _QUOTED_PRINTABLE.sub(lambda code: bytes.fromhex(code[0].replace("=", "")).decode("utf-8", "ignore"), text)
        if text == before:
            break
    return text


def _character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else " "


def _mended(text: str) -> str:
    """`text` with UTF-8 that was decoded as another encoding (niÃ±a) repaired."""
    import ftfy

    return ftfy.fix_encoding(text)


def _encoded(text: str) -> list[str]:
    """Words that stand in `text` as base64, hexadecimal, binary, decimal or Morse codes."""
    readers: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
        (_BASE64, _from_base64),
        (_HEX, lambda code: _from_bytes(bytes.fromhex(re.sub(r"0x|[^0-9a-fA-F]", "", code)))),
        (_BINARY, lambda code: _from_bytes(bytes(int(bits, 2) for bits in re.findall("[01]{8}", code)))),
        (_DECIMAL, lambda code: "".join(map(chr, map(int, re.findall(r"\d+", code))))),
        (_MORSE, _from_morse),
    )
    words: list[str] = []
    if not _CODED.search(text):
        return words
    for pattern, read in readers:
        words += [word for code in pattern.findall(text) if len(word := read(code)) > 2]
    return words


def _from_base64(code: str) -> str:
    raw = code.rstrip("=").replace("-", "+").replace("_", "/")
    if not (any(map(str.isupper, raw)) and any(map(str.islower, raw))) and "=" not in code and not re.search(r"\d", raw):
        return ""
    try:
        return _from_bytes(base64.b64decode(raw + "=" * (-len(raw) % 4)))
    except (binascii.Error, ValueError):
        return ""


def _from_bytes(raw: bytes) -> str:
    """`raw` as text where all of it is printable ASCII, else ""."""
    return raw.decode("ascii") if raw and all(32 <= byte < 127 for byte in raw) else ""


def _from_morse(code: str) -> str:
    signs = code.translate(str.maketrans("·•−–_", "..---"))
    return "".join(_MORSE_LETTERS.get(letter, " ") for letter in re.split(r"[ /]", signs) if letter)


_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
_TALL_I = re.compile(r"(?<=[A-Za-z])I(?=[a-z])|(?<=[a-z])I|(?<![A-Za-z])I(?=[a-z]{2})")
"""A capital I that may be used as a small l."""


def _plain_forms(text: str) -> list[str]:
    """`text` with emoji as words and, where there are any, with them as signs; with characters of the tag block as letters."""
    forms = _written_forms(text)
    if _CAMEL.search(text):
        forms += _written_forms(_CAMEL.sub(" ", text))
    if _TALL_I.search(text):
        forms += _written_forms(_TALL_I.sub("l", text))
    return forms


def _written_forms(text: str) -> list[str]:
    if text.isascii():
        return [folded(text)]
    forms: list[str] = []
    if any("\U000e0020" <= each <= "\U000e007e" for each in text):
        forms.append(folded("".join(chr(ord(e) - 0xE0000) if "\U000e0020" <= e <= "\U000e007e" else e for e in text)))
    lettered = "".join(_letter_sign(each) for each in _without_invisible(text))
    named = _with_emoji_named(lettered)
    forms.append(folded(named))
    if (tall := _with_capitals_seen(lettered)) != lettered:
        forms.append(folded(tall))
    if named != lettered:
        forms.append(folded(lettered.translate(_SIGNS)))
    return forms


def _with_capitals_seen(text: str) -> str:
    """`text` with capitals of other scripts as the Latin ones that they look like, which their small letters may not: Ν, ν."""
    capitals = _capitals()
    return "".join(capitals.get(each, each) for each in unicodedata.normalize("NFKC", text))


@cache
def _capitals() -> dict[str, str]:
    from confusable_homoglyphs.confusables import confusables_data

    return {
        other["c"]: latin.lower() for latin in string.ascii_letters for other in confusables_data.get(latin, ())
        if len(other["c"]) == 1 and other["c"].isupper() and not other["c"].isascii()
    } | dict(zip("НВРСТУХЕКМОА", "hbpctyxekmoa", strict=True))  # fmt: skip


def _without_invisible(text: str) -> str:
    """`text` without invisible characters, except the joiner between two emoji."""
    if not any(unicodedata.category(each) in ("Cf", "Cc", "Cs", "Co", "Cn") or each in _BLANKS for each in set(text)):
        return text
    return "".join(
        each for at, each in enumerate(text)
        if not _invisible(each) or (each == "\u200d" and at and not text[at - 1].isalpha() and not text[at - 1].isspace())
    )  # fmt: skip


def _invisible(character: str) -> bool:
    if character.isspace():
        return False
    return unicodedata.category(character) in ("Cf", "Cc", "Cs", "Co", "Cn") or character in _BLANKS


@cache
def _letter_sign(sign: str) -> str:
    """The letter or digit in a box, a circle or a flag; else the sign itself."""
    code = ord(sign)
    if 0x1F1E6 <= code <= 0x1F1FF:  # regional indicators
        return chr(code - 0x1F1E6 + 97)
    for start in (0x1F130, 0x1F150, 0x1F170):
        if start <= code < start + 26:
            return chr(code - start + 97)
    if code < 0x2000 or unicodedata.category(sign) not in ("No", "Me"):
        return sign
    return "" if sign == "\u20e3" else str(unicodedata.digit(sign, sign))


def _with_emoji_named(text: str) -> str:
    """`text` with every emoji as its English name."""
    if not any(each > "\u203b" for each in text):
        return text
    import emoji

    for sign, name in _FAMILY.items():
        text = text.replace(sign, name)
    return emoji.demojize(text.replace("\ufe0f", ""), delimiters=(" ", " ")) if emoji.emoji_count(text) else text


_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e]")
"""A fraction in one sign; its value does not matter for an age."""


def folded(text: str) -> str:
    """Compatibility forms made one (NFKC), small letters, all blanks alike, nothing invisible."""
    if text.isascii():
        return "".join(each for each in text.lower() if each >= " " or each.isspace())
    composed = unicodedata.normalize("NFKC", _FRACTION.sub(".5", text.replace("\u0345", "")))  # a mark that casefolds to a letter
    text = unicodedata.normalize("NFKC", _without_invisible(composed).casefold())
    return "".join(" " if each.isspace() else each for each in text if not _invisible(each) and each != "\u200d")


# --- letters ----------------------------------------------------------------------------------------------------------------

_LATIN = re.compile(
    r"(?:MODIFIER LETTER|LATIN) (?:(?:SMALL|CAPITAL)(?: LETTER)?|LETTER)(?: SMALL CAPITAL| CAPITAL| SMALL)?"
    r"(?: DOTLESS| SCRIPT| LONG| OPEN| BLACKLETTER| TURNED| REVERSED| SIDEWAYS| INSULAR| BARRED| TAILLESS)*(?: LETTER)?"
    r" ([A-Z]|AE|OE)(?: WITH .*|-.*)?$"
)
_NAMES = {
    "esh": "l", "open e": "e", "schwa": "e", "eth": "d", "alpha": "a", "iota": "i", "upsilon": "u", "gamma": "y", "eng": "n",
    "kra": "k",
}  # fmt: skip
FLIPPED = str.maketrans("ɐqɔpǝɟƃɓɥᴉıɾʞʃןɯuodbɹsʇnʌʍxʎzəᴚ", "abcdefgghiijkllmnopqrstuvwxyzer")
"""Letters turned upside down."""
_TURNED = frozenset("ɐɔǝɟƃɓɥᴉɾʞʃןɯɹʇʌʍʎ")


def bare(text: str) -> str:
    """`text` without accents and other marks, Latin letters of any shape as ASCII, digits of any script as 0 to 9."""
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFD", text)
    letters = "".join(_plain_letter(each) for each in apart if unicodedata.category(each) not in ("Mn", "Me"))
    return unicodedata.normalize("NFC", letters)


@cache
def _plain_letter(letter: str) -> str:
    if letter.isascii():
        return letter
    if unicodedata.decimal(letter, None) is not None:
        return str(unicodedata.decimal(letter))
    if "ァ" <= letter <= "ヶ":  # katakana are read as hiragana
        return chr(ord(letter) - 0x60)
    if letter in "يىك":
        return {"ي": "ی", "ى": "ی", "ك": "ک"}[letter]
    name = unicodedata.name(letter, "")
    if match := _LATIN.match(name):
        return match[1].lower()
    if "LATIN" in name:
        return next((plain for ending, plain in _NAMES.items() if name.casefold().endswith(f"letter {ending}")), letter)
    return letter


def skeleton(text: str) -> str:
    """`bare(text)` with every letter that looks like a Latin one as that one, whatever its script."""
    seen = bare(text)
    return seen if seen.isascii() else bare("".join(_lookalike(each) for each in seen))


@cache
def _lookalike(letter: str) -> str:
    return letter if letter.isascii() else confusable_letters().get(letter, letter)


@cache
def confusable_letters() -> dict[str, str]:
    """Letter of another script -> the small Latin letters or the digits that it looks like."""
    from confusable_homoglyphs.confusables import confusables_data

    letters: dict[str, str] = {}
    for latin in "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA":
        for other in confusables_data.get(latin, ()):
            for letter in {other["c"], other["c"].casefold()}:
                if len(letter) == 1 and not letter.isascii() and letter.isalpha():
                    letters[letter] = latin.lower()
    return letters | _SEEN


_SEEN = {
    "а": "a", "в": "b", "е": "e", "к": "k", "м": "m", "н": "h", "о": "o", "р": "p", "с": "c", "т": "t",
    "у": "y", "х": "x", "і": "i", "ї": "i", "ј": "j", "ѕ": "s", "ԁ": "d", "һ": "h", "ё": "e", "ԛ": "q",
    "ԝ": "w", "ь": "b", "г": "r", "α": "a", "β": "b", "γ": "y", "ε": "e", "η": "n", "ι": "i", "κ": "k",
    "ν": "v", "ο": "o", "ρ": "p", "τ": "t", "υ": "u", "χ": "x", "ω": "w", "σ": "o", "ς": "c", "δ": "d",
    "ζ": "z", "λ": "l", "μ": "u", "ғ": "f", "ӏ": "l", "ո": "n", "օ": "o", "ս": "u", "հ": "h", "ց": "g", "կ": "k",
    "ბ": "b", "ო": "o", "ք": "p", "ր": "r", "լ": "l", "ɩ": "i",
}  # fmt: skip
"""Additions and corrections for small letters to the Unicode list."""
_FONTS = (
    "卂乃匚ᗪ乇千Ꮆ卄丨フҝㄥ爪几ㄖ卩ɋ尺丂ㄒㄩᐯ山乂ㄚ乙",
    "ąცƈɖɛʄɠɧıʝƙɩɱŋơ℘զཞʂɬų۷ῳҳყʑ",
    "ค๒ς๔єŧﻮђเןкɭ๓ภ๏קợгรՇยשฬאץչ",
    "αв¢∂єƒgнιנкℓмησρqяѕтυνωχуz",
    "ልጌርዕቿቻኗዘጎጋጕረጠክዐየዒዪነፕሁሀሠሸሃጊ",
    "ᗩᗷᑕᗪeᖴgᕼiᒍkᒪᗰᑎoᑭᑫᖇᔕtᑌᐯᗯ᙭yᘔ",
    "ꍏꌃꉓꀸꍟꎇꁅꃅꀤꀭꀘ꒒ꂵꈤꂦꉣꆰꋪꌗ꓄ꀎᐯꅏꊼꌩꁴ",
    "丹日亡句ヨ乍呂廾工丿片乚冊门口尸甲尺己丁凵人山父丫之",
    "ₐ♭꜀ᑯₑբ₉ₕᵢⱼₖₗₘₙₒₚ૧ᵣₛₜᵤᵥ𝆑ₓᵧ₂",
    "ǟɮƈɖɛʄɢɦɨʝӄʟʍռօքզʀֆȶʊʋաӼʏʐ",
    "ꋬꃳꉔ꒯ꏂꊰꍌꁝ꒐꒻ꀘ꒒ꂵꋊꄲꉣꆰꋪꇙ꓄꒤꒦ꅐꉧꌦꁴ",
    "მბҫძეƒცჰἶქκlოռօრգɾʂէմvშxყz",
    "αႦƈԃҽϝɠԋιʝƙʅɱɳσρϙɾʂƚυʋɯxყȥ",
)
"""Alphabets that are put together from signs of other scripts for their looks, a to z."""
_FAUX = str.maketrans({
    sign: letter for font in _FONTS for sign, letter in zip(font, string.ascii_lowercase, strict=True) if not sign.isascii()
} | dict(zip(
    "яийшщчпбдэжцлзфгьнуσψφθπξλδηρμωγβτςטלסןוყგირა卂乃匚ᗪ乇千卄丨フҝㄥ爪几ㄖ卩尺丂ㄒㄩ山乂ㄚ乙₳฿₵₣₲₭₥₦₱₴₮₩ӿ",
    "rnnwwynbdexuneorbhyoyooneadnpmwybtsuloliygnmaabcdefhijklmnoprstuwxyzabcfgkmnpstwx", strict=True,
)))  # fmt: skip


def faux(text: str) -> str:
    """`text` with signs that are put in the place of Latin letters for their looks alone (Я for R, 卂 for A) as those."""
    return skeleton(text.translate(_FAUX))


def upright(text: str) -> str:
    """`text` that was turned upside down, read the right way; nothing where no letter stands on its head."""
    return bare(text.translate(FLIPPED)[::-1]) if _TURNED & set(text) else ""
