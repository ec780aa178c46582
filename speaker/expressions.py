r"""Regular expressions as Go has them, for names: whether one matches somewhere in a name.

MetalLB's exclusion of interfaces is a list of Go's expressions (https://pkg.go.dev/regexp/syntax), and has to mean the
same here. Python's expressions are others: ``[[:alpha:]]``, ``\pL``, ``\Q…\E`` and ``\z`` are not among them, and some
that Go refuses are (``(?=…)``, ``\1``, ``a++``). Some take exponential time, which the announcer does not have.

1. An expression becomes a *step*: from the set of places in the name at which a match may stand, to the set of places
   after what the step matches. A set is an integer with a bit for each place.
2. A sequence applies one step after the other, an alternative joins the sets of both, a repetition goes on until the
   set does not change. Nothing is tried twice, so time grows with the length of the expression and of the name.
3. Which of several matches is found, and what groups hold, makes no difference here. So lazy operators and ``(?U)`` are
   read and change nothing.

Not there: scripts (``\p{Greek}``). Of the classes of Unicode there are the general categories, ``\p{Lu}`` and ``\pN``.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import NamedTuple

LONGEST = 256
"""Characters of an expression."""
DEEPEST = 50
"""Groups within each other."""
MOST_REPEATS = 1000
"""As in Go: of what stands within repetitions, their counts multiplied."""

Step = Callable[[str, int], int]
"""Name, places -> places afterwards."""
Test = Callable[[str], bool]
"""Whether a character is meant."""

_COUNT = re.compile(r"\{(0|[1-9]\d*)(?:(,)(0|[1-9]\d*)?)?\}", re.ASCII)
_FLAGS = re.compile(r"\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAME = re.compile(r"\?P?<(\w+)>", re.ASCII)
_CLASS = re.compile(r"\[:(\^?)(\w+):\]", re.ASCII)
_HEXADECIMAL = re.compile(r"x\{([0-9a-fA-F]+)\}|x([0-9a-fA-F]{2})")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_CATEGORY = re.compile(r"\{(\^?)(\w+)\}|(\w)")
_POSIX = {
    "alnum": str.isalnum,
    "alpha": str.isalpha,
    "ascii": str.isascii,
    "blank": lambda c: c in "\t ",
    "cntrl": lambda c: c < " " or c == "\x7f",
    "digit": str.isdigit,
    "graph": lambda c: "!" <= c <= "~",
    "lower": str.islower,
    "print": lambda c: " " <= c <= "~",
    "punct": lambda c: "!" <= c <= "~" and not c.isalnum(),
    "space": lambda c: c in "\t\n\v\f\r ",
    "upper": str.isupper,
    "word": lambda c: c.isalnum() or c == "_",
    "xdigit": lambda c: c in "0123456789abcdefABCDEF",
}
"""Of ASCII alone."""
_PERL = {"d": _POSIX["digit"], "s": lambda c: c in "\t\n\f\r ", "w": _POSIX["word"]}
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CATEGORIES = re.compile(r"C[cfos]?|L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?")
_OPERATORS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
"""The least and the most of a repetition; None: any."""


class ExpressionError(ValueError):
    """Go has no such expression; the text says why, and can follow the expression and a colon."""


class Expression:
    """A regular expression, ready to be asked."""

    def __init__(self, text: str) -> None:
        """Raises `ExpressionError`."""
        self.text = text
        self._step = _Parser(text).parse()

    def matches(self, name: str) -> bool:
        """Whether it matches somewhere in the name: ``eth`` matches ``veth1``, ``^eth`` does not."""
        return self._step(name, (2 << len(name)) - 1) != 0


class _Flags(NamedTuple):
    ignore_case: bool = False
    dot_is_any: bool = False
    many_lines: bool = False


class _Parsed(NamedTuple):
    step: Step
    repeats: int = 1
    """The most that counts multiply to in it."""


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ExpressionError(f"it has more than {LONGEST} characters")
        self._text = text
        self._at = 0
        self._depth = 0
        self._flags = _Flags()
        self._names: set[str] = set()

    def parse(self) -> Step:
        parsed = self._alternatives()
        if self._at < len(self._text):
            raise ExpressionError("a closing bracket without its opening one")
        return parsed.step

    # -------------------------------------------------------------------- what stands in what

    def _alternatives(self) -> _Parsed:
        found = [self._sequence()]
        while self._takes("|"):
            found.append(self._sequence())
        return _Parsed(_either([each.step for each in found]), max(each.repeats for each in found))

    def _sequence(self) -> _Parsed:
        found: list[_Parsed] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            if self._takes("\\Q"):
                quoted, _, _ = self._text[self._at :].partition("\\E")
                self._at = min(len(self._text), self._at + len(quoted) + len("\\E"))
                found += [self._literal(char) for char in quoted]
            elif (parsed := self._atom()) is not None:
                found.append(parsed)
            self._repetition(found)
        return _Parsed(_all([each.step for each in found]), max((each.repeats for each in found), default=1))

    def _repetition(self, found: list[_Parsed]) -> None:
        """Repeat the last of them, if that is what follows."""
        counts = self._counts()
        if counts is None:
            return
        if not found:
            raise ExpressionError("nothing to repeat")
        step, inner = found.pop()
        least, most = counts
        repeats = inner * max(least, most or 0, 1)
        if repeats > MOST_REPEATS:
            raise ExpressionError(f"more than {MOST_REPEATS} repetitions")
        found.append(_Parsed(_repeated(step, least, most), repeats))
        if self._counts() is not None:
            raise ExpressionError("a repetition of a repetition")

    def _counts(self) -> tuple[int, int | None] | None:
        """The least and the most of a repetition, where one stands here."""
        counts = _OPERATORS.get(self._text[self._at : self._at + 1])
        if counts is not None:
            self._at += 1
        elif written := _COUNT.match(self._text, self._at):
            self._at = written.end()
            least = int(written[1])
            most = (int(written[3]) if written[3] else None) if written[2] else least
            if max(least, most or 0) > MOST_REPEATS or (most is not None and most < least):
                raise ExpressionError(f"{written[0]} is no count of repetitions")
            counts = least, most
        if counts is not None:
            self._takes("?")  # as few as possible: it matches where it would match without
        return counts

    def _atom(self) -> _Parsed | None:
        """What stands here; None: flags for what follows."""
        if self._counts() is not None:
            raise ExpressionError("nothing to repeat")
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return _Parsed(_character(self._class()))
        if char == "^":
            return _Parsed(_if(_begins_line if self._flags.many_lines else _begins))
        if char == "$":
            return _Parsed(_if(_ends_line if self._flags.many_lines else _ends))
        if char == ".":
            return _Parsed(_character(_any if self._flags.dot_is_any else _no_newline))
        if char != "\\":
            return self._literal(char)
        assertion = self._text[self._at : self._at + 1]
        if assertion in _ASSERTIONS:
            self._at += 1
            return _Parsed(_if(_ASSERTIONS[assertion]))
        escaped = self._escaped()
        return self._literal(escaped) if isinstance(escaped, str) else _Parsed(_character(escaped))

    def _group(self) -> _Parsed | None:
        before = self._flags
        if self._text.startswith("?", self._at):
            named = _NAME.match(self._text, self._at)
            flags = _FLAGS.match(self._text, self._at)
            if named:
                self._at = named.end()
                if named[1] in self._names:
                    raise ExpressionError(f"two groups are called {named[1]}")
                self._names.add(named[1])
            elif flags:
                self._at = flags.end()
                self._set_flags(flags[1], flags[2] or "")
                if flags[3] == ")":
                    return None
            else:
                raise ExpressionError(f"Go has no ({self._text[self._at : self._at + 2]}")
        self._depth += 1
        if self._depth > DEEPEST:
            raise ExpressionError(f"more than {DEEPEST} groups within each other")
        parsed = self._alternatives()
        if not self._takes(")"):
            raise ExpressionError("an opening bracket without its closing one")
        self._depth -= 1
        self._flags = before
        return parsed

    def _set_flags(self, on: str, off: str) -> None:
        ignore_case, dot_is_any, many_lines = (
            (before or letter in on) and letter not in off for letter, before in zip("ism", self._flags, strict=True)
        )
        self._flags = _Flags(ignore_case, dot_is_any, many_lines)

    # -------------------------------------------------------------------- characters

    def _literal(self, char: str) -> _Parsed:
        return _Parsed(_character(self._cased(_equal(char))))

    def _cased(self, test: Test) -> Test:
        """The test, or where the case makes no difference, the test in either case."""
        if not self._flags.ignore_case:
            return test
        return lambda char: any(test(each) for each in (char, char.lower(), char.upper()))

    def _class(self) -> Test:
        negated = self._takes("^")
        tests: list[Test] = []
        while not tests or not self._text.startswith("]", self._at):
            tests.append(self._class_item())
        self._at += 1
        return _unless(negated, lambda char: any(test(char) for test in tests))

    def _class_item(self) -> Test:
        if named := _CLASS.match(self._text, self._at):
            self._at = named.end()
            if named[2] not in _POSIX:
                raise ExpressionError(f"there is no class {named[0]}")
            return self._named(_POSIX[named[2]], negated=bool(named[1]))
        first = self._class_char()
        if not isinstance(first, str):
            return first
        if not self._text.startswith("-", self._at) or self._text.startswith("-]", self._at):
            return self._cased(_equal(first))
        self._at += 1
        last = self._class_char()
        if not isinstance(last, str) or last < first:
            raise ExpressionError("a range of characters that ends before it begins")
        return self._cased(lambda char: first <= char <= last)

    def _class_char(self) -> str | Test:
        char = self._next("a class of characters that does not end")
        return char if char != "\\" else self._escaped()

    def _escaped(self) -> str | Test:
        """What stands behind a backslash: a character, or a class of them."""
        char = self._next("a backslash at the end")
        if char in "dDsSwW":
            return self._named(_PERL[char.lower()], negated=char.isupper())
        if char in "pP":
            return self._category(negated=char == "P")
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isascii() and not char.isalnum():
            return char
        begin = self._at - 1
        if found := _HEXADECIMAL.match(self._text, begin):
            number = int(found[1] or found[2], 16)
        elif found := _OCTAL.match(self._text, begin):
            number = int(found[0], 8)
        else:
            raise ExpressionError(f"Go has no \\{char}")
        self._at = found.end()
        if number > sys.maxunicode:
            raise ExpressionError(f"there is no character {found[0]}")
        return chr(number)

    def _named(self, test: Test, *, negated: bool) -> Test:
        """A class of ASCII characters, or what is not in it."""
        return _unless(negated, self._cased(lambda char: char.isascii() and test(char)))

    def _category(self, *, negated: bool) -> Test:
        found = _CATEGORY.match(self._text, self._at)
        name = (found[2] or found[3]) if found else ""
        if found is None or not _CATEGORIES.fullmatch(name):
            raise ExpressionError(f"there is no category of characters {self._text[self._at : self._at + 8]}")
        self._at = found.end()
        test = self._cased(lambda char: unicodedata.category(char).startswith(name))
        return _unless(negated != bool(found[1]), test)

    # -------------------------------------------------------------------- reading

    def _takes(self, text: str) -> bool:
        taken = self._text.startswith(text, self._at)
        self._at += len(text) if taken else 0
        return taken

    def _next(self, otherwise: str = "it ends too early") -> str:
        if self._at >= len(self._text):
            raise ExpressionError(otherwise)
        self._at += 1
        return self._text[self._at - 1]


# ------------------------------------------------------------------------ steps


def _character(test: Test) -> Step:
    def step(name: str, places: int) -> int:
        return reduce(or_, (2 << at for at, char in enumerate(name) if places >> at & 1 and test(char)), 0)

    return step


def _if(holds: Callable[[str, int], bool]) -> Step:
    def step(name: str, places: int) -> int:
        return reduce(or_, (1 << at for at in range(len(name) + 1) if places >> at & 1 and holds(name, at)), 0)

    return step


def _all(steps: list[Step]) -> Step:
    return lambda name, places: reduce(lambda so_far, step: step(name, so_far) if so_far else 0, steps, places)


def _either(steps: list[Step]) -> Step:
    if len(steps) == 1:
        return steps[0]
    return lambda name, places: reduce(or_, (step(name, places) for step in steps))


def _repeated(step: Step, least: int, most: int | None) -> Step:
    def repeated(name: str, places: int) -> int:
        for _ in range(least):
            before, places = places, step(name, places)
            if places in {0, before}:
                break
        reached, left = places, most
        while left is None or left > least:
            before, places = reached, step(name, places)
            reached |= places
            if reached == before:
                break
            left = None if left is None else left - 1
        return reached

    return repeated


# ------------------------------------------------------------------------ characters


def _equal(wanted: str) -> Test:
    return lambda char: char == wanted


def _any(_: str) -> bool:
    return True


def _no_newline(char: str) -> bool:
    return char != "\n"


def _unless(negated: bool, test: Test) -> Test:
    return (lambda char: not test(char)) if negated else test


# ------------------------------------------------------------------------ places


def _begins(_: str, at: int) -> bool:
    return at == 0


def _ends(name: str, at: int) -> bool:
    return at == len(name)


def _begins_line(name: str, at: int) -> bool:
    return at == 0 or name[at - 1] == "\n"


def _ends_line(name: str, at: int) -> bool:
    return at == len(name) or name[at] == "\n"


def _is_word(name: str, at: int) -> bool:
    return 0 <= at < len(name) and name[at].isascii() and (name[at].isalnum() or name[at] == "_")


def _divides_words(name: str, at: int) -> bool:
    return _is_word(name, at - 1) != _is_word(name, at)


_ASSERTIONS: dict[str, Callable[[str, int], bool]] = {
    "A": _begins,
    "z": _ends,
    "b": _divides_words,
    "B": lambda name, at: not _divides_words(name, at),
}
