from __future__ import annotations

import pytest

from kitaru_nb.cells.analysis import analyse
from kitaru_nb.cells.magics import to_python
from kitaru_nb.cells.source import Cell, CellOptions, read_cell
from kitaru_nb.errors import KitaruUsageError


def test_three_spellings_are_equal() -> None:
    cells = [
        read_cell("%%checkpoint train\nx = 1"),
        read_cell("#| checkpoint: train\nx = 1"),
        read_cell("\nx = 1", tags=["step:train"]),
    ]
    assert {cell.options.name for cell in cells} == {"train"}
    assert {cell.kind for cell in cells} == {"checkpoint"}
    assert [cell.spelling for cell in cells] == ["magic", "comment", "tag"]
    assert [cell.first_line for cell in cells] == [1, 1, 0]
    assert {cell.body for cell in cells} == {"\nx = 1"}
    assert len({analyse(cell.body).digest for cell in cells}) == 1


def test_line_n_of_the_body_is_line_n_of_the_cell() -> None:
    source = "\n%%checkpoint train\n\nx = 1\n\ny = 2"
    body = read_cell(source).body
    assert body.split("\n")[3] == "x = 1"
    assert len(body.split("\n")) == len(source.split("\n"))
    assert [node.lineno for node in to_python(body).tree.body] == [4, 6]
    assert [node.lineno for node in to_python(body + "\n!ls").tree.body] == [4, 6, 7]


def test_all_options_are_read() -> None:
    cell = read_cell(
        '%%checkpoint train --in a,b --out x, y --if "n > 3" --retries 2 --timeout 1.5 --type llm_call'
        " --reuse content --force"
    )
    assert cell.options == CellOptions(
        name="train",
        inputs=("a", "b"),
        outputs=("x", "y"),
        condition="n > 3",
        retries=2,
        timeout=1.5,
        type="llm_call",
        reuse="content",
        force=True,
    )


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("", CellOptions()),
        ("train", CellOptions(name="train")),
        ("--force", CellOptions(force=True)),
        ("--retries=2 train", CellOptions(name="train", retries=2)),
        ('--in ""', CellOptions(inputs=())),
        ("--if x > 3 and mode == 'fast' --force", CellOptions(condition="x > 3 and mode == 'fast'", force=True)),
        ("--if='a == \"b c\"'", CellOptions(condition='a == "b c"')),
        ("step.one-2", CellOptions(name="step.one-2")),
    ],
)
def test_a_head_is_read_the_same_in_magic_and_comment(head: str, expected: CellOptions) -> None:
    assert read_cell(f"%%checkpoint {head}".rstrip() + "\nx").options == expected
    assert read_cell(f"#| checkpoint: {head}".rstrip() + "\nx").options == expected


@pytest.mark.parametrize(
    ("line", "found", "allowed", "fix"),
    [
        ("%%checkpoint t --retry 3", "'--retry'", "--retries", "%%checkpoint t --retries 3"),
        ("%%checkpoint t --bogus", "'--bogus'", "--reuse", "%%checkpoint t"),
        ("%%checkpoint t --bogus 3 --force", "'--bogus'", "--reuse", "%%checkpoint t --force"),
        ("%%checkpoint t --runtime isolated", "'--runtime'", "only a function under @checkpoint", "%%checkpoint t"),
        ("%%checkpoint t --runtime=isolated --force", "'--runtime'", "its kernel", "%%checkpoint t --force"),
        ("%%checkpoint t --retries few", "--retries few", "whole number", "%%checkpoint t --retries 2"),
        ("%%checkpoint t --retries -1", "--retries -1", "whole number", "%%checkpoint t --retries 2"),
        ("%%checkpoint t --timeout 0", "--timeout 0", "above 0", "%%checkpoint t --timeout 60"),
        ("%%checkpoint t --timeout nan", "--timeout nan", "above 0", "%%checkpoint t --timeout 60"),
        ("%%checkpoint t --reuse always", "--reuse always", "run, content or never", "%%checkpoint t --reuse run"),
        ("%%checkpoint my-step! --force", "'my-step!'", "a letter", "%%checkpoint my-step_ --force"),
        ("%%checkpoint 1st", "'1st'", "a letter", "%%checkpoint st"),
        ("%%checkpoint a b", "'b' after the name 'a'", "one name", "%%checkpoint a"),
        ("%%checkpoint t --in", "--in without a value", "--in a,b", "%%checkpoint t --in a,b"),
        ("%%checkpoint t --in --force", "--in without a value", "--in a,b", "%%checkpoint t --in a,b --force"),
        ("%%checkpoint t --in a-b", "--in a-b", "names of variables", "%%checkpoint t --in a,b"),
        ("%%checkpoint t --if 'x >'", "--if 'x >'", "expression", '%%checkpoint t --if "x > 0"'),
        ("%%checkpoint t --force --force", "--force twice", "once", "%%checkpoint t --force"),
        ("%%checkpoint 'open", "not closed", "closed", "%%checkpoint open"),
        ("#| checkpoint: t --retry 3", "'--retry'", "--retries", "#| checkpoint: t --retries 3"),
    ],
)
def test_a_wrong_head_is_refused_with_the_line_corrected(line: str, found: str, allowed: str, fix: str) -> None:
    with pytest.raises(KitaruUsageError) as caught:
        read_cell(line + "\nx = 1")
    assert found in caught.value.message
    assert allowed in caught.value.message
    assert caught.value.fix == fix
    read_cell(fix + "\nx = 1")  # the fix itself is right


def test_a_wrong_name_in_our_tag_is_refused() -> None:
    with pytest.raises(KitaruUsageError) as caught:
        read_cell("x", tags=["step:my step"])
    assert caught.value.fix == "step:my_step"


@pytest.mark.parametrize(
    "tags", [["hide-input"], ["parameters", "skip"], ["limit:gpu:2"], ["step:"], ["prev:a", "block:b"], ["Step:a"]]
)
def test_tags_of_others_are_no_error(tags: list[str]) -> None:
    assert read_cell("x = 1", tags) == Cell("plain", "x = 1")


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n%%checkpoint late",
        "# | checkpoint: x",
        "#| checkpoints: x",
        "%%checkpointed\nx",
        "%%time\nx = 1",
        " %%checkpoint indented",
        "'''\n%%checkpoint in a string\n'''",
        "",
    ],
)
def test_what_only_looks_like_a_head_is_a_plain_cell(source: str) -> None:
    assert read_cell(source) == Cell("plain", source)


def test_a_directive_of_others_may_stand_above_ours() -> None:
    cell = read_cell("#| export\n#| checkpoint: train\nx = 1")
    assert cell.options.name == "train"
    assert cell.body == "#| export\n\nx = 1"


def test_the_magic_goes_before_the_tag() -> None:
    assert read_cell("%%checkpoint mine", tags=["step:other"]).options.name == "mine"


def test_another_cell_magic_below_the_head_still_works() -> None:
    assert to_python(read_cell("%%checkpoint train\n%%time\nx = f()").body).magics == ("time",)


def test_the_magic_of_a_code_cell_stays_in_its_digest_without_its_code() -> None:
    assert analyse("%timeit -n 1 f()").digest != analyse("%timeit -n 2 f()").digest
    assert analyse("%timeit -n 1 f( )").digest == analyse("%timeit -n 1 f()").digest
    assert analyse("!ls a").digest != analyse("!ls b").digest
