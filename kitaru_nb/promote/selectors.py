"""How a version of a flow is named: by number, by tag, or in the flow's name (``brief@prod``, ``brief@v2``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from kitaru_nb.errors import KitaruUsageError

_TAG = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_VERSION = re.compile(r"v?(\d{1,9})", re.ASCII)


def number_of(version: int | str) -> int:
    """The number of a version. Raises `KitaruUsageError`."""
    found = _VERSION.fullmatch(str(version))
    if found is None:
        raise KitaruUsageError(f"{version!r} is no version; expected a number, such as 2 or v2.", fix="version=2")
    return int(found[1])


def selected(flow: str, version: int | str | None, tag: str | None) -> tuple[str, int | None, str | None]:
    """Flow, number and tag, where the flow's name may carry one of them. Raises `KitaruUsageError`."""
    name, at, selector = flow.partition("@")
    if at:
        if version is not None or tag is not None:
            raise KitaruUsageError(f"{flow!r} names a version already.", fix=f"invoke({flow!r})")
        version, tag = (selector, None) if _VERSION.fullmatch(selector) else (None, selector)
    if version is not None and tag is not None:
        raise KitaruUsageError(
            f"Both version {version!r} and tag {tag!r} were given; expected one of them.", fix=f"tag={tag!r}"
        )
    return name, None if version is None else number_of(version), tag


def check_tag(tag: str) -> None:
    """Raises `KitaruUsageError` for what can't be a tag's name."""
    if _TAG.fullmatch(tag) is None or _VERSION.fullmatch(tag):
        raise KitaruUsageError(
            f"{tag!r} can't be a tag; expected a letter or _, then letters, digits, _ . or -, and no version number.",
            fix="--tag prod",
        )


def tag_names(tags: str | Sequence[str] | Mapping[str, bool]) -> list[str]:
    """The tags that somebody wants, checked."""
    names = [tags] if isinstance(tags, str) else list(tags)
    for name in names:
        check_tag(name)
    return names
