#!/usr/bin/python3
"""inventory.py [--source] ROOT [OUT]: one line for each object under ROOT, for `diff`.

Path, kind, mode, owner, size, mtime, links, first path of its hard-link set, device, and the target or
a hash of the content. It runs on the host over the source and in a guest over the mount.

With --source, the number of links is what the tree itself holds (a file may have names outside of it,
and filesystems differ in how they count a directory's): what a server of this tree must answer.
Directory sizes and ctimes are not the source's, and are left out.
"""
import hashlib
import os
import stat
import sys

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
         stat.S_IFSOCK: "sock", stat.S_IFBLK: "blk", stat.S_IFCHR: "chr"}


def walk(path, name=b"."):
    """(name, path, lstat) of everything, depth first, in the order of the names' bytes."""
    st = os.lstat(path)
    yield name, path, st
    if stat.S_ISDIR(st.st_mode):
        for child in sorted(os.listdir(path)):
            yield from walk(path + b"/" + child, name + b"/" + child)


def content(path, st):
    if stat.S_ISLNK(st.st_mode):
        return printable(os.readlink(path))
    if not stat.S_ISREG(st.st_mode):
        return "-"
    h, size = hashlib.blake2b(digest_size=16), 0
    with open(path, "rb", buffering=0) as f:
        while block := f.read(1 << 20):
            h.update(block)
            size += len(block)
    return h.hexdigest() if size == st.st_size else f"size is {size}, not {st.st_size}"


def printable(name):
    """Any bytes, on one line."""
    return "".join(chr(b) if 33 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in name)


def line(name, path, st, links, first):
    is_dir = stat.S_ISDIR(st.st_mode)
    is_device = stat.S_ISBLK(st.st_mode) or stat.S_ISCHR(st.st_mode)
    return "\t".join(map(str, (
        printable(name), KINDS[stat.S_IFMT(st.st_mode)], oct(stat.S_IMODE(st.st_mode)), st.st_uid, st.st_gid,
        "-" if is_dir else st.st_size, st.st_mtime_ns, links, printable(first),
        f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}" if is_device else "-", content(path, st))))


def main():
    args = sys.argv[1:]
    source = "--source" in args
    root, *out = [os.fsencode(a) for a in args if a != "--source"]
    found = list(walk(root))
    first, count = {}, {}
    for name, path, st in found:
        key = (st.st_dev, st.st_ino)
        first.setdefault(key, name)
        count[key] = count.get(key, 0) + 1
    subdirs = {}
    for name, _, st in found:
        if stat.S_ISDIR(st.st_mode) and name != b".":
            subdirs[os.path.dirname(name)] = subdirs.get(os.path.dirname(name), 0) + 1
    with open(out[0] if out else 1, "w") as f:
        for name, path, st in found:
            key = (st.st_dev, st.st_ino)
            if not source:
                links = st.st_nlink
            elif stat.S_ISDIR(st.st_mode):
                links = 2 + subdirs.get(name, 0)
            else:
                links = count[key]
            f.write(line(name, path, st, links, name if stat.S_ISDIR(st.st_mode) else first[key]) + "\n")


if __name__ == "__main__":
    main()
