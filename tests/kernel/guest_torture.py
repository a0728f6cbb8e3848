"""In a guest: readers, maps, directories, walkers and writers on clones that are switched all the time.

Each worker is a process of its own and works until the host says `stop`; whatever surprises it ends it and
is a failed check. The host's part is torture.sh, the trees are those of torture_tree.py.
"""
import errno
import mmap
import os
import random
import sys
import time
import traceback

from guest import SHARE, check, ops, run, same, say
from torture_tree import BLOCK, FILES, folders, tree

SEED = int(sys.argv[1])
QUIET, READ, WRITE = "/mnt/quiet", "/mnt/read", "/mnt/write"
TREES = {version: tree(version) for version in (1, 2)}
COMMON = TREES[1].keys() & TREES[2].keys()
COMMON_FOLDERS = folders(TREES[1]) & folders(TREES[2]) - COMMON
SAME = sorted(path for path in COMMON if path.startswith("same/"))


def stopped():
    return os.path.exists(os.path.join(SHARE, "stop"))


def version_of(path, data):
    """Which version a file's bytes are of; none may be of another."""
    for version, files in TREES.items():
        if files.get(path) == data:
            return version
    heads = sorted({data[at:at + 20] for at in range(0, len(data), BLOCK)})
    raise AssertionError(f"{path}: {len(data)} bytes are of no version: {heads[:4]}")


class Open:
    """A file that is held open: one version, to the end."""

    def __init__(self, root, path):
        self.path, self.fd = path, os.open(os.path.join(root, path), os.O_RDONLY)
        head = os.pread(self.fd, BLOCK, 0)
        self.version = int(head[1:2])
        self.data = TREES[self.version][path]
        assert head == self.data[:BLOCK], f"{path} begins with {head}"
        self.length()

    def length(self):
        got = os.fstat(self.fd).st_size
        assert got == len(self.data), f"{self.path} of v{self.version} has {got} bytes, not {len(self.data)}"

    def forget(self):
        """So that the bytes come from the server."""
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def look(self, rng):
        at = rng.randrange(len(self.data))
        want = self.data[at:at + rng.randrange(1, 100_000)]
        got = os.pread(self.fd, len(want), at)
        assert got == want, f"{self.path} held since v{self.version}: at {at} {got[:40]}, not {want[:40]}"

    def close(self):
        os.close(self.fd)


class Worker:
    """One process; `versions` are those that it met, of which it must meet `wanted`."""

    def __init__(self, root, name, wanted=()):
        self.root, self.name, self.wanted, self.steps, self.versions = root, name, set(wanted), 0, set()
        self.rng = random.Random(f"{SEED} {name}")

    def at(self, path):
        return os.path.join(self.root, path)

    def changing(self):
        return f"change/{self.rng.randrange(FILES)}"

    def work(self):
        self.begin()
        while not stopped():
            self.step()
            self.steps += 1
        self.end()

    def begin(self):
        pass

    def end(self):
        pass


class Reader(Worker):
    """Files held open over many switches, read here and there; and fresh ones read whole."""

    def begin(self):
        self.held = []

    def step(self):
        if len(self.held) < 12:
            self.held.append(Open(self.root, self.changing()))
            self.versions.add(self.held[-1].version)
        held = self.rng.choice(self.held)
        if self.rng.random() < 0.3:
            held.forget()
        held.look(self.rng)
        held.length()
        if self.rng.random() < 0.02:
            self.held.remove(held)
            held.close()
        with open(self.at(path := self.changing()), "rb") as f:
            self.versions.add(version_of(path, f.read()))


class Mapper(Worker):
    """Mapped files, whose pages are asked for again."""

    def begin(self):
        self.held = []

    def step(self):
        if len(self.held) < 6:
            held = Open(self.root, self.changing())
            self.held.append((held, mmap.mmap(held.fd, 0, prot=mmap.PROT_READ)))
            self.versions.add(held.version)
        at = self.rng.randrange(len(self.held))
        held, pages = self.held[at]
        pages.madvise(mmap.MADV_DONTNEED)
        held.forget()
        assert pages[:] == held.data, f"the map of {held.path} is not all of v{held.version}"
        if self.rng.random() < 0.1:
            del self.held[at]
            pages.close()
            held.close()


class Resident(Worker):
    """A working directory that stays, and open ones that only one version has."""

    def begin(self):
        os.chdir(self.at("same/1"))
        self.gone = {}

    def step(self):
        names = sorted(os.listdir("."))
        assert names == sorted(os.path.basename(path) for path in SAME if path.startswith("same/1/")), names
        name = self.rng.choice(names)
        with open(name, "rb") as f:
            assert f.read() == TREES[1][f"same/1/{name}"], f"{name} in the working directory"
        for version in (1, 2):
            self.visit(version)

    def visit(self, version):
        """What is in a directory is in it for whoever is in it."""
        folder = f"only{version}/1"
        if version not in self.gone:
            try:
                self.gone[version] = os.open(self.at(folder), os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                return
        self.versions.add(version)
        path = self.rng.choice([path for path in TREES[version] if path.startswith(folder + "/")])
        fd = os.open(os.path.basename(path), os.O_RDONLY, dir_fd=self.gone[version])
        with open(fd, "rb") as f:
            assert f.read() == TREES[version][path], path


class Walker(Worker):
    """The whole tree: what is in both versions is met once and is never missing."""

    def step(self):
        seen = []
        for folder, dirs, files in os.walk(self.root, onerror=self.failed):
            inside = os.path.relpath(folder, self.root)
            for name in dirs + files:
                path = name if inside == "." else f"{inside}/{name}"
                seen.append(path)
                self.stat(path)
        met = [path for path in seen if path in COMMON or path in COMMON_FOLDERS]
        assert len(met) == len(set(met)), f"twice: {sorted(p for p in set(met) if met.count(p) > 1)[:3]}"
        missing = sorted((COMMON | COMMON_FOLDERS) - set(met))
        assert not missing, f"{len(missing)} missing, as {missing[:3]}"
        foreign = sorted(set(seen) - self.known())
        assert not foreign, f"of no version: {foreign[:3]}"

    def known(self):
        return {path for files in TREES.values() for path in [*files, *folders(files)]}

    def failed(self, error):
        path = os.path.relpath(error.filename, self.root)
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        if not gone or path in COMMON_FOLDERS or path == ".":
            raise error

    def stat(self, path):
        try:
            os.lstat(self.at(path))
        except OSError as error:
            error.filename = self.at(path)
            if path in COMMON:
                raise
            self.failed(error)


class Quiet(Worker):
    """Unchanged files, again and again: none of it is asked of the server."""

    def step(self):
        path = self.rng.choice(SAME)
        with open(self.at(path), "rb") as f:
            assert f.read() == TREES[1][path], path


class Writer(Worker):
    """As git writes: a temporary file, fsync, rename over the old one. What was fsynced stays."""

    def begin(self):
        self.top = self.at("work")
        self.last = {}

    def text(self, n):
        return b"%s %d\n" % (self.name.encode(), n) * 1000

    def step(self):
        name = f"{self.name}-{self.rng.randrange(8)}"
        temporary, target = f"{self.top}/tmp-{name}-{self.steps}", f"{self.top}/{name}"
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        data = self.text(self.steps)
        for at in range(0, len(data), 5000):
            os.write(fd, data[at:at + 5000])
        os.fsync(fd)
        os.close(fd)
        os.rename(temporary, target)
        self.last[name] = self.steps
        name = self.rng.choice(list(self.last))
        self.look(name)

    def look(self, name, forget=False):
        with open(f"{self.top}/{name}", "rb") as f:
            if forget:
                # Only this one's pages: others count what is asked of the server.
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            got = f.read()
        assert got == self.text(self.last[name]), f"{name}: {len(got)} bytes {got[:30]}, not of step {self.last[name]}"

    def end(self):
        for name in self.last:
            self.look(name, forget=True)
        left = [name for name in os.listdir(self.top) if name.startswith(f"tmp-{self.name}-")]
        assert not left, f"left: {left[:3]}"


class Appender(Worker):
    """One file that is held open and appended to, each record fsynced; as a log is."""

    def begin(self):
        self.path = self.at(f"work/{self.name}.log")
        self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)

    def record(self, n):
        return b"%07d\n" % n * 50

    def step(self):
        os.write(self.fd, self.record(self.steps))
        os.fsync(self.fd)

    def end(self):
        os.close(self.fd)
        with open(self.path, "rb") as f:
            got = f.read()
        want = b"".join(self.record(n) for n in range(self.steps))
        assert got == want, f"{len(got)} bytes, not {len(want)}"


def spawn(worker):
    pid = os.fork()
    if pid:
        return worker, pid
    try:
        worker.work()
        check(f"{worker.name}: {worker.steps} steps, none wrong", worker.steps > 0, "no step")
        if worker.wanted:
            same(f"{worker.name}: it met both versions", worker.versions & worker.wanted, worker.wanted)
        os._exit(0)
    except BaseException as error:
        traceback.print_exc()
        code = errno.errorcode.get(getattr(error, "errno", None), "")
        check(f"{worker.name}: nothing wrong in {worker.steps} steps", False, f"{code} {error}")
        os._exit(1)


def read(path):
    with open(os.path.join(QUIET, path), "rb") as f:
        return f.read()


def main():
    same("what no version changes, at first", [path for path in SAME if read(path) != TREES[1][path]], [])
    reads = ops("READ", QUIET)
    workers = [Quiet(QUIET, "quiet"), Walker(READ, "walker"), Resident(READ, "resident", (1, 2))]
    workers += [Mapper(READ, "mapper", (1, 2)), *(Reader(READ, f"reader-{n}", (1, 2)) for n in range(2))]
    workers += [Reader(WRITE, "reader-beside-writers")]
    workers += [Writer(WRITE, f"writer-{n}") for n in range(2)] + [Appender(WRITE, "appender")]
    running = [spawn(worker) for worker in workers]
    say("working")
    for worker, pid in running:
        ended = os.waitpid(pid, 0)[1]
        check(f"{worker.name}: it ended by itself", os.WIFEXITED(ended), ended)
    same("unchanged files: READs after clones were switched, and before", ops("READ", QUIET), reads)


run(main)
