"""Durable models: each answer is a checkpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agents import Model, ModelProvider, ModelResponse
from agents.exceptions import ModelBehaviorError
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent, ResponseUsage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from kitaru_nb.core.context import current
from kitaru_nb.core.retry import Retry
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, in_flow, perform_async, perform_stream
from kitaru_nb.surfaces.adapters.connections import for_every_loop
from kitaru_nb.surfaces.adapters.openai_agents import sdk
from kitaru_nb.surfaces.adapters.openai_agents.codec import gist, pack_response, unpack_response
from kitaru_nb.surfaces.adapters.openai_agents.describe import asking, model_name, request
from kitaru_nb.surfaces.adapters.openai_agents.line import Line, line
from kitaru_nb.surfaces.adapters.openai_agents.tracing import Link, linked
from kitaru_nb.surfaces.adapters.openai_agents.twins import Twins
from kitaru_nb.surfaces.adapters.prices import cost_of


class DurableModel:
    """What the twin of a model does otherwise."""

    __slots__ = ("kitaru_original",)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """The answer; from the record, when it was given before."""
        parent: Any = super()
        for_every_loop(getattr(self, "_client", None))
        at = line.get()
        if at is None:
            return await parent.get_response(*args, **kwargs)  # type: ignore[no-any-return]
        at.check()
        if not _recorded(at):
            response: ModelResponse = await parent.get_response(*args, **kwargs)
            at.bill.add(model_name(self), _cost(at, self, response.usage))
            return response
        turn = Turn(at, self, args, kwargs)

        async def body() -> ModelResponse:
            turn.link.live = True
            answer = await parent.get_response(*turn.args, **turn.kwargs)
            return unpack_response(pack_response(answer))

        with linked(turn.name) as turn.link:
            try:
                response = await perform_async(turn.operation, body)
            except Exception:
                turn.failed()
                raise
            turn.done(response)
        return response

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The answer in events. When it was given before, its text in one piece and the last event."""
        parent: Any = super()
        for_every_loop(getattr(self, "_client", None))
        at = line.get()
        if at is None:
            async for event in parent.stream_response(*args, **kwargs):
                yield event
            return
        at.check()
        turn = Turn(at, self, args, kwargs, streamed=True)

        def source() -> AsyncIterator[Any]:
            turn.link.live = True
            return parent.stream_response(*turn.args, **turn.kwargs)  # type: ignore[no-any-return]

        if not _recorded(at):
            async for event in source():
                if (answer := sdk.final_response(event, [])) is not None:
                    at.bill.add(model_name(self), _cost(at, self, answer.usage))
                yield event
            return
        stream = perform_stream(
            turn.operation,
            source,
            outcome=turn.answered,
            again=_events,
            last=lambda event: isinstance(event, ResponseCompletedEvent),
        )
        with linked(turn.name) as turn.link:
            try:
                async for event in stream:
                    if isinstance(event, ResponseCompletedEvent):
                        turn.done(turn.response or sdk.final_response(event, []))
                    yield event
            except Exception:
                turn.failed()
                raise
            finally:
                await stream.aclose()  # type: ignore[attr-defined]


class Turn:
    """One model call of a run."""

    def __init__(
        self, at: Line, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, streamed: bool = False
    ) -> None:
        self.at = at
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.agent = at.agent
        self.name = f"{at.agent}.model"
        self.place = at.places[at.agent]
        self.link = Link()
        self.response: ModelResponse | None = None
        self.inputs = request(model, args, kwargs)
        self.operation = self._operation(streamed)
        frame = current.get()
        # The SDK asks again after a failure of its own accord: that isn't the end of this call.
        if frame is not None and (again := at.failed.pop((self.agent, self.place), None)) is not None:
            frame.run.engine.forgive(again)

    def _operation(self, streamed: bool) -> Operation[ModelResponse]:
        policy = self.at.policy
        items = self.inputs.get("input", "")
        return Operation(
            self.name,
            "model_call",
            self.inputs,
            encode=self._keep,
            decode=unpack_response,
            place=self.place,
            held=not self.at.loose,
            shown=self._shown(),
            take=self._take,
            takes=tuple(self._asked()),
            reads={"input": self.at.sources(items)},
            # Events of a stream have been handed on before it fails, so it can't begin anew.
            retry=Retry() if streamed else policy.model.retry,
            timeout=policy.model.timeout,
        )

    def _take(self, values: Mapping[str, Any]) -> None:
        """A replay wants another request."""
        for name, value in values.items():
            if not isinstance(value, str) and (name == "instructions" or not isinstance(value, list)):
                expected = "text" if name == "instructions" else "text, or a list of input items"
                raise KitaruUsageError(
                    f"{name} of {self.name!r} is {value!r}; expected {expected}.",
                    fix=f"overrides={{'arguments.{self.name}': {{{name!r}: '...'}}}}",
                )
        self.inputs |= values
        self.args, self.kwargs = asking(self.args, self.kwargs, values)
        self.operation.shown = self._shown()

    def _shown(self) -> dict[str, Any]:
        capture = self.at.policy.capture
        if capture.redact is None:
            return {}
        return {name: capture.shown("prompt", value) for name, value in self._asked().items()}

    def _asked(self) -> dict[str, Any]:
        return {name: self.inputs[name] for name in ("instructions", "input") if name in self.inputs}

    def _keep(self, response: ModelResponse) -> Recorded:
        capture = self.at.policy.capture
        packed = pack_response(response)
        preview = gist(response)
        if capture.redact is None:
            parts = [Part("response", packed, "response", preview or None)]
        else:
            shown = capture.shown("response", packed)
            preview = str(shown)[:200]
            parts = [Part("record", packed, "blob", preview), Part("response", shown, "response")]
        if capture.prompts:
            parts.append(Part("prompt", capture.shown("prompt", self._asked()), "prompt"))
        usage = response.usage
        cached = getattr(usage.input_tokens_details, "cached_tokens", 0) or 0
        metadata: dict[str, Any] = {
            "model": self.inputs["model"],
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
        }
        more = {"cached_tokens": cached, "cost": _cost(self.at, self.model, usage)} | self.link.ids()
        return Recorded(parts, metadata | {name: value for name, value in more.items() if value})

    def answered(self, events: Sequence[Any]) -> ModelResponse:
        """The answer that a stream gave. Raises `ModelBehaviorError` when it ended without one."""
        items = [event.item for event in events if getattr(event, "type", "") == "response.output_item.done"]
        for event in reversed(events):
            if (answer := sdk.final_response(event, items)) is not None:
                self.response = unpack_response(pack_response(answer))
                return self.response
        raise ModelBehaviorError("Model did not produce a final response!")

    def done(self, response: ModelResponse | None) -> None:
        """The call is complete: the next one has the next place."""
        at, call_id = self.at, self.operation.call_id
        self.link.close(call_id)
        at.places[self.agent] += 1
        if response is None or call_id is None:
            return
        at.bill.add(self.inputs["model"], _cost(at, self.model, response.usage))
        for item in response.output:
            if (asked := getattr(item, "call_id", None)) is not None:
                at.makers[f"asked:{asked}"] = call_id
            at.makers[f"item:{getattr(item, 'id', None)}"] = call_id

    def failed(self) -> None:
        """The call failed for good, as far as it alone can tell."""
        self.link.close(self.operation.call_id)
        if self.operation.call_id is not None:
            self.at.failed[self.agent, self.place] = self.operation.call_id


def _recorded(at: Line) -> bool:
    return at.policy.records and at.policy.model.checkpoint and in_flow()


def _cost(at: Line, model: Any, usage: Any) -> float | None:
    name = model_name(model)
    if at.policy.cost is not None:
        return at.policy.cost(name, usage)
    cached = getattr(usage.input_tokens_details, "cached_tokens", 0) or 0
    return cost_of(name, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cached_tokens=cached)


def _events(response: ModelResponse) -> list[Any]:
    """A recorded answer as the events of a stream."""
    events: list[Any] = []
    items: list[Any] = list(response.output)
    for index, item in enumerate(items):
        if getattr(item, "type", None) != "message":
            continue
        for part, content in enumerate(item.content):
            if text := getattr(content, "text", None):
                events.append(
                    ResponseTextDeltaEvent(
                        type="response.output_text.delta",
                        delta=text,
                        item_id=item.id,
                        output_index=index,
                        content_index=part,
                        sequence_number=len(events),
                        logprobs=[],
                    )
                )
    return [
        *events,
        ResponseCompletedEvent(type="response.completed", response=_whole(response), sequence_number=len(events)),
    ]


def _whole(response: ModelResponse) -> Response:
    usage = response.usage
    counted = ResponseUsage.model_construct(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=usage.input_tokens_details or InputTokensDetails.model_construct(cached_tokens=0),
        output_tokens_details=usage.output_tokens_details or OutputTokensDetails.model_construct(reasoning_tokens=0),
    )
    return Response.model_construct(
        id=response.response_id,
        created_at=0.0,
        model="",
        object="response",
        output=list(response.output),
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        usage=counted,
    )


class DurableProvider:
    """What the twin of a model provider does otherwise."""

    __slots__ = ("kitaru_original",)

    def get_model(self, model_name: str | None) -> Model:
        """The twin of the model of this name."""
        parent: Any = super()
        return models.of(parent.get_model(model_name))


models: Twins[Model] = Twins(DurableModel)
providers: Twins[ModelProvider] = Twins(DurableProvider)
