"""``kitaru promote`` and ``kitaru deploy``: a notebook or a flow becomes the next version of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kitaru_nb.surfaces.commands.actions import pairs
from kitaru_nb.surfaces.commands.deployments import typed_inputs
from kitaru_nb.surfaces.console import Answer, command, record, spinner
from kitaru_nb.surfaces.deployment_view import deployed_blocks, shipping_blocks

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow
    from kitaru_nb.promote.snapshot import Snapshot

app = typer.Typer(rich_markup_mode=None)

Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Routes to it from now on; repeatable.")]
Stack = Annotated[str | None, typer.Option(help="Where its executions run and are kept; default: the stack in use.")]
Name = Annotated[str | None, typer.Option(help="Of the flow; default: the file's or function's name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would ship; store nothing.")]


@command(app, "promote")
def promote(
    notebook: Annotated[Path, typer.Argument(metavar="NOTEBOOK.ipynb", help="The notebook.")],
    name: Name = None,
    tag: Tags = None,
    stack: Stack = None,
    dry_run: DryRun = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="First run it in a clean process against what was recorded.")
    ] = False,
) -> Answer:
    """Make a notebook the next version of its deployment."""
    return _create(notebook, name, tag, stack, dry_run=dry_run, rehearse=rehearse, defaults={})


@command(app, "deploy")
def deploy(
    target: Annotated[str, typer.Argument(metavar="FILE.py:FLOW", help="A flow in a script, or package.module:flow.")],
    name: Name = None,
    tag: Tags = None,
    stack: Stack = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="NAME=VALUE", help="What executions take when given no other; repeatable."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> Answer:
    """Make a flow under @flow the next version of its deployment."""
    if target.endswith(".ipynb"):
        return _create(
            Path(target), name, tag, stack, dry_run=dry_run, rehearse=False, defaults=pairs("--input", inputs)
        )
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.promote.functions import find_flow, input_schema

    flow = find_flow(KitaruClient(stack=stack).runtime, target)
    defaults = typed_inputs(input_schema(flow, {}), inputs)
    return _create(flow, name, tag, stack, dry_run=dry_run, rehearse=False, defaults=defaults)


def _create(
    target: Path | Flow[..., Any],
    name: str | None,
    tags: list[str] | None,
    stack: str | None,
    *,
    dry_run: bool,
    rehearse: bool,
    defaults: dict[str, Any],
) -> Answer:
    from kitaru_nb.cells.quick_import import without_grammars
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.promote.building import build

    with without_grammars():
        import nbformat
    assert nbformat  # what reads notebooks finds it loaded

    client = KitaruClient(stack=stack)
    here = KitaruClient().runtime
    with spinner(f"packages {target if isinstance(target, Path) else target.name}"):
        if dry_run:
            snapshot = build(client.runtime, target, name=name, rehearse=rehearse, defaults=defaults, recorded=here)
            return Answer(shipping_blocks(snapshot), item=_shipping(snapshot))
        made = client.deployments.create(
            target, name=name, tags=tags or (), stack=stack, rehearse=rehearse, recorded=here, inputs=defaults
        )
    elsewhere = client.runtime.settings.journal_url != here.settings.journal_url
    return Answer(deployed_blocks(made, elsewhere=elsewhere), item=record(made))


def _shipping(snapshot: Snapshot) -> dict[str, Any]:
    return {"digest": snapshot.digest, "size": len(snapshot.data), "manifest": record(snapshot.manifest)}
