"""What a cell shows, recorded while it is shown as ever, and shown again when the cell is reused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_WIDGET = "application/vnd.jupyter.widget-view+json"


class Recorder:
    """Outputs of one run of a cell, in nbformat's terms and in order.

    Updates of a display replace it, and a cleared output is gone, so that what is kept is what a person saw at the end.

    Attributes:
        outputs: the text of a stream in pieces, as many cells print a lot of them.
        after_clear: is told when the output was cleared, with all that others show in it.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.outputs: list[dict[str, Any]] = []
        self.after_clear: Callable[[], None] | None = None
        self._by_display_id: dict[str, dict[str, Any]] = {}
        self._clear_next = False

    def show_result(self, value: Any) -> None:
        """Show and record the value of the cell's last expression."""
        if value is None:
            return
        data, metadata = self.shell.display_formatter.format(value)
        if data:
            self._add({"output_type": "execute_result", "data": data, "metadata": metadata})
        sys.displayhook(value)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record displays and both streams within the block."""
        publisher = self.shell.display_pub
        publish, clear = publisher.publish, publisher.clear_output
        streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}

        def recording(data: Any, metadata: Any = None, **options: Any) -> Any:
            self._published(data, metadata, options)
            return publish(data, metadata, **options)

        def clearing(wait: bool = False) -> Any:
            self._clear_next = True
            if not wait:
                self._clear_if_due()
            return clear(wait)

        try:
            publisher.publish, publisher.clear_output = recording, clearing
            for name, stream in streams.items():
                setattr(sys, name, _StreamRecorder(stream, name, self))
            yield
            if (inline := sys.modules.get("matplotlib_inline.backend_inline")) is not None:
                inline.flush_figures()  # at the end of the body rather than of the cell, so that they are recorded
        finally:
            publisher.publish, publisher.clear_output = publish, clear
            for name, stream in streams.items():
                setattr(sys, name, stream)

    def _published(self, data: Any, metadata: Any, options: Mapping[str, Any]) -> None:
        display_id = (options.get("transient") or {}).get("display_id")
        if options.get("update"):
            if (known := self._by_display_id.get(display_id or "")) is not None:
                known.update(data=dict(data), metadata=dict(metadata or {}))
            return
        output = {"output_type": "display_data", "data": dict(data), "metadata": dict(metadata or {})}
        self._add(output)
        if display_id is not None:
            self._by_display_id[display_id] = output

    def write(self, name: str, text: str) -> None:
        """Record text of a stream, joined to one output as front ends show it."""
        self._clear_if_due()
        last = self.outputs[-1] if self.outputs else None
        if last is not None and last["output_type"] == "stream" and last["name"] == name:
            last["text"].append(text)
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": [text]})

    def _add(self, output: dict[str, Any]) -> None:
        self._clear_if_due()
        self.outputs.append(output)

    def _clear_if_due(self) -> None:
        if self._clear_next:
            self._clear_next = False
            self.outputs.clear()
            self._by_display_id.clear()
            if self.after_clear is not None:
                self.after_clear()

    def storable(self) -> list[Mapping[str, Any]]:
        """The outputs without live widgets, which don't outlive their kernel."""
        kept = [output for output in self.outputs if _WIDGET not in output.get("data", ())]
        return [o | {"text": "".join(o["text"])} if o["output_type"] == "stream" else o for o in kept]


class _StreamRecorder:
    """A text stream that also tells a recorder."""

    def __init__(self, stream: Any, name: str, recorder: Recorder) -> None:
        self._stream = stream
        self._name = name
        self._recorder = recorder

    def write(self, text: str) -> Any:
        if text:
            self._recorder.write(self._name, text)
        return self._stream.write(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def show_again(shell: Any, outputs: Sequence[Mapping[str, Any]]) -> None:
    """Show recorded outputs again."""
    for output in outputs:
        if output["output_type"] == "stream":
            getattr(sys, output["name"]).write(output["text"])
        else:
            shell.display_pub.publish(output["data"], output["metadata"])
