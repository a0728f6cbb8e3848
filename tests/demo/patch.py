#!/usr/bin/python3
"""The demo's patch: what a round of updates does to a tree.

  patch.py list TREE DIR     DIR/v1.tsv gets path and hash of each regular file, DIR/held-name the path of the
                             one that the client holds open
  patch.py patch TREE DIR    replace about one file in a hundred, and the held one; prints how many and their
                             size; DIR/v2.tsv gets the patched files with their new hashes
"""
import hashlib
import os
import stat
import sys

EVERY = 100
HELD_MIN_BYTES = 1 << 20


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def save(rows, out):
    with open(out, "wb") as f:
        f.writelines(b"%s\t%s\n" % (d.encode(), p) for p, d in rows)


def load(path):
    with open(path, "rb") as f:
        return [(p, d.decode()) for d, p in (row.rstrip(b"\n").split(b"\t", 1) for row in f)]


def files(tree):
    """Regular files with one link and a name that fits on a line, in order."""
    for folder, dirs, names in os.walk(os.fsencode(tree)):
        dirs.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            st = os.lstat(path)
            if stat.S_ISREG(st.st_mode) and st.st_nlink == 1 and b"\n" not in path and b"\t" not in path:
                yield path, st


def list_tree(tree, out):
    found = list(files(tree))
    root = os.fsencode(tree)
    save([(os.path.relpath(p, root), digest(p)) for p, _ in found], out + "/v1.tsv")
    # The first that is large enough to be more than one READ, else the largest.
    large = next((p for p, st in found if st.st_size >= HELD_MIN_BYTES), None)
    with open(out + "/held-name", "wb") as f:
        f.write(os.path.relpath(large or max(found, key=lambda f: f[1].st_size)[0], root))


def replace(path):
    """As a package manager does it: a new file under the old name."""
    st = os.lstat(path)
    with open(path, "rb") as f:
        data = f.read()
    with open(path + b".new", "wb") as f:
        f.write(b"# patched\n" + data)
    os.chown(path + b".new", st.st_uid, st.st_gid)
    os.chmod(path + b".new", stat.S_IMODE(st.st_mode))
    os.rename(path + b".new", path)
    return len(data) + 10


def patch(tree, out):
    with open(out + "/held-name", "rb") as f:
        held = f.read()
    paths = sorted({p for p, _ in load(out + "/v1.tsv")[::EVERY]} | {held})
    size = sum(replace(os.path.join(os.fsencode(tree), p)) for p in paths)
    save([(p, digest(os.path.join(os.fsencode(tree), p))) for p in paths], out + "/v2.tsv")
    print(len(paths), size)


if __name__ == "__main__":
    {"list": list_tree, "patch": patch}[sys.argv[1]](*sys.argv[2:])
