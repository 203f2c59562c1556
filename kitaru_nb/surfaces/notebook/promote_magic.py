"""``%promote``: the notebook as the next version of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from IPython.core.magic import Magics, line_magic, magics_class

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.promote.deployments import DEFAULT, Deployments
from kitaru_nb.promote.snapshot import WHEELS, Snapshot
from kitaru_nb.surfaces.notebook import display
from kitaru_nb.surfaces.notebook.magics import split
from kitaru_nb.surfaces.notebook.session import Session

_USAGE = "%promote [NAME] [--tag TAG] [--stack STACK] [--dry-run] [--rehearse]"


@magics_class
class PromoteMagic(Magics):
    """The line magic, and what this kernel knows of how the notebook's cells ran."""

    def __init__(self, shell: Any, session: Session) -> None:
        super().__init__(shell)
        self.shell: Any = shell
        self.session = session

    @line_magic
    def promote(self, line: str) -> None:
        """Package this notebook, and make it the next version of its deployment."""
        if self.session.headless:
            display.show_note(self.shell, "A runner executes this notebook: it is not promoted.", colour=display.AMBER)
            return
        # What packages a notebook, only this magic needs.
        from kitaru_nb.client import KitaruClient
        from kitaru_nb.promote.building import build

        options = _Options(line)
        path = self._saved_notebook()
        runtime = self.session.runtime
        client = KitaruClient(stack=options.stack) if options.stack else KitaruClient(runtime)
        snapshot = build(
            client.runtime,
            path,
            name=options.name,
            rehearse=options.rehearse,
            evidence=self._evidence(),
            recorded=runtime,
        )
        if options.dry_run:
            self._show(snapshot, f"{snapshot.manifest.flow}: what would ship", "Nothing was stored.")
            return
        deployments: Deployments = client.deployments
        made = deployments.add(snapshot, tags=options.tags, stack=options.stack, source=path)
        elsewhere = client.runtime.settings.journal_url != runtime.settings.journal_url
        kitaru = f"KITARU_STACK={made.stack} kitaru" if elsewhere else "kitaru"
        tags = ", ".join(made.tags)
        note = (
            f"Tags: {tags}."
            if tags
            else f"No tag routes to it yet: {kitaru} deployments tag {made.flow} {made.version} prod"
        )
        start = f"{kitaru} {_invoking(snapshot, made.tags)}"
        self._show(snapshot, f"{made.flow} v{made.version} is deployed", f"{note} Start it: {start}")

    def _saved_notebook(self) -> Path:
        """The notebook's file, which must hold the cell that is running.

        Raises:
            KitaruUsageError: there is none, or it is older than what the front end shows.
        """
        path = self.session.path
        if path is None or not path.exists():
            where = "has no file that this kernel knows" if path is None else f"is not saved: there is no {path}"
            raise KitaruUsageError(f"This notebook {where}.", fix="save the notebook, then run %promote again")
        running = self._raw(-1)
        if running and running.strip() not in _sources(path):
            raise KitaruUsageError(
                f"{path.name} is not saved: the file does not have the cell that runs now.",
                fix="save the notebook (Ctrl+S), then run %promote again",
            )
        return path

    def _raw(self, at: int) -> str:
        """Source of a cell that ran; the last is the one that runs this magic."""
        history = self.shell.history_manager
        return str(history.input_hist_raw[at]) if history is not None and history.input_hist_raw else ""

    def _evidence(self) -> Any:
        from kitaru_nb.promote.checks import Evidence

        history = self.shell.history_manager
        raw = list(history.input_hist_raw) if history is not None else []
        sources = {count: source for count, source in enumerate(raw) if count}
        return Evidence(sources, frozenset(n for n in self.shell.user_ns if not n.startswith("_")))

    def _show(self, snapshot: Snapshot, title: str, note: str) -> None:
        manifest = snapshot.manifest
        inputs = manifest.parameters.get("properties", {})
        rows = [("inputs", ", ".join(_input(n, s) for n, s in inputs.items()) or "none")]
        rows += [("checkpoints", ", ".join(str(c["name"]) for c in manifest.checkpoints) or "none")]
        rows += [("waits", ", ".join(str(w["name"]) for w in manifest.waits))] if manifest.waits else []
        rows += [("secrets, by name", ", ".join(manifest.secrets))] if manifest.secrets else []
        files = [p for p in sorted(snapshot.files) if not p.startswith(WHEELS)]
        rows += [("files", ", ".join(files)), ("packages", f"{len(manifest.packages)} locked")]
        wheels = [Path(p).name.split("-")[0] for p in sorted(snapshot.files) if p.startswith(WHEELS)]
        rows += [("wheels inside", ", ".join(wheels))] if wheels else []
        if manifest.certificate is not None:
            rows += [("rehearsed", f"{len(manifest.certificate['checkpoints'])} checkpoints gave what was recorded")]
        metadata = {"deployment": manifest.flow, "digest": snapshot.digest}
        display.show_table(self.shell, title, ("part", "what ships"), rows, note=note, metadata=metadata)


class _Options:
    """The words of ``%promote``."""

    def __init__(self, line: str) -> None:
        words = split(line)
        self.name: str | None = None
        self.tags: list[str] = []
        self.stack: str | None = None
        self.dry_run = self.rehearse = False
        while words:
            self._take(words)

    def _take(self, words: list[str]) -> None:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if word == "--dry-run":
            self.dry_run = True
        elif word == "--rehearse":
            self.rehearse = True
        elif option in ("--tag", "--stack"):
            if not equals:
                if not words:
                    raise KitaruUsageError(f"{option} needs a value.", fix=f"%promote {option} prod")
                value = words.pop(0)
            if option == "--tag":
                self.tags.append(value)
            else:
                self.stack = value
        elif word.startswith("-") or self.name is not None:
            raise KitaruUsageError(f"%promote can't take {word!r}; expected {_USAGE}.", fix="%promote --tag prod")
        else:
            self.name = word


def _sources(path: Path) -> set[str]:
    from kitaru_nb.cells.notebook import read_notebook

    return {str(cell.source).strip() for cell in read_notebook(path).cells}


def _input(name: str, schema: Any) -> str:
    kind = schema.get("type", "any")
    return f"{name}: {kind} = {schema['default']!r}" if "default" in schema else f"{name}: {kind}"


def _invoking(snapshot: Snapshot, tags: tuple[str, ...]) -> str:
    flow = snapshot.manifest.flow
    tag = next((t for t in tags if t != DEFAULT), None)
    return f"invoke {flow}" + (f" --tag {tag}" if tag else "")
