"""Literal secrets in what would travel, and the names of those that code asks its environment for."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

#: On a line that only looks like a secret or a path.
ALLOWED = "# kitaru: allow"

# What a secret of each kind looks like. They are long and begin with a mark of their maker, so nothing else fits.
_SHAPES = {
    "an Anthropic key": r"sk-ant-[A-Za-z0-9_-]{20,}",
    "an OpenAI key": r"\bsk-(?!ant-)(?:(?:proj|svcacct|admin)-|(?=[a-z_-]*[A-Z0-9]))[A-Za-z0-9_-]{20,}",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{10,}",
    "a bearer token": r"\b(?:Bearer|Basic) (?=[A-Za-z._+/=-]*\d)[A-Za-z0-9._+/=-]{16,}",
    "an Azure storage key": r"\bAccountKey=[A-Za-z0-9+/]{40,}",
    "a password in a URL": r"[a-z][a-z0-9+.-]*://[^\s:/@'\"{}$<>]+:(?![{$<*]|password@|pass@|secret@)[^\s:/@'\"{}$<>]{3,}@",
}
_SHAPE = re.compile("|".join(f"(?P<k{i}>{shape})" for i, shape in enumerate(_SHAPES.values())))
_KINDS = list(_SHAPES)

_NAME = re.compile(r"(?i)(?:^|_)(?:api_?key|key|token|secret|password|passwd|pwd|credentials?|auth)(?:$|_)")
#: Ends of names that stand for something about a secret, not for the secret.
_ABOUT = re.compile(r"(?i)_(?:name|field|type|url|uri|path|file|header|env|var|column|prefix|suffix|ttl|arn|ref)$")
#: A name with ``key`` that says no more: as often of a dictionary, a table or a request as of a door.
_ANY_KEY = re.compile(
    r"(?i)(?:(?!api|secret|access|private|signing|encryption|master|storage|account|service|client)[a-z0-9]+_)*key"
)
#: A line that sets a name outside of Python: YAML, TOML, ``.env``, ``%env NAME=VALUE``.
_SETTING = re.compile(
    r"""\s*(?:[%!](?:env|set_env|export)\s+|export\s+|-\s+)?["']?([A-Za-z_][\w-]*)["']?\s*[:=]\s*["']?([^\s"',#]+)["']?,?\s*(?:\#.*)?"""
)
#: What only a machine makes: many hexadecimal digits, or letters of both cases with digits.
_RANDOM = re.compile(r"[0-9a-f]{32,}|(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[A-Za-z0-9+/=_-]{20,}")
#: Functions that take the name of a value, and the value.
_NAME_AND_VALUE = frozenset({"setdefault", "get", "getenv", "setenv", "putenv"})
_PLACEHOLDER = re.compile(
    r"(?i)^(?:x+|\*+|\.+|<.*>|\{.*\}|\$.*|your[-_ ].*|change.?me|example.*|dummy|test.*|none|null)$"
)


@dataclass(frozen=True, slots=True)
class Secret:
    """A literal secret: on which line, of what kind, and its first characters."""

    line: int
    kind: str
    shown: str


def find_secrets(text: str, tree: ast.AST | None = None, *, python: bool = True) -> list[Secret]:
    """Literal secrets in a text, one for each line.

    Python is also read for what is bound to a telling name, and any other text for lines that set one.

    Args:
        tree: of Python that `ast` alone can't read, with the same lines.
        python: whether the text is meant to be Python; JSON or YAML may be by chance.
    """
    lines = text.split("\n")
    found: dict[int, Secret] = {}
    for number, line in enumerate(lines, 1):
        match = _SHAPE.search(line)
        if match is not None and match.lastgroup is not None:
            found[number] = Secret(number, _KINDS[int(match.lastgroup[1:])], _masked(match[0]))
    if tree is None:
        with suppress(SyntaxError, ValueError):
            tree = ast.parse(text)
    bound = [*_set(lines, only_magics=python), *(_bound(tree) if tree is not None else ())]
    for name, value, number in bound:
        if _NAME.search(name) and _looks_secret(name, value):
            found.setdefault(number, Secret(number, f"a literal {name}", _masked(value)))
    return [s for n, s in sorted(found.items()) if ALLOWED not in lines[n - 1]]


def _masked(text: str) -> str:
    return text if text.startswith("-----") else f"{text[:4]}…"


def _set(lines: Iterable[str], *, only_magics: bool) -> Iterator[tuple[str, str, int]]:
    """(name, text, line) of lines that set a name without being Python."""
    for number, line in enumerate(lines, 1):
        if (not only_magics or line.lstrip().startswith(("%", "!"))) and (found := _SETTING.fullmatch(line)):
            yield found[1].replace("-", "_"), found[2], number


def _bound(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """(name, text, line) of texts that are bound to a name: assigned, passed by keyword, by default, or under a key."""
    for node in ast.walk(tree):
        for target, value in _pairs(node):
            name, literal = _name_of(target), _text_of(value)
            if name and literal is not None and value is not None:
                yield name, literal, value.lineno


def _pairs(node: ast.AST) -> Iterator[tuple[ast.expr | str | None, ast.expr | None]]:
    """What a node binds to what."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple | ast.List) and isinstance(node.value, ast.Tuple | ast.List):
                yield from zip(target.elts, node.value.elts, strict=False)
            else:
                yield target, node.value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
        yield node.target, node.value
    elif isinstance(node, ast.keyword):
        yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        yield from zip(node.keys, node.values, strict=True)
    elif isinstance(node, ast.arguments):
        positional = [a.arg for a in (*node.posonlyargs, *node.args)]
        yield from zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True)
        yield from zip((a.arg for a in node.kwonlyargs), node.kw_defaults, strict=True)
    elif isinstance(node, ast.Call) and len(node.args) == 2 and _called(node.func) in _NAME_AND_VALUE:
        yield node.args[0], node.args[1]


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text_of(value: ast.expr | None) -> str | None:
    """A text that stands literally in code, also in bytes, or wrapped so that it isn't printed."""
    if isinstance(value, ast.Call) and len(value.args) == 1 and _called(value.func) in ("SecretStr", "SecretBytes"):
        value = value.args[0]
    if not isinstance(value, ast.Constant):
        return None
    found = value.value.decode("latin-1") if isinstance(value.value, bytes) else value.value
    return found if isinstance(found, str) else None


def _name_of(target: ast.expr | str | None) -> str:
    if isinstance(target, str):
        return target
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute):
        return target.attr
    if isinstance(target, ast.Constant) and isinstance(target.value, str):
        return target.value
    return _name_of(target.slice) if isinstance(target, ast.Subscript) else ""


def _looks_secret(name: str, value: str) -> bool:
    """Whether a text under this name is rather a secret than a word, a placeholder, or the name of something."""
    if _ABOUT.search(name) or (_ANY_KEY.fullmatch(name) and not _RANDOM.fullmatch(value)):
        return False
    if len(value) < 8 or " " in value or _PLACEHOLDER.match(value) or value.startswith(("/", "./", "http")):
        return False
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())
    return bits >= 2.5 and not re.fullmatch(r"[A-Z_]+|[a-z_.-]+", value)


# names


def environment_names(tree: ast.AST) -> dict[str, bool]:
    """Environment variables that code reads by name → whether it can't do without (``os.environ["X"]``)."""
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _is_environ(node.value) and isinstance(node.ctx, ast.Load):
            name, needed = node.slice, True
        elif isinstance(node, ast.Call) and node.args and _reads_environment(node.func):
            name, needed = node.args[0], False
        else:
            continue
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            found[name.value] = found.get(name.value, False) or needed
    return found


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return _NAME.search(name) is not None


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


def _reads_environment(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr == "getenv" or (function.attr == "get" and _is_environ(function.value))
    return isinstance(function, ast.Name) and function.id == "getenv"
