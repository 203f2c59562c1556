"""What must hold after any crash: nothing recorded ran again, nothing is lost, nothing is there twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kitaru_nb.journal.base import Journal


@dataclass(frozen=True)
class Recorded:
    """What an execution's history says, in a form that is equal for equal executions."""

    completed: Counter[str]
    saved: Counter[tuple[str, str, str]]
    asked: Counter[str]
    resolved: Counter[str]

    @classmethod
    def of(cls, journal: Journal, exec_id: str) -> Recorded:
        """Read the history."""
        kinds: dict[str, Counter[str]] = {}
        saved: Counter[tuple[str, str, str]] = Counter()
        for event in journal.history(exec_id):
            kinds.setdefault(event.kind, Counter())[event.key] += 1
            if event.kind == "artifact.saved":
                saved[event.key, event.body["artifact"]["digest"], event.body["call"]] += 1
        kind = [kinds.get(k, Counter()) for k in ("checkpoint.completed", "wait.created", "wait.resolved")]
        return cls(kind[0], saved, *kind[1:])


class Witness:
    """Watches the lives of one execution: call `life_begins` before each worker, `life_ended` after it."""

    def __init__(self, side_file: Path) -> None:
        self.side_file = side_file
        self.lives = 0
        self._seen = 0
        self._before: set[str] = set()

    def bodies(self) -> list[str]:
        """Call ids in the order in which their bodies began, over all lives."""
        return self.side_file.read_text().split() if self.side_file.exists() else []

    def life_begins(self, journal: Journal, exec_id: str | None) -> None:
        """Remember what is recorded by now."""
        self._before = set(Recorded.of(journal, exec_id).completed) if exec_id else set()
        self._seen = len(self.bodies())

    def life_ended(self, journal: Journal, exec_id: str | None) -> None:
        """No body ran in this life whose completion was recorded before it, and nothing recorded is gone."""
        self.lives += 1
        again = set(self.bodies()[self._seen :]) & self._before
        assert not again, f"life {self.lives}: bodies of completed calls ran again: {again}"
        if exec_id:
            now = Recorded.of(journal, exec_id)
            lost = self._before - set(now.completed)
            assert not lost, f"life {self.lives}: completed calls are gone: {lost}"
            twice = [key for key, count in now.completed.items() if count > 1]
            assert not twice, f"life {self.lives}: completed twice: {twice}"

    def verdict(self, journal: Journal, exec_id: str, undisturbed: Recorded) -> None:
        """In the end the history says what that of an undisturbed run says, and every body ran."""
        recorded = Recorded.of(journal, exec_id)
        assert recorded == undisturbed
        assert set(self.bodies()) == set(recorded.completed)
