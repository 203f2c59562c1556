"""What people see: escaping, widths, words for times and sizes."""

from __future__ import annotations

import io
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from cli.flows import HOSTILE
from kitaru_nb.model import CheckpointCall
from kitaru_nb.surfaces.console import draw, fit, plain
from kitaru_nb.surfaces.detail import tree
from kitaru_nb.surfaces.render import Column, Panel, Span, Table, ago, cut, duration, escaped, line, size, width_of

NOW = datetime(2026, 1, 31, 12, 0).astimezone()  # dates are shown as they are here


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]text[/bold]", "plain [bold]text[/bold]"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("a\rb\x7f\x9b", "a\\x0db\\x7f\\x9b"),
        ("half \ud800", "half \\ud800"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("separator\u2028", "separator\\u2028"),
        ("two\nlines\tand a tab", "two⏎ lines and a tab"),
        ("żółw 👩\u200d🔬 世界", "żółw 👩\u200d🔬 世界"),
    ],
)
def test_what_could_deceive_a_reader_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_text_of_several_lines_keeps_its_newlines() -> None:
    assert escaped("a\nb\x07", lines=True) == "a\nb\\x07"


@pytest.mark.parametrize(
    ("text", "width", "shown"), [("abcdef", 6, "abcdef"), ("abcdefg", 6, "abcde…"), ("世界世界", 5, "世界…")]
)
def test_a_cut_text_fits_and_shows_that_it_was_cut(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert width_of(shown) <= width


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "just now"),
        (12, "12 s ago"),
        (150, "2 min ago"),
        (3 * 3600, "3 h ago"),
        (2 * 86400, "2 d ago"),
        (-90, "in 1 min"),
        (365 * 86400, "2025-01-31"),
    ],
)
def test_instants_are_told_relative_to_now(seconds: int, words: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.0001, "< 1 ms"),
        (0.012, "12 ms"),
        (1.234, "1.2 s"),
        (59.97, "1 min 00 s"),
        (123, "2 min 03 s"),
        (3900, "1 h 05 min"),
    ],
)
def test_durations_have_the_unit_that_fits(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (999, "999 B"), (1200, "1.2 kB"), (3_400_000, "3.4 MB")])
def test_sizes_have_the_unit_that_fits(count: int, words: str) -> None:
    assert size(count) == words


LONG = Table(
    (Column("ID"), Column("N", right=True), Column("ONE", flexible=True), Column("TWO", flexible=True)),
    [
        (Span("kr-0123456789ab", "bold"), Span("7"), Span("x" * 200), Span(HOSTILE)),
        *[(Span("b"), Span("12"), Span("y"), Span(""))],
    ],
)


def test_a_plain_table_fits_eighty_columns_and_never_cuts_the_id() -> None:
    head, first, second = plain([LONG], 80)
    assert max(map(width_of, (head, first, second))) <= 80
    assert first.startswith("kr-0123456789ab   7  xxx")
    assert first.endswith("…")
    assert second.startswith("b                12  y")


def test_a_table_shares_the_room_between_its_long_columns() -> None:
    rows = [["kr-0123456789ab", "7", "x" * 200, "y" * 300]]
    assert fit(LONG, rows, 76) == [15, 1, 30, 30]


def drawn(*blocks: Table | Panel) -> str:
    stream = io.StringIO()
    draw(list(blocks), Console(file=stream, width=80, force_terminal=True, markup=False, highlight=False))
    return stream.getvalue()


def test_a_drawn_table_fits_eighty_columns_too() -> None:
    stream = io.StringIO()
    draw([LONG], Console(file=stream, width=80, color_system=None, markup=False))
    assert max(map(width_of, stream.getvalue().splitlines())) <= 80
    assert "kr-0123456789ab" in stream.getvalue()


def test_markup_and_control_characters_of_others_stay_text_when_drawn() -> None:
    text = drawn(Panel("[red]title", [HOSTILE], "red"), LONG)
    assert "[red]title" in text
    assert "[bold]x[/bold]" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_a_line_to_type_is_never_wrapped() -> None:
    command = "kitaru executions input kr-0123456789ab --wait approve --value " + "x" * 100
    assert list(plain([line(command)], 80)) == [command]
    stream = io.StringIO()
    draw([line(command)], Console(file=stream, width=80, color_system=None))
    assert command in stream.getvalue()


def call(name: str, parent: str | None = None) -> CheckpointCall:
    return CheckpointCall(name, name, name, None, "completed", None, None, parent=parent)


def test_nested_calls_are_drawn_as_branches() -> None:
    calls = [call("a"), call("b", "a"), call("c", "b"), call("d", "a"), call("e", "lost")]
    assert [(branch, found.name) for branch, found in tree(calls)] == [
        ("", "a"),
        ("├ ", "b"),
        ("│ └ ", "c"),
        ("└ ", "d"),
        ("", "e"),
    ]
