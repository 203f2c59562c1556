"""Run a command with a model at hand: the one that OPENAI_API_KEY opens, else a small one on this machine.

python notebooks/offline.py jupyter lab notebooks/quickstart.ipynb
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def model() -> Iterator[tuple[dict[str, str], Callable[[], int] | None]]:
    """(environment for child processes, count of model calls so far or None with a key of your own)."""
    if os.environ.get("OPENAI_API_KEY"):
        yield dict(os.environ), None
        return
    from kitaru_nb.testing.offline_model import OfflineModel

    with OfflineModel() as offline:
        address = offline.base_url.removesuffix("/v1")

        def count() -> int:
            with urllib.request.urlopen(f"{address}/calls", timeout=10) as reply:
                return int(json.load(reply)["calls"])

        yield os.environ | {"OPENAI_BASE_URL": offline.base_url, "OPENAI_API_KEY": "offline"}, count


if __name__ == "__main__":
    with model() as (environment, _):
        sys.exit(subprocess.run(sys.argv[1:], env=environment, check=False).returncode)
