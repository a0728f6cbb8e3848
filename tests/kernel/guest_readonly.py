"""In a guest: every kind of change is refused. The host's part is readonly.sh."""
import errno
import os
import stat

from guest import check, digest, names, run, same

# What a client asks for with ACCESS first it may refuse by itself, as EACCES.
REFUSED = (errno.EROFS, errno.EACCES)


def main():
    for mount in ("/mnt/clone", "/mnt/version"):
        what, small, new = mount[5:], mount + "/change/small", mount + "/new"
        before = {p: digest(p) for p in names(mount) if not os.path.islink(p)}
        with open(small) as f:
            f.read()

        def refused(name, change, among=REFUSED):
            try:
                change()
            except OSError as e:
                check(f"{what}: {name} is refused", e.errno in among, errno.errorcode.get(e.errno, e.errno))
            else:
                check(f"{what}: {name} is refused", False, "it succeeded")

        refused("chmod", lambda: os.chmod(small, 0o600), (errno.EROFS,))
        refused("chown", lambda: os.chown(small, 1, 1), (errno.EROFS,))
        refused("utimes", lambda: os.utime(small, (1, 1)), (errno.EROFS,))
        refused("truncate", lambda: os.truncate(small, 0))
        refused("open for writing", lambda: os.open(small, os.O_WRONLY))
        refused("create", lambda: os.open(new, os.O_CREAT | os.O_WRONLY))
        refused("exclusive create", lambda: os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        refused("mkdir", lambda: os.mkdir(new))
        refused("symlink", lambda: os.symlink("x", new))
        refused("mkfifo", lambda: os.mkfifo(new))
        refused("mknod", lambda: os.mknod(new, stat.S_IFCHR | 0o600, os.makedev(1, 3)))
        refused("link", lambda: os.link(small, new))
        refused("rename", lambda: os.rename(small, new))
        refused("unlink", lambda: os.unlink(small))
        refused("rmdir", lambda: os.rmdir(mount + "/dir/sub"))
        same(f"{what}: nothing changed", {p: digest(p) for p in names(mount) if not os.path.islink(p)} == before, True)


run(main)
