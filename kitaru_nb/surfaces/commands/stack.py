"""``kitaru stack``: where flows run and keep their state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kitaru_nb.surfaces.console import Answer, QuickGroup, command, spinner
from kitaru_nb.surfaces.render import Block, Column, Line, Span, Table, command_line, line

app = typer.Typer(
    cls=QuickGroup,
    name="stack",
    help="Stacks: where flows run and keep their state.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

StackName = Annotated[str, typer.Argument(metavar="NAME")]


@command(app, "stack.create")
def create(
    name: StackName,
    runner: Annotated[str, typer.Argument(metavar="RUNNER", help="process, kubernetes, aws, gcp or azure")],
    journal: Annotated[
        str | None,
        typer.Option(metavar="URL", help="e.g. postgresql://kitaru:${PGPASSWORD}@host/db; default: the home's."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="e.g. s3://bucket/folder; default: the home's.")
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Of submitted checkpoints: threads, dask or dask://HOST:PORT."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="Of the runner, e.g. image=…; JSON, else text."),
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="A variable of workers; repeatable.")
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="NAME=REFERENCE", help="A variable from the platform's secrets; repeatable."),
    ] = None,
) -> Answer:
    """Make a stack, or write it anew. Nothing is started."""
    from kitaru_nb.stacks.definition import find_stack, parse_stack, runner_for, save_stack
    from kitaru_nb.surfaces.commands.actions import pairs

    fields: dict[str, Any] = {"runner": runner, "options": pairs("--option", options)}
    fields |= {"journal": journal, "store": store, "executor": executor}
    fields["environment"] = {n: str(v) for n, v in pairs("--env", environment).items()}
    fields["secrets"] = {n: str(v) for n, v in pairs("--secret", secrets).items()}
    stack = parse_stack(name, fields, "the command")
    runner_for(stack)
    path = save_stack(stack)
    blocks: list[Block] = [
        Line((Span(name, "bold"), Span(f"  is kept in {path}"))),
        command_line("check", f"kitaru stack check {name}"),
        command_line("use", f"kitaru stack use {name}"),
    ]
    return Answer(blocks, item=_item(find_stack(name)))


@command(app, "stack.list")
def list_() -> Answer:
    """List the stacks. The one in use is marked."""
    from kitaru_nb.config import load_settings
    from kitaru_nb.core.runners import BUILT_IN
    from kitaru_nb.stacks.definition import find_stack, stack_names

    used = load_settings().stack
    found = [find_stack(name) for name in [*BUILT_IN, *stack_names()]]
    rows = [
        (
            Span("●" if s.name == used else " ", "green"),
            Span(s.name, "bold"),
            Span("thread" if s.name == "local" else s.runner),
            Span(s.journal or "home", "dim"),
            Span(s.store or "home", "dim"),
        )
        for s in found
    ]
    columns = (
        Column(""),
        Column("NAME"),
        Column("RUNNER"),
        Column("JOURNAL", flexible=True),
        Column("STORE", flexible=True),
    )
    return Answer([Table(columns, rows)], items=[_item(s) | {"used": s.name == used} for s in found])


@command(app, "stack.show")
def show(name: StackName) -> Answer:
    """Show a stack's definition."""
    import yaml

    from kitaru_nb.stacks.definition import find_stack

    item = _item(find_stack(name))
    text = yaml.safe_dump({k: v for k, v in item.items() if v}, sort_keys=False)
    return Answer([line(t) for t in text.splitlines()], item=item)


@command(app, "stack.use")
def use(name: StackName) -> Answer:
    """Make a stack the one in use.

    Flows run on it, and commands look at it, that name none. ``local`` is the one without."""
    from kitaru_nb.stacks.definition import use_stack

    path = use_stack(name)
    return Answer([Line((Span(name, "bold"), Span(f"  is in use, says {path}")))], item={"name": name})


@command(app, "stack.check")
def check(
    name: StackName,
    run: Annotated[bool, typer.Option("--run", help="Also have a worker run a small flow there, to its end.")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long that worker may take.")] = 600.0,
) -> Answer:
    """Try each part of a stack.

    That is its journal, its artifact store, and what its runner may do."""
    from kitaru_nb.stacks.checking import check_stack, try_worker

    findings = check_stack(name)
    if run and all(found.ok for found in findings):
        with spinner(f"a worker of {name} runs a small flow"):
            findings.append(try_worker(name, timeout))
    blocks: list[Block] = []
    for found in findings:
        glyph, style = ("✓", "green") if found.ok else ("✗", "red")
        blocks.append(Line((Span(f"{glyph} ", style), Span(found.what), Span(f"  {found.seen}", "dim"))))
        if not found.ok and found.fix:
            blocks.append(command_line("fix", found.fix))
    items = [{"what": f.what, "ok": f.ok, "seen": f.seen, "fix": f.fix} for f in findings]
    return Answer(blocks, items=items, code=0 if all(f.ok for f in findings) else 1)


@command(app, "stack.dockerfile")
def dockerfile(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A stack; default: the one in use.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Write it there instead of printing it.")
    ] = None,
    deployment: Annotated[
        str | None,
        typer.Option(metavar="FLOW@TAG", help="With the packages of a deployment: its lock is written beside FILE."),
    ] = None,
    extras: Annotated[
        list[str] | None,
        typer.Option("--extra", metavar="NAME", help="Of kitaru-nb, e.g. anthropic for a flow's adapter; repeatable."),
    ] = None,
) -> Answer:
    """Print a Dockerfile for the workers of a stack.

    With what its journal, its store and its runner need."""
    from kitaru_nb.config import load_settings
    from kitaru_nb.errors import KitaruUsageError
    from kitaru_nb.stacks.definition import find_stack
    from kitaru_nb.stacks.image import dockerfile as dockerfile_of

    stack = find_stack(name or load_settings().stack)
    if deployment is None:
        files = {"Dockerfile": dockerfile_of(stack, extras or ()).encode()}
    elif extras:
        raise KitaruUsageError("A deployment has the packages of its lock, no others.", fix="leave out --extra")
    else:
        files = _files_of_deployment(name, deployment)
    text = files.pop("Dockerfile").decode()
    item = {"stack": stack.name, "deployment": deployment, "dockerfile": text}
    if file is None:
        return Answer([line(t) for t in text.splitlines()], item=item)
    try:
        for path, content in {file.name: text.encode(), **files}.items():
            (file.parent / path).parent.mkdir(parents=True, exist_ok=True)
            (file.parent / path).write_bytes(content)
    except OSError as error:
        raise KitaruUsageError(
            f"{error.filename} can't be written: {error.strerror}.", fix="--file Dockerfile"
        ) from error
    image = f"docker build --tag REGISTRY/worker:1 --file {file} {file.parent}"
    return Answer([line(f"The Dockerfile is in {file}."), command_line("build", image)], item=item)


def _files_of_deployment(stack: str | None, name: str) -> dict[str, bytes]:
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.promote.snapshot import LOCK, WHEELS
    from kitaru_nb.stacks.image import deployment_files

    snapshot = KitaruClient(stack=stack).deployments.snapshot(name)
    wheels = {path: content for path, content in snapshot.files.items() if path.startswith(WHEELS)}
    return deployment_files(snapshot.manifest.python, snapshot.files[LOCK].decode(), wheels)


@command(app, "stack.delete")
def delete(
    name: StackName,
    force: Annotated[
        bool, typer.Option("--force", help="Also while executions are on it, or its journal can't be asked.")
    ] = False,
) -> Answer:
    """Remove a stack's definition.

    What ran on it stays in its journal and store. A stack that an execution is on which has not ended stays."""
    from kitaru_nb.stacks.definition import delete_stack

    delete_stack(name, force=force)
    return Answer([line(f"{name} is deleted.")], item={"name": name})


def _item(stack: Any) -> dict[str, Any]:
    return {"name": stack.name, **stack.model_dump()}
