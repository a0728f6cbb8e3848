#!/usr/bin/python3
"""A client made of libnfs, which shares no code with the kernel's: each call goes to the server, nothing
is cached but names in a directory that is being listed.

  libnfs.py inventory PORT EXPORT [OUT]   the lines of inventory.py, for the export
  libnfs.py hold PORT EXPORT FILE         open FILE; then for each line of input print
                                          `held DIGEST fresh DIGEST ino NUMBER` (fresh: opened again by name)
"""
import ctypes
import hashlib
import os
import stat
import sys
from types import SimpleNamespace

PIECE = 1 << 20


class _Url(ctypes.Structure):
    _fields_ = [(n, ctypes.c_char_p) for n in ("server", "path", "file")]


class _Stat(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in (
        "dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks",
        "atime", "mtime", "ctime", "atime_ns", "mtime_ns", "ctime_ns", "used")]


class _Dirent(ctypes.Structure):
    pass


# The first fields of many; the rest is not looked at.
_Dirent._fields_ = [("next", ctypes.POINTER(_Dirent)), ("name", ctypes.c_char_p), ("inode", ctypes.c_uint64)]


def _library():
    lib = ctypes.CDLL("libnfs.so.13")
    lib.nfs_init_context.restype = ctypes.c_void_p
    lib.nfs_parse_url_dir.restype = ctypes.POINTER(_Url)
    lib.nfs_get_error.restype = ctypes.c_char_p
    lib.nfs_readdir.restype = ctypes.POINTER(_Dirent)
    return lib


class Export:
    """One mounted export."""

    def __init__(self, port, export):
        self.lib = _library()
        self.context = ctypes.c_void_p(self.lib.nfs_init_context())
        url = f"nfs://127.0.0.1{export}?nfsport={port}&mountport={port}&version=3"
        parts = self.lib.nfs_parse_url_dir(self.context, os.fsencode(url))
        if not parts:
            raise OSError(self.error())
        self.call("nfs_mount", parts.contents.server, parts.contents.path)

    def error(self):
        return os.fsdecode(self.lib.nfs_get_error(self.context) or b"")

    def call(self, name, *args):
        result = getattr(self.lib, name)(self.context, *args)
        if result < 0:
            raise OSError(-result, f"{name}: {self.error()}")
        return result

    def lstat(self, path):
        st = _Stat()
        self.call("nfs_lstat64", path, ctypes.byref(st))
        return SimpleNamespace(st_mode=st.mode, st_ino=st.ino, st_dev=st.dev, st_nlink=st.nlink, st_uid=st.uid, st_gid=st.gid,
                               st_size=st.size, st_rdev=st.rdev, st_mtime_ns=st.mtime * 10**9 + st.mtime_ns)

    def readlink(self, path):
        buf = ctypes.create_string_buffer(4097)
        self.call("nfs_readlink", path, buf, len(buf))
        return buf.value

    def listdir(self, path):
        handle, found = ctypes.c_void_p(), []
        self.call("nfs_opendir", path, ctypes.byref(handle))
        while entry := self.lib.nfs_readdir(self.context, handle):
            if entry.contents.name not in (b".", b".."):
                found.append(entry.contents.name)
        self.lib.nfs_closedir(self.context, handle)
        return found

    def open(self, path):
        handle = ctypes.c_void_p()
        self.call("nfs_open", path, os.O_RDONLY, ctypes.byref(handle))
        return handle

    def close(self, handle):
        self.call("nfs_close", handle)

    def digest(self, handle):
        """(hash, length) of an open file."""
        h, size, buf = hashlib.blake2b(digest_size=16), 0, ctypes.create_string_buffer(PIECE)
        while n := self.call("nfs_pread", handle, ctypes.c_uint64(size), ctypes.c_uint64(PIECE), buf):
            h.update(memoryview(buf)[:n])
            size += n
        return h.hexdigest(), size

    def digest_path(self, path):
        handle = self.open(path)
        try:
            return self.digest(handle)
        finally:
            self.close(handle)


class Reader:
    """What inventory.py asks of a tree, answered by an export."""

    def __init__(self, export):
        self.lstat, self.listdir, self.readlink, self.export = export.lstat, export.listdir, export.readlink, export

    def digest(self, path):
        return self.export.digest_path(path)


def inventory(port, export, out=None):
    from inventory import write
    write(b"", Reader(Export(port, export)), out, source=False)


def hold(port, export, file):
    mounted, path = Export(port, export), b"/" + os.fsencode(file)
    held = mounted.open(path)
    for _ in sys.stdin:
        fresh = mounted.digest_path(path)
        print("held", mounted.digest(held)[0], "fresh", fresh[0], "ino", mounted.lstat(path).st_ino, flush=True)


if __name__ == "__main__":
    {"inventory": inventory, "hold": hold}[sys.argv[1]](*sys.argv[2:])
