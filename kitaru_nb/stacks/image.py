"""Dockerfiles of workers: of a stack, for all flows; or of one deployment, with its packages."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import metadata, version
from pathlib import Path
from urllib.parse import urlsplit

from kitaru_nb.artifacts.blobs import EXTRAS as STORES
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.journal.open import EXTRAS as JOURNALS
from kitaru_nb.stacks.definition import RUNNERS, Stack

WORKER, DEPLOYMENT = (Path(__file__).with_name(f"{kind}.Dockerfile") for kind in ("worker", "deployment"))


def dockerfile(stack: Stack, extras: Iterable[str] = ()) -> str:
    """A Dockerfile for the workers of a stack: this version of kitaru-nb, this minor version of Python.

    Args:
        stack: whose journal, store and runner say what is needed.
        extras: more of them, such as ``anthropic`` for a flow's adapter.

    Raises:
        KitaruUsageError: there is no such extra.
    """
    offered = metadata("kitaru-nb").get_all("Provides-Extra") or []
    for extra in extras:
        if extra not in offered:
            raise KitaruUsageError(
                f"kitaru-nb has no extra {extra!r}; it has {', '.join(sorted(offered))}.", fix="leave out --extra"
            )
    urls = [url for url in (stack.journal, stack.store) if url is not None]
    known = JOURNALS | STORES
    needed = {known.get(urlsplit(url).scheme) for url in urls} | {RUNNERS[stack.runner][1], *extras}
    needed |= {"dask"} if (stack.executor or "").startswith("dask") else set()
    values = {
        "PYTHON": ".".join(platform.python_version_tuple()[:2]),
        "EXTRAS": ",".join(sorted(filter(None, needed))),
        "VERSION": version("kitaru-nb"),
    }
    return _filled(WORKER, values)


def deployment_files(python: str, lock: str, wheels: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the image of one deployment is built from: path → content, the Dockerfile among them.

    Args:
        python: version of Python that the deployment was made with.
        lock: its locked requirements.
        wheels: what the lock names by path.
    """
    text = _filled(DEPLOYMENT, {"PYTHON": ".".join(python.split(".")[:2])})
    # The folder of wheels is there also when it is empty: its copying is a line of the Dockerfile.
    return {"Dockerfile": text.encode(), "requirements.lock": lock.encode(), "wheels/.keep": b"", **wheels}


def _filled(template: Path, values: Mapping[str, str]) -> str:
    text = template.read_text(encoding="utf-8")
    return re.sub(r"(?m)^ARG (\w+)=.*$", lambda found: f"ARG {found[1]}={values[found[1]]}", text)
