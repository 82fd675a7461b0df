"""Accounts: how many bytes a disk held for how long, from samples, as the clouds bill it: bytes x hours.

A sample holds until the next one, days without a mount included. What is old is kept in longer pieces, so that all
accounts of a pool together stay within `ALL_BYTES_MAX` for `KEPT_NS`. An account is packed as differences of means, to
the KiB: a disk that rests costs a few bytes a piece.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rowfs.base.errors import CorruptionError
from rowfs.rules.times import DAY_NS, HOUR_NS, SECOND_NS, WEEK_NS

KEPT_NS = 400 * DAY_NS
ALL_BYTES_MAX = 1 << 20
KINDS = ("provisioned", "mapped", "snapshots", "shared", "trash")
Amounts = tuple[int, ...]  # by KINDS

# How long pieces are, by how old they are at most; the finest first, of which the first that fits is taken.
LADDERS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((2 * DAY_NS, HOUR_NS), (14 * DAY_NS, 6 * HOUR_NS), (KEPT_NS, DAY_NS)),
    ((DAY_NS, HOUR_NS), (35 * DAY_NS, DAY_NS), (KEPT_NS, WEEK_NS)),
    ((7 * DAY_NS, DAY_NS), (KEPT_NS, 4 * WEEK_NS)),
    ((KEPT_NS, 12 * WEEK_NS),),
    ((KEPT_NS, KEPT_NS),),
)
VERSION = 1
MEAN_BYTES = 1024  # what means are rounded to when packed


@dataclass(frozen=True)
class Piece:
    """How much was held from `begin_s` to `end_s`, in bytes x seconds of each kind."""

    begin_s: int
    end_s: int
    byte_seconds: Amounts

    def since(self, since_s: int) -> Amounts:
        """What of it lies after `since_s`, as if it were spread evenly."""
        length_s, part_s = self.end_s - self.begin_s, self.end_s - max(self.begin_s, since_s)
        return (
            self.byte_seconds
            if part_s >= length_s
            else tuple(n * max(part_s, 0) // length_s for n in self.byte_seconds)
        )


@dataclass(frozen=True, kw_only=True)
class Account:
    """What one disk, or whatever is accounted for, held: pieces in order, and the last sample."""

    pieces: tuple[Piece, ...] = ()
    sampled_s: int | None = None
    holds: Amounts = (0,) * len(KINDS)  # bytes, at the last sample


# Samples


def sampled(account: Account, now_ns: int, held: Mapping[str, int]) -> Account:
    """`account` after a sample: bytes by kind, 0 for one that is not given. A clock that went back adds nothing."""
    amounts = tuple(held.get(kind, 0) for kind in KINDS)
    now_s = now_ns // SECOND_NS
    pieces = account.pieces
    if account.sampled_s is not None and now_s > account.sampled_s:
        begin_s = max(account.sampled_s, now_s - KEPT_NS // SECOND_NS)
        new = Piece(begin_s, now_s, tuple(n * (now_s - begin_s) for n in account.holds))
        pieces = (*pieces[:-1], *_joined([*pieces[-1:], new], lambda piece: HOUR_NS))
    return Account(pieces=pieces, sampled_s=now_s, holds=amounts)


def _joined(pieces: Iterable[Piece], length_ns: Callable[[Piece], int]) -> Iterator[Piece]:
    """`pieces` with those made one that follow each other within the same span of the length that both shall have."""
    before: Piece | None = None
    for piece in pieces:
        if before is not None and _belong_together(before, piece, length_ns(piece) // SECOND_NS):
            added = tuple(a + b for a, b in zip(before.byte_seconds, piece.byte_seconds, strict=True))
            before = Piece(before.begin_s, piece.end_s, added)
            continue
        if before is not None:
            yield before
        before = piece
    if before is not None:
        yield before


def _belong_together(before: Piece, piece: Piece, length_s: int) -> bool:
    return before.end_s == piece.begin_s and before.begin_s // length_s == (piece.end_s - 1) // length_s


def thinned(account: Account, now_ns: int, budget_bytes: int) -> Account:
    """`account` without what is older than `KEPT_NS`, in pieces so long that it packs into `budget_bytes`."""
    now_s = now_ns // SECOND_NS
    kept = [piece for piece in account.pieces if now_s - piece.end_s < KEPT_NS // SECOND_NS]
    for ladder in LADDERS:
        account = replace(account, pieces=tuple(_joined(kept, _lengths(ladder, now_s))))
        if len(pack(account)) <= budget_bytes:
            break
    return account


def _lengths(ladder: Sequence[tuple[int, int]], now_s: int) -> Callable[[Piece], int]:
    """How long a piece shall be, by its age."""

    def length_ns(piece: Piece) -> int:
        age_ns = (now_s - piece.end_s) * SECOND_NS
        return next((step_ns for most_ns, step_ns in ladder if age_ns < most_ns), ladder[-1][1])

    return length_ns


def share_bytes(accounts: int) -> int:
    """What each of so many accounts may take."""
    return ALL_BYTES_MAX // max(accounts, 1)


# Reports


@dataclass(frozen=True, kw_only=True)
class Total:
    """What one group of accounts holds now, in bytes, and held since when was asked, in bytes x hours, by kind."""

    holds: Mapping[str, int]
    byte_hours: Mapping[str, int]


def totals(
    accounts: Mapping[str, Account], group_of: Callable[[str], str | None], since_ns: int, now_ns: int
) -> dict[str, Total]:
    """Totals since `since_ns` by group, sorted; `group_of` gives the group of an account, None to leave it out."""
    since_s = since_ns // SECOND_NS
    held: dict[str, list[int]] = {}
    seconds: dict[str, list[int]] = {}
    for name, account in accounts.items():
        if (group := group_of(name)) is None:
            continue
        pieces = sampled(account, now_ns, {}).pieces if account.sampled_s is not None else ()
        for part in (piece.since(since_s) for piece in pieces if since_s < piece.end_s):
            seconds[group] = [a + b for a, b in zip(seconds.get(group, (0,) * len(KINDS)), part, strict=True)]
        held[group] = [a + b for a, b in zip(held.get(group, (0,) * len(KINDS)), account.holds, strict=True)]
    nothing = [0] * len(KINDS)
    return {
        group: Total(
            holds=dict(zip(KINDS, held[group], strict=True)),
            byte_hours={kind: n // 3600 for kind, n in zip(KINDS, seconds.get(group, nothing), strict=True)},
        )
        for group in sorted(held)
    }


# Stored


def pack(account: Account) -> bytes:
    """`account` as stored: a version, then numbers of 7 bits a byte, compressed."""
    numbers = [
        len(KINDS),
        0 if account.sampled_s is None else account.sampled_s + 1,
        *account.holds,
        len(account.pieces),
    ]
    end_s, means = 0, (0,) * len(KINDS)
    for piece in account.pieces:
        length_s = piece.end_s - piece.begin_s
        found = tuple((n + length_s * MEAN_BYTES // 2) // (length_s * MEAN_BYTES) for n in piece.byte_seconds)
        changes = (new - old for new, old in zip(found, means, strict=True))
        numbers += [_folded(piece.begin_s - end_s), length_s, *map(_folded, changes)]
        end_s, means = piece.end_s, found
    return bytes([VERSION]) + zlib.compress(b"".join(map(_varint, numbers)), 9)


def unpack(stored: bytes) -> Account:
    """The account that is stored. Raises CorruptionError when it is none."""
    try:
        if stored[:1] != bytes([VERSION]):
            raise ValueError("another version")
        numbers = _numbers(zlib.decompressobj().decompress(stored[1:], ALL_BYTES_MAX))
        kinds, sampled_s = next(numbers), next(numbers)
        if kinds != len(KINDS):
            raise ValueError("other kinds")
        holds = tuple(next(numbers) for _ in KINDS)
        pieces = tuple(_unpacked(numbers, next(numbers)))
        if next(numbers, None) is not None:
            raise ValueError("more than an account")
    except (ValueError, zlib.error, StopIteration, RuntimeError):
        raise CorruptionError("an account of what was used cannot be read") from None
    return Account(pieces=pieces, sampled_s=sampled_s - 1 if sampled_s else None, holds=holds)


def _unpacked(numbers: Iterator[int], count: int) -> Iterator[Piece]:
    end_s, means = 0, (0,) * len(KINDS)
    for _ in range(count):
        begin_s, length_s = end_s + _unfolded(next(numbers)), next(numbers)
        means = tuple(old + _unfolded(next(numbers)) for old in means)
        end_s = begin_s + length_s
        if length_s <= 0 or min(means) < 0:
            raise ValueError("a piece that cannot be")
        yield Piece(begin_s, end_s, tuple(mean * MEAN_BYTES * length_s for mean in means))


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


def _numbers(packed: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in packed:
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 90:
            raise ValueError("a number without an end")
        if not byte & 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("a number is cut off")
