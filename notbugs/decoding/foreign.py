"""Files that are not what their names say: pointers in place of contents, and web pages in place of downloads."""

BEGIN = 256  # bytes that are looked at


def foreign_content(begin: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes, and the way out; None for any that may be what its name says.

    Examples
    --------
    >>> foreign_content(b"version https://git-lfs.github.com/spec/v1")[0], foreign_content(b"GIF89a")
    ('is a pointer of Git LFS, whose content is not here', None)
    """
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, whose content is not here", "get it with `git lfs pull`"
    if text.startswith((b"outs:", b"md5:")) and b"path:" in text:
        return "is a pointer of DVC, whose content is not here", "get it with `dvc pull`"
    if text.startswith((b"<!doctype html", b"<html")) or (text.startswith(b"<?xml") and b"<error>" in text):
        return "is a web page, as a failed download leaves it", "download it again"
    if begin[128:132] == b"DICM":
        return "is a medical image (DICOM), of which a window of values must be chosen", "save each image as a .png"
    return None
