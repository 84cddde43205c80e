"""Damage, claims and malice done to valid files, each by what their form is made of: bytes, JSON, rows, archives, headers."""

import csv
import io
import json
import math
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np

WORDS = ["", " ", "\n", "a\nb", "\0", "a\0b", "../../up", "/etc/passwd", "~", "=1+1", "-1", "猫", "\udcff", "x" * 5000, "nan",
         "inf", "%s%n", "<script>a</script>", "{{ 7*7 }}", "__import__('os').getcwd()", "os:getcwd", "1e400", "٣", "\u202e",
         "CON", ".", ".."]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**9, 10**18, 10**30, -(2**63), 0.5, -0.0, 1e308,
           math.nan, math.inf, -math.inf]  # fmt: skip
SIZES = [0, 1, 2, 127, 255, 65535, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
JSON = ("null", "number", "word", "flag", "list", "object", "nested", "many", "other type")
CANARY = "CANARY"


class Exploit:
    """A pickle that makes a folder when it is read."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        import os

        return (os.mkdir, (CANARY,))


def damaged(random: Random, content: bytes) -> bytes:
    """One to four changes of bytes: cut off, turned over, repeated, taken out, or a size in their place."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        if not changed:
            return bytes(changed)
        place, length = random.randrange(len(changed)), random.choice((1, 2, 4, 8, 16, 64))
        if random.random() < 0.5:  # headers are where the claims are
            place = min(place, random.randrange(128))
        match random.choice(("cut", "flip", "repeat", "remove", "size", "random")):
            case "cut":
                del changed[place:]
            case "flip":
                changed[place] ^= 1 << random.randrange(8)
            case "repeat":
                changed[place:place] = changed[place : place + length] * random.choice((1, 2, 50))
            case "remove":
                del changed[place : place + length]
            case "size":
                width = random.choice((2, 4, 8))
                size = random.choice(SIZES) % 2 ** (8 * width)
                changed[place : place + width] = size.to_bytes(width, random.choice(("little", "big")))
            case "random":
                changed[place : place + length] = random.randbytes(length)
    return bytes(changed)


def value(random: Random, before: object = None, deepest: int = 3) -> Any:
    """Any value of JSON, mostly one that does not belong where it is put."""
    match random.choice(JSON):
        case "null":
            return None
        case "number":
            return random.choice(NUMBERS)
        case "word":
            return random.choice(WORDS)
        case "flag":
            return random.random() < 0.5
        case "list":
            return [value(random, None, deepest - 1) for _ in range(random.randint(0, 3))] if deepest else []
        case "object":
            return (
                {random.choice(WORDS): value(random, None, deepest - 1) for _ in range(random.randint(0, 3))} if deepest else {}
            )
        case "nested":
            found: Any = 1
            for _ in range(random.choice((5, 200))):
                found = [found] if random.random() < 0.5 else {"a": found}
            return found
        case "many":
            return [random.choice(NUMBERS)] * random.choice((4, 1000))
    return {str: [before], dict: [*map(str, before)] if isinstance(before, dict) else 1, list: {"0": before}}.get(
        type(before), str(before)
    )


def places(content: object, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value in JSON."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place, *(found for key, each in inner for found in places(each, (*place, key)))]


def changed_json(random: Random, content: Any) -> Any:
    """One to three values replaced, taken out or put in."""
    content = json.loads(json.dumps(content))
    for _ in range(random.randint(1, 3)):
        where = random.choice(places(content))
        if not where:
            return value(random, content) if random.random() < 0.1 else content
        holder = content
        for key in where[:-1]:
            holder = holder[key]
        match random.choice(("replace", "replace", "remove", "add")):
            case "replace":
                holder[where[-1]] = value(random, holder[where[-1]])
            case "remove":
                del holder[where[-1]]
            case "add" if isinstance(holder, dict):
                holder[random.choice(WORDS)] = value(random)
            case "add":
                holder.insert(0, value(random))
    return content


def damaged_json(random: Random, content: bytes) -> bytes:
    """JSON with other values, or as damaged text, or nested without end."""
    how = random.random()
    if how < 0.75:
        return json.dumps(changed_json(random, json.loads(content)), ensure_ascii=random.random() < 0.5).encode(
            "utf-8", "replace"
        )
    if how < 0.8:
        return random.choice(
            (b"[" * 200_000, b'{"a":' * 100_000, b"", b"\xff\xfe", b"nul", b"1e999", b'"' + b"9" * 10_000 + b'"', b"9" * 10_000)
        )
    return damaged(random, content)


def damaged_rows(random: Random, content: bytes) -> bytes:
    """A table with other cells, rows and columns, or as damaged text."""
    if random.random() < 0.2:
        return damaged(random, content)
    rows = [*csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))]
    for _ in range(random.randint(1, 3)):
        if not rows:
            break
        row = random.randrange(len(rows)) if random.random() < 0.8 else 0
        match random.choice(("cell", "cell", "cell", "cell", "row", "repeat", "column", "short", "long", "none")):
            case "cell" if rows[row]:
                rows[row][random.randrange(len(rows[row]))] = str(random.choice([*WORDS, *NUMBERS]))
            case "row":
                del rows[row]
            case "repeat":
                rows += rows[row : row + 2] * random.choice((1, 300))
            case "column":
                column = random.randrange(9)
                rows = [each[:column] + each[column + 1 :] for each in rows]
            case "short":
                rows[row] = rows[row][:-1]
            case "long":
                rows[row] = [*rows[row], "more", "x" * 200_000]
            case "none":
                rows = rows[:1]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=random.choice(("\n", "\r\n"))).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def damaged_npy(random: Random, content: bytes) -> bytes:
    """An .npy file whose header claims another shape or type, or that holds a pickle."""
    if random.random() < 0.15:
        return b"\x93NUMPY\x01\x00" + _npy_header("|O", (1,)) + pickle.dumps(Exploit())
    if random.random() < 0.3:
        return damaged(random, content)
    array = np.load(io.BytesIO(content))
    shape = list(array.shape) or [1]
    for _ in range(random.randint(1, 2)):
        match random.choice(("size", "more", "fewer", "swap")):
            case "size" if shape:
                shape[random.randrange(len(shape))] = random.choice([*SIZES, -1])
            case "more":
                shape.append(random.choice(SIZES))
            case "fewer":
                shape = shape[:-1]
            case "swap":
                random.shuffle(shape)
    kind = random.choice(
        ("|u1", "<i8", "<f4", "<f8", "<U5", "|S3", "|b1", ">i2", "<M8[s]", "|V7", "<c8", "<U100000000", array.dtype.str)
    )
    return b"\x93NUMPY\x01\x00" + _npy_header(kind, tuple(shape)) + array.tobytes()


def _npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return struct.pack("<H", len(header)) + header


def damaged_zip(random: Random, content: bytes, inner: Callable[[Random, str, bytes], bytes]) -> bytes:
    """An archive with one member changed by `inner`, renamed, repeated, packed, or with claims that are not true."""
    if random.random() < 0.2:
        return damaged(random, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    place = random.randrange(len(entries))
    name, member = entries[place]
    how, packing = (
        random.choice(("inner", "inner", "inner", "inner", "name", "twice", "gone", "claim", "bomb")),
        zipfile.ZIP_STORED,
    )
    match how:
        case "inner":
            entries[place] = name, inner(random, name, member)
        case "name":
            entries[place] = random.choice(("../x", "/x", "a\\..\\b", "x/" * 200 + "x", "x" * 300, "\x01", "con")) + name, member
        case "gone":
            del entries[place]
        case "bomb":
            packing = zipfile.ZIP_DEFLATED
            entries[place] = name, member + bytes(random.choice((2**20, 2**24)))
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", packing) as archive:
        warnings.simplefilter("ignore")  # that a name stands twice
        for key, each in entries + (entries[:1] if how == "twice" else []):
            archive.writestr(zipfile.ZipInfo(key.replace("\0", "")), each, packing)
    made = bytearray(stream.getvalue())
    if how == "claim" and (found := made.rfind(b"PK\x01\x02")) >= 0:  # sizes in the central directory
        struct.pack_into("<I", made, found + random.choice((20, 24, 42)), random.choice(SIZES) % 2**32)
    return bytes(made)


def damaged_tar(random: Random, content: bytes, inner: Callable[[Random, str, bytes], bytes]) -> bytes:
    """A tar archive with one member changed, renamed, made a link or a device, or with another size in its header."""
    if random.random() < 0.2:
        return damaged(random, content)
    stream, place = io.BytesIO(), random.randrange(1000)
    with tarfile.open(fileobj=io.BytesIO(content)) as before, tarfile.open(fileobj=stream, mode="w") as after:
        members = before.getmembers()
        for number, info in enumerate(members):
            file = before.extractfile(info)
            each = file.read() if file else b""
            if number == place % len(members):
                match random.choice(("inner", "inner", "name", "link", "device", "twice", "gone", "claim")):
                    case "inner":
                        each = inner(random, info.name, each)
                    case "name":
                        info.name = random.choice(("../x", "/x/", "x/" * 200, "\x01", "a/../../", "猫")) + info.name
                    case "link":
                        info.type, info.linkname, each = random.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), "/etc/passwd", b""
                    case "device":
                        info.type, each = random.choice((tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S", b"Z")), b""
                    case "twice":
                        after.addfile(info, io.BytesIO(each))
                    case "gone":
                        continue
                    case "claim":  # a header for the next file, of any size
                        header = tarfile.TarInfo("x")
                        header.type, header.size = random.choice((b"x", b"g", b"L", b"K")), random.choice(SIZES)
                        assert after.fileobj is not None
                        after.fileobj.write(header.tobuf(tarfile.GNU_FORMAT))
            info.size = len(each)
            after.addfile(info, io.BytesIO(each))
    return stream.getvalue()


def claiming_parquet(random: Random, content: bytes) -> bytes:
    """A parquet file of which a page or a dictionary claims another size, or other numbers of values."""
    begins = [place for sign in (b"\x15\x00\x15", b"\x15\x04\x15") for place in _all_places(content, sign)]
    if not begins:
        return damaged(random, content)
    place = random.choice(begins) + 2
    for _ in range(random.randrange(4)):  # its sizes, a mark of a struct and a number, or the next of them
        place = _after_number(content, place + 1)
        if content[place : place + 1] in (b"\x2c", b"\x4c", b"\x5c"):
            place += 1
    return content[: place + 1] + _number(random.choice(SIZES)) + content[_after_number(content, place + 1) :]


def _all_places(content: bytes, sign: bytes) -> list[int]:
    return [place for place in range(len(content)) if content.startswith(sign, place)]


def _after_number(content: bytes, place: int) -> int:
    while place < len(content) and content[place] & 128:
        place += 1
    return place + 1


def _number(value: int) -> bytes:
    """A number as Thrift writes it, above 0."""
    value, found = 2 * value, bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def damaged_safetensors(random: Random, content: bytes) -> bytes:
    """A .safetensors file whose header claims something else."""
    if random.random() < 0.25:
        return damaged(random, content)
    length = struct.unpack("<Q", content[:8])[0]
    header: Mapping[str, Any] = changed_json(random, json.loads(content[8 : 8 + length]))
    text = json.dumps(header).encode("utf-8", "replace")
    size = len(text) if random.random() < 0.9 else random.choice(SIZES)
    return struct.pack("<Q", size) + text + content[8 + length :]
