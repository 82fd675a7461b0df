"""What the kernel still holds of a disk that is open for writing, handed to us before a hole is told of.

lseek(2) is asked of us with the kernel's lock on the file held, so our own fsync(2) would wait for our own answer.
sync_file_range(2) takes no such lock. It runs in a thread for each disk that is sought in, for as long as it is: the
thread keeps the file open, since opening it costs more than all the rest.

A thread may not be able to tell: the file was removed or covered, or is not ours to open; or Linux is older than 6.16,
and writes back copies of pages, which nobody can wait for without that lock. Then it tells the size alone, or nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import trio

from rowfs.base.inodenumbers import disk_inode
from rowfs.host.loops import FileNumbers, numbers_of
from rowfs.host.views import OwnMount
from rowfs.service.kernelcache import WAITS_FOR_PAGES, leave_session, write_and_wait
from rowfs.store.model import Disk

IDLE_S = 0.1  # that a thread keeps a file open for the next question: less than who wants it unused waits for
LIMIT_S = 30.0  # for all of an answer: whoever seeks holds the kernel's lock on the file


@dataclass(slots=True)
class Question:
    """Whether all that was written to a range of a file has reached us."""

    start: int
    length: int  # 0: up to the end
    size_bytes: int | None = None  # of the file as the kernel has it; None: not known
    written: bool = False  # all that was written to the range before the question has reached us
    answered: trio.Event = field(default_factory=trio.Event)


class Writeback:
    """One mount's."""

    def __init__(self, own: OwnMount, as_own: Callable[[], AbstractContextManager[None]]) -> None:
        """Requests that the kernel makes for a thread within `as_own` are told to be ours."""
        self._own = own
        self._as_own = as_own
        self._exact = WAITS_FOR_PAGES
        self._threads: dict[int, _Thread] = {}

    async def ask(self, disk: Disk, start: int, length: int) -> Question:
        """Have the kernel hand us what it holds of a range; `length` 0: up to the end. It never fails: see Question."""
        question = Question(start, length)
        inode = disk_inode(disk.inode)
        thread = self._threads.get(inode)
        if thread is None or not thread.put(question):
            path, numbers = os.path.join(self._own.mountpoint, disk.name), FileNumbers(self._own.device, inode)
            thread = self._threads[inode] = _Thread(path, numbers, self._exact, self._as_own, self._ended)
            thread.start(question)
        with trio.move_on_after(LIMIT_S):
            await question.answered.wait()
        return question

    def _ended(self, thread: _Thread) -> None:
        if self._threads.get(thread.inode) is thread:
            del self._threads[thread.inode]


class _Thread:
    """Answers questions about one file, until there are none for a while."""

    def __init__(
        self,
        path: str,
        numbers: FileNumbers,
        exact: bool,
        as_own: Callable[[], AbstractContextManager[None]],
        ended: Callable[[_Thread], None],
    ) -> None:
        self.inode = numbers.inode
        self._numbers = numbers
        self._path = path
        self._exact = exact
        self._as_own = as_own
        self._tell_ended = ended
        self._questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of `_over`, against a question that comes as the thread ends
        self._over = False
        self._token = trio.lowlevel.current_trio_token()

    def start(self, question: Question) -> None:
        """Begin with a first question."""
        self._questions.put(question)
        threading.Thread(target=self._run, name="writeback", daemon=True).start()

    def put(self, question: Question) -> bool:
        """One more question. False: the thread has ended."""
        with self._lock:
            if not self._over:
                self._questions.put(question)
            return not self._over

    def _run(self) -> None:
        fd = None
        try:
            leave_session()
            fd = self._opened(os.O_RDONLY | os.O_NONBLOCK)
            if fd is None:
                fd = self._opened(os.O_PATH)  # which tells the size alone
            while (question := self._next()) is not None:
                with contextlib.suppress(OSError):
                    self._answer(question, fd)
                self._tell(question.answered.set)
        finally:
            with self._lock:
                self._over = True
            while not self._questions.empty():  # none, unless something unforeseen ended the thread
                self._tell(self._questions.get().answered.set)
            self._tell(lambda: self._tell_ended(self))
            if fd is not None:
                os.close(fd)  # waits for whoever seeks now, and so for another thread

    def _opened(self, flags: int) -> int | None:
        """A descriptor of the file, if it can be opened and is the one."""
        try:
            with self._as_own():
                fd = os.open(self._path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            if numbers_of(fd) == self._numbers:
                return fd
        os.close(fd)
        return None

    def _next(self) -> Question | None:
        with contextlib.suppress(queue.Empty):
            return self._questions.get(timeout=IDLE_S)
        with self._lock:
            if self._questions.empty():
                self._over = True
        return None if self._over else self._questions.get()

    def _answer(self, question: Question, fd: int | None) -> None:
        if fd is not None:
            question.size_bytes = os.fstat(fd).st_size
            question.written = self._exact and _written(fd, question.start, question.length)

    def _tell(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)


def _written(fd: int, start: int, length: int) -> bool:
    try:
        write_and_wait(fd, start, length)
    except OSError:
        return False
    return True
