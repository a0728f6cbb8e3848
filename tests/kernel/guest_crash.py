"""In a guest: fsync loops while the daemon is killed and started again. The host's part is crash.sh."""
import hashlib
import os
import sys
import threading

from guest import MNT, check, drop_caches, run, same, say, until

ROUNDS = int(sys.argv[1])
WRITERS = 3
RECORD = 1000  # no divisor of a page: most records lie in two
STEP = 60      # fsyncs of all writers between two crashes
LIMIT_S = 200


def record(writer, n):
    head = b"%d %d " % (writer, n)
    seed = hashlib.blake2b(head).digest()
    return (head + seed * (RECORD // len(seed) + 1))[:RECORD]


class Loop(threading.Thread):
    """Work until told to end; `done` counts what was promised to last."""

    def __init__(self, n):
        super().__init__()
        self.n, self.done, self.error, self.ending = n, 0, None, False

    def run(self):
        try:
            self.work()
        except Exception as e:
            self.error = e

    def ended(self):
        self.ending = True
        self.join(LIMIT_S)
        check(f"{self}: it ended", not self.is_alive())
        same(f"{self}: no error in {self.done} steps", self.error, None)


class Appender(Loop):
    """Records appended to one file, each fsynced."""

    def __str__(self):
        return f"writer {self.n}"

    def path(self):
        return f"{MNT}/log-{self.n}"

    def work(self):
        fd = os.open(self.path(), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        while not self.ending:
            assert os.write(fd, record(self.n, self.done)) == RECORD
            os.fsync(fd)
            self.done += 1
        os.close(fd)

    def verify(self):
        with open(self.path(), "rb") as f:
            data = f.read()
        same(f"{self}: its length", len(data), self.done * RECORD)
        wrong = [n for n in range(self.done) if data[n * RECORD:(n + 1) * RECORD] != record(self.n, n)]
        check(f"{self}: {self.done} fsynced records are there", not wrong, f"records {wrong[:5]}")


class Renamer(Loop):
    """Names made, linked, renamed and removed: each error is a call that ran twice, or was lost."""

    def __str__(self):
        return "names"

    def work(self):
        top = f"{MNT}/names"
        os.mkdir(top)
        while not self.ending:
            a, b = f"{top}/a-{self.done}", f"{top}/b-{self.done}"
            os.close(os.open(a, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.link(a, b)
            os.unlink(a)
            os.rename(b, a)
            os.symlink("a", b)
            os.unlink(b)
            os.mkdir(b)
            os.rmdir(b)
            if self.done >= 5:
                os.unlink(f"{top}/a-{self.done - 5}")
            self.done += 1

    def verify(self):
        left = sorted(os.listdir(f"{MNT}/names"))
        same(f"{self}: what is left", left, sorted(f"a-{n}" for n in range(max(0, self.done - 5), self.done)))


def main():
    writers = [Appender(n) for n in range(WRITERS)]
    loops = writers + [Renamer(0)]
    for loop in loops:
        loop.start()
    for n in range(1, ROUNDS + 2):
        before = sum(w.done for w in writers)
        until(lambda: sum(w.done for w in writers) >= before + STEP or any(loop.error for loop in loops), LIMIT_S,
              f"{STEP} fsyncs in round {n}: {[loop.error for loop in loops]}")
        if n <= ROUNDS:
            say(f"round-{n}")
    for loop in loops:
        loop.ended()
    drop_caches()
    for loop in loops:
        loop.verify()


run(main)
