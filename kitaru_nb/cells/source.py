"""What a cell says about itself: three equal spellings of one checkpoint.

``%%checkpoint train --retries 2`` as the first line, ``#| checkpoint: train --retries 2`` as the first line, or the
cell tag ``step:train``. All other tags, magics and directives belong to others and are left alone.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, cast

from kitaru_nb.errors import KitaruUsageError

Reuse = Literal["run", "content", "never"]
Spelling = Literal["magic", "comment", "tag"]

_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_MAGIC = re.compile(r"%%checkpoint(?:\s+(?P<rest>.*))?$")
_COMMENT = re.compile(r"#\|\s*checkpoint\s*(?::\s*(?P<rest>.*))?$")
_TAG = "step:"
# A word, a quoted word, or a mixture such as --if="a b".
_WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s"'])+|["']""")
_QUOTED = re.compile(r"""(["'])(?P<text>(?:\\.|(?!\1)[^\\])*)\1""")


@dataclass(frozen=True, slots=True)
class CellOptions:
    """How a checkpoint cell runs.

    Attributes:
        inputs: variables that the cell reads, instead of those that analysis finds (``--in a,b``).
        outputs: variables that are persisted, instead of all that the cell sets (``--out x,y``).
        condition: expression; the cell is skipped while it is false (``--if EXPR``).
        timeout: seconds.
        type: what kind of work it is, e.g. ``llm_call``.
        reuse: ``run`` within one execution, ``content`` across executions for an equal key, ``never``.
        force: run this time although a result is recorded.
    """

    name: str | None = None
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    condition: str | None = None
    retries: int = 0
    timeout: float | None = None
    type: str | None = None
    reuse: Reuse = "run"
    force: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell, its head read off.

    Attributes:
        body: the source with its head line blanked: line N of the body is line N of the cell.
        first_line: how many lines the head takes, 0 or 1.
    """

    kind: Literal["checkpoint", "plain"]
    body: str
    options: CellOptions = field(default_factory=CellOptions)
    first_line: int = 0
    spelling: Spelling | None = None


def read_cell(source: str, tags: Sequence[str] = ()) -> Cell:
    """Read the head of a cell. The magic goes before the comment, and the comment before the tag.

    Raises:
        KitaruUsageError: an option, number or name that can't be right; the fix is the line corrected.
    """
    lines = source.split("\n")
    for number, line in enumerate(lines):
        text = line.strip()
        if not text:
            continue
        if (magic := _MAGIC.match(line.rstrip())) is not None:
            return _checkpoint(_Head("magic", magic["rest"] or ""), lines, number)
        if (comment := _COMMENT.match(text)) is not None:
            return _checkpoint(_Head("comment", comment["rest"] or ""), lines, number)
        if not text.startswith("#|"):  # directives of others may stand above ours
            break
    for tag in tags:
        if tag.startswith(_TAG) and (name := tag.removeprefix(_TAG).strip()):
            head = _Head("tag", "")
            head.words = [name]
            return Cell("checkpoint", source, CellOptions(name=head.name(0)), 0, "tag")
    return Cell("plain", source)


def _checkpoint(head: _Head, lines: list[str], number: int) -> Cell:
    options = head.options()
    body = "\n".join([*lines[:number], "", *lines[number + 1 :]])
    return Cell("checkpoint", body, options, 1, head.spelling)


class _Head:
    """The words of one head line, and the errors about them."""

    def __init__(self, spelling: Spelling, rest: str) -> None:
        self.spelling = spelling
        self.words = _WORD.findall(rest)
        self.at = 0

    def options(self) -> CellOptions:
        found: dict[str, Any] = {}
        while self.at < len(self.words):
            word = self.words[self.at]
            if word in ('"', "'"):
                self.wrong(f"a quote ({word}) that is not closed", "a closed one", self.at, None)
            if word.startswith("-"):
                self._option(found)
            elif "name" not in found:
                found["name"] = self.name(self.at)
                self.at += 1
            else:
                self.wrong(f"{word!r} after the name {found['name']!r}", "one name, then options", self.at, None)
        return CellOptions(**found)

    def name(self, at: int) -> str:
        """The name at word ``at``."""
        text = _unquoted(self.words[at])
        if _NAME.fullmatch(text) is None:
            better = re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).lstrip("0123456789.-") or "cell"
            allowed = "a letter or _, then letters, digits, _ . or -"
            self.wrong(f"the name {text!r}", allowed, at, [better])
        return text

    def _option(self, found: dict[str, Any]) -> None:
        word, equals, value = self.words[self.at].partition("=")
        if word not in _OPTIONS:
            near = difflib.get_close_matches(word, _OPTIONS, 1, cutoff=0.7)
            replacement = [near[0] + equals + value] if near else None
            allowed = f"one of {' '.join(_OPTIONS)}"
            if word in _OF_FUNCTIONS:
                allowed += "; a cell runs in its kernel, and only a function under @checkpoint has a job of its own"
            # What an option that there isn't was given goes with it.
            count = 1 if near else self._value_end("--if", self.at + 1) - self.at
            self.wrong(f"the option {word!r}", allowed, self.at, replacement, count=count)
        if equals:
            self.words[self.at : self.at + 1] = [word, value]
        target, example, read = _OPTIONS[word]
        if target in found:
            self.wrong(f"{word} twice", "each option once", self.at, None)
        if read is None:
            found[target] = True
            self.at += 1
            return
        first = self.at + 1
        self.at = end = self._value_end(word, first)
        if end == first:
            self.wrong(f"{word} without a value", f"{word} {example}", first, [example], insert=True)
        try:
            found[target] = read(self.words[first:end])
        except ValueError as error:
            self.wrong(f"{word} {' '.join(self.words[first:end])}", str(error), first, [example], count=end - first)

    def _value_end(self, word: str, first: int) -> int:
        """Index after the value: one word, more for a list with blanks, all up to the next option for --if."""
        end = first
        while end < len(self.words) and self.words[end].partition("=")[0] not in _OPTIONS:
            end += 1
            if word != "--if" and not (word in ("--in", "--out") and self.words[end - 1].endswith(",")):
                break
        return end

    def wrong(
        self, found: str, allowed: str, at: int, better: list[str] | None, *, count: int = 1, insert: bool = False
    ) -> NoReturn:
        """Raise for word ``at``; the fix has ``better`` in place of ``count`` words, or leaves them out."""
        words = [*self.words[:at], *(better or ()), *self.words[at if insert else at + count :]]
        prefix = {"magic": "%%checkpoint ", "comment": "#| checkpoint: ", "tag": _TAG}[self.spelling]
        raise KitaruUsageError(
            f"The head of this checkpoint cell has {found}; expected {allowed}.",
            fix=(prefix + " ".join(words)).rstrip(),
        )


def _unquoted(word: str) -> str:
    if (quoted := _QUOTED.fullmatch(word)) is None:
        return word
    return re.sub(r"\\(.)", r"\1", quoted["text"])


def _variables(words: list[str]) -> tuple[str, ...]:
    names = [n for n in (part.strip() for part in _unquoted("".join(words)).split(",")) if n]
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"names of variables with commas between; {name!r} is none")
    return tuple(names)


def _expression(words: list[str]) -> str:
    text = _unquoted(" ".join(words))
    try:
        ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"a Python expression ({error.msg})") from error
    return text.strip()


def _retries(words: list[str]) -> int:
    text = _unquoted(words[0])
    if not text.isdecimal():
        raise ValueError("a whole number, 0 or more")
    return int(text)


def _seconds(words: list[str]) -> float:
    try:
        seconds = float(_unquoted(words[0]))
    except ValueError as error:
        raise ValueError("a number of seconds") from error
    if not 0 < seconds < float("inf"):
        raise ValueError("a number of seconds above 0")
    return seconds


def _type(words: list[str]) -> str:
    text = _unquoted(words[0])
    if _NAME.fullmatch(text) is None:
        raise ValueError("one word, such as llm_call")
    return text


def _reuse(words: list[str]) -> Reuse:
    text = _unquoted(words[0])
    if text not in ("run", "content", "never"):
        raise ValueError("run, content or never")
    return cast(Reuse, text)


_OF_FUNCTIONS = ("--runtime", "--resources")

# option: (field of CellOptions, an example, its reader or None for a switch)
_OPTIONS: dict[str, tuple[str, str, Callable[[list[str]], Any] | None]] = {
    "--in": ("inputs", "a,b", _variables),
    "--out": ("outputs", "x,y", _variables),
    "--if": ("condition", '"x > 0"', _expression),
    "--retries": ("retries", "2", _retries),
    "--timeout": ("timeout", "60", _seconds),
    "--type": ("type", "llm_call", _type),
    "--reuse": ("reuse", "run", _reuse),
    "--force": ("force", "", None),
}
