"""Deployments of a small flow, without a locked environment, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import Deployment
from kitaru_nb.promote import functions
from kitaru_nb.promote.deployments import Deployments
from kitaru_nb.promote.environment import Lock

SCRIPT = """\
from kitaru_nb import checkpoint, flow


@checkpoint
def draft(topic: str) -> str:
    return f"all about {{topic}}, edition {edition}"


@flow
def {name}(topic: str, polite: bool = False) -> str:
    return f"dear reader, {{draft(topic)}}" if polite else draft(topic)
"""


class Deployer:
    """Deploys editions of flows into a journal, from files of a folder."""

    def __init__(self, runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deployments = Deployments(runtime)
        self.folder = folder
        monkeypatch.setattr(functions, "lock_environment", lambda roots: Lock("", {}, {}))
        monkeypatch.setenv("KITARU_CACHE", str(folder / "cache"))

    def __call__(self, name: str = "brief", **options: Any) -> Deployment:
        edition = 1 + sum(d.flow == name for d in self.deployments.list())
        path = self.folder / f"{name}_{edition}.py"
        path.write_text(SCRIPT.format(name=name, edition=edition), encoding="utf-8")
        return self.deployments.create(f"{path}:{name}", by="ana", **options)
