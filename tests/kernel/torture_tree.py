"""The trees of the torture: bytes that tell their version, their path and their place.

`torture_tree.py DIR VERSION` makes one, on the host. A file is of blocks of 64 bytes, each of which names
the version, the path and its number, so that any mix of two files or two versions shows.
"""
import hashlib
import os
import sys

BLOCK = 64
BOTH = 0  # the version of what no version changes
FILES, NAMES = 40, 500


def size(version, n):
    """Blocks of file `n`: some have another length in each version."""
    return 1 + (n * 97) % 1500 + (version * 31 if n % 2 else 0)


def content(version, path, blocks):
    where = hashlib.blake2b(path.encode(), digest_size=8).hexdigest().encode()
    block = b"v%d %s %010d " % (version, where, 0)
    tail = b"." * (BLOCK - len(block) - 1) + b"\n"
    return b"".join(b"v%d %s %010d %s" % (version, where, n, tail) for n in range(blocks))


def tree(version):
    """Every file of a version: path -> bytes."""
    files = {}

    def add(which, path, n):
        files[path] = content(which, path, size(which, n))

    for n in range(FILES):
        add(BOTH, f"same/{n % 4}/file-{n}", n)
        add(version, f"change/{n}", n)
        add(version, f"only{version}/{n % 3}/{n}", n)
    for n in range(NAMES):
        files[f"list/keep-{n}"] = b""
    for n in range(NAMES // 5):
        files[f"list/only{version}-{n}"] = b""
    # What is a directory in one version is a file in the other.
    for n in range(4):
        add(version, f"kind/{n}/inside" if version == 1 else f"kind/{n}", n)
    files["work/HEAD"] = content(BOTH, "work/HEAD", 10)
    return files


def folders(files):
    return {folder for path in files for folder in parents(path)}


def parents(path):
    while path := os.path.dirname(path):
        yield path


def main(root, version):
    files = tree(int(version))
    for folder in sorted(folders(files)):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    for path, data in files.items():
        with open(os.path.join(root, path), "wb") as f:
            f.write(data)
        os.utime(os.path.join(root, path), (1_000_000_000, 1_000_000_000))


if __name__ == "__main__":
    main(*sys.argv[1:])
