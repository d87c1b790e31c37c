"""The parts of the minors filter: texts made plain, words in disguise, ages. Plain words only."""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.catalog import screen
from srbench.catalog.minors import ages, normalise, numbers, spelling, wordlist

ENGLISH = sorted(word for word in wordlist.english().whole if len(word) > 2 and word.isalpha() and word not in spelling.UNSIGNED)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD = st.sampled_from(ENGLISH)
CORE = st.sampled_from([word for word in spelling.CORE if len(word) > 3])
SLOW = settings(deadline=None)  # the machine may be busy


def shifted(start: int) -> Callable[[str], str]:
    """Small letters as those of the block that begins at `start`."""
    return lambda word: "".join(chr(start + LETTERS.index(letter)) for letter in word)


BLOCKS = {
    "full width": 0xFF41, "bold": 0x1D41A, "script": 0x1D4EA, "double": 0x1D552, "fraktur": 0x1D586, "mono": 0x1D68A,
    "circled": 0x24D0, "squared": 0x1F130, "negative circled": 0x1F150, "negative squared": 0x1F170, "flags": 0x1F1E6,
    "tags": 0xE0061, "parentheses": 0x249C,
}  # fmt: skip
SEPARATORS = ["-", ".", "_", "*", "~", "|", "/", ",", "·", " ", "\n", "\u200b", "\u00ad", "<b></b>", "&shy;", "--", "\u3000"]
INVISIBLE = "\u200b\u200c\u200d\u2060\u00ad\ufeff\u034f\u2063\ufe0f\u0336\u0301"


# --- normal forms -----------------------------------------------------------------------------------------------------------


@SLOW
@given(st.text(max_size=60))
def test_a_plain_text_stays_as_it_is(text: str) -> None:
    for once in normalise.readings(text):
        assert normalise.folded(once) == once
        assert normalise.bare(normalise.bare(once)) == normalise.bare(once)
        assert normalise.skeleton(normalise.skeleton(once)) == normalise.skeleton(once)


@pytest.mark.parametrize(("written", "read"), [
    ("&#103;irl", "girl"), ("&amp;#103;irl", "girl"), ("%67irl", "girl"), ("%2567irl", "girl"), ("\\u0067irl", "girl"),
    ("\\x67irl", "girl"), ("U+0067irl", "girl"), ("=67=69rl", "girl"), ("g<b>i</b>rl", "girl"), ("g[i]i[/i]rl", "girl"),
    ("Z2lybA==", "girl"), ("6769726c", "girl"), ("01100111 01101001 01110010 01101100", "girl"),
    ("103 105 114 108", "girl"), ("--. .. .-. .-..", "girl"), ("niÃ±a", "niña"),
])  # fmt: skip
def test_escapes_and_codes_are_read(written: str, read: str) -> None:
    assert read in normalise.readings(written)


def test_emoji_are_read_as_words_and_as_signs() -> None:
    assert "girl" in normalise.readings("👧")[0]
    assert "g🌸rl" in normalise.readings("g🌸rl"), "as a sign that stands for a letter"


def test_letters_of_other_scripts_look_like_ours() -> None:
    assert normalise.skeleton("сһіӏԁ") == "child"
    assert normalise.faux("giяl") == "girl"
    assert normalise.upright("ʎoq") == "boy"


# --- words ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", wordlist.languages())
def test_every_word_of_every_language_is_found(language: str) -> None:
    """Also in capitals, in a sentence, and glued to a mark."""
    for entry in wordlist.entries(language):
        word = entry.strip("=*")
        for text in (word, f"somebody, {word}, by the sea", f"({word})"):
            assert screen.names_minor(text), text


@SLOW
@given(WORD, st.sampled_from(sorted(BLOCKS)))
def test_no_alphabet_hides_a_word(word: str, block: str) -> None:
    assert screen.names_minor(f"a {shifted(BLOCKS[block])(word)} by the sea")


@SLOW
@given(WORD, st.sampled_from(SEPARATORS))
def test_nothing_between_the_letters_hides_a_word(word: str, mark: str) -> None:
    assert screen.names_minor(f"a {mark.join(word)} by the sea")


@SLOW
@given(CORE, st.sampled_from(SEPARATORS), st.data())
def test_a_cut_hides_nothing(word: str, mark: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(word) - 1))
    assert screen.names_minor(f"a {word[:at]}{mark}{word[at:]} by the sea")


@SLOW
@given(WORD, st.data())
def test_nothing_invisible_hides_a_word(word: str, data: st.DataObject) -> None:
    marks = data.draw(st.lists(st.text(INVISIBLE, max_size=3), min_size=len(word), max_size=len(word)))
    assert screen.names_minor("a " + "".join(letter + mark for letter, mark in zip(word, marks, strict=True)) + " by the sea")


CODES: dict[str, Callable[[str], str]] = {
    "decimal entity": lambda word: "".join(f"&#{ord(letter)};" for letter in word),
    "hexadecimal entity": lambda word: "".join(f"&#x{ord(letter):x};" for letter in word),
    "url": lambda word: "".join(f"%{ord(letter):02X}" for letter in word),
    "unicode": lambda word: "".join(f"\\u{ord(letter):04x}" for letter in word),
    "hexadecimal": lambda word: word.encode().hex(),
    "base64": lambda word: base64.b64encode(word.encode()).decode(),
    "binary": lambda word: " ".join(f"{ord(letter):08b}" for letter in word),
    "upside down": lambda word: "".join("ɐqɔpǝɟƃɥᴉɾʞlɯuodbɹsʇnʌʍxʎz"[LETTERS.index(letter)] for letter in word)[::-1],
}


@SLOW
@given(CORE, st.sampled_from(sorted(CODES)))
def test_no_code_hides_a_word(word: str, code: str) -> None:
    if code != "upside down" or re.search("[aceghjkmrtvwy]", word):  # else no letter of it stands on its head
        assert screen.names_minor(f"a {CODES[code](word)} by the sea")


@SLOW
@given(CORE, st.sampled_from(["reversed", "rot13", "pig latin"]))
def test_core_words_are_found_in_children_s_codes(word: str, code: str) -> None:
    head = re.match("[^aeiouy]*", word)[0] if word[0] != "y" else "y"  # type: ignore[index]
    coded = {"reversed": word[::-1], "rot13": codecs.encode(word, "rot13"), "pig latin": word[len(head) :] + head + "ay"}[code]
    assert screen.names_minor(f"a {coded} by the sea")


@SLOW
@given(CORE, st.data())
def test_a_letter_that_is_left_out_hides_nothing(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(word) - 2))
    assert screen.names_minor(f"a {word[:at]}{data.draw(st.sampled_from('*#?_'))}{word[at + 1 :]} by the sea")


@SLOW
@given(st.sampled_from([word for word in spelling.DISTINCT if len(word) > 6]), st.data())
def test_one_wrong_letter_hides_no_long_word(word: str, data: st.DataObject) -> None:
    at, letter = data.draw(st.integers(0, len(word) - 1)), data.draw(st.sampled_from(LETTERS))
    head, tail = word[:at], word[at + 1 :]
    wrong = data.draw(st.sampled_from([head + tail, head + letter + word[at:], head + letter + tail]))
    if wrong not in wordlist.harmless().whole and not any(map(wrong.startswith, wordlist.harmless().stems)):
        assert screen.names_minor(f"a {wrong} by the sea")


@pytest.mark.parametrize("text", [
    "#younggirl", "smallchild", "littlegirls", "1girl", "2boys", "xXgirlXx", "young_girl", "prettyGirl", "girl_01",
    "|<1|)", "b()y", "ch1ld", "t33n4g3r", "5choolgirl", "chld", "gurl", "yung", "skoolgirl", "qirl", "glrl", "loIi",
    "t*ddl*r", "*nf*nt", "g🌸rl", "\u202elrig", "gi rl", "tod dler", "kin der gar ten", "𝞣een", "卂 ㄒeen", "Ꮆ丨尺ㄥ",
    "k⃝i⃝d⃝", "ᵍⁱʳˡ", "ɢɪʀʟ", "девочkа", "д-е-в-о-ч-к-а", "女 孩", "少-女",
])  # fmt: skip
def test_disguises_are_seen_through(text: str) -> None:
    assert screen.names_minor(f"a {text} by the sea")


@pytest.mark.parametrize("text", [
    "80y", "848y", "733n", "+33n", "91r15", "5ch0013r", "70dd13r5", "9 1 r 1", "8\u200c0\u200cy",  # most letters are digits
    "g-rl", "b.ys", "k.d", "b@y", "pr-sch-ol", "inf-nts", "sch@olb@ys", "t@ddler", "AD-LESCENT",  # masks that also part words
    "#comicteen", "#ourmiddleschooler", "retrokiddo", "choibroy", "high scooler", "pre-teun",
])  # fmt: skip
def test_digits_masks_and_glue_are_seen_through(text: str) -> None:
    assert screen.names_minor(f"a {text} by the sea")


@pytest.mark.parametrize("text", [
    "a bird among others of its kind", "vegetables of each color and kind", "a kind man", "a very kind smile", "a cheese grader",
    "tater tots", "a road grader", "baby carrots", "minor changes",
    "a pair of motor scooters", "a gaming machine", "an eightteen wheeler", "three men in a workshop", "a computer turned on",
    "a 14 year old whisky", "a 10-year-old car",
])  # fmt: skip
def test_what_stands_beside_a_word_makes_it_harmless(text: str) -> None:
    assert not screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "baby girl", "a young lamb girl", "a baby", "a young one", "a baby bear costume", "a young bird and her friends",
    "a woman and her baby bear", "a baby bear-boy", "a young bear named Ann", "a third grader", "tots", "the Kind", "my kind",
    "a baby, a carrot", "young", "a young bird wearing a skirt",
    "a Kind, man and sea", "ein Kind man", "a 10-year-old car lover", "a 10-year-old", "a 12 year old rider, a 9 year old horse",
])  # fmt: skip
def test_an_animal_opens_no_hole(text: str) -> None:
    assert screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "ein Kind im Garten", "het kind slaapt", "a Kind with a kite", "ett barn leker", "små barn", "لعب الأطفال", "والبنت",
    "ילדה והילד", "एक लड़की", "bé gái", "em bé", "una niña", "uma menina", "мальчика", "dziewczynki", "çocuklar",
    "anak-anak", "دخترها", "дівчинку",
])  # fmt: skip
def test_other_languages_are_read_in_their_forms(text: str) -> None:
    assert screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "a kind of blue", "one of a kind", "different kinds of fruit", "a red barn", "a barn and a silo", "house to let",
    "ladies and lady", "a Sony camera", "killed by frost", "a lapse", "gore", "cork oak", "boiling water",
    "between two canteens", "eighteen wheels", "infantry", "a cowboy hat", "kidney beans", "a chilli", "a bay",
    "toss a coin", "https://github.com/CharlesGong12/RECE", "igmu-vangogh-r121", "K16-eta3", "violence_eta_5_k_77",
    "SG161222", "t-shirt", "state-of-the-art", "rock'n'roll", "a pot of madeleines", "bay window", "nine",
    "a car's lights", "What did I do", "in fancy dress", "a b c d", "A. B. C.", "U.S.A.", "x-ray", "e-mail", "3D", "4x4",
    "*** sale ***",
])  # fmt: skip
def test_what_only_looks_like_it_is_let_through(text: str) -> None:
    assert not screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "g-", "*", "(_", "|<", "9 ", "\u0301", "a", "\ud800", "",
])  # fmt: skip
def test_hostile_texts_are_answered(text: str) -> None:
    assert screen.names_minor(text) in (True, False)


# --- ages -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "13f", "f13", "f/13", "13/f", "m14", "14 y/o", "9-yr-old", "age=9", "nine-year-old", "9yearold", "in her teens",
    "grade 3", "third grader", "year 7 pupil", "u18", "<18", "not yet 18", "not 18 yet", "sub-18", "born in 2015",
    "b. 2012", "dob 12/03/2014", "6 months old", "weeks-old", "half-year-old", "a year old", "twelve summers", "barely 17",
    "turns 16", "sixteenth birthday", "16 this year", "tender age", "XII years", "age XIV", "she is 12", "l2 yo",
    "1O years", "12 y3ars", "twe1ve years", "17 and under", "12U", "5½ years", "𝟏𝟐 yo", "⑫ years old", "9 años",
    "doce años", "9 ans", "douze ans", "9 Jahre alt", "zwölfjährig", "12-jährige", "dodicenne", "nove anos", "twaalf jaar",
    "12-letnia", "dwunastoletnia", "девять лет", "12-летняя", "дванадцять років", "on iki yaşında", "12 tuổi",
    "dua belas tahun", "tolv år gammal", "12-årig", "٩ سنوات", "۱۲ ساله", "१२ साल", "बारह साल", "９歳", "十二歳", "九岁",
    "열두 살", "๑๒ ปี", "בת 12", "menor de 18", "unter 18", "до 18 лет", "未满18岁", "18歳未満", "18 yaşından küçük",
    "di bawah 18 tahun",
])  # fmt: skip
def test_ages_are_read_in_many_forms_and_languages(text: str) -> None:
    assert screen.names_minor(f"somebody, {text}, by the sea")


@pytest.mark.parametrize("text", [
    "3|3v3n y34rs 01d", "$1x-y34r-01d", "nniinnee yyeeaarrss oolldd", "e l e v e n   y e a r s   o l d",
    "n\ni\nn\ne\n\ny\ne\na\nr\n\no\nl\nd", "s\\i\\x\\-\\y\\e\\a\\r\\-\\o\\l\\d", "n–i–n–e y–e–a–r o–l–d",
    "dlo-raey-xis", "dlo sraey nevele", "a nine ye#r #ld", "#picofasixyearold", "sevenyear olld", "six-yearo-ld",
    "ni ne years old", "n-i-n-e years old", "nien years old", "9 yaer old", "nınе yеɑг οӏɗ", "nueve-year-old", "nine (9) years",
])  # fmt: skip
def test_disguised_ages_are_read(text: str) -> None:
    assert screen.names_minor(f"a {text} by the sea")


@pytest.mark.parametrize("text", [
    "U16 team", "under-fifteens", "sixteen and under", "no more than 16", "rising five", "not over 14", "yet to turn 16",
    "before her eighteenth birthday", "happy 9th", "18 months", "ages 0-3", "0-12 months", "newly born", "born yesterday",
    "between 8 and 12", "12-17 age group", "seven-and-a-half", "sixteen, female", "at 13", "Grade VI", "year 8", "form 3",
    "class 5", "primary four", "in der fünften Klasse", "dritte Klasse", "5. Klasse", "quinta elementare", "quinto grado",
    "4º ano",
    "cinquième année", "CM2", "klas 2", "в пятом классе", "5 класс", "piąta klasa", "beşinci sınıf", "کلاس پنجم", "कक्षा 5",
    "lớp 5", "kelas 5", "årskurs 4", "femte klass", "초3", "半歳", "ей десять", "9-летие", "cumple nueve",
    "im Alter von neun",
])  # fmt: skip
def test_more_ways_of_saying_an_age_are_read(text: str) -> None:
    assert screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "erste Klasse im Zug", "first class", "business class", "a class 800 train", "between 20 and 30", "18-25 age group",
    "a one hundred year old tree", "thirtyoneyearold oak", "many years old", "hundreds of years old",
    "0-60 in 3 s", "turned on", "dinner at 9", "tea at five", "co-op", "sci-fi", "1080p", "80yo", "4runner",
])  # fmt: skip
def test_what_is_near_an_age_is_none(text: str) -> None:
    assert not screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "thirty-one years old", "twenty-five-year-old", "treinta y cinco años", "vingt-cinq ans", "35-jährige",
    "двадцать пять лет", "45歳", "二十五歳", "30살", "over 18", "18+", "21st birthday", "born in 1985",
    "f/8 with an 85mm lens", "f/1.4", "an F-16 jet", "a 10m tall tower", "M8 bolt", "two years ago", "grade 5 titanium",
    "12 boats", "under 12 arches", "8k", "16:9", "12 o'clock", "chapter 9", "a 12 foot wall", "year 3000",
])  # fmt: skip
def test_other_numbers_are_no_ages(text: str) -> None:
    assert not screen.names_minor(f"something, {text}, by the sea")


@pytest.mark.parametrize(("language", "unit"), [
    ("en", "years old"), ("es", "años"), ("fr", "ans"), ("de", "Jahre"), ("pt", "anos"), ("it", "anni"), ("nl", "jaar"),
    ("sv", "år"), ("ru", "лет"), ("uk", "років"), ("pl", "lat"), ("tr", "yaşında"), ("ar", "سنة"), ("hi", "साल"),
    ("vi", "tuổi"), ("id", "tahun"), ("fa", "ساله"), ("ja", "歳"), ("zh", "岁"), ("ko", "살"),
])  # fmt: skip
def test_every_number_word_below_18_makes_an_age(language: str, unit: str) -> None:
    forms = next(forms for name, forms, _ in numbers.languages() if name == language)
    assert len(forms) == 17
    for word in (word for each in forms for word in each):
        assert screen.names_minor(f"{word}{'' if language in ('ja', 'zh') else ' '}{unit}"), word


@pytest.mark.parametrize("text", [
    "not old enough to vote", "hasn't come of age", "below the voting age", "still in the single digits", "a year and a half old",
    "half of eighteen years old", "aged 20 minus 6", "aged twice eight", "0xC years old", "5000 days of age", "12th-year-old",
    "born 11 years ago", "*2013", '"age": 11', "age tag: 15", "yo9", "14yof", "Anna (9) reads", "F [16] cooks", "Ben, 13, paints",
    "a 12-something", "twelve-ish", "ten at a guess", "not a day over fifteen", "somebody between 8 and 12 at a table",
    "13-17 portrait", "looks 14", "who will be 10 in May", "at nine she paints", "turns 18 next year",
    "a week short of her eighteenth birthday", "nine candles on his birthday cake", "twelve trips around the sun",
    "Y7 in a blazer", "JHS 2", "Std. VII", "Primary 4 in Singapore",
])  # fmt: skip
def test_ages_told_in_a_roundabout_way_are_read(text: str) -> None:
    assert screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "geboren 2013", "née en 2013", "nacida en 2014", "född 2013", "2012 г.р.", "2013年生まれ", "2012년생", "平成25年生まれ",
    "2012 doğumlu", "10后", "متولد ۱۳۹۲", "4º de primaria", "2 havo", "åk 7", "Klasse 5b", "ป.4", "wird neun", "fyller tio",
    "mit 14", "unter 16", "noch keine 18", "belum 18 tahun", "chưa đủ 18 tuổi", "on beşinde", "дев'ятирічна",
    "في الثانية عشرة من عمرها", "年方十二",
])  # fmt: skip
def test_ages_and_years_of_birth_abroad_are_read(text: str) -> None:
    assert screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "Anna (34) reads", "a woman, 25, reads", "née en 1990", "geboren 1978", "昭和60年生まれ", "90后", "a 2015 car", "mit 40",
    "temperatures in single digits", "room 13 in a hotel", "a cake with 6 candles", "steps 1, 2, 3, 4, 5", "bus 12 in the rain",
    "an octopus with eight arms", "a table for two, dinner at 9", "(masterpiece:1.2)", "5 pm", "24 mm", "iso 200", "f/1.8",
])  # fmt: skip
def test_what_is_near_an_age_told_so_is_none(text: str) -> None:
    assert not screen.names_minor(text)


def test_no_clock_changes_what_is_dropped() -> None:
    """A prompt that is dropped this year is dropped in every other, or results would not be the same."""
    assert ages.found_in("born in 2007")
    assert not ages.found_in("born in 2006")


@pytest.mark.parametrize("text", ["a baby elephant", "two young black bears", "a 6-month-old kitten", "a young oak"])
def test_a_young_animal_is_dropped_in_doubt(text: str) -> None:
    """Such words are also said of people."""
    assert screen.names_minor(text)
