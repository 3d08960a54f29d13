"""Pictures made of numbers: blocks of seeded colours, written as PNG or as JPEG by a few lines each.

What a server does with an image depends on its size in pixels, not on what it shows. All of one workload differ.
"""

from __future__ import annotations

import struct
import zlib
from functools import cache
from random import Random

Colour = tuple[int, int, int]
_BLOCK = 8


def picture(draw: Random, width: int, height: int, kind: str) -> bytes:
    """A picture in a file's form; `kind` is `png` or `jpeg`."""
    columns, rows = -(-width // _BLOCK), -(-height // _BLOCK)
    blocks = [[_colour(draw) for _ in range(columns)] for _ in range(rows)]
    return png(blocks, width, height) if kind == "png" else jpeg(blocks, width, height)


def _colour(draw: Random) -> Colour:
    bits = draw.getrandbits(24)
    return bits & 255, bits >> 8 & 255, bits >> 16


# --- PNG -------------------------------------------------------------------------------------------------------------


def png(blocks: list[list[Colour]], width: int, height: int) -> bytes:
    """An 8-bit RGB picture."""
    lines = []
    for row in blocks:
        line = b"\0" + b"".join(bytes(colour) * _BLOCK for colour in row)[: 3 * width]
        lines += [line] * _BLOCK
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(lines[:height]), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


# --- JPEG: baseline; each 8 by 8 block is one colour, so that only its first coefficient is written -------------------

_DC_LENGTHS = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)
"""Codes by length of the standard's table for luminance; the symbols 0 to 11 follow in order."""
_QUANTUM = 8
"""Divides all coefficients; with it the first one is the block's mean less 128."""


def jpeg(blocks: list[list[Colour]], width: int, height: int) -> bytes:
    """A baseline picture in three components."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"".join(bytes((at, 0x11, 0)) for at in (1, 2, 3))
    scan = b"\x03" + b"".join(bytes((at, 0)) for at in (1, 2, 3)) + b"\0\x3f\0"
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            _segment(0xDB, b"\0" + bytes((_QUANTUM,)) * 64),
            _segment(0xC0, frame),
            _segment(0xC4, b"\0" + bytes(_DC_LENGTHS) + bytes(range(12))),
            _segment(0xC4, b"\x10" + bytes((1, *(0,) * 15)) + b"\0"),
            _segment(0xDA, scan),
            _scanned(blocks),
            b"\xff\xd9",
        )
    )


def _segment(mark: int, body: bytes) -> bytes:
    return bytes((0xFF, mark)) + struct.pack(">H", len(body) + 2) + body


def _scanned(blocks: list[list[Colour]]) -> bytes:
    codes, before, bits = _dc_codes(), [0, 0, 0], []
    for row in blocks:
        for colour in row:
            for at, level in enumerate(_levels(colour)):
                difference, before[at] = level - before[at], level
                size = abs(difference).bit_length()
                bits.append(codes[size])
                if size:
                    bits.append(format(difference if difference > 0 else difference + (1 << size) - 1, f"0{size}b"))
                bits.append("0")  # the end of the block
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def _levels(colour: Colour) -> tuple[int, int, int]:
    """Luminance and the two colour differences, around zero."""
    red, green, blue = colour
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    return round(bright - 128), round(0.564 * (blue - bright)), round(0.713 * (red - bright))


@cache
def _dc_codes() -> list[str]:
    codes, code, symbol = [], 0, 0
    for length, count in enumerate(_DC_LENGTHS, 1):
        for _ in range(count):
            codes.append(format(code, f"0{length}b"))
            code, symbol = code + 1, symbol + 1
        code <<= 1
    return codes
