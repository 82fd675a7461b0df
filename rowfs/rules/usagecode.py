"""An account to bytes and back: numbers of 7 bits a byte, compressed. docs/FORMAT.md has it byte by byte.

What is held in a piece is stored as its mean and what that leaves over, so that it comes back exactly, and a disk that
rests costs a few bytes a piece.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

from rowfs.base.errors import CorruptionError
from rowfs.rules.usage import ALL_BYTES_MAX, KINDS, NOTHING, Account, Kind, Piece

VERSION = 1
MEAN_BYTES = 4096  # what means are rounded down to: blocks
ENDED, HOLDING, KIND_SHIFT = 1, 2, 2  # of the byte of flags, which can be read alone
_TEXT_BYTES_MAX = 1 << 16


def pack(account: Account) -> bytes:
    """`account` as stored."""
    labels = json.dumps(account.labels, separators=(",", ":")).encode() if account.labels else b""
    flags = account.ended * ENDED | (account.holds != NOTHING) * HOLDING | account.kind << KIND_SHIFT
    texts = b"".join(_varint(len(text)) + text for text in (account.name.encode(errors="surrogateescape"), labels))
    sampled = 0 if account.sampled_s is None else account.sampled_s + 1
    numbers = [len(KINDS), sampled, *account.holds, len(account.pieces)]
    end_s, means = 0, NOTHING
    for piece in account.pieces:
        length_s = piece.end_s - piece.begin_s
        found = [divmod(n, length_s * MEAN_BYTES) for n in piece.byte_seconds]
        numbers += [_folded(piece.begin_s - end_s), length_s]
        for (mean, rest), before in zip(found, means, strict=True):
            numbers += [_folded(mean - before), rest]
        end_s, means = piece.end_s, tuple(mean for mean, _ in found)
    return bytes([VERSION, flags]) + zlib.compress(texts + b"".join(map(_varint, numbers)), 9)


def unpack(stored: bytes) -> Account:
    """The account that is stored. Raises CorruptionError when it is none."""
    try:
        if len(stored) < 2 or stored[0] != VERSION:
            raise ValueError("another version")
        stream = zlib.decompressobj()
        packed = stream.decompress(stored[2:], ALL_BYTES_MAX)
        if not stream.eof or stream.unused_data:
            raise ValueError("cut off, or more than an account")
        account = _account(_Numbers(packed), Kind(stored[1] >> KIND_SHIFT), bool(stored[1] & ENDED))
        if (account.holds != NOTHING) != bool(stored[1] & HOLDING):
            raise ValueError("flags of another account")
        return account
    except (ValueError, zlib.error, RecursionError):
        raise CorruptionError("an account of what was used cannot be read") from None


def is_ended(stored: bytes) -> bool:
    """Whether what it is of is gone."""
    return len(stored) > 1 and bool(stored[1] & ENDED)


def is_holding(stored: bytes) -> bool:
    """Whether its last sample has anything."""
    return len(stored) > 1 and bool(stored[1] & HOLDING)


class _Numbers:
    """Reads what is packed, from the front."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._at = 0

    def next(self, most: int | None = None) -> int:
        """A number. Raises ValueError when there is none, or it is more than `most`."""
        number = shift = 0
        while True:
            if self._at == len(self._packed) or shift > 112:
                raise ValueError("a number is cut off, or has no end")
            byte = self._packed[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        if most is not None and number > most:
            raise ValueError("a number that cannot be")
        return number

    def text(self) -> bytes:
        """Bytes behind their length."""
        length = self.next(_TEXT_BYTES_MAX)
        found = self._packed[self._at : self._at + length]
        self._at += length
        if len(found) < length:
            raise ValueError("text is cut off")
        return found

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._packed)


def _account(numbers: _Numbers, kind: Kind, ended: bool) -> Account:
    name, labels = numbers.text().decode(errors="surrogateescape"), numbers.text()
    if numbers.next() != len(KINDS):
        raise ValueError("other kinds")
    sampled = numbers.next(1 << 40)
    holds = tuple(numbers.next() for _ in KINDS)
    pieces = tuple(_pieces(numbers, numbers.next(ALL_BYTES_MAX)))
    if not numbers.over:
        raise ValueError("more than an account")
    return Account(
        kind=kind,
        ended=ended,
        name=name,
        labels=_labels(labels),
        pieces=pieces,
        sampled_s=sampled - 1 if sampled else None,
        holds=holds,
    )


def _labels(stored: bytes) -> dict[str, str]:
    found = json.loads(stored) if stored else {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("no labels")
    return found


def _pieces(numbers: _Numbers, count: int) -> Iterator[Piece]:
    end_s, means = 0, NOTHING
    for _ in range(count):
        begin_s, length_s = end_s + _unfolded(numbers.next()), numbers.next(1 << 40)
        amounts, found = [], []
        for before in means:
            mean, rest = before + _unfolded(numbers.next()), numbers.next()
            if mean < 0 or rest >= length_s * MEAN_BYTES:
                raise ValueError("a mean that cannot be")
            found.append(mean)
            amounts.append(mean * length_s * MEAN_BYTES + rest)
        if begin_s < end_s or not length_s:
            raise ValueError("a piece that cannot be")
        end_s, means = begin_s + length_s, tuple(found)
        yield Piece(begin_s, end_s, tuple(amounts))


def _folded(number: int) -> int:
    """A number with a sign as one without: small ones stay small."""
    return number * 2 if number >= 0 else -number * 2 - 1


def _unfolded(number: int) -> int:
    return -(number + 1) // 2 if number % 2 else number // 2


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
