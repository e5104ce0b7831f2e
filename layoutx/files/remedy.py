"""What a user can do about a call of the system that failed."""

from __future__ import annotations

import errno

ELSEWHERE = "make room, or choose another folder"
_DO = {
    errno.EDQUOT: "your quota is used up: make room, or choose a folder of another file system",
    errno.EFBIG: "files may not be that large here (ulimit -f, or the file system): write shards, --max-shard-size",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n), or use fewer threads (--jobs)",
    errno.ENFILE: "too many files are open on this machine: wait, or close some",
    errno.ENOMEM: "free memory, or use fewer threads (--jobs)",
    errno.EIO: "the disk or its network failed: check it, and run the same command again",
    errno.EROFS: "the file system is mounted read-only: choose another folder",
    errno.EACCES: "choose a folder that you may write, or change its permissions",
    errno.EPERM: "choose a folder that you may write, or change its permissions (an immutable file: chattr -i)",
    errno.ENOENT: "the folder is gone: create it again, and run the same command again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "remove the links that lead to each other, or choose another name",
    errno.EISDIR: "there is a folder of that name: choose another one",
}


def remedy(error: BaseException) -> str:
    """One sentence for the `do` of an error."""
    if isinstance(error, MemoryError):
        return _DO[errno.ENOMEM]
    return _DO.get(getattr(error, "errno", None) or 0, ELSEWHERE)
