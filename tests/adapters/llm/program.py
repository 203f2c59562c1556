"""Two questions to a model, with the process killed between them the first time."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kitaru_nb import flow, llm


@flow
def ask(marker: str, model: str) -> list[str]:
    first = llm("Say hello.", model=model, max_tokens=8)
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [first, llm(f"Repeat: {first}", model=model, max_tokens=8)]
