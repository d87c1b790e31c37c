"""Words found in a piece of text however each of their letters is written: lookalikes, marks between them, one left out."""

from __future__ import annotations

import unicodedata
from collections.abc import Container, Iterable
from functools import cache
from typing import Any

Node = dict[str, Any]
"""Letter -> node; "" -> the letters of the word that ends here; "*" -> the word may go on in any way."""

SINGLE = {
    "0": "oо", "1": "ilи", "2": "zr", "3": "eзэ", "4": "aч", "5": "s", "6": "gbб", "7": "tl", "8": "b",
    "9": "gq", "@": "a", "$": "s", "!": "il", "|": "il", "(": "c", "<": "ck", "{": "c", "[": "c", "+": "t",
    "€": "e", "£": "l", "¢": "c", "©": "c", "®": "r", "¥": "y", "µ": "u", "μ": "u", "§": "s", "×": "x",
    "°": "o", "¡": "i", "&": "egb", "^": "a", "#": "h", "%": "x", "¤": "o", "∂": "d", "ƒ": "f", "†": "t",
    "‡": "t", "∩": "n", "∪": "u", "π": "n", "∑": "e", "√": "v", "∆": "a", "∅": "o", "/": "il", "¿": "i",
    "*": "", "]": "i", ":": "i", ";": "i", "∈": "e", "⊂": "c", "⊃": "d", "∀": "a", "∃": "e", "○": "o",
    "●": "o", "◯": "o", "◎": "o", "★": "a", "✝": "t", "¶": "p", "?": "", "¬": "l", "º": "o", "ª": "a",
    "²": "z", "³": "e", "¹": "il", "ß": "b",
}  # fmt: skip
"""Sign -> the letters that it may stand for."""
MULTIPLE = {
    "|<": "k", "|{": "k", "|(": "k", "l<": "k", "1<": "k", "i<": "k", "!<": "k", "/<": "k", "]<": "k", "()": "o", "[]": "o",
    "{}": "o", "<>": "o", "(_)": "u", "|_|": "u", "\\_/": "u", "[_]": "u", "|)": "d", "|]": "d", "|}": "d", "[)": "d",
    "i)": "d", "l)": "d", "1)": "d", "!)": "d", "|>": "dp", "])": "d", "cl": "d", "c|": "d", "(|": "d", "c1": "d", "|3": "b",
    "13": "b", "l3": "b", "i3": "b", "!3": "b", "/3": "b", ")3": "b", "]3": "b", "(3": "b", "|8": "b", "|:": "b", "/\\": "a",
    "/-\\": "a", "/=\\": "a", "(l": "d", "|-|": "h", "}{": "h", ")-(": "h", "(-)": "h", "[-]": "h", "]-[": "h", "/-/": "h",
    "}-{": "h", "\\-\\": "h", "|~|": "h", "1-1": "h", "|\\|": "n", "/\\/": "n", "|v": "n", "^/": "n", "[\\]": "n",
    "{\\}": "n", "|\\/|": "m", "/\\/\\": "m", "|v|": "m", "^^": "m", "nn": "m", "rn": "m", "(v)": "m", "[v]": "m",
    "/v\\": "m", "\\/\\/": "w", "\\^/": "w", "vv": "w", "uu": "w", "\\x/": "w", "\\|/": "yw", "\\/": "v", "|2": "r",
    "|?": "r", "12": "r", "|^": "pr", "l2": "r", "/2": "r", "i2": "r", "[2": "r", "|~": "r", "|`": "r", "|9": "rp",
    "|_": "l", "1_": "l", "[_": "l", "(_": "l", "|-": "lt", "-|-": "t", "~|~": "t", "']['": "t", "][": "it", "`/": "y",
    "'/": "y", "\\\\/": "y", "7`": "y", "(_+": "g", "(_-": "g", "c-": "g", "(-": "ge", "(,": "g", "[,": "g", "{,": "g",
    "(_,": "g", "(_>": "g", "(+": "g", "(?": "g", "[-": "ge", "<_>": "g", "|=": "f", "ph": "f", "|#": "f", "><": "x",
    "}{ ": "x", "[-=": "e", "|[-": "e", "|o": "p", "|*": "p", "|\"": "p", "ii": "u", "][_": "u", "_|": "j", "ck": "k",
    "kk": "k", "gh": "g", "xx": "x", "ee": "i", "oo": "u", "y": "i", "ou": "u", "ie": "y", "ey": "y", "sk": "sch",
}  # fmt: skip
"""Sequence of signs -> the letters that it may stand for."""
_LONGEST = max(map(len, MULTIPLE))
MASKS = frozenset("*#?_~^%=×•·■□●○█▇▒░✱∗")
"""Signs that replace an omitted letter."""
MOST_STEPS = 40_000
"""Steps of one walk at most. A text that needs more consists of ambiguous signs and counts as found."""


def trie(words: Iterable[str], open_ended: Iterable[str] = ()) -> Node:
    """A tree of the letters of `words`, and of `open_ended` ones, which are the beginnings of words."""
    root: Node = {}
    for group, free in ((words, False), (open_ended, True)):
        for word in group:
            node = root
            for letter in word:
                node = node.setdefault(letter, {})
            node[""] = word
            if free:
                node["*"] = True
    return root


@cache
def _is_mask(sign: str) -> bool:
    return sign in MASKS or (not sign.isascii() and unicodedata.category(sign) in ("So", "Sk", "Sm"))


class Walk:
    """One walk through `text`, from every place where a word may begin."""

    def __init__(self, text: str, root: Node, within: bool, dense: Container[str] = ()) -> None:
        """within: whether words may begin and end inside of others. text: in `skeleton` form.

        dense: words that count with most of their letters as digits.
        """
        self.text, self.root, self.within, self.dense = text, root, within, dense
        self.seen: set[tuple[int, int, int, int]] = set()
        self.word = ""
        """The word that was found."""

    def finds(self) -> bool:
        """Whether a word of the tree stands in the text."""
        return any(self._from(at, self.root, "", (0, 0, 0, 0)) for at in range(len(self.text)) if self._may_begin(at))

    def _may_begin(self, at: int) -> bool:
        return self.within or at == 0 or not (self.text[at - 1].isalnum() and self.text[at].isalnum())

    def _from(self, at: int, node: Node, last: str, used: tuple[int, int, int, int]) -> bool:
        """used: letters, digits, signs and masks that were read so far."""
        key = (at, id(node), used[3], min(used[1], 3) * 8 + min(used[0] + used[2], 7))
        if key in self.seen:
            return False
        self.seen.add(key)
        if len(self.seen) > MOST_STEPS:
            return True
        if "" in node and self._ends(at, node, used[3] > 0) and _enough(node[""], used, self.within, node[""] in self.dense):
            self.word = node[""]
            return True
        if at >= len(self.text):
            return False
        return self._by_letter(at, node, last, used) or self._by_skipping(at, node, last, used)

    def _ends(self, at: int, node: Node, masked: bool) -> bool:
        return self.within or at >= len(self.text) or not self.text[at].isalnum() or ("*" in node and not masked)

    def _by_letter(self, at: int, node: Node, last: str, used: tuple[int, int, int, int]) -> bool:
        for letters, length, kind in self._readings(at):
            for letter in letters:
                spent = _more(used, kind)
                if letter in node and self._from(at + length, node[letter], letter, spent):
                    return True
                if letter == last and node is not self.root and self._from(at + length, node, last, used):
                    return True
        return False

    def _by_skipping(self, at: int, node: Node, last: str, used: tuple[int, int, int, int]) -> bool:
        sign = self.text[at]
        if sign.isalnum() or (node is self.root and (sign != "*" or self.within)):
            return False
        if node is not self.root and self._from(at + 1, node, last, used):
            return True
        if used[3] > 5 or not _is_mask(sign):
            return False
        letters = (letter for letter in node if letter not in ("", "*"))
        return any(self._from(at + 1, node[letter], "", _more(used, 3)) for letter in letters)

    def _readings(self, at: int) -> Iterable[tuple[str, int, int]]:
        """(letters, length, kind) of what begins at `at`; kind 0: a letter, 1: a digit, 2: a sign."""
        sign = self.text[at]
        if sign.isalpha():
            yield sign, 1, 0
        elif sign in SINGLE:
            yield SINGLE[sign], 1, 1 if sign.isdigit() else 2
        for length in range(2, _LONGEST + 1):
            several = self.text[at : at + length]
            if len(several) == length and several in MULTIPLE:
                yield MULTIPLE[several], length, 0 if several.isalpha() else 2


def _more(used: tuple[int, int, int, int], kind: int) -> tuple[int, int, int, int]:
    counts = list(used)
    counts[kind] += 1
    return (counts[0], counts[1], counts[2], counts[3])


def _enough(word: str, used: tuple[int, int, int, int], within: bool, dense: bool) -> bool:
    """Whether enough of `word` is written out: no number alone, half of its letters, and two of them inside of other words.

    dense: whether one letter or sign for four digits is enough.
    """
    letters, digits, signs, masks = used
    if within and letters < 2:
        return False
    if masks and (masks > len(word) // 2 or letters + digits < 2 or (len(word) == 3 and masks > 1)):
        return False
    enough = digits <= (4 if dense and not masks else 1) * (letters + signs)
    return enough and (letters >= 1 or signs >= 2)
