"""Literal secrets in what would travel, and the names of those that code asks its environment for."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: On a line that only looks like a secret or a path.
ALLOWED = "# kitaru: allow"

# What a secret of each kind looks like. They are long and begin with a mark of their maker, so nothing else fits.
_SHAPES = {
    "an Anthropic key": r"sk-ant-[A-Za-z0-9_-]{20,}",
    "an OpenAI key": r"sk-(?!ant-)(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{10,}",
    "a password in a URL": r"[a-z][a-z0-9+.-]*://[^\s:/@'\"{}$<>]+:(?![{$<*]|password@|pass@|secret@)[^\s:/@'\"{}$<>]{3,}@",
}
_SHAPE = re.compile("|".join(f"(?P<k{i}>{shape})" for i, shape in enumerate(_SHAPES.values())))
_KINDS = list(_SHAPES)

_NAME = re.compile(r"(?i)(?:^|_)(?:api_?key|key|token|secret|password|passwd|pwd|credentials?|auth)(?:$|_)")
_PLACEHOLDER = re.compile(
    r"(?i)^(?:x+|\*+|\.+|<.*>|\{.*\}|\$.*|your[-_ ].*|change.?me|example.*|dummy|test.*|none|null)$"
)


@dataclass(frozen=True, slots=True)
class Secret:
    """A literal secret: on which line, of what kind, and its first characters."""

    line: int
    kind: str
    shown: str


def find_secrets(text: str) -> list[Secret]:
    """Literal secrets in a text, one for each line. Python is also read for what is bound to a telling name."""
    lines = text.split("\n")
    found: dict[int, Secret] = {}
    for number, line in enumerate(lines, 1):
        match = _SHAPE.search(line)
        if match is not None and match.lastgroup is not None:
            found[number] = Secret(number, _KINDS[int(match.lastgroup[1:])], _masked(match[0]))
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        tree = None
    for name, value, number in _bound(tree) if tree is not None else ():
        if _NAME.search(name) and _looks_secret(value):
            found.setdefault(number, Secret(number, f"a literal {name}", _masked(value)))
    return [s for n, s in sorted(found.items()) if ALLOWED not in lines[n - 1]]


def _masked(text: str) -> str:
    return text if text.startswith("-----") else f"{text[:4]}…"


def _bound(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """(name, text, line) of texts that are bound to a name: assigned, passed by keyword, or under a key."""
    for node in ast.walk(tree):
        pairs: Iterable[tuple[ast.expr | str | None, ast.expr | None]] = ()
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.AnnAssign):
            pairs = [(node.target, node.value)]
        elif isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Dict):
            pairs = list(zip(node.keys, node.values, strict=True))
        for target, value in pairs:
            name = _name_of(target)
            if name and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield name, value.value, value.lineno


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


def _looks_secret(value: str) -> bool:
    """Whether a text is rather a secret than a word, a placeholder, or the name of something."""
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
