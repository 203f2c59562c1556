"""Replay: a new execution made from an old one. Chosen checkpoints and what depends on them run again, the rest is
reused by reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kitaru_nb.core.answers import validate
from kitaru_nb.core.arguments import pack_arguments, read_arguments
from kitaru_nb.core.engine import ReplayPlan
from kitaru_nb.core.lineage import downstream, enclosing
from kitaru_nb.core.run import Run
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruNotFoundError, KitaruUsageError
from kitaru_nb.journal.fold import fold, pack_artifact
from kitaru_nb.model import CheckpointCall, Event, Execution, Wait

Scope = Literal["downstream", "after"]


@dataclass(frozen=True, slots=True)
class ReplayPreview:
    """What a replay would do, before anything runs.

    Attributes:
        runs: selectors of the calls that run again for certain; others follow when their inputs turn out different.
        enters: calls around those, whose bodies run again while what they finished inside is reused.
        reused: selectors of the calls whose outputs are reused.
        arguments: selectors of the calls that run again with other arguments.
        asks: names of waits that are asked again.
        tokens_saved, cost_saved, seconds_saved: sums over the reused calls (outermost ones, for seconds).
    """

    original_exec_id: str
    runs: tuple[str, ...]
    enters: tuple[str, ...]
    reused: tuple[str, ...]
    overridden: tuple[str, ...]
    asks: tuple[str, ...]
    tokens_saved: int
    cost_saved: float
    seconds_saved: float
    arguments: tuple[str, ...] = ()


@dataclass(slots=True)
class Replay:
    """A planned replay: the JSON body that the new execution keeps of it, with its blob, and the preview."""

    body: dict[str, Any]
    preview: ReplayPreview
    blob: bytearray = field(default_factory=bytearray)


def plan_replay(
    runtime: Runtime,
    exec_id: str,
    *,
    from_: str | Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    scope: Scope = "downstream",
    changed_inputs: Sequence[str] = (),
    blob: bytearray | None = None,
) -> Replay:
    """Decide what runs again.

    Raises:
        KitaruNotFoundError: no such execution, or a selector that means nothing in it; lists what there is.
        KitaruUsageError: an ambiguous selector, an unknown kind of override, or nothing to run again.
    """
    execution = fold(runtime.journal.execution(exec_id), runtime.journal.history(exec_id))
    overrides = overrides or {}
    selectors = [from_] if isinstance(from_, str) else list(from_ or ())
    if not selectors and not overrides and not changed_inputs:
        raise KitaruUsageError(
            f"A replay of {exec_id} needs something to begin with: a checkpoint, an override or new inputs.",
            fix=f"kitaru executions replay {exec_id} --from {_first_selector(execution)}",
        )
    roots = [select(execution, s) for s in selectors]
    blob = bytearray() if blob is None else blob
    calls, waits, arguments = _overrides(runtime, execution, overrides, blob)
    rerun = downstream(execution, [*roots, *calls, *arguments, *(f"input:{name}" for name in changed_inputs)])
    if scope == "after":
        rerun |= _after(execution, [*roots, *calls, *arguments])
    passed_over = _with_children(execution, calls)
    if never := [c.selector for c in execution.checkpoints if c.call_id in arguments and c.call_id in passed_over]:
        raise KitaruUsageError(
            f"{never[0]!r} was given other arguments, but its outcome, or that of a call around it, is overridden too: "
            "it would never run.",
            fix=f"--override 'arguments.{never[0]}=...'  # alone",
        )
    rerun -= passed_over
    rewaits = _asked_again(execution, rerun | set(calls), [r for r in roots if r.startswith("wait:")])
    entered = enclosing(execution, [*rerun, *calls]) - rerun
    body = {
        "from": selectors,
        "scope": scope,
        "rerun": sorted(rerun | entered),
        "entered": sorted(entered),
        "overrides": calls,
        "arguments": arguments,
        "wait_overrides": waits,
        "reask": sorted(rewaits),
    }
    preview = _preview(execution, rerun, calls, rewaits, waits)
    given = tuple(c.selector for c in execution.checkpoints if c.call_id in arguments)
    return Replay(body, dataclasses.replace(preview, arguments=given), blob)


def load_plan(runtime: Runtime, created: Event) -> ReplayPlan | None:
    """The plan that the engine follows, from what the new execution keeps of it."""
    body = created.body.get("plan")
    if body is None:
        return None
    original = created.body["original"]
    donors: dict[str, Event] = {}
    bodies: dict[str, Mapping[str, Any]] = {}
    answers: dict[str, Mapping[str, Any]] = {}
    questions: dict[str, Any] = {}
    reask = set(body["reask"])
    for event in _donations(runtime, original):
        if event.kind in ("checkpoint.completed", "checkpoint.failed"):
            bodies[event.key] = event.body
            if event.kind == "checkpoint.completed":
                donors[event.key] = event
        elif event.exec_id != original:
            continue
        elif event.kind == "wait.created":
            questions[event.key] = event.body.get("question")
        elif event.kind == "wait.resolved" and event.key not in reask and not event.body.get("aborted"):
            answers[event.key] = event.body
    overrides = {
        call_id: Event(original, "checkpoint.completed", call_id, created.at, {"outputs": outputs}, created.blob)
        for call_id, outputs in body["overrides"].items()
    }
    packed = body.get("arguments", {})
    return ReplayPlan(
        original=original,
        rerun=frozenset(body["rerun"]),
        entered=frozenset(body.get("entered", ())),
        overrides=overrides,
        arguments={call_id: read_arguments(runtime, values, created) for call_id, values in packed.items()},
        override_places={_place(bodies, call_id): call_id for call_id in (*overrides, *packed)},
        donors=donors,
        answers=answers,
        questions=questions,
        wait_overrides=body["wait_overrides"],
        closed=body["scope"] == "rehearsal",
    )


def unused(run: Run, plan: ReplayPlan) -> list[str]:
    """What a replay that has ended was given for calls and waits that never came, by their names in the original."""
    engine = run.engine
    given = dict.fromkeys(plan.overrides, "checkpoint") | dict.fromkeys(plan.arguments, "arguments")
    for event in (*engine.completed.values(), *engine.failed.values()):
        place = None if event.body.get("parent") else event.body.get("place")
        given.pop(plan.target(given, event.key, event.body["name"], place) or "", None)
    asked = {name for event in engine.asked.values() for name in (event.key, event.body["name"])}
    waits = [f"wait.{name}" for name in plan.wait_overrides if name not in asked]
    if not given:
        return waits
    original = fold(run.journal.execution(plan.original), run.journal.history(plan.original))
    return [f"{given[c.call_id]}.{c.selector}" for c in original.checkpoints if c.call_id in given] + waits


def _donations(runtime: Runtime, original: str) -> Iterator[Event]:
    """The history of ``original``, after those of the executions that it replays itself: inside a call that it reused
    as a whole, only they know what was called."""
    history = runtime.journal.history(original)
    if (before := history[0].body.get("original")) is not None:
        yield from _donations(runtime, before)
    yield from history


def _place(bodies: Mapping[str, Mapping[str, Any]], call_id: str) -> tuple[str, int | None]:
    """Where a call stood: (name, number on the flow's main line), or (name, None) for the only one of its name."""
    body = bodies.get(call_id, {"name": call_id})
    place = None if body.get("parent") else body.get("place")
    alone = sum(other["name"] == body["name"] for other in bodies.values()) == 1
    return (body["name"], place) if place is not None or alone else (call_id, None)


def select(execution: Execution, selector: str) -> str:
    """The call id (or ``wait:ID``) that a selector means: ``name``, ``name#2``, a call id, or a wait's name.

    Raises:
        KitaruNotFoundError: it means nothing here.
        KitaruUsageError: it means several calls.
    """
    name, _, number = selector.partition("#")
    named = [c for c in execution.checkpoints if c.name == name]
    for call in execution.checkpoints:
        if selector == call.call_id:
            return call.call_id
    if number:
        wanted = f"{name}#{number}" if number != "1" else name
        matches = [c for c in named if c.selector == wanted]
    else:
        matches = named
    if len(matches) == 1:
        return matches[0].call_id
    if matches:
        choices = ", ".join(_numbered(c) for c in matches)
        raise KitaruUsageError(
            f"{selector!r} means {len(matches)} calls in {execution.exec_id}: {choices}.",
            fix=f"--from '{_numbered(matches[-1])}'",
        )
    for wait in execution.waits:
        if selector.removeprefix("wait.") in (wait.name, wait.wait_id):
            return f"wait:{wait.wait_id}"
    there = [c.selector for c in execution.checkpoints] + [f"{w.name} (wait)" for w in execution.waits]
    raise KitaruNotFoundError(
        f"{execution.exec_id} has no checkpoint {selector!r}. Available: {', '.join(there) or 'none'}.",
        fix=f"kitaru executions get {execution.exec_id}",
    )


def _numbered(call: CheckpointCall) -> str:
    return call.selector if "#" in call.selector else f"{call.selector}#1"


def _first_selector(execution: Execution) -> str:
    return execution.checkpoints[0].selector if execution.checkpoints else "CHECKPOINT"


def _overrides(
    runtime: Runtime, execution: Execution, overrides: Mapping[str, Any], blob: bytearray
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any], dict[str, dict[str, dict[str, Any]]]]:
    """({call id: packed outputs}, {wait name: value}, {call id: {input: packed value}})."""
    calls: dict[str, list[dict[str, Any]]] = {}
    waits: dict[str, Any] = {}
    arguments: dict[str, dict[str, dict[str, Any]]] = {}
    for key, value in overrides.items():
        kind, _, selector = key.partition(".")
        if kind == "wait" and selector:
            for wait in _waits_named(execution, selector):
                validate(wait, value)
            waits[selector] = value
        elif kind == "checkpoint" and selector:
            call = _call_named(execution, selector)
            calls[call.call_id] = [pack_artifact(a, blob) for a in _overriding(runtime, call, value)]
        elif kind == "arguments" and selector:
            call = _call_named(execution, selector)
            arguments[call.call_id] = pack_arguments(
                runtime, call, value, blob, takes=_takes(runtime, execution.exec_id, call.call_id)
            )
        else:
            raise KitaruUsageError(
                f"Override {key!r} can't be: expected 'checkpoint.NAME', 'arguments.NAME' or 'wait.NAME'.",
                fix=f"overrides={{'checkpoint.{_first_selector(execution)}': value}}",
            )
    return calls, waits, arguments


def _takes(runtime: Runtime, exec_id: str, call_id: str) -> Sequence[str]:
    """The inputs that a call of an agent said it could be given."""
    takes: Sequence[str] = ()
    for event in _donations(runtime, exec_id):
        if event.key == call_id and "takes" in event.body:
            takes = event.body["takes"]
    return takes


def _call_named(execution: Execution, selector: str) -> CheckpointCall:
    call_id = select(execution, selector)
    for call in execution.checkpoints:
        if call.call_id == call_id:
            return call
    raise KitaruUsageError(
        f"{selector!r} is a wait of {execution.exec_id}; only its answer can be overridden.",
        fix=f"overrides={{'wait.{selector.removeprefix('wait.')}': value}}",
    )


def _waits_named(execution: Execution, selector: str) -> list[Wait]:
    found = [w for w in execution.waits if selector in (w.name, w.wait_id)]
    if not found:
        there = ", ".join(f"wait.{w.name}" for w in execution.waits) or "none"
        raise KitaruNotFoundError(f"{execution.exec_id} has no wait {selector!r}. Available: {there}.")
    return found


def _overriding(runtime: Runtime, call: CheckpointCall, value: Any) -> list[Any]:
    variables = [name for a in call.artifacts for name in a.names]
    if not variables:
        return [runtime.store.write(value, name=call.name, producing_call=call.call_id)]
    if not isinstance(value, Mapping) or set(value) != set(variables):
        raise KitaruUsageError(
            f"The override of cell {call.name!r} is {value!r}; expected a mapping with the variables that the cell "
            f"sets: {', '.join(variables)}.",
            fix=f"overrides={{'checkpoint.{call.name}': {{{', '.join(repr(v) + ': ...' for v in variables)}}}}}",
        )
    return [
        runtime.store.write(item, name=name, names=(name,), producing_call=call.call_id) for name, item in value.items()
    ]


def _with_children(execution: Execution, calls: Iterable[str]) -> set[str]:
    """Calls, and all that was called inside them."""
    found = set(calls)
    for call in execution.checkpoints:  # a call starts before its children
        if call.parent in found:
            found.add(call.call_id)
    return found


def _after(execution: Execution, roots: Sequence[str]) -> set[str]:
    """Everything that started after the first of ``roots``, and that one itself."""
    instants = {call.call_id: call.started_at for call in execution.checkpoints}
    instants |= {f"wait:{wait.wait_id}": wait.created_at for wait in execution.waits}
    first = min((instant for root in roots if (instant := instants.get(root))), default=None)
    return {c.call_id for c in execution.checkpoints if first and c.started_at and c.started_at >= first}


def _asked_again(execution: Execution, new: set[str], roots: Sequence[str]) -> set[str]:
    """Waits after something that runs again or is overridden: old answers don't count for new results."""
    starts = [c.started_at for c in execution.checkpoints if c.call_id in new and c.started_at]
    first = min(starts, default=None)
    again = {r.removeprefix("wait:") for r in roots}
    for wait in execution.waits:
        if first is not None and wait.created_at >= first:
            again.add(wait.wait_id)
    return again


def _preview(
    execution: Execution, rerun: set[str], overridden: Mapping[str, Any], rewaits: set[str], waits: Mapping[str, Any]
) -> ReplayPreview:
    enters = enclosing(execution, [*rerun, *overridden]) - rerun - set(overridden)
    passed_over = _with_children(execution, overridden)
    reused = [c for c in execution.checkpoints if c.call_id not in rerun | enters | passed_over]
    kept = {c.call_id for c in reused}
    seconds = sum(c.duration or 0.0 for c in reused if c.parent not in kept)
    return ReplayPreview(
        execution.exec_id,
        runs=tuple(c.selector for c in execution.checkpoints if c.call_id in rerun),
        enters=tuple(c.selector for c in execution.checkpoints if c.call_id in enters),
        reused=tuple(c.selector for c in reused),
        overridden=tuple(c.selector for c in execution.checkpoints if c.call_id in overridden),
        asks=tuple(w.name for w in execution.waits if w.wait_id in rewaits and w.name not in waits),
        tokens_saved=sum(tokens_of(c) for c in reused),
        cost_saved=round(sum(float(c.metadata.get("cost") or 0) for c in reused), 6),
        seconds_saved=round(seconds, 3),
    )


def tokens_of(call: CheckpointCall) -> int:
    """Tokens that a call logged: ``tokens``, or input plus output tokens."""
    return tokens_in(call.metadata)


def tokens_in(metadata: Mapping[str, Any]) -> int:
    """Tokens in the metadata of a call; see `tokens_of`."""
    if "tokens" in metadata:
        return int(metadata["tokens"])
    return int(metadata.get("input_tokens") or 0) + int(metadata.get("output_tokens") or 0)
