"""The flows that the tests run elsewhere, as a module that is installed nowhere: it travels to where it runs."""

#: Two worker processes of two threads each, on this machine.
LOCAL = "dask?workers=2&threads=2"

WORDS = """
def loud(text):
    return text.upper()
"""

PROGRAM = '''
import asyncio
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from kitaru_nb import Retry, checkpoint, flow, load, log, wait

from fanout_words import loud


@dataclass
class Note:
    text: str
    pid: int


class Refused(Exception):
    def __init__(self, note):
        super().__init__(f"{note.text} is refused")
        self.note = note


def tell(path, word):
    with open(path, "a") as file:
        file.write(f"{word}\\n")


def times(path, word):
    path = Path(path)
    return path.read_text().split().count(word) if path.exists() else 0


@checkpoint
def inner(number):
    print("inside", number)
    return number * 2


@checkpoint
def note(number, data):
    print("taking note of", number)
    logging.getLogger("notes").warning("number %s", number)
    log(size=len(data))
    return Note(loud(f"note {inner(number)}"), os.getpid())


@checkpoint
def refuse(given):
    raise Refused(given)


@checkpoint(timeout=30)
async def later(number):
    await asyncio.sleep(0.01)
    return number + 1


@checkpoint
def add(left, right):
    return left + right


@checkpoint(retries=Retry(1, delay=0.01))
def second_time(path):
    tell(path, "tried")
    if times(path, "tried") == 1:
        raise ValueError("not yet")
    return times(path, "tried")


@checkpoint
def child(path):
    tell(path, "child")
    return "child"


@checkpoint
def lose_worker(path):
    """Its worker dies under it, the first time."""
    made = child(path)
    tell(path, "begun")
    if times(path, "begun") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return made


@checkpoint
def ask():
    return wait("approve")


@checkpoint
def look_up(exec_id):
    return load(exec_id, "result")


@checkpoint
def stay(path):
    while True:
        tell(path, "beat")
        time.sleep(0.02)


@checkpoint
def leave():
    raise SystemExit(3)

'''
