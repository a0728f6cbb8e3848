#!/usr/bin/python3
"""inventory.py [--source] ROOT [OUT]: one line for each object under ROOT, for `diff`.

Path, kind, mode, owner, size, mtime, links, first path of its hard-link set, device, and the target or
a hash of the content. It runs on the host over the source and in a guest over the mount; libnfs.py
writes the same lines through another client.

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


class Local:
    """A tree of this machine's."""
    lstat, listdir, readlink = staticmethod(os.lstat), staticmethod(os.listdir), staticmethod(os.readlink)

    @staticmethod
    def digest(path):
        h, size = hashlib.blake2b(digest_size=16), 0
        with open(path, "rb", buffering=0) as f:
            while block := f.read(1 << 20):
                h.update(block)
                size += len(block)
        return h.hexdigest(), size


def walk(tree, path, name=b"."):
    """(name, path, lstat) of everything, depth first, in the order of the names' bytes."""
    st = tree.lstat(path or b"/")
    yield name, path, st
    if stat.S_ISDIR(st.st_mode):
        for child in sorted(tree.listdir(path or b"/")):
            yield from walk(tree, path + b"/" + child, name + b"/" + child)


def content(tree, path, st):
    if stat.S_ISLNK(st.st_mode):
        return printable(tree.readlink(path))
    if not stat.S_ISREG(st.st_mode):
        return "-"
    digest, size = tree.digest(path)
    return digest if size == st.st_size else f"size is {size}, not {st.st_size}"


def printable(name):
    """Any bytes, on one line."""
    return "".join(chr(b) if 33 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in name)


def line(tree, name, path, st, links, first):
    is_dir = stat.S_ISDIR(st.st_mode)
    is_device = stat.S_ISBLK(st.st_mode) or stat.S_ISCHR(st.st_mode)
    return "\t".join(map(str, (
        printable(name), KINDS[stat.S_IFMT(st.st_mode)], oct(stat.S_IMODE(st.st_mode)), st.st_uid, st.st_gid,
        "-" if is_dir else st.st_size, st.st_mtime_ns, links, printable(first),
        f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}" if is_device else "-", content(tree, path, st))))


def links_inside(found):
    """For each name, how many links a server of this tree alone must show."""
    names, subdirs = {}, {}
    for name, _, st in found:
        names[st.st_dev, st.st_ino] = names.get((st.st_dev, st.st_ino), 0) + 1
        if stat.S_ISDIR(st.st_mode) and name != b".":
            parent = os.path.dirname(name)
            subdirs[parent] = subdirs.get(parent, 0) + 1
    return {name: 2 + subdirs.get(name, 0) if stat.S_ISDIR(st.st_mode) else names[st.st_dev, st.st_ino]
            for name, _, st in found}


def write(root, tree, out, source):
    found = list(walk(tree, root))
    links = links_inside(found) if source else {name: st.st_nlink for name, _, st in found}
    first = {}
    with open(out or 1, "w") as f:
        for name, path, st in found:
            leader = name if stat.S_ISDIR(st.st_mode) else first.setdefault((st.st_dev, st.st_ino), name)
            f.write(line(tree, name, path, st, links[name], leader) + "\n")


def main():
    args = [a for a in sys.argv[1:] if a != "--source"]
    write(os.fsencode(args[0]), Local, args[1] if args[1:] else None, "--source" in sys.argv)


if __name__ == "__main__":
    main()
