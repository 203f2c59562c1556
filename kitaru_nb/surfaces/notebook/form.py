"""The form of a wait, made of live widgets from the JSON Schema of its answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from kitaru_nb.core import control
from kitaru_nb.core.engine import WaitRequest
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruConflictError, KitaruError
from kitaru_nb.surfaces.notebook.display import GREEN, RED, card, escape, muted

#: Seconds between two looks whether the wait was answered elsewhere, also when the journal told of nothing.
LOOK = 2.0
#: Seconds between two looks at least, so that cells that record much have the kernel.
REST = 0.1
_BUTTONS = 6  # more choices than these become a list
_WIDE = {"width": "min(520px, 95%)"}
_BUTTON = {"width": "auto", "min_width": "90px", "align_self": "flex-start"}


def answer_form(runtime: Runtime, exec_id: str, wait: WaitRequest, head: str, foot: str) -> Mapping[str, Any]:
    """The mime bundle of a live form between two pieces of HTML. It is kept up; an earlier form of the wait no more."""
    form = Form(runtime, exec_id, wait, head, foot)
    form.watch()
    return form.box._repr_mimebundle_()  # type: ignore[no-any-return]


class Form:
    """One pending wait, to be answered by buttons or fields. Its callbacks may run on another thread of the kernel.

    Attributes:
        box: the widget.
        problem: where the text of a refused answer appears.
    """

    def __init__(self, runtime: Runtime, exec_id: str, wait: WaitRequest, head: str, foot: str) -> None:
        self._runtime = runtime
        self._exec_id = exec_id
        self._wait = wait
        self._closed = threading.Event()
        self._left = threading.Event()
        self._news = threading.Event()
        self.problem = widgets.HTML()
        self._head = widgets.HTML(head)
        controls = self._controls(resolved(wait.schema, wait.schema))
        self.box = widgets.VBox([self._head, controls, self.problem, widgets.HTML(foot)])

    def _controls(self, schema: Mapping[str, Any]) -> Any:
        if schema.get("type") == "boolean":
            return self._buttons([("Approve", True, "success"), ("Reject", False, "danger")])
        if is_approval(schema, self._wait.schema):
            return self._approval()
        choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
        if choices and len(choices) <= _BUTTONS:
            return self._buttons([(_label(value), value, "") for value in choices])
        field = field_of(schema, self._wait.schema)
        return widgets.VBox([field.widget, self._button("Send", field.read, "primary")])

    def _buttons(self, choices: list[tuple[str, Any, str]]) -> Any:
        made = [self._button(label, partial(copy, value), style) for label, value, style in choices]
        return widgets.HBox(made, layout={"flex_flow": "row wrap"})

    def _approval(self) -> Any:
        remark = widgets.Text(placeholder="a message with it, if you like", continuous_update=True, layout=_WIDE)
        choices = (("Approve", True, "success"), ("Reject", False, "danger"))
        made = [self._button(label, partial(_decision, approve, remark), style) for label, approve, style in choices]
        return widgets.VBox([remark, widgets.HBox(made, layout={"flex_flow": "row wrap"})])

    def _button(self, label: str, read: Callable[[], Any], style: str) -> Any:
        button = widgets.Button(description=label, button_style=style, layout=_BUTTON)
        button.on_click(lambda _: self.send(read))
        return button

    def watch(self) -> None:
        """From now on an answer that is given elsewhere is shown, and takes the buttons away.

        This ends when the wait has its answer, and when a newer form of it is watched.
        """
        with _lock:
            before, _watched[self._key] = _watched.get(self._key), self
        if before is not None:
            before.leave()
        threading.Thread(target=self._keep_up, name="kitaru-form", daemon=True).start()

    def leave(self) -> None:
        """Watch no more."""
        self._left.set()
        self._news.set()

    @property
    def _key(self) -> tuple[str, str]:
        return self._exec_id, self._wait.wait_id

    def _keep_up(self) -> None:
        deaf: Callable[[], None] | None = None
        try:
            while not self._left.is_set():
                deaf = deaf or self._hear()
                self._look_again()
                self._left.wait(REST)
                self._news.wait(LOOK)
                self._news.clear()
        finally:
            if deaf is not None:
                deaf()
            with _lock:
                if _watched.get(self._key) is self:
                    del _watched[self._key]

    def _hear(self) -> Callable[[], None] | None:
        """Have the journal tell of news; what ends this, or None while it can't be reached."""
        with suppress(KitaruBackendError):
            return self._runtime.journal.watch(self._news.set, exec_id=self._exec_id)
        return None

    def _look_again(self) -> None:
        try:
            self.look()
        except KitaruConflictError as error:
            self._told(error)
        except KitaruBackendError:
            return  # the journal can't be reached now: the next look comes
        except KitaruError:
            self._close("Nobody asks this any more.")  # the execution was cancelled

    def look(self) -> None:
        """Nothing while the wait is open.

        Raises:
            KitaruConflictError: it was answered; says by whom, and what.
        """
        control.find_wait(self._runtime, self._exec_id, self._wait.wait_id)

    def send(self, read: Callable[[], Any]) -> None:
        """Give the answer; what is wrong with it appears below the form."""
        try:
            value = read()
            control.answer(self._runtime, self._exec_id, value, wait=self._wait.wait_id, via="notebook")
        except KitaruConflictError as error:
            self._told(error)
        except (KitaruError, ValueError) as error:
            text = error.message if isinstance(error, KitaruError) else str(error)
            self.problem.value = card(RED, escape(text))
        else:
            done = f"<b>{escape(self._wait.name)}</b> answered: {escape(_label(value))}"
            self._close(f"✓ {done} &nbsp;{muted('Run this cell again, or Run All, to go on.')}")

    def _told(self, error: KitaruConflictError) -> None:
        """Somebody else was quicker."""
        self._close(f"{escape(error.message)} {muted('Run this cell again, or Run All, to go on.')}")

    def _close(self, html: str) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self.leave()
        self.box.children = (self._head, widgets.HTML(card(GREEN, html)))


#: The form of each open wait that is kept up: the last that was shown.
_watched: dict[tuple[str, str], Form] = {}
_lock = threading.Lock()


class Field:
    """One value of the form: the widget, and how to read it. ``read`` raises `ValueError` with what is wrong."""

    def __init__(self, widget: Any, read: Callable[[], Any]) -> None:
        self.widget = widget
        self.read = read


def field_of(schema: Mapping[str, Any], root: Mapping[str, Any], name: str = "") -> Field:
    """The field for a schema. What has no field of its own is typed as JSON."""
    schema = resolved(schema, root)
    kind, start = schema.get("type"), schema.get("default")
    if kind == "object" and schema.get("properties"):
        return _object(schema, root)
    layout, style = _WIDE, {"description_width": "120px"}
    common = {"description": name, "layout": layout, "style": style}
    if kind == "boolean":
        box = widgets.Checkbox(bool(start), description=name, indent=bool(name), layout=layout, style=style)
        return Field(box, lambda: box.value)
    if schema.get("enum"):
        options = [(_label(v), i) for i, v in enumerate(schema["enum"])]
        at = schema["enum"].index(start) if start in schema["enum"] else 0
        listed = widgets.Dropdown(options=options, value=at, **common)
        return Field(listed, lambda: schema["enum"][listed.value])
    if kind == "string":
        make = widgets.Text if name else widgets.Textarea
        text = make("" if start is None else str(start), continuous_update=True, **common)
        return Field(text, lambda: text.value)
    if kind in ("integer", "number"):
        number = widgets.Text("" if start is None else str(start), placeholder=str(kind), **common)
        return Field(number, lambda: _number(number.value, kind == "integer", name))
    area = widgets.Textarea("" if start is None else json.dumps(start), placeholder="JSON", **common)
    return Field(area, lambda: _json(area.value, name))


def _object(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Field:
    fields = {name: field_of(part, root, str(name)) for name, part in schema["properties"].items()}
    required = set(schema.get("required", ()))

    def read() -> dict[str, Any]:
        return {n: f.read() for n, f in fields.items() if n in required or getattr(f.widget, "value", None) != ""}

    return Field(widgets.VBox([field.widget for field in fields.values()]), read)


def is_approval(schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Whether an answer says yes or no to something, plainly or with a message."""
    parts = [resolved(part, root) for part in schema.get("anyOf", ())]
    plain = any(part.get("type") == "boolean" for part in parts)
    return plain and any(set(part.get("properties", ())) == {"approve", "message"} for part in parts)


def _decision(approve: bool, remark: Any) -> dict[str, Any]:
    return {"approve": approve, "message": remark.value.strip() or None}


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema with its local ``$ref`` followed, and ``T or null`` as ``T``."""
    found: Any = schema
    while (reference := found.get("$ref", "")).startswith("#/"):
        target: Any = root
        for part in reference[2:].split("/"):
            target = target[part]
        found = target
    some = [part for part in found.get("anyOf", ()) if part.get("type") != "null"]
    if len(some) == 1:
        return {**resolved(some[0], root), **{k: v for k, v in found.items() if k in ("default", "title")}}
    return found  # type: ignore[no-any-return]


def _number(text: str, whole: bool, name: str) -> int | float:
    try:
        return int(text) if whole else float(text)
    except ValueError as error:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name or 'The answer'} is {text!r}; expected {kind}.") from error


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name or 'The answer'} is no JSON: {error}.") from error


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
