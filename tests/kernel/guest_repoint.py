"""In a guest: hold files over a repoint and back. The host's part is repoint.sh."""
import mmap
import os

from guest import (MNT, check, digest, drop_caches, handle, identity, names, ops, run, same, say, until, wait_for)

CHANGED = ("change/big", "change/small", "change/same-size-and-mtime")


def at(path):
    return os.path.join(MNT, path)


class Held:
    """What is in use when the repoint comes."""

    def __init__(self):
        self.old = {p: digest(at(p)) for p in CHANGED + ("change/gone", "change/kind", "change/old-name")}
        self.fds = {p: os.open(at(p), os.O_RDONLY) for p in self.old}
        self.map = mmap.mmap(self.fds["change/big"], 0, prot=mmap.PROT_READ)
        self.map.madvise(mmap.MADV_RANDOM)
        self.map_start = self.map[:4096]
        self.dir = os.open(at("dir"), os.O_RDONLY | os.O_DIRECTORY)
        os.chdir(at("dir/sub"))

    def check_open_files(self, when):
        """From the server, not from this kernel's memory."""
        drop_caches()
        before = ops("READ")
        for path, fd in self.fds.items():
            same(f"{when}: open {path} has its old bytes", digest(fd), self.old[path])
        check(f"{when}: they came from the server", ops("READ") > before, "no READ was sent")

    def check_map(self, when):
        size = len(self.map)
        whole = self.map[:]
        same(f"{when}: the mapped file's start is what it was", whole[:4096], self.map_start)
        same(f"{when}: the rest of the map is of the same version", digest(self.fds["change/big"]), blake(whole))
        same(f"{when}: the map is as long as the file", size, os.fstat(self.fds["change/big"]).st_size)

    def check_directories(self, when, added):
        same(f"{when}: the working directory is still there", os.getcwd(), at("dir/sub"))
        same(f"{when}: a name in the working directory", open("kept").read(), "".join(f"{n}\n" for n in range(1, 2001)))
        same(f"{when}: its listing is the current version's", "added" in os.listdir("."), added)
        same(f"{when}: an open directory resolves", os.stat("sub/kept", dir_fd=self.dir).st_ino, os.stat("kept").st_ino)


def blake(data):
    import hashlib
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class Kept:
    """What no version changes."""

    def __init__(self):
        self.paths = names(at("keep")) + [at("dir/sub/kept")]
        self.before = self.look()
        self.data = self.read()

    def look(self):
        return {p: identity(p) for p in self.paths}

    def read(self):
        return {p: digest(p) for p in self.paths if not os.path.islink(p)}

    def check(self, when):
        for what, n in (("handle", 0), ("fileid", 1), ("ctime", 2)):
            moved = [p for p, now in self.look().items() if now[n] != self.before[p][n]]
            check(f"{when}: {len(self.paths)} unchanged objects keep their {what}", not moved, moved[:3])
        reads = ops("READ")
        same(f"{when}: unchanged files read the same", self.read() == self.data, True)
        same(f"{when}: no READ for them reached the server", ops("READ") - reads, 0)


def small_is(text):
    def there():
        with open(at("change/small")) as f:
            return f.read() == text
    return there


def check_version_1(when, was):
    for path, ident in was.items():
        same(f"{when}: {path} has its first identity", identity(at(path))[:2], ident[:2])
    same(f"{when}: the removed file is there", open(at("change/gone")).read(), "gone in v2\n")
    check(f"{when}: the added file is not", not os.path.exists(at("change/added")))
    same(f"{when}: the symlink's target", os.readlink(at("change/sym")), "target-1")
    same(f"{when}: the mode", oct(os.stat(at("change/mode")).st_mode), oct(0o100644))
    check(f"{when}: the file is a file", os.path.isfile(at("change/kind")))


def check_version_2(was):
    reads = ops("READ")
    for path in CHANGED:
        now = identity(at(path))
        check(f"v2: {path} has a new handle and fileid", now[0] != was[path][0] and now[1] != was[path][1], now)
    same("v2: a file of the same size and mtime", open(at("change/same-size-and-mtime")).read(), "same size, v2\n")
    check("v2: the changed ones were asked for", ops("READ") > reads, "no READ was sent")
    check("v2: the removed file is gone", not os.path.exists(at("change/gone")))
    same("v2: the added file", open(at("change/added")).read(), "added in v2\n")
    check("v2: the old name is gone", not os.path.exists(at("change/old-name")))
    same("v2: the new name", open(at("change/new-name")).read(), "under its old name\n")
    check("v2: a rename is a new object", handle(at("change/new-name")) != was["change/old-name"][0])
    same("v2: the symlink's target", os.readlink(at("change/sym")), "target-2")
    check("v2: a file became a directory", os.path.isdir(at("change/kind")))
    now = identity(at("change/mode"))
    same("v2: a new mode keeps handle and fileid", now[:2], was["change/mode"][:2])
    same("v2: the new mode", oct(os.stat(at("change/mode")).st_mode), oct(0o100600))
    check("v2: a new mode moves ctime", now[2] != was["change/mode"][2], now)


def main():
    root = identity(MNT)
    kept, held = Kept(), Held()
    was = {p: identity(at(p)) for p in CHANGED + ("change/mode", "change/old-name", "change/gone")}
    say("held")

    wait_for("repointed")
    until(small_is("second version, and longer\n"))
    same("v2: the root keeps handle and fileid", identity(MNT)[:2], root[:2])
    check("v2: the root's ctime moved", identity(MNT)[2] > root[2], (identity(MNT)[2], root[2]))
    kept.check("v2")
    check_version_2(was)
    held.check_map("v2")
    held.check_directories("v2", added=True)
    new_big, new_fd = digest(at("change/big")), os.open(at("change/big"), os.O_RDONLY)
    check("v2: a fresh open has new bytes", new_big != held.old["change/big"], new_big)
    held.check_open_files("v2")
    kept.read()  # into the cache again
    say("checked")

    wait_for("back")
    until(small_is("first version\n"))
    kept.check("back")
    check_version_1("back", was)
    same("back: a fresh open has the old bytes", digest(at("change/big")), held.old["change/big"])
    held.check_directories("back", added=False)
    held.check_open_files("back")
    same("back: what was opened in v2 still reads as v2", digest(new_fd), new_big)


run(main)
