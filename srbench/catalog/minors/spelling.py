"""Words found in a text however they are spelt: in their forms, glued together, pulled apart, misspelt, reversed, disguised."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from functools import cached_property, lru_cache

from srbench.catalog.minors import trie, wordlist
from srbench.catalog.minors.normalise import bare, faux, skeleton, upright
from srbench.catalog.minors.wordlist import SUFFIXES, WordList, has_no_blanks

CORE = (
    "girl", "boy", "child", "children", "kid", "baby", "babies", "teen", "teenager", "infant", "toddler", "young", "youth",
    "minor", "preteen", "schoolgirl", "schoolboy", "schoolkid", "adolescent", "juvenile", "underage", "kindergarten",
    "daughter", "loli", "shota", "newborn", "tween", "youngster", "pupil", "lolita",
)  # fmt: skip
"""The words that are disguised most, which are also looked for reversed, in code and without vowels."""
NO_BONES = frozenset({"teen", "pupil", "loli", "shota", "tween", "minor", "lolita", "boy", "kid", "youth"})
"""Words whose consonants alone mean something else, or nothing: tn, ppl."""
DISTINCT = (
    "adolescence", "adolescent", "boyhood", "childhood", "childish", "children", "daughter", "girlhood", "girlish",
    "goddaughter", "godchild", "grandchild", "granddaughter", "grandson", "infancy", "infant", "juvenile", "kiddies",
    "kindergarten", "kindergartner", "lolita", "neonate", "newborn", "orphan", "prepubescent", "preschool", "preschooler",
    "preteen", "puberty", "pubescent", "schoolboy", "schoolchild", "schoolchildren", "schoolgirl", "schoolkid", "stepchild",
    "stepdaughter", "stepson", "teenage", "teenaged", "teenager", "toddler", "tweenager", "underage", "younger", "youngling",
    "youngster", "youthful", "schoolmate", "babyish", "littlegirl", "littleboy", "younggirl", "youngboy", "playground",
    "elementaryschool", "nursery", "preadolescent", "quinceanera", "babygirl", "babyboy", "smallchild", "cheerleader",
    "cherub", "orphans", "pupils", "choirboy", "schooler", "highschooler", "middleschooler", "middleschool", "gradeschool",
    "gradeschooler", "highschool", "primaryschool", "boyscout", "girlscout", "grandchildren", "stepchildren", "babysitter",
    "kiddo",
)  # fmt: skip
"""Words that are found with letters wrong, being unlike others."""
GLUED = (
    "girl", "boy", "child", "kid", "baby", "babies", "teen", "tween", "infant", "toddler", "young", "youth", "underage",
    "juvenil", "adolescen", "daughter", "newborn", "lolita", "lolicon", "shotacon", "minor", "pupil", "preschool", "orphan",
    "littleone", "grandson", "stepson", "pubescen", "muchach", "chiquill", "bambin", "ragazz", "fanciull", "madchen",
    "maedchen", "meisje", "flicka", "devochk", "malchik", "dziewczyn", "chlopc", "cocuk", "shoujo", "onnanoko", "otokonoko",
    "kodomo", "xiaohai", "ladki", "menina", "menino", "garota", "garoto", "crianca", "enfant", "fillette", "garcon", "девоч",
    "девуш", "мальчи", "ребен", "подрост", "девчо", "дитин", "дивчин", "хлопч", "kleinkind", "schulkind", "gurl", "grrl",
    "schooler", "middleschool", "gradeschool", "primaryschool", "elementaryschool", "highschool", "schoolmate", "kindergart",
    "prepubert", "puberty", "neonate", "suckling", "firstgrade", "secondgrade", "thirdgrade", "classmate", "littlesister",
    "littlebrother", "infanc", "childr", "cherubic",
)  # fmt: skip
"""Words that are also found inside others: #younggirl, 2kids."""
SHORT = ("girl", "girls", "child", "baby", "young")
"""Short words that are found with one letter wrong."""
AS_WRITTEN = frozenset({
    "ado", "ados", "bebe", "bebes", "boi", "bois", "bub", "bubs", "lad", "lads", "son", "sons", "tot", "tots",
})  # fmt: skip
"""Short words of which no letter may be doubled (it may be drawn out: sonnn), that take no ending but a plural."""
LONG, VERY_LONG = 6, 9
"""Lengths from which a word is found with one, and with two, wrong letters."""
LONGEST = 40
"""Letters of a word at most."""
WINDOW = 4
"""Pieces that a word is put together from, at most."""
WINDOW_LETTERS = 150
"""Letters of a long piece that are walked through at once, with as many behind them."""
_EDGES = ".,;:!?\"'()[]-_/*<>"
_SAME_SIGNS = re.compile(r"([^\w\s])\1{3,}")
_PART = re.compile(r"(?:[^\W_]|[\u0903-\u0963\u0966-\u0dff])+")
"""A word: letters and digits, and the vowel signs of Indian scripts, which Python takes for none."""
_MASKED = re.compile(r"[a-z]?(?:[a-z]*[-.@]{1,3}[a-z]+)+")
_PARTS_BEFORE = frozenset({"pre", "under", "school", "new", "step", "grand", "baby", "kinder", "play", "teen", "god"})
"""What stands before the hyphen of a word, the other half of which may be written wrong: pre-teun."""
_MODIFIER = re.compile(
    r"^(?:little|lil|young|small|cute|pretty|sweet|tiny|my|the|our|your|his|her|happy|school|teen|beautiful|blonde?|innocent|wee|old"
    r"|real|one|two|three)(?=...)"
)
"""What is written as one with the word behind it: #cuteson."""
_PREFIXES = re.compile(r"^(?:[وف]?(?:[بک]?ال|لل|[بلکس])|[وف]|[והבכלמש]{1,2})(?=..)")
"""Articles and particles that Arabic and Hebrew write as one with the word behind them."""


class Speller:
    """Finds the words of a list in texts."""

    def __init__(
        self, words: WordList, english: WordList, core: Iterable[str], glued: Iterable[str], harmless: WordList,
        endings: tuple[str, ...] = SUFFIXES,
    ) -> None:  # fmt: skip
        """english: those of `words` that are looked for in every disguise; core: those also in rare ones.

        glued: words that count inside of others; harmless: what counts never; endings: of English words.
        """
        self.endings = endings
        self.words, self.english, self.harmless = words, english, harmless
        self.core, self.glued = tuple(core), tuple(glued)
        self.holds = lru_cache(maxsize=200_000)(self._holds)
        self.is_word = lru_cache(maxsize=200_000)(self._is_word)

    # --- a text -------------------------------------------------------------------------------------------------------------

    def found_in(self, text: str) -> bool:
        """Whether a word stands in `text`, a reading of `normalise.readings`."""
        chunks = text.split()
        return any(map(self.holds, chunks)) or self._across(text, chunks)

    def _across(self, text: str, chunks: list[str]) -> bool:
        plain, seen = bare(text), skeleton(text)
        parts = [_PART.findall(form) for form in dict.fromkeys((plain, seen))]
        if any(map(self._has_phrase, parts)) or (self.core and _is_foreign(_PART.findall(_KIND_SOMEBODY.sub(" ", plain)))):
            return True
        return self._pulled_apart(chunks, seen.split()) or self._unspaced(text)

    def _has_phrase(self, parts: list[str]) -> bool:
        return any(
            all(map(_same, phrase, parts[at : at + len(phrase)])) and at + len(phrase) <= len(parts)
            for at, part in enumerate(parts) for phrase in self._phrases.get(part, ())
        )  # fmt: skip

    @cached_property
    def _phrases(self) -> dict[str, list[tuple[str, ...]]]:
        phrases: dict[str, list[tuple[str, ...]]] = {}
        for phrase in self.words.phrases:
            for form in {phrase, tuple(map(skeleton, phrase))}:
                phrases.setdefault(form[0], []).append(form)
        return phrases

    def _unspaced(self, text: str) -> bool:
        """Whether `text` has a word of a script without blanks, ignoring marks between its signs."""
        if text.isascii() or not self.words.anywhere:
            return False
        plain = bare(text)
        return any(self._parts_anywhere.search(form) is not None for form in (plain, re.sub(r"[\W_]+", "", plain)))

    @cached_property
    def _parts_anywhere(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.words.anywhere))) or r"(?!)")

    def _pulled_apart(self, chunks: list[str], seen: list[str]) -> bool:
        """Words whose letters stand apart (g i r l), or that are cut in pieces (tod dler). seen: the chunks as skeletons."""
        if any(map(self.holds, _spelled_out(chunks))):
            return True
        pieces = [chunk.strip(_EDGES) for chunk in seen]
        return any(self._joins_at(at, pieces) for at, piece in enumerate(pieces) if piece in self._starts)

    def _joins_at(self, at: int, pieces: list[str]) -> bool:
        """Whether the pieces from `at` on, two or more of them, are a word together."""
        joined = pieces[at]
        for end in range(at + 1, min(at + WINDOW, len(pieces))):
            joined += pieces[end]
            if not pieces[end] or (joined not in self._starts and joined not in self._joinable):
                return False
            if joined in self._joinable and tuple(pieces[at : end + 1]) not in self.harmless.phrases:
                return True
        return False

    @cached_property
    def _joinable(self) -> frozenset[str]:
        """English words of three letters and more, and longer ones of other languages."""
        return self._english - UNSIGNED | frozenset(skeleton(word) for word in self._forms if len(word) > 5)

    @cached_property
    def _starts(self) -> frozenset[str]:
        return frozenset(word[:length] for word in self._joinable for length in range(1, len(word)))

    # --- a piece without blanks ---------------------------------------------------------------------------------------------

    def _holds(self, chunk: str) -> bool:
        """Whether a word stands in `chunk`, which has no blanks."""
        if self.words.marked and any(part in self.words.marked for part in _PART.findall(chunk)):
            return True
        forms = dict.fromkeys((bare(chunk), skeleton(chunk)))
        if not chunk.isascii():
            forms |= dict.fromkeys(filter(None, (faux(chunk), upright(chunk))))
        return any(self._form_holds(form) for form in forms)

    def _form_holds(self, form: str) -> bool:
        parts = _PART.findall(form)
        if any(map(self.is_word, parts)):
            return True
        if len(parts) == 1 and (parts[0] == form.strip(_EDGES) and (form.isalpha() or parts[0] in self.harmless.whole)):
            return False
        if len(parts) > 1 and (self._glued_together(parts) or self._is_masked(form)):
            return True
        return self._walked(form, self._tree) or self._walked(form[::-1], self._core_tree)

    def _glued_together(self, parts: list[str]) -> bool:
        """What stands between marks, read as one word: gi-rl; not where each part is a word (in-fancy)."""
        word = "".join(parts)
        if tuple(parts) in self.harmless.phrases:
            return False
        return self.is_exact(word) or (parts[0] in _PARTS_BEFORE and len(word) >= LONG and self._is_misspelt(word))

    def _is_masked(self, form: str) -> bool:
        """Whether `form` is an English word with marks that also part words in the place of a few letters: g-rl, k.d, b@y."""
        piece = form.strip(_EDGES.replace("-", "").replace(".", "")).rstrip(".-")
        if not self.core or not _MASKED.fullmatch(piece) or piece in self.harmless.whole:
            return False
        wanted = re.compile(re.sub(r"[-.@]", "[a-z]" if len(piece) > 6 else "[aeiou]", piece))
        letters = sum(map(str.isalpha, piece))
        return 2 * letters > len(piece) and any(map(wanted.fullmatch, self._maskable.get(len(piece), ())))

    @cached_property
    def _maskable(self) -> dict[int, list[str]]:
        """English words by their length; of short ones only those that are no other's with a letter changed."""
        by_length: dict[int, list[str]] = {}
        for word in sorted({*self._english, *self._english_plural, *(word + "s" for word in self.core)}):
            if len(word) > 4 or word in self.core or word.rstrip("s") in self.core:
                by_length.setdefault(len(word), []).append(word)
        return by_length

    def _walked(self, form: str, tree: trie.Node) -> bool:
        """Whether a word of `tree` is written in `form` with signs for letters, or one that is looked for inside of others."""
        if form.isalnum() and not any(map(str.isdigit, form)):
            return False
        form = _SAME_SIGNS.sub(r"\1\1\1", form)
        return any(self._walked_window(form[at : at + 2 * WINDOW_LETTERS], tree) for at in range(0, len(form), WINDOW_LETTERS))

    def _walked_window(self, form: str, tree: trie.Node) -> bool:
        if trie.Walk(form, tree, False, self._dense).finds():
            return form.strip("\"'.,;:!?()") not in self.harmless.whole
        return trie.Walk(self._parts_harmless.sub(".", form), self._glue_tree, True).finds()

    @cached_property
    def _tree(self) -> trie.Node:
        foreign = {skeleton(word) for word in self._forms - self._english if len(word) > 3}
        words = {word for word in self._english if len(word) > 2} | foreign
        return trie.trie(words - UNSIGNED, (skeleton(word) for word in self.words.stems if len(word) > 4))

    @cached_property
    def _dense(self) -> frozenset[str]:
        """Words that are found though most of their letters are digits (848y): those that are told from a number with a unit."""
        if not self.core:
            return frozenset()
        words = {*self.core, *DISTINCT, *(word for word in self._english if len(word) > 4)}
        return frozenset(words | {word + "s" for word in self.core})

    @cached_property
    def _core_tree(self) -> trie.Node:
        return trie.trie(self._reversible)

    @cached_property
    def _glue_tree(self) -> trie.Node:
        return trie.trie(word for word in self.glued if len(word) > 3 and word != "grrl")

    # --- a word -------------------------------------------------------------------------------------------------------------

    def _is_word(self, part: str) -> bool:
        """Whether `part`, letters and digits, is or holds a word."""
        word = part.strip("0123456789")
        if part in self._forms or (len(word) > 1 and self.is_exact(word)):
            return True
        if len(word) < 2:
            return False
        if word in self.harmless.whole:
            return False
        return self._is_disguised(word) or self._holds_glued(word)

    def is_exact(self, word: str) -> bool:
        """Whether `word` is one of the list in one of its forms."""
        if word in self._forms:
            return True
        if word in self.harmless.whole or _begins(word, self.harmless.stems):
            return False
        if _begins(word, self._stems) or _ends(word, self.words.endings) or self._after_prefix(word):
            return True
        return any(part in word for part in self._parts_spaced)

    @cached_property
    def _parts_spaced(self) -> tuple[str, ...]:
        """Parts of words in scripts that do put blanks between words."""
        return tuple(part for part in self.words.anywhere if not has_no_blanks(part))

    def _after_prefix(self, word: str) -> bool:
        if word.isascii() or not (match := _PREFIXES.match(word)):
            return False
        rests = [word[at:] for at in range(1, match.end() + 1) if at + 1 < len(word)]
        return any(rest in self._forms or _begins(rest, self._stems) for rest in rests)

    @cached_property
    def _stems(self) -> frozenset[str]:
        return self.words.stems | {form for stem in self.words.stems if not (form := skeleton(stem)).isascii()}

    @cached_property
    def _english(self) -> frozenset[str]:
        """The English words in their forms, two that belong together as one, too."""
        whole = {*self.english.whole, *self.english.stems, *self.core, *(DISTINCT if self.core else ())}
        whole |= {"".join(phrase).rstrip("*") for phrase in self.english.phrases if sum(map(len, phrase)) > 5}
        ended = {word + end for word in whole if len(word) > 2 for end in (("s", "z") if word in AS_WRITTEN else self.endings)}
        return frozenset(whole | ended)

    @cached_property
    def _forms(self) -> frozenset[str]:
        written = self.words.whole | self.words.stems | self._english
        return frozenset(written | {form for word in written if not (form := skeleton(word)).isascii()}) - self.harmless.whole

    def _holds_glued(self, word: str) -> bool:
        rest = self._parts_harmless.sub(".", word)
        if any(each in rest for each in self.glued):
            return True
        bare_word = _MODIFIER.sub("", rest).strip("x") if self.core else rest
        return bare_word != rest and len(bare_word) > 2 and bare_word in self._english

    @cached_property
    def _parts_harmless(self) -> re.Pattern[str]:
        parts = sorted({*self.harmless.anywhere, *self.harmless.stems}, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, parts)) or r"(?!)")

    # --- a word in disguise -------------------------------------------------------------------------------------------------

    def _is_disguised(self, word: str) -> bool:
        if len(word) > 3 * LONGEST or _begins(word, self.harmless.stems):
            return False
        if word in self._coded or _short_runs(word[::-1]) in self._reversible:
            return True
        return self._is_drawn_out(word) or self._is_misspelt(word) or self._is_substituted(word) or self._is_tall(word)

    def _is_tall(self, word: str) -> bool:
        """Whether `word` is one with l for i, or i for l."""
        return word.replace("l", "i") in self._tall

    @cached_property
    def _tall(self) -> frozenset[str]:
        return frozenset(word.replace("l", "i") for word in self._english if len(word) > 3 or word in self.core)

    def _is_drawn_out(self, word: str) -> bool:
        letters, runs = _runs(word)
        if max(runs) == 1:
            return False
        return any(all(map(int.__ge__, runs, wanted)) for wanted in self._by_letters.get(letters, ()))

    @cached_property
    def _by_letters(self) -> dict[str, list[tuple[int, ...]]]:
        runs_of: dict[str, list[tuple[int, ...]]] = {}
        for word in self._forms:
            letters, runs = _runs(word)
            if len(letters) > 2 and (word in self._english or len(word) > 4):
                runs_of.setdefault(letters, []).extend(_drawn(runs) if word in AS_WRITTEN else [runs])
        return runs_of

    @cached_property
    def _reversible(self) -> frozenset[str]:
        if not self.core:
            return frozenset()
        words = {*self.core, *DISTINCT, *(word for word in self.english.whole | self.english.stems if len(word) > 3)}
        return frozenset(word + end for word in words for end in ("", "s")) - {word[::-1] for word in self.harmless.whole}

    @cached_property
    def _coded(self) -> frozenset[str]:
        """The core words without their vowels, in rot13, and in pig Latin."""
        if not self.core:
            return frozenset()
        plural = [*self.core, *(word + "s" for word in self.core)]
        bare_bones = {word[0] + re.sub("[aeiou]", "", word[1:]) for word in plural if word.rstrip("s") not in NO_BONES}
        bones = {form for form in bare_bones if len(form) > 2}
        latin = {re.sub(r"^([^aeiou][^aeiouy]*|)(.*)$", r"\2\1ay", word) for word in self._english if len(word) > 2}
        rotated = {codecs.encode(word, "rot13") for word in self._english if len(word) > 3 or word in plural}
        return frozenset(bones | rotated | latin)

    def _is_misspelt(self, word: str) -> bool:
        """Whether `word` is one or two letters away from a word that is long enough to be told from others."""
        from rapidfuzz.distance import OSA
        from rapidfuzz.process import extractOne

        if len(word) < 3 or not word.isascii():
            return False
        if extractOne(word, self._short, scorer=OSA.distance, score_cutoff=1):
            return True
        if len(word) < LONG - 1:
            return False
        return any(
            extractOne(word, words, scorer=OSA.distance, score_cutoff=wrong) is not None
            for words, wrong in ((self._long, 1), (self._very_long, 2))
        )  # fmt: skip

    @cached_property
    def _short(self) -> list[str]:
        return list(SHORT) if self.core else []

    @cached_property
    def _long(self) -> list[str]:
        return sorted(word for word in self._english_plural if len(word) >= LONG)

    @cached_property
    def _very_long(self) -> list[str]:
        return sorted(word for word in self._english_plural if len(word) >= VERY_LONG)

    @cached_property
    def _english_plural(self) -> set[str]:
        words = {*DISTINCT, *(word for word in self.core if len(word) > 5)} if self.core else set()
        return words | {word + "s" for word in words}

    def _is_substituted(self, word: str) -> bool:
        """Whether `word` is one as it sounds: qirl, kidz, phillette, skool."""
        key = _sound(word)
        return len(key) > 3 and key in self._sounds

    @cached_property
    def _sounds(self) -> frozenset[str]:
        return frozenset(_sound(word) for word in (*self._english_plural, *SHORT) if self.core)


UNSIGNED = frozenset({"boyo", "boyos", "boi", "bois", "babs", "bub", "bubs", "ado", "ados", "syn", "lies"})
"""Short words that are not looked for in signs and numbers: b01, T0T, 80yo."""


_KINDS = frozenset({
    "some", "any", "this", "that", "these", "what", "which", "every", "each", "same", "one", "first", "other", "another",
    "all", "different", "many", "two", "three", "most", "best", "own", "of",
})  # fmt: skip
"""Before the English "kind", which is German and Dutch for a child too."""
_WHOSE = frozenset({"its", "their", "our"})
"""Between "of" and the English "kind": members of its kind."""
_KIND_SOMEBODY = re.compile(
    r"(?<!ein )(?<!das )(?<!dem )(?<!het )(?<!een )\bkind (?=(?:m[ae]n|wom[ae]n|lady|gentleman|faces?|eyes|smile|heart|gesture"
    r"|words?|person|people|strangers?|doctor|nurse|grandmother|grandfather|neighbou?r|expression)\b)"
)
"""The English adjective: a kind face."""
_HOW_KIND = frozenset({"very", "be", "being", "too", "how"})
"""Before it: be kind."""
_SORTS = frozenset({"color", "colour", "size", "shape", "type", "make", "sort", "colors", "colours", "sizes", "shapes", "types"})
"""What is named beside the English "kind": of every size and kind."""
_NORDIC = frozenset({
    "ett", "et", "två", "tva", "små", "sma", "litet", "lille", "och", "og", "på", "pa", "som", "av", "till", "til",
    "är", "ar", "leker", "leger", "mitt", "mina", "ditt", "sitt", "alla", "alle",
})  # fmt: skip
"""Beside "barn", which is Swedish, Danish and Norwegian for a child."""


def _is_foreign(parts: list[str]) -> bool:
    """Whether an English word that is a child in another language stands among `parts` as that one."""
    kinds = (at for at, part in enumerate(parts) if part == "kind")
    if any(not _is_sort(parts[:at], parts[at + 1 :]) for at in kinds):
        return True
    return "barn" in parts and not _NORDIC.isdisjoint(parts)


def _is_sort(before: list[str], behind: list[str]) -> bool:
    """Whether "kind" between these is the English word: some kind, a kind of, one of a kind."""
    if behind[:1] == ["of"] or before[-2:] == ["of", "a"] or not _KINDS.isdisjoint(before[-1:]):
        return True
    if not _HOW_KIND.isdisjoint(before[-1:]):
        return True
    return (before[-1:] == ["and"] and not _SORTS.isdisjoint(before[-3:])) or (before[-2:-1] == ["of"] and before[-1] in _WHOSE)


def _same(wanted: str, part: str) -> bool:
    return part.startswith(wanted[:-1]) if wanted.endswith("*") else part == wanted


def _begins(word: str, stems: frozenset[str]) -> bool:
    return any(word[:length] in stems for length in range(2, min(len(word), LONGEST) + 1))


def _ends(word: str, endings: frozenset[str]) -> bool:
    return bool(endings) and any(word[at:] in endings for at in range(max(0, len(word) - LONGEST), len(word) - 2))


def _runs(word: str) -> tuple[str, tuple[int, ...]]:
    """The letters of a word without repeats, and the length of each run."""
    matches = list(re.finditer(r"(.)\1*", word))
    return "".join(match[1] for match in matches), tuple(len(match[0]) for match in matches)


def _drawn(runs: tuple[int, ...]) -> list[tuple[int, ...]]:
    """`runs` with each of them in turn two longer: how a word is drawn out of which no letter may be doubled."""
    return [tuple(run + 2 * (at == here) for here, run in enumerate(runs)) for at in range(len(runs))]


def _short_runs(word: str) -> str:
    """`word` with runs of three or more equal letters shortened to one."""
    return re.sub(r"(.)\1{2,}", r"\1", word)


_SOUNDS = (
    ("ph", "f"), ("sch", "sk"), ("ck", "k"), ("q", "g"), ("x", "ks"), ("z", "s"), ("y", "i"), ("ee", "i"), ("ea", "i"),
    ("ie", "i"), ("oo", "u"), ("ou", "u"), ("ew", "u"), ("w", "v"),
)  # fmt: skip


def _sound(word: str) -> str:
    """A rough key of how an English word sounds."""
    key = re.sub(r"c(?!h)", "k", word)
    for written, heard in _SOUNDS:
        key = key.replace(written, heard)
    return re.sub(r"(.)\1+", r"\1", key)


def _spelled_out(chunks: list[str]) -> list[str]:
    """Runs of at least three pieces of one letter each, put together: also without what stands first or last (a g i r l)."""
    words: list[str] = []
    run: list[str] = []
    for chunk in [*chunks, "......."]:
        if sum(map(str.isalnum, chunk)) == 1 or (len(chunk) < 3 and not any(map(str.isalnum, chunk))):
            run.append(chunk)
            continue
        if len(run) > 2:
            words += ["".join(run[start : len(run) - end]) for start in (0, 1) for end in (0, 1)]
        run = []
    return words


@lru_cache(maxsize=1)
def minors() -> Speller:
    """The speller of the words that name minors."""
    return Speller(wordlist.minors(), wordlist.english(), CORE, GLUED, wordlist.harmless())
