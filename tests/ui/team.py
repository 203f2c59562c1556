"""A team: a stack with its journal in PostgreSQL and its store in a bucket, and notebooks that leave evidence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from tests.artifacts import stand_ins
from tests.journal import postgres_server
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
STACK = "team"
TOKEN = "a-token-for-tests"
SECONDS = 240.0

#: Each line of evidence is written at once: what happened, the kernel's process, and the one that started it.
NOTE = """\
import os

def note(what):
    if evidence:
        file = os.open(evidence, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{what} {os.getpid()} {os.getppid()}\\n".encode())
        os.close(file)"""
CELLS = [
    "%load_ext kitaru_nb",
    'topic: str = "tides"  # what to write about\nevidence: str = ""  # a file that tells what ran',
    NOTE,
    'note("turn")',
    '%%checkpoint draft\nnote("draft")\ntext = f"first edition, {topic}"\ntext',
    'approved = %wait approve --question "Publish the {text}?"',
    '%%checkpoint publish\nnote("publish")\nresult = text.upper() if approved else "withdrawn"\nresult',
    f"%promote --stack {STACK} --tag prod",
]
PARAMETERS, DRAFT, WAIT, PROMOTE = 1, 4, 5, 7


def write_notebook(path: Path) -> None:
    """The notebook of `CELLS`, never run."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[PARAMETERS].metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


#: A notebook of this many checkpoints, each of which tells when it begins and then takes its time; the last one as long
#: as the notebook is held.
STEPS, PAUSE = 4, 0.4
STEP = """\
%%checkpoint step{n}
note(f"step{n}|{{kitaru_nb.idempotency_key()}}|{{time.time()}}")
time.sleep({pause})
while {last} and os.path.exists(f"{{evidence}}.held"):
    time.sleep(0.02)
total = {before} + {n}"""


def write_steps(path: Path) -> None:
    """The notebook of `STEPS`, never run."""
    sources = ['evidence: str = ""', "import time\nimport kitaru_nb", NOTE]
    sources += [STEP.format(n=n, pause=PAUSE, before="total" if n else "0", last=n == STEPS - 1) for n in range(STEPS)]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def held(evidence: Path) -> Path:
    """While this file is there, a notebook of `STEPS` that leaves its evidence here doesn't end."""
    return evidence.with_name(f"{evidence.name}.held")


@dataclass(frozen=True)
class Ran:
    """A line of evidence."""

    what: str
    kernel: int
    worker: int


def evidence(path: Path) -> list[Ran]:
    """What ran, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Ran(what, int(kernel), int(worker)) for what, kernel, worker in (line.split() for line in lines)]


def is_gone(pid: int) -> bool:
    """Whether a process has ended, also where nobody has asked it how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(what: str, asked: Callable[[], Any]) -> Any:
    """Wait until ``asked`` gives something true."""
    deadline = time.monotonic() + SECONDS
    while not (found := asked()):
        assert time.monotonic() < deadline, f"after {SECONDS:g} s still not: {what}"
        time.sleep(0.1)
    return found


class Team:
    """The stack's journal and store, and a home whose stack in use it is.

    Attributes:
        environment: of every process that works with it.
    """

    def __init__(self, folder: Path, journal: str, bucket: stand_ins.Bucket) -> None:
        self.home = folder / "home"
        self.journal = journal
        self.store = f"{bucket.url}/{folder.name}"
        kept = {n: v for n, v in os.environ.items() if n == "KITARU_CACHE" or not n.startswith("KITARU_")}
        self.bucket = dict(bucket.environment)
        self.environment = kept | self.bucket | {"KITARU_HOME": str(self.home), "KITARU_USER": "ana"}
        settings = Settings(self.home, journal=self.journal, store=self.store, inline_max_bytes=0, stack=STACK)
        self.client = KitaruClient(Runtime(settings))

    def kitaru(self, *words: str, code: int = 0) -> Any:
        """A command's answer."""
        done = subprocess.run(
            [sys.executable, "-m", "kitaru_nb", *words, "--json"],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def python(self, program: str) -> str:
        """What a program of its own says."""
        done = subprocess.run(
            [sys.executable, "-c", program], env=self.environment, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def result(self, exec_id: str) -> Any:
        """What the deployed notebook published."""
        return self.client.artifacts.get(f"{exec_id}/result").load()


class Server:
    """A ``kitaru server`` of the team, which can be killed and started again at the same address."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._port = free_port()
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start, and wait until it says that it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kitaru_nb", "server", "start", "--port", str(self._port)],
            cwd=ROOT,
            env=self._team.environment | {"KITARU_SERVER_TOKEN": TOKEN},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert self.url in said, said

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait(SECONDS)
        self.process.stdout.close()

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Started, and killed when the context ends."""
        self.start()
        try:
            yield self
        finally:
            self.kill()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the API answers."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/{path}", data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return json.load(reply)


@contextmanager
def team(folder: Path) -> Iterator[Team]:
    """A team whose PostgreSQL and bucket are up for as long as the context lasts. It has no stack yet."""
    with ExitStack() as servers:
        (folder / "bucket").mkdir(parents=True)
        postgres = servers.enter_context(postgres_server.running())
        bucket = servers.enter_context(stand_ins.s3(folder / "bucket"))
        servers.enter_context(mock.patch.dict(os.environ, bucket.environment))  # this process reads it too
        found = Team(folder, postgres.create("team"), bucket)
        servers.callback(found.client.runtime.journal.close)
        yield found
