"""The demo's client: in a guest or on a mount of this machine (the kernel's client), or over libnfs.

  client.py                       the files are under $MNT
  client.py libnfs PORT EXPORT    the files are opened by libnfs
"""
import os
import sys
import time

from guest import MNT, SHARE, check, digest, drop_caches, ops, run, say, until, wait_for

SAMPLE = 4000  # files
BIG = 1 << 20


class Kernel:
    counts_reads = True

    def path(self, name):
        return os.path.join(os.fsencode(MNT), name)

    def size(self, name):
        return os.lstat(self.path(name)).st_size

    def digest(self, name):
        return digest(self.path(name))

    def open(self, name):
        return os.open(self.path(name), os.O_RDONLY)

    def digest_open(self, fd):
        drop_caches()  # so that the bytes come from the server
        return digest(fd)

    def reads(self):
        return ops("READ")


class LibNfs:
    counts_reads = False

    def __init__(self, port, export):
        from libnfs import Export
        self.export = Export(port, export)

    def size(self, name):
        return self.export.lstat(b"/" + name).st_size

    def digest(self, name):
        return self.export.digest_path(b"/" + name)[0]

    def open(self, name):
        return self.export.open(b"/" + name)

    def digest_open(self, handle):
        return self.export.digest(handle)[0]


def rows(version):
    with open(os.path.join(SHARE, version + ".tsv"), "rb") as f:
        return {path: d.decode() for d, path in (row.rstrip(b"\n").split(b"\t", 1) for row in f)}


def figure(name, value):
    with open(os.path.join(SHARE, f"figure-{name.replace(' ', '-').replace('/', '-')}"), "w") as f:
        f.write(f"{name}\t{value}\n")


def read_sample(tree, sample):
    """Read all of it, compare each hash; returns what differs."""
    start = time.monotonic()
    wrong = [name for name, want in sample.items() if tree.digest(name) != want]
    seconds = time.monotonic() - start
    size = sum(tree.size(name) for name in sample)
    check(f"{len(sample):,} files, {size / 1e6:,.0f} MB, read over NFS have the hashes of their source", not wrong, wrong[:3])
    figure("first read by the client", f"{size / 1e6 / seconds:,.0f} MB/s, {len(sample) / seconds:,.0f} files/s")


def check_unchanged(tree, unchanged):
    before = tree.reads()
    wrong = [name for name, want in unchanged.items() if tree.digest(name) != want]
    check(f"{len(unchanged):,} unchanged files read the same", not wrong, wrong[:3])
    sent = tree.reads() - before
    check("and no READ for them reached the server: they are still in the client's cache", sent == 0, f"{sent} READs")


def main():
    tree = LibNfs(*sys.argv[2:]) if sys.argv[1:2] == ["libnfs"] else Kernel()
    v1 = rows("v1")
    sample = dict(list(v1.items())[::max(1, len(v1) // SAMPLE)])
    with open(os.path.join(SHARE, "held-name"), "rb") as f:
        held = f.read()
    read_sample(tree, sample)
    fd = tree.open(held)
    check(f"{held.decode(errors='replace')} is held open", tree.digest_open(fd) == v1[held])
    # What has to be in the cache when the switch comes: a part that fits.
    cached = {n: d for n, d in list(sample.items())[:1000] if tree.size(n) < BIG}
    for name in cached:
        tree.digest(name)
    say("held")

    wait_for("repointed")
    patched = rows("v2")
    until(lambda: tree.digest(held) == patched[held], what="the patched file to be seen")
    if tree.counts_reads:
        check_unchanged(tree, {n: d for n, d in cached.items() if n not in patched})
    wrong = [n for n, want in patched.items() if tree.digest(n) != want]
    check(f"opened anew, all {len(patched):,} patched files have their new bytes", not wrong, wrong[:3])
    check("the file that was held open has its old bytes to the last", tree.digest_open(fd) == v1[held])
    say("checked")

    wait_for("back")
    until(lambda: tree.digest(held) == v1[held], what="the first version to be seen")
    wrong = [n for n in patched if tree.digest(n) != v1[n]]
    check("opened anew, the patched files have their first bytes again", not wrong, wrong[:3])
    check("the held file never changed", tree.digest_open(fd) == v1[held])


run(main)
