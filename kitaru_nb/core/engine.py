"""What happens next: history + call → effects. No I/O here.

`Engine.call` and `Engine.wait` are generators. They yield effects; a driver (`kitaru_nb.core.drive`) performs each one
and sends the result back, or throws what went wrong. The synchronous and the asynchronous driver perform the same
effects, so both write the same history.

Identity of a call = scope of the enclosing call + name + tokens of its inputs + how many times that same call came
before. So concurrent calls need no fixed order, and a recorded answer is found again exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.context import Frame
from kitaru_nb.core.retry import Retry, is_fatal
from kitaru_nb.core.work import TakesArguments
from kitaru_nb.errors import KitaruDivergenceError, KitaruUsageError
from kitaru_nb.model import Event

if TYPE_CHECKING:
    from kitaru_nb.core.work import Work


@dataclass(slots=True)
class Input:
    """One input of a call: its value, its token, and tokens of its parts (to find where they came from)."""

    name: str
    value: Any
    token: str | None
    parts: Sequence[str] = ()


@dataclass(slots=True)
class Call:
    """One call of a checkpoint. ``work`` is what performs it (see `kitaru_nb.core.work`).

    ``overridden`` names the inputs whose values a replay gave instead of the flow.
    """

    call_id: str
    name: str
    work: Work
    frame: Frame
    inputs: Sequence[Input]
    retry: Retry
    type: str | None = None
    scope: str = ""
    place: int | None = None
    code: str | None = None
    cache_key: str | None = None
    sources: list[list[str]] = field(default_factory=list)
    after: tuple[str, ...] = ()
    inside: Frame | None = None
    overridden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Donor:
    """A completed call, of this execution or another one, whose outputs can be used again."""

    exec_id: str
    event: Event


@dataclass(slots=True)
class WaitRequest:
    """One wait. ``until`` is an instant in Unix seconds; ``timeout`` is for how many seconds a worker polls."""

    wait_id: str
    name: str
    question: str | None
    schema: Mapping[str, Any]
    metadata: Mapping[str, Any]
    timeout: float | None
    until: float | None
    frame: Frame
    after: tuple[str, ...] = ()


# Effects. What a driver does with each is in kitaru_nb.core.run.
@dataclass(slots=True)
class Load:
    """Give back the value that ``donor`` recorded."""

    call: Call
    donor: Donor


@dataclass(slots=True)
class Find:
    """Look for a call with this cache key in any execution; result: Donor or None."""

    cache_key: str


@dataclass(slots=True)
class Invoke:
    """Run the user's code; result: its value."""

    call: Call
    attempt: int


@dataclass(slots=True)
class Complete:
    """Persist the value and record that the call completed."""

    call: Call
    value: Any
    attempt: int


@dataclass(slots=True)
class Adopt:
    """Record that the call is completed with what ``donor`` recorded."""

    call: Call
    donor: Donor
    overridden: bool = False


@dataclass(slots=True)
class Fail:
    """Record a failed attempt; ``retry_in`` None means it was the last."""

    call: Call
    error: Exception | SystemExit
    attempt: int
    retry_in: float | None


@dataclass(slots=True)
class Sleep:
    """Pause for some seconds."""

    seconds: float


@dataclass(slots=True)
class Ask:
    """Record a new wait."""

    wait: WaitRequest


@dataclass(slots=True)
class Answer:
    """Record the answer of a wait that a replay already has."""

    wait: WaitRequest
    value: Any
    by: str
    via: str


@dataclass(slots=True)
class Park:
    """Poll for the answer, then let go. Result: the body of ``wait.resolved``."""

    wait: WaitRequest


Effect = Load | Find | Invoke | Complete | Adopt | Fail | Sleep | Ask | Answer | Park


@dataclass(slots=True)
class ReplayPlan:
    """What a replay takes from its original (see `kitaru_nb.core.replay`).

    Attributes:
        rerun: call ids that must run again although their inputs are equal; ``entered`` only because of calls inside.
        overrides: call id → event whose outputs replace those of the call.
        arguments: call id → values of its inputs that it runs with instead of the flow's.
        override_places: (name, number on the main line of the flow, or None when it is the only call of its name) →
            call id in ``overrides`` or ``arguments``: finds the call when what came before it has changed, and its id
            with it.
        donors: call id → completed event of the original.
        answers: wait id → body of the original's ``wait.resolved``, for waits that needn't be asked again.
        questions: wait id → the question that was answered.
        wait_overrides: wait name or id → value.
        closed: nothing may run that the original did not record: a rehearsal.
    """

    original: str
    rerun: frozenset[str] = frozenset()
    entered: frozenset[str] = frozenset()
    overrides: Mapping[str, Event] = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    override_places: Mapping[tuple[str, int | None], str] = field(default_factory=dict)
    donors: Mapping[str, Event] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    questions: Mapping[str, Any] = field(default_factory=dict)
    wait_overrides: Mapping[str, Any] = field(default_factory=dict)
    closed: bool = False

    def target(self, among: Mapping[str, Any], call_id: str, name: str, place: int | None) -> str | None:
        """The call of the original in ``among`` that a call repeats; ``place`` is its number on the main line."""
        if not among or call_id in among:
            return call_id if among else None
        target = self.override_places.get((name, None)) or self.override_places.get((name, place))
        return target if target in among else None


class Engine:
    """The decisions of one execution. Thread-safe.

    Attributes:
        completed, failed: call id → event of calls that ended, well or with their last attempt.
        failures: call id → how many attempts have failed; ``forgiven`` of them no longer count against its retries.
        asked, resolved: wait id → event.
        cancel: the request to cancel that hasn't been honoured yet.
        divergence: the error that every further call raises again.
        fresh: whether a replay has something that its original had not, so that old answers no longer count.
        last_seq: up to here others' events have been looked at.
    """

    def __init__(self, exec_id: str, history: Sequence[Event] = (), plan: ReplayPlan | None = None) -> None:
        self.exec_id = exec_id
        self.plan = plan
        self.fresh = False
        self.lock = threading.Lock()
        self.completed: dict[str, Event] = {}
        self.failed: dict[str, Event] = {}
        self.failures: dict[str, int] = {}
        self.places: dict[tuple[str, str, int], str] = {}
        self.asked: dict[str, Event] = {}
        self.resolved: dict[str, Event] = {}
        self.saved: set[tuple[str, str, str]] = set()
        self.producers: dict[str, str] = {}
        self.generations: dict[str, int] = {}
        self.parents: dict[str, str] = {}
        self.forgiven: dict[str, int] = {}
        self.cancel: Event | None = None
        self.divergence: KitaruDivergenceError | None = None
        self.last_seq = 0
        for event in history:
            self.take(event)
            self.last_seq = event.seq

    # history

    def take(self, event: Event) -> None:
        """Account for one recorded event."""
        kind = event.kind
        if kind == "checkpoint.completed":
            self._take_completed(event)
        elif kind == "checkpoint.failed":
            self._take_failed(event)
        elif kind == "execution.failed":
            # A retry runs again what failed; a mere resume doesn't (the flow may have handled it).
            self._forgive(lambda _: True)
            self.cancel = None
        elif kind == "wait.created":
            self.asked[event.key] = event
        elif kind == "wait.resolved":
            self.resolved[event.key] = event
        elif kind in ("execution.cancel", "execution.cancelled"):
            self.cancel = event
        elif kind == "artifact.saved":
            artifact = event.body["artifact"]
            self.saved.add((event.key, artifact["digest"], event.body.get("call", "")))

    def _take_completed(self, event: Event) -> None:
        body, key = event.body, event.key
        self.completed[key] = event
        self.failed.pop(key, None)
        self.fresh = self.fresh or "reused" not in body or "overridden" in body
        if (place := body.get("place")) is not None:
            self.places[body.get("within", body.get("parent", "")), body["name"], place] = key
        if "cell" in body:
            self.generations[body["name"]] = self.generations.get(body["name"], 0) + 1

    def _take_failed(self, event: Event) -> None:
        body, key = event.body, event.key
        self.fresh = True
        self.failures[key] = self.failures.get(key, 0) + 1
        self.parents[key] = body.get("parent", "")
        if body["final"]:
            self.failed[key] = event
        # The next attempt runs what failed inside this one again; what completed inside is kept.
        self._forgive(lambda other: self._is_inside(other, key))

    def _is_inside(self, call_id: str, outer: str) -> bool:
        parent = self.parents.get(call_id, "")
        return parent == outer or (parent != "" and self._is_inside(parent, outer))

    def forgive(self, only: str | None = None) -> None:
        """A person runs things again: what failed so far is tried again, and no longer counts against its retries.

        ``only``: one call, because a library that retries by itself asks for it once more.
        """
        self._forgive(lambda call_id: only in (None, call_id))

    def _forgive(self, chosen: Callable[[str], bool]) -> None:
        for call_id, failures in self.failures.items():
            if chosen(call_id):
                self.failed.pop(call_id, None)
                self.forgiven[call_id] = failures

    def produced(self, token: str | None, source: str) -> None:
        """Remember that the value with this token came from ``source``, for the edges of lineage."""
        if token is not None:
            self.producers[token] = source

    # identity

    def identify(
        self, frame: Frame, name: str, inputs: Sequence[Input], explicit: str | None = None
    ) -> tuple[str, int | None]:
        """(call id, place on the main line or None) of a call made now in ``frame``."""
        tokens = [i.token or f"?{i.name}:{type(i.value).__qualname__}" for i in inputs]
        if explicit is not None:
            tokens += ("id", explicit)
        base = digest(frame.scope, name, *tokens)
        with self.lock:
            n = frame.seen[base]
            frame.seen[base] = n + 1
            place = None
            if frame.strict and frame.on_main_line():
                place = frame.places[name]
                frame.places[name] = place + 1
        return (base if n == 0 else digest(base, str(n))), place

    def trace(self, inputs: Sequence[Input]) -> list[list[str]]:
        """For each input the calls, waits or flow inputs that it came from."""
        producers = self.producers
        found = []
        for given in inputs:
            source = producers.get(given.token) if given.token else None
            if source is not None:
                found.append([source])
            else:
                found.append(list(dict.fromkeys(producers[p] for p in given.parts if p in producers)))
        return found

    # decisions

    def call(self, call: Call) -> Generator[Effect, Any, Any]:
        """All that happens when a checkpoint is called. Returns its value; raises what it raised."""
        if (recorded := self.completed.get(call.call_id)) is not None:
            return (yield Load(call, Donor(self.exec_id, recorded)))
        self._check_place(call)
        overriding = self._override(call)
        donor = overriding or self._donor(call)
        if self._take_arguments(call):
            donor = None
        elif donor is None and call.cache_key is not None and self.plan is None:
            donor = yield Find(call.cache_key)
        if donor is not None:
            yield Adopt(call, donor, overriding is not None)
            return (yield Load(call, donor))
        if (failed := self.failed.get(call.call_id)) is not None:
            raise call.work.recorded_failure(failed)
        if self.plan is not None and self.plan.closed:
            raise self._unrecorded(call, self.plan)
        return (yield from self._attempts(call))

    def _unrecorded(self, call: Call, plan: ReplayPlan) -> KitaruDivergenceError:
        """The error of a rehearsal that asks for something new."""
        same = [e.body for e in plan.donors.values() if e.body.get("name") == call.name]
        why = "it was never recorded"
        if same:
            changed = same[-1].get("code") != call.code
            why = "its code changed" if changed else first_difference(same[-1].get("inputs", ()), call.inputs)
        self.divergence = KitaruDivergenceError(
            f"Checkpoint {call.name!r} would run here, though {plan.original} recorded no such call: {why}.",
            fix="run the notebook again from the top, and rehearse again",
        )
        return self.divergence

    def _attempts(self, call: Call) -> Generator[Effect, Any, Any]:
        failures = self.failures.get(call.call_id, 0)
        forgiven = self.forgiven.get(call.call_id, 0)
        while True:
            attempt = failures + 1
            try:
                value = yield Invoke(call, attempt)
                yield Complete(call, value, attempt)
            except (Exception, SystemExit) as error:
                if is_fatal(error):
                    raise
                failures += 1
                retry_in = call.retry.delay_after(error, failures - forgiven)
                yield Fail(call, error, attempt, retry_in)
                if retry_in is None:
                    raise
                yield Sleep(retry_in)
            else:
                return value

    def _override(self, call: Call) -> Donor | None:
        plan = self.plan
        if plan is None or (target := self._target(plan, call, plan.overrides)) is None:
            return None
        return Donor(plan.original, plan.overrides[target])

    def _take_arguments(self, call: Call) -> bool:
        """Whether the call runs with other arguments than the flow's; it has them then."""
        plan = self.plan
        if plan is None or (target := self._target(plan, call, plan.arguments)) is None:
            return False
        if not isinstance(call.work, TakesArguments):
            raise KitaruUsageError(
                f"{call.name!r} can't run with other arguments.", fix=f"overrides={{'checkpoint.{call.name}': value}}"
            )
        call.work.with_arguments(call, plan.arguments[target])
        call.cache_key = None
        return True

    def _target(self, plan: ReplayPlan, call: Call, among: Mapping[str, Any]) -> str | None:
        return plan.target(among, call.call_id, call.name, None if call.frame.call_id else call.place)

    def _donor(self, call: Call) -> Donor | None:
        plan = self.plan
        if plan is None:
            return None
        recorded = plan.donors.get(call.call_id)
        if recorded is None or call.call_id in plan.rerun or recorded.body.get("code") != call.code:
            return None
        return Donor(recorded.exec_id, recorded)

    def _check_place(self, call: Call) -> None:
        # A further attempt at the enclosing checkpoint may take another way than the one that failed.
        if call.place is None or call.frame.attempt > 1:
            return
        other = self.places.get((call.frame.scope, call.name, call.place))
        if other is None or other == call.call_id:
            return
        recorded = self.completed[other].body
        self.divergence = KitaruDivergenceError(
            f"Checkpoint {call.name!r} (call {call.place + 1} of this name) was recorded with other inputs: "
            f"{first_difference(recorded.get('inputs', ()), call.inputs)}. A resumed execution must ask for the same "
            "calls; the flow's code or something that it reads from outside has changed.",
            fix=f"kitaru executions replay {self.exec_id} --from {call.name}",
        )
        raise self.divergence

    def wait(self, wait: WaitRequest) -> Generator[Effect, Any, Mapping[str, Any]]:
        """All that happens at a wait. Returns the body of its ``wait.resolved``."""
        if (resolved := self.resolved.get(wait.wait_id)) is not None:
            self._check_question(wait)
            return resolved.body
        answer = None
        if wait.wait_id not in self.asked:
            answer = self._known_answer(wait)
            yield Ask(wait)
        body: Mapping[str, Any] = (yield Park(wait)) if answer is None else (yield answer)
        return body

    def _known_answer(self, wait: WaitRequest) -> Answer | None:
        """What a replay answers by itself: an override, or the original's answer while nothing before it is new."""
        plan = self.plan
        if plan is None:
            return None
        for selector in (wait.wait_id, wait.name):
            if selector in plan.wait_overrides:
                return Answer(wait, plan.wait_overrides[selector], "replay", f"override of {plan.original}")
        known = plan.answers.get(wait.wait_id)
        if known is None or self.fresh or plan.questions.get(wait.wait_id) != wait.question:
            return None
        return Answer(wait, known.get("value"), known["by"], f"reused from {plan.original}")

    def _check_question(self, wait: WaitRequest) -> None:
        asked = self.asked.get(wait.wait_id)
        if asked is not None and asked.body.get("question") != wait.question:
            self.divergence = KitaruDivergenceError(
                f"Wait {wait.name!r} was answered for another question: {asked.body.get('question')!r} was asked, now "
                f"it is {wait.question!r}. An answer must not count for something that its giver didn't see.",
                fix=f"kitaru executions replay {self.exec_id} --from {wait.name}",
            )
            raise self.divergence


def digest(*parts: str) -> str:
    """20 hexadecimal characters that identify a sequence of strings."""
    text = "\0".join(parts)
    # Naming an encoding costs as much as hashing does.
    data = text.encode() if text.isascii() else text.encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=10).hexdigest()


def first_difference(recorded: Sequence[Sequence[Any]], inputs: Sequence[Input]) -> str:
    """The first input that differs from what was recorded, in words."""
    before = {name: (token, preview) for name, token, preview, *_ in recorded}
    for given in inputs:
        if given.name not in before:
            return f"input {given.name!r} is new"
        token, shown = before.pop(given.name)
        if token != given.token:
            return f"input {given.name!r} was {shown}, now it is {repr(given.value)[:80]}"
    for name in before:
        return f"input {name!r} is gone"
    return "the call itself has changed"
