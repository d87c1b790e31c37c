"""How ages below eighteen are written in other languages, as regular expressions for small plain letters."""

from __future__ import annotations

from collections.abc import Iterator

from srbench.catalog.minors.ages_english import BORN_YEAR
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


def without_number() -> Iterator[str]:
    """A school year by its ordinal: in der fünften Klasse, quinta elementare; an age behind whom it is said of: ей десять."""
    yield rf"(?<![^\W_])(?:{bare(_ORDINALS)})\s+(?:{bare(_SCHOOL_YEARS)})(?![^\W_]){_CARRIAGES}"
    yield bare("کلاس (?:اول|دوم|سوم|چهارم|پنجم|ششم|هفتم|هشتم|نهم|دهم)")
    yield bare(r"(?:classe de|en) (?:sixieme|cinquieme|quatrieme|troisieme|seconde|terminale)(?![^\W_])")
    spoken = {
        language: either(form for each in forms for form in each if form not in ("un", "una", "um", "uma", "uno", "une"))
        for language, forms, _ in languages()
    }
    every = either(form for _, forms, _ in languages() for each in forms for form in each if len(form) > 2 or not form.isascii())
    yield rf"(?<![^\W_])(?:{every})[\s-]{{0,2}}(?:years?|yrs?)[\s-]{{0,2}}old(?![^\W_])"
    whom = bare("ему|ей|мне|йому|їй|исполнилось|исполняется|виповнилося")
    yield rf"(?<![^\W_])(?:{whom})\s+(?:{DIGITS}|{spoken['ru']}|{spoken['uk']})(?=\s*(?:$|[.,;!)]))"
    romance = "|".join(spoken[language] for language in ("es", "pt", "it"))
    yield rf"(?<![^\W_])(?:tiene|cumple|cumplio|tem|faz|compie)\s+(?:{romance}|{DIGITS})(?=\s*(?:$|[.,;!)]))"
    yield rf"(?<![^\W_])alter\s+von\s+(?:{spoken['de']})(?![^\W_])"
    numbers = "ahop|yeol|yesot|yeodeol|ilgop|sem|deviat|devyat|shest|vosem|pyat|desyat|noy|nau|saat|aath|das|baarah|paanch"
    yield rf"(?<![^\W_])(?:{numbers})[\s-]*(?:sal|let|saal)(?![^\W_])"
    yield from _said_abroad()


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
    yield from _school_years()
    yield from _schools_abroad()
    yield from _born_abroad()


def _born_abroad() -> Iterator[str]:
    """geboren 2013, née en 2013, 2012 г.р., 2013年生まれ, 平成25年, 10后, متولد ۱۳۹۲."""
    born = (
        "geboren|jahrgang|geb\\.|nee?s?|nacid[oa]s?|nacio|nascid[oa]s?|nasceu|nat[oai]|urodz\\w+|ur\\.|rocznik|fodd|fodt"
        "|kelahiran|lahir"
        "|sinh(?: nam)?|जन्म|जन्मी?|narozen\\w*|szuletett|nascuta?|syntynyt|родил\\w+|рожден\\w*|народ\\w+|مواليد|ولدت?"
        "|متولد|dogum\\w*"
    )
    joint = (
        r"[\s:.,]*(?:(?:in|im|en|em|el|nel|w|i|am|year|den|le|ano|anno|jahr|jahre|roku|tahun|nam|в|у|عام|سنة|سال"
        r"|में)[\s.]+){0,2}"
    )
    yield rf"(?<![^\W_])(?:{born}){joint}(?:\d{{1,2}}[./\s-]+(?:\w+[./\s-]+)?(?:de\s+)?)?{BORN_YEAR}(?!\d)"
    yield r"(?<![^\W_])(?:متولد|زاده)\s+(?:سال\s+)?(?:13(?:8[6-9]|9\d)|14\d\d|8[6-9]|9\d)(?!\d)"
    behind = (
        "года?\\s+рожд\\w+|г\\.?\\s?р(?![^\\W_])|р\\.?\\s?н(?![^\\W_])|року\\s+нар\\w+|do[gğ]umlu|년\\s?생|년\\s?출생|年(?:生"
        "|出生|[早초]?生まれ)"
    )
    yield rf"(?<!\d){BORN_YEAR}[\s-]*(?:{behind})"
    yield r"(?<!\d)(?:0[89]|1\d|2\d|一零|二零)后"
    yield r"平成(?:19|2\d|3[01]|十九|二十[一二三四五六七八九]?|三十一?)年|令和(?:元|\d{1,2}|[一二三四五六七八九十])年生"


def _schools_abroad() -> Iterator[str]:
    """4º de primaria, 2º de la ESO, 2 havo, åk 7, årskurs sju, Klasse 5b, ป.4."""
    school = "primaria|eso|secundaria|bachiller\\w*|infantil|preparatoria|basica|medio|liceo|scuola|elementare"
    yield (
        r"(?<![\d.,])[1-8]\s?(?:º|°|ª|o|a|ro|do|to|er|mo|vo|no)?\.?\s*(?:de|di)\s+(?:la\s+"
        rf"|educacion\s+)?(?:{school})(?![^\W_])"
    )
    yield r"(?<![\d.,])[1-6]\s?(?:havo|vwo|vmbo|mavo|gymnasium|asos?)(?![^\W_])|(?<![^\W_])ak\s[1-9](?!\d)"
    yield r"(?<![^\W_])arskurs\s+(?:ett|tva|tre|fyra|fem|sex|sju|atta|nio)(?![^\W_])"
    yield (
        rf"(?<![^\W_])(?:{bare('klasse|klass|klas|klasa|класс|клас|lop|kelas|sinif')})\s+(?:1[0-2]"
        r"|[1-9])\s?[-/.]?\s?[a-hа-д](?![^\W_])"
    )
    yield r"[ปม]\.?\s?[1-6](?!\d)"


_NUMBER_WORDS_FROM = 5
"""Smaller number words are articles and parts of other words in too many languages."""


def _said_abroad() -> Iterator[str]:
    """wird neun, fyller tio, on beşinde, mit 14, unter 16, noch keine 18, 年方十二; Arabic ordinals."""
    spoken = {
        language: either(form for each in forms[_NUMBER_WORDS_FROM - 1 :] for form in each) for language, forms, _ in languages()
    }
    becomes = {
        "de": "wird|wurde|werde|werden|ist|war|mit", "nl": "wordt|werd|is|was", "sv": "fyller|fyllde|ar|blir|blev",
        "da": "fylder|fyldte|er|bliver",
        "fr": "a|fete ses", "pl": "ma|skonczyl\\w*|konczy",
    }  # fmt: skip
    when = (
        r"(?:(?:heute|gestern|morgen|bald|gerade|erst|nun|jetzt|vandaag|gisteren|pas|net|idag|imorgon|igar|snart|bara"
        r"|i\s+dag)\s+)*"
    )
    for language, verbs in becomes.items():
        yield rf"(?<![^\W_])(?:{verbs})\s+{when}(?:{spoken[language]})(?=\s*(?:$|[.,;!)]))"
    figure = r"(?<![\d.,])(?:1[0-7]|[6-9])(?=\s*(?:$|[,;!)]))"
    yield (
        r"(?<![^\W_])(?:wird|wurde|wordt|werd|fyller|fyllde|fylder|blir|mit|met|unter|onder|sotto|jonger\s+dan"
        rf"|junger\s+als)\s+{when}{figure}"
    )
    yield r"(?<![^\W_])seit\s+\w+\s+(?:tagen?|wochen?|monate?n?)\s+(?:" + spoken["de"] + r")(?=\s*(?:$|[.,;!)]))"
    full = rf"(?:{_EIGHTEEN}|achtzehn|achttien)(?!\d|\s*{MEASURE}{_LETTERS_AHEAD})"
    yield (
        r"(?<![^\W_])(?:noch\s+(?:keine|nicht(?:\s+einmal)?)|nog\s+geen|belum|chua|annu\s+inte|pas\s+encore|todavia\s+no"
        rf"|non\s+ancora|ещ[её]\s+нет|ще\s+нема\w*)\s+(?:\w+\s+)?{full}"
    )
    yield (
        rf"(?<![^\W_])(?:{spoken['tr']})'?(?:s?inde|s?unda|s?ine|s?una)(?![^\W_])|(?<!\d)(?:1[0-7]"
        rf"|[1-9])'?\w{{1,4}}\s+(?:basti|girdi|basacak|girecek)"
    )
    yield r"(?<!\d)(?:1[0-7]|[1-9])'(?:[sy]?[ıiuü]nda|[sy]?inde)(?![^\W_])"
    ordinal = "حادية|ثانية|ثالثة|رابعة|خامسة|سادسة|سابعة|ثامنة|تاسعة|عاشرة"
    yield rf"(?:ال)?(?:{ordinal})(?:\s+عشرة?)?\s+من\s+(?:ال)?عمر|(?:دون|تحت)\s+(?:ال)?(?:سن\s+)?(?:ال)?(?:{ordinal})(?:\s+عشرة?)?"
    yield rf"年(?:方|仅|僅|刚|剛|满|滿)\s*(?:{DIGITS}|十?[一二三四五六七])|cumpleanos\s+(?:numero|no\.?|n\.?)\s*{DIGITS}"


_ORDINALS = (
    "zweiten?|dritten?|vierten?|funften?|sechsten?|siebten?|siebenten?|achten?|neunten?|zehnten?|elften?|zwolften?"
    "|segund[oa]|tercer[oa]?|cuart[oa]|quint[oa]|sext[oa]|septim[oa]|setim[oa]|octav[oa]|oitav[oa]|noven[oa]|non[oa]"
    "|decim[oa]|terceir[oa]|quart[oa]"
    "|second[oa]|terz[oa]|sest[oa]|settim[oa]|ottav[oa]|prim[oa]|primer[oa]?|primeir[oa]"
    "|sixieme|cinquieme|quatrieme|troisieme|premiere|derde|vierde|vijfde|zesde|zevende|achtste|negende|tweede"
    "|forsta|andra|tredje|fjarde|femte|sjatte|sjunde|attonde|nionde"
    "|перв\\w+|втор\\w+|трет\\w+|четверт\\w+|пят\\w+|шест\\w+|седьм\\w+|восьм\\w+|девят\\w+|десят\\w+|одиннадцат\\w+"
    "|перш\\w+|друг\\w+|четверт\\w+|п'ят\\w+|пят\\w+|шост\\w+|сьом\\w+|девят\\w+"
    "|pierwsz\\w+|drug\\w+|trzeci\\w*|czwart\\w+|piat\\w+|szost\\w+|siodm\\w+|osm\\w+|dziewiat\\w+|dziesiat\\w+"
    "|birinci|ikinci|ucuncu|dorduncu|besinci|altinci|yedinci|sekizinci|dokuzuncu|onuncu"
    "|पहली|दूसरी|तीसरी|चौथी|पाचवी|छठी|सातवी|आठवी|नौवी|दसवी"
)
_SCHOOL_YEARS = (
    "klasse|klassen|grado|curso|ano|anno|elementare|elementari|media|annee|primaire|klas|klass|класс\\w*|клас\\w*|klas\\w*"
    "|sinif\\w*|कक्षा"
    "|serie|basica|de primaria|de secundaria"
)
_CARRIAGES = r"(?!\s*(?:abteil|wagen|wagon|train|zug|ticket|car))"


def _school_years() -> Iterator[str]:
    """in der fünften Klasse, quinta elementare, 5 класс, klasa 5, lớp 5, कक्षा 5."""
    figure = r"(?<![\d.,])(?:1[0-2]|[1-9])"
    after = bare("klasse|klass|grado|annee|класс|клас|klasa|klasie|sinif|elementare|ano")
    yield rf"{figure}(?:\s*[.°ºªeo]|\s*-\w{{1,3}}|a|e|eme|º)?\s*(?:{after})\w{{0,3}}(?![^\W_])"
    before = bare(
        "klasse|klass|klas|klasa|klasie|класс|клас|groep|arskurs|lop|kelas|sinif|कक्षा|کلاس|الصف|صف|stufe|schuljahr|clase|grado"
    )
    nth = bare(
        "پنجم|اول|دوم|سوم|چهارم|ششم|هفتم|هشتم|نهم|دهم|الاول|الثاني|الثالث|الرابع|الخامس|السادس|السابع|الثامن|التاسع"
    )
    yield rf"(?<![^\W_])(?:{before})\s+(?:{figure}|{nth})(?![^\W_])"
    yield r"[小中高初][一二三四五六1-6](?:年|学生|男|女|$|[\s,、。])|[초중고]\s?[1-6](?![^\W_])"
    yield r"半[岁歳歲]|[三四五六七八九]つ(?![一-鿿ぁ-ん])|年[長中少]さん"
    yield rf"{DIGITS}\s*-?\s*(?:ти|и|х|летие)\s*(?:лет\w*|річ\w*)|{DIGITS}-(?:летие|річчя)"
    yield rf"{DIGITS}\s*thang\s+tuoi"


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
