"""``kitaru artifacts``: what executions recorded. Nothing here loads a value: stored bytes and previews only."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.model import Artifact
from kitaru_nb.surfaces.commands.executions import ExecutionId
from kitaru_nb.surfaces.console import Answer, QuickGroup, command, is_machine, record
from kitaru_nb.surfaces.render import line, size

if TYPE_CHECKING:
    from kitaru_nb.client import KitaruClient

app = typer.Typer(
    cls=QuickGroup, name="artifacts", help="List and read recorded values.", no_args_is_help=True, rich_markup_mode=None
)

#: Up to this size a text is printed whole.
_WHOLE = 64 * 1024


@command(app, "artifacts.list")
def list_(
    execution: ExecutionId,
    name: Annotated[str | None, typer.Option(help="Only artifacts of this name.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only: prompt, response, context, input, output or blob.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many.")] = None,
) -> Answer:
    """List the artifacts of an execution.

    They come in the order in which they were made."""
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.surfaces.detail import artifacts_blocks

    client = KitaruClient()
    exec_id = client.executions.resolve(execution)
    found = client.artifacts.list(exec_id, name=name, kind=kind, limit=limit)
    chosen = (name, kind) != (None, None)
    return Answer(artifacts_blocks(found, exec_id, chosen=chosen), items=[record(artifact) for artifact in found])


@command(app, "artifacts.get", takes_path=True)
def get(
    artifact: Annotated[str, typer.Argument(metavar="ID", help="An artifact's id, or EXECUTION/NAME.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the stored bytes here; - is stdout.")
    ] = None,
) -> Answer:
    """Show an artifact, or write its stored bytes to a file.

    The bytes are verified; nothing is unpickled."""
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.surfaces.detail import artifact_blocks

    execution, slash, name = artifact.partition("/")
    if not slash:
        raise typer.BadParameter(f"{artifact!r} names no artifact; expected EXECUTION/NAME, such as latest/result.")
    client = KitaruClient()
    found = client.artifacts.get(f"{client.executions.resolve(execution)}/{name}")
    if output is not None:
        return _written(client, found, output)
    item = record(found) if is_machine() else None
    return Answer(artifact_blocks(found, *_readable(client, found)), item=item)


def _written(client: KitaruClient, artifact: Artifact, output: Path) -> Answer:
    with client.runtime.store.open(artifact) as stored:
        if str(output) == "-":
            shutil.copyfileobj(stored, sys.stdout.buffer)
            raise typer.Exit(0)
        try:
            with output.open("wb") as target:
                shutil.copyfileobj(stored, target)
        except OSError as error:
            raise KitaruUsageError(
                f"{output} can't be written: {error.strerror or error}.",
                fix=f"kitaru artifacts get {artifact.artifact_id} --output ANOTHER_FILE",
            ) from error
    text = f"{size(artifact.size)} ({artifact.media_type}) written to {output}"
    return Answer([line(text)], item={**record(artifact), "output": str(output.absolute())})


def _readable(client: KitaruClient, artifact: Artifact) -> tuple[str, str]:
    """(text to show, note on what isn't shown): all of a text or of JSON, of other things the preview."""
    preview = str(artifact.preview.get("text", ""))
    write = f"kitaru artifacts get {artifact.artifact_id} --output FILE"
    is_text = artifact.media_type.startswith("text/") or artifact.media_type == "application/json"
    if not is_text:
        return preview, f"This is a preview. All {size(artifact.size)}: {write}"
    if artifact.size > _WHOLE:
        return preview, f"This is the beginning. All {size(artifact.size)}: {write}"
    text = client.runtime.store.read_bytes(artifact).decode("utf-8", "replace")
    if artifact.media_type == "application/json":
        try:
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return text, ""  # written by a serializer of a user, or too deep to be laid out
    return text, ""
