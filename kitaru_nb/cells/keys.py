"""Keys: when two runs of a cell or checkpoint are the same work, and the first thing that differs when they aren't."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from types import MethodType
from typing import Any, TypeAlias

from kitaru_nb.cells.analysis import CellAnalysis
from kitaru_nb.cells.tokens import ABSENT, MISSING, UNAVAILABLE, Digest, Token, Walk, label_of, value_token

__all__ = ["CellKey", "Token", "cell_key", "first_difference", "function_code", "input_tokens", "value_token"]

# Part of every key: a change of what goes into keys gets a new number.
_SCHEMA = "1"


@dataclass(frozen=True, slots=True)
class CellKey:
    """Identity of one run of a cell.

    Attributes:
        digest: SHA-256, hexadecimal.
        parts: ``{"code": digest, "inputs": {name: token}, "extra": {name: text}}``, JSON values all; what
            `first_difference` compares.
    """

    digest: str
    parts: Mapping[str, Any]


def input_tokens(
    analysis: CellAnalysis,
    namespace: Mapping[str, object],
    *,
    digest: Digest,
    names: Iterable[str] | None = None,
    producers: Mapping[str, str] | None = None,
    preview: Callable[[object], str] | None = None,
    source_of: Callable[[type], str | None] | None = None,
) -> dict[str, Token]:
    """Tokens of a cell's inputs, by name.

    Args:
        names: the inputs that the cell declares (``--in``), instead of those that analysis found.
        producers: for variables without a digest, who produced them. The rest is as in `value_token`.
    """
    known = producers or {}
    tokens = {}
    for name in analysis.inputs(namespace) if names is None else names:
        if name not in namespace:
            tokens[name] = ABSENT
            continue
        tokens[name] = value_token(
            namespace[name],
            digest=digest,
            provenance=known.get(name),
            namespace=namespace,
            name=name,
            documented=name in analysis.passed,
            producers=known,
            preview=preview,
            source_of=source_of,
        )
    return tokens


def cell_key(analysis: CellAnalysis, tokens: Mapping[str, Token], extra: Mapping[str, str] | None = None) -> CellKey:
    """The key of a cell: its code, its inputs' tokens, and what else the caller wants it to depend on."""
    extra = dict(sorted((extra or {}).items()))
    inputs = dict(sorted(tokens.items()))
    identity = [_SCHEMA, analysis.digest, [[n, t.kind, t.text] for n, t in inputs.items()], list(extra.items())]
    digest = hashlib.sha256(json.dumps(identity).encode("utf-8", "surrogatepass")).hexdigest()
    parts = {"code": analysis.digest, "inputs": {n: t.as_json() for n, t in inputs.items()}, "extra": extra}
    return CellKey(digest, parts)


# why


def first_difference(old_parts: Mapping[str, Any], new_parts: Mapping[str, Any]) -> str | None:
    """One line about the first part of two `CellKey.parts` that differs: code, inputs, then extras. None if none."""
    if old_parts["code"] != new_parts["code"]:
        return "the cell's code changed"
    old, new = old_parts["inputs"], new_parts["inputs"]
    for name in sorted({*old, *new}):
        if name not in old:
            return f"input {name} is new"
        if name not in new:
            return f"input {name} is no longer read"
        if (line := _input_difference(name, old[name], new[name])) is not None:
            return line
    old, new = old_parts.get("extra", {}), new_parts.get("extra", {})
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return f"{name} changed: {old.get(name, 'nothing')} → {new.get(name, 'nothing')}"
    return None


def _input_difference(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    if (old["kind"], old["text"]) == (new["kind"], new["text"]):
        return None
    old_table, new_table = old.get("parts") or {name: old}, new.get("parts") or {name: new}
    for label in [*new_table, *(gone for gone in old_table if gone not in new_table)]:
        before, after = old_table.get(label), new_table.get(label)
        if before is None or after is None:
            continue
        if (before["kind"], before["text"]) != (after["kind"], after["text"]):
            return _changed(label, before, after, "" if label == name else name)
    missing = [*(n for n in new_table if n not in old_table), *(n for n in old_table if n not in new_table)]
    return f"what {name} refers to changed: {missing[0]}" if missing else f"input {name} changed"


def _changed(label: str, old: Mapping[str, Any], new: Mapping[str, Any], reader: str) -> str:
    kind = new["kind"]
    if old["kind"] != kind:
        return f"{_subject(label, reader)} was {_KINDS[old['kind']]} and is now {_KINDS[kind]}"
    if kind == "src" and new["text"].startswith(("class ", "partial class ")):
        return f"class {label} changed"
    if kind == "src":
        return f"helper {label}() changed"
    if kind in ("mod", "imp"):
        return _version_change(label, old["text"], new["text"])
    if kind == "prov":
        return f"{_subject(label, reader)} comes from another run of the cell that produced it"
    if kind == "opaque":
        return f"the type of {_subject(label, reader)} changed: {old['text']} → {new['text']}"
    shown = old.get("preview"), new.get("preview")
    values = f": {shown[0]} → {shown[1]}" if all(shown) and shown[0] != shown[1] else ""
    return f"{_subject(label, reader)} changed{values}"


_KINDS = {
    "val": "a value",
    "src": "code",
    "mod": "a module",
    "imp": "something imported",
    "prov": "known by its producer",
    "absent": "undefined",
    "opaque": "known by its type only",
}


def _subject(label: str, reader: str) -> str:
    return f"{label}, which {reader} uses," if reader else f"input {label}"


def _version_change(label: str, old: str, new: str) -> str:
    for separator in ("==", "@"):
        (old_name, _, before), (new_name, _, after) = old.partition(separator), new.partition(separator)
        if old_name == new_name and before and after:
            return f"{old_name} {before} → {after}"
    if old.partition(":")[0] == new.partition(":")[0]:
        return f"module {old.partition(':')[0]} changed"
    return f"{label} is now {new} instead of {old}"


# code of checkpoint functions


# (function, argument, result): the result must still be that very object.
_Check: TypeAlias = tuple[Callable[[Any], object], object, object]


@dataclass(frozen=True, slots=True)
class _Code:
    """A code digest, and what must still be so for it to hold."""

    function: weakref.ref[Any]
    digest: Digest
    text: str
    checks: tuple[_Check, ...]


def _contents(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # emptied since
        return MISSING


_code_of = attrgetter("__code__")
_codes: dict[int, _Code] = {}
# An entry may keep its own function alive (when it is recursive), so there is an end to them.
_CODES_KEPT = 2048


def function_code(func: Callable[..., Any], digest: Digest) -> str:
    """Digest of what a function does: its source without layout, and the code and data that it reaches.

    Follows globals, closures, defaults, decorators, partials, methods and callable objects. ``unavailable:NAME`` when
    the source can't be found. Cached for each function as long as the globals that it reaches are the same objects;
    when one of them can change in place (a list, a frame), it is looked at each time.
    """
    known = _codes.get(id(func))
    if known is not None and known.function() is func and known.digest == digest:
        for look, at, found in known.checks:  # asked before every call of a checkpoint: one flat loop
            if look(at) is not found:
                break
        else:
            return known.text
    walk = Walk(digest, {}, {}, None, None)
    label = label_of(func)
    token = walk.token(label, func, False, None)
    root = walk.parts[label]
    if root.text.startswith(UNAVAILABLE):
        return root.text
    text = hashlib.sha256(f"{_SCHEMA} {token.kind} {token.text}".encode()).hexdigest()
    if not walk.volatile and not isinstance(func, MethodType | partial):
        _remember(func, digest, text, walk)
    return text


def _remember(func: Callable[..., Any], digest: Digest, text: str, walk: Walk) -> None:
    key = id(func)
    try:
        reference = weakref.ref(func, lambda _: _codes.pop(key, None))
    except TypeError:
        return  # such an object can't tell when its id becomes another's
    known = list(_codes)  # other threads add to it meanwhile
    for old in known[: max(len(known) - _CODES_KEPT + 1, 0)]:
        _codes.pop(old, None)
    _codes[key] = _Code(reference, digest, text, tuple(_checks(walk, reference)))


def _checks(walk: Walk, root: weakref.ref[Any]) -> Iterator[_Check]:
    """What tells that a walk would find the same again."""
    for namespace, name, value in walk.seen_globals:
        if value is MISSING or value is None:
            yield namespace.__contains__, name, value is None
        if value is not MISSING:
            yield namespace.get, name, value
    for cell, value in walk.seen_cells:
        yield _contents, cell, value
    for function, code in walk.seen_code:
        if function is root():
            yield (lambda ref: _code_of(ref())), root, code  # the cache must not keep it alive
        else:
            yield _code_of, function, code
