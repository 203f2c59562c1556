"""Snapshots: what is in them, that they are reproducible, and which ones are refused."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from typing import Any

import nbformat
import pytest

from kitaru_nb.core.runtime import default_runtime
from kitaru_nb.errors import KitaruArtifactError, KitaruUsageError
from kitaru_nb.promote.manifest import Manifest, load_manifest
from kitaru_nb.promote.snapshot import (
    MANIFEST,
    Snapshot,
    load_snapshot,
    make_snapshot,
    pack,
    read_snapshot,
    save_snapshot,
    unpack,
)
from tests.promote.conftest import Desk, code, text

CELLS = [
    text("# A brief"),
    "from typing import Literal",
    "%load_ext kitaru_nb",
    code('topic: str = "sea"  # what about\nn: int = 2\nmode: Literal["a", "b"] = "a"\nkey: str', "parameters"),
    "import os\nfrom helper import shout\nregion = os.getenv('REGION')\ntoken = os.environ['SEARCH_TOKEN']",
    "%%checkpoint research --retries 2\nnotes = [shout(topic)] * n",
    'answer = %wait approve --question "Publish {notes}?"',
    "#| checkpoint: publish\nresult = f'{notes} {answer}'",
    "%promote brief --tag prod",
    "%pip install nothing-much",
    code("exploring = 1", "skip"),
]


def written(desk: Desk) -> Snapshot:
    desk.file("helper.py", "from package.inner import loud\n\n\ndef shout(text):\n    return loud(text)\n")
    desk.file("package/__init__.py", "")
    desk.file("package/inner.py", "def loud(text):\n    return text.upper()\n")
    desk.file("package/prompt.txt", "Be loud.")
    desk.file("package/.env", "SECRET=1")
    desk.file("unused.py", "")
    return desk.snapshot(*CELLS)


def test_a_snapshot_holds_what_runs_and_says_so(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    snapshot = written(desk)
    assert sorted(snapshot.files) == [
        "flow.py",
        "helper.py",
        "notebook.ipynb",
        "package/__init__.py",
        "package/inner.py",
        "package/prompt.txt",
        "requirements.lock",
    ]
    manifest = snapshot.manifest
    assert (manifest.flow, manifest.kind, manifest.entry) == ("brief", "notebook", {"kind": "notebook"})
    assert manifest.parameters == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "topic": {"type": "string", "default": "sea", "description": "what about"},
            "n": {"type": "integer", "default": 2},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "key": {"type": "string"},
        },
        "required": ["key"],
    }
    assert [(c["name"], c["cell"], c["inputs"], c["outputs"], c["retries"]) for c in manifest.checkpoints] == [
        ("research", 5, ["n", "shout", "topic"], ["notes"], 2),
        ("publish", 7, ["answer", "notes"], ["result"], 0),
    ]
    assert manifest.waits == [{"name": "approve", "question": "Publish {notes}?", "schema": "bool"}]
    assert manifest.environment == {"REGION": False, "SEARCH_TOKEN": True}
    assert manifest.secrets == ["SEARCH_TOKEN"]
    assert read_snapshot(snapshot.data) == replace(snapshot, manifest=load_manifest(manifest.dump(), ""))


def test_the_notebook_travels_without_what_belongs_to_the_desk(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    snapshot = written(desk)
    notebook = nbformat.reads(snapshot.files["notebook.ipynb"].decode(), as_version=4)
    nbformat.validate(notebook)
    sources = [c.source for c in notebook.cells]
    assert sources == [getattr(c, "source", c) for c in CELLS[:8]]
    assert all(c.outputs == [] and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
    flow = snapshot.files["flow.py"].decode()
    assert '# %% tags=["parameters"]\ntopic: str = "sea"  # what about\n' in flow
    assert "# %%\n# %%checkpoint research --retries 2\nnotes = [shout(topic)] * n\n" in flow
    assert "# %% [markdown]\n# # A brief\n" in flow
    assert "promote" not in flow.partition("\n")[2]


def test_the_same_notebook_gives_the_same_digest_whether_it_ran_or_not(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    first = written(desk)
    notebook = nbformat.read(desk.path, as_version=4)
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = number
        cell.outputs = [nbformat.v4.new_output("stream", text="said\n")]
        cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
    notebook.metadata["widgets"] = {"state": {}}
    nbformat.write(notebook, desk.path)
    again = desk.client.deployments.create(desk.path)
    assert again.digest == first.digest


def test_an_edit_gives_another_digest(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    assert desk.snapshot("a = 1").digest != desk.snapshot("a = 2").digest
    before = written(desk).digest
    desk.file("package/prompt.txt", "Be quiet.")
    assert desk.snapshot(*CELLS).digest != before


def test_files_that_are_read_by_name_travel(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file("data/in.csv", "a,b")
    desk.file("out.csv", "old")
    desk.file("by_parameter.csv", "c,d")
    snapshot = desk.snapshot(
        code("source = 'by_parameter.csv'", "parameters"),
        "rows = open('data/in.csv').read()",
        "open('out.csv', 'w').write(rows)",
        "rows.to_csv('out.csv')",
    )
    assert snapshot.files["data/in.csv"] == b"a,b"
    assert "by_parameter.csv" in snapshot.files
    assert "out.csv" not in snapshot.files


def test_a_stored_snapshot_comes_back_verified(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    snapshot = written(desk)
    runtime = default_runtime()
    save_snapshot(runtime, snapshot)
    assert load_snapshot(runtime, snapshot.digest, len(snapshot.data)).files == snapshot.files
    from pathlib import Path

    place = Path(runtime.store.location(snapshot.digest))
    place.chmod(0o644)
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    with pytest.raises(KitaruArtifactError, match="damaged"):
        load_snapshot(runtime, snapshot.digest, len(snapshot.data))
    place.unlink()
    with pytest.raises(KitaruArtifactError, match="missing"):
        load_snapshot(runtime, snapshot.digest, len(snapshot.data))


# what is refused


def manifest(**changes: Any) -> Manifest:
    return Manifest("brief", "notebook", {"kind": "notebook"}, {}, "3.11.7", "linux-x86_64", **changes)


def forged(*entries: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    """A zip with these entries, and a manifest that agrees with them."""
    honest = make_snapshot(manifest(), dict(entries))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(MANIFEST, honest.manifest.dump())
        for path, content in entries:
            entry = zipfile.ZipInfo(path)
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return target.getvalue()


@pytest.mark.parametrize(
    "path", ["../out.py", "a/../../out.py", "/etc/out.py", "C:/out.py", "a\\..\\out.py", "folder/"]
)
def test_a_zip_that_leaves_its_folder_is_refused(path: str, desk: Desk) -> None:
    with pytest.raises(KitaruArtifactError, match=r"is refused: the entry .* is no file inside of it"):
        read_snapshot(forged((path, b"x")))


def test_a_zip_with_a_link_is_refused() -> None:
    with pytest.raises(KitaruArtifactError, match="is a link, not a file"):
        read_snapshot(forged(("flow.py", b"/etc/passwd"), mode=0o120777))


def test_a_zip_whose_content_is_not_what_its_manifest_says_is_refused() -> None:
    honest = make_snapshot(manifest(), {"flow.py": b"a = 1"})
    changed = pack({"flow.py": b"a = 2", MANIFEST: honest.manifest.dump()})
    with pytest.raises(KitaruArtifactError, match=r"'flow.py' is not what its manifest says"):
        read_snapshot(changed)
    more = pack({"flow.py": b"a = 1", "more.py": b"", MANIFEST: honest.manifest.dump()})
    with pytest.raises(KitaruArtifactError, match=r"'more.py' is not what its manifest says"):
        read_snapshot(more)


def test_a_zip_with_two_entries_of_one_name_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = forged(("flow.py", b"a = 1"), ("flow.py", b"a = 2"))
    with pytest.raises(KitaruArtifactError, match="two entries of one name"):
        read_snapshot(data)


def damaged(at: int) -> bytes:
    """A zip with a byte that isn't what it was."""
    data = bytearray(pack({"a": b"x" * 500}, compressed=True))
    data[at] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no zip", "is no readable zip"),
        (damaged(31), "is no readable zip"),
        (damaged(-5), "is no readable zip"),
        (pack({"flow.py": b""}), "it has no manifest.json"),
        (pack({MANIFEST: b"{"}), "has no readable manifest"),
        (pack({MANIFEST: b"[]"}), "has no readable manifest"),
        (pack({MANIFEST: json.dumps({"format": 99}).encode()}), "has manifest format 99; this version reads format 1"),
        (pack({MANIFEST: json.dumps({"format": 1}).encode()}), "has an incomplete manifest"),
    ],
    ids=["bytes", "stream", "offset", "no manifest", "broken manifest", "list", "newer", "incomplete"],
)
def test_what_is_no_snapshot_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(KitaruArtifactError, match=why):
        read_snapshot(data)


def test_unpacking_keeps_what_an_execution_wrote(desk: Desk) -> None:
    snapshot = make_snapshot(manifest(), {"flow.py": b"a = 1", "package/x.py": b""})
    unpack(snapshot, desk.folder / "work")
    (desk.folder / "work" / "out.txt").write_text("mine")
    (desk.folder / "work" / "flow.py").write_text("broken")
    unpack(snapshot, desk.folder / "work")
    assert (desk.folder / "work" / "out.txt").read_text() == "mine"
    assert (desk.folder / "work" / "flow.py").read_text() == "a = 1"


def test_a_module_that_is_called_like_a_part_of_the_snapshot_is_refused(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file("flow.py", "x = 1")
    with pytest.raises(KitaruUsageError, match=r"flow.py is a name that the snapshot itself needs"):
        desk.snapshot("import flow")
