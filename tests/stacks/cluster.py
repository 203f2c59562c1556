"""The Kubernetes control plane that the tests of the runner use: a folder with ``cluster.py``, or none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def program() -> Path | None:
    """``cluster.py`` of the folder that KITARU_TEST_K8S names (default: ``../shared/k8s`` beside the checkout).

    None where there is none, or no etcd on this machine.
    """
    folder = Path(os.environ.get("KITARU_TEST_K8S") or ROOT.parent / "shared" / "k8s")
    found = folder / "cluster.py"
    return found if found.is_file() and shutil.which("etcd") else None


class Cluster:
    """A real control plane of Kubernetes 1.20 whose pods run as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = self._run("start").strip().splitlines()[-1]

    def lose_node(self) -> None:
        self._run("pause")

    def bring_node_back(self) -> None:
        self._run("start")

    def stop(self) -> None:
        self._run("stop")

    def _run(self, verb: str) -> str:
        found = program()
        assert found is not None
        # This interpreter: "python" in a pod means the one that started the cluster.
        done = subprocess.run([sys.executable, str(found), verb, str(self.folder)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"cluster.py {verb} failed: {done.stderr[-2000:]}")
        return done.stdout


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster for as long as the context lasts."""
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()
