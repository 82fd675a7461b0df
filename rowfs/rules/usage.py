"""Accounts: how many bytes a disk held for how long, from samples, as the clouds bill it: bytes x hours.

A sample holds until the next one, days without a mount included, and each second of the calendar is counted once: a
clock that goes back adds nothing before it has come to where it was. What is old is kept in longer pieces, so that all
accounts of a pool together stay within `ALL_BYTES_MAX` for `KEPT_NS`; sums stay what they were, to the byte x second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from rowfs.rules.times import DAY_NS, HOUR_NS, SECOND_NS, WEEK_NS

KEPT_NS = 400 * DAY_NS
ALL_BYTES_MAX = 1 << 20
ENDED_BYTES_MAX = ALL_BYTES_MAX // 4  # of accounts of what is gone; the oldest are added together beyond
OWN_BYTES_MAX = ALL_BYTES_MAX - ENDED_BYTES_MAX
OWN_MAX = 4096  # accounts of what is there; what comes later is in one together
KINDS = ("provisioned", "mapped", "snapshots", "shared", "trash")
Amounts = tuple[int, ...]  # by KINDS
NOTHING: Amounts = (0,) * len(KINDS)

# How long pieces are, by how old they are at most; the finest first, of which the first that fits is taken.
LADDERS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((2 * DAY_NS, HOUR_NS), (14 * DAY_NS, 6 * HOUR_NS), (KEPT_NS, DAY_NS)),
    ((DAY_NS, HOUR_NS), (35 * DAY_NS, DAY_NS), (KEPT_NS, WEEK_NS)),
    ((7 * DAY_NS, DAY_NS), (KEPT_NS, 4 * WEEK_NS)),
    ((KEPT_NS, 12 * WEEK_NS),),
    ((KEPT_NS, KEPT_NS),),
)


class Kind(IntEnum):
    """What an account is of."""

    DISK = 0
    POLICY = 1  # of which it holds what the policy's snapshots alone do, as `snapshots`


@dataclass(frozen=True)
class Piece:
    """How much was held from `begin_s` to `end_s`, in bytes x seconds of each kind."""

    begin_s: int
    end_s: int
    byte_seconds: Amounts

    def until(self, at_s: int) -> Amounts:
        """What of it lies before `at_s`, as if it were spread evenly."""
        part_s = min(max(at_s - self.begin_s, 0), self.end_s - self.begin_s)
        return tuple(n * part_s // (self.end_s - self.begin_s) for n in self.byte_seconds)

    def since(self, at_s: int) -> Amounts:
        """And what after it: the rest."""
        return minus(self.byte_seconds, self.until(at_s))


@dataclass(frozen=True, kw_only=True)
class Account:
    """What one disk, or one policy's snapshots, held: pieces in order, and the last sample."""

    kind: Kind = Kind.DISK
    ended: bool = False  # what it is of is gone: these are the last name and labels that it had
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[Piece, ...] = ()
    sampled_s: int | None = None
    holds: Amounts = NOTHING  # bytes, at the last sample

    @property
    def counted_s(self) -> int | None:
        """Up to when it is counted; None: it has no sample."""
        if self.sampled_s is None or not self.pieces:
            return self.sampled_s
        return max(self.sampled_s, self.pieces[-1].end_s)


def plus(a: Amounts, b: Amounts) -> Amounts:
    """Both together, kind by kind."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


def minus(a: Amounts, b: Amounts) -> Amounts:
    """The difference, kind by kind."""
    return tuple(x - y for x, y in zip(a, b, strict=True))


# Samples


def sampled(account: Account, now_ns: int, held: Amounts) -> Account:
    """`account` after a sample: bytes by KINDS."""
    now_s, begin_s = now_ns // SECOND_NS, account.counted_s
    pieces = account.pieces
    if begin_s is not None and now_s > begin_s:
        begin_s = max(begin_s, now_s - KEPT_NS // SECOND_NS)
        new = Piece(begin_s, now_s, tuple(n * (now_s - begin_s) for n in account.holds))
        pieces = (*pieces[:-1], *_joined([*pieces[-1:], new], lambda piece: HOUR_NS))
    return replace(account, pieces=pieces, sampled_s=now_s, holds=held)


def _joined(pieces: Iterable[Piece], length_ns: Callable[[Piece], int]) -> Iterator[Piece]:
    """`pieces` with those made one that follow each other within the same span of the length that both shall have."""
    before: Piece | None = None
    for piece in pieces:
        if before is not None and _belong_together(before, piece, length_ns(piece) // SECOND_NS):
            before = Piece(before.begin_s, piece.end_s, plus(before.byte_seconds, piece.byte_seconds))
            continue
        if before is not None:
            yield before
        before = piece
    if before is not None:
        yield before


def _belong_together(before: Piece, piece: Piece, length_s: int) -> bool:
    return before.end_s == piece.begin_s and before.begin_s // length_s == (piece.end_s - 1) // length_s


def thinned(account: Account, now_ns: int, size_bytes: Callable[[Account], int], budget_bytes: int) -> Account:
    """`account` without what is older than `KEPT_NS`, in pieces so long that it takes no more than `budget_bytes`."""
    now_s = now_ns // SECOND_NS
    kept = [piece for piece in account.pieces if now_s - piece.end_s < KEPT_NS // SECOND_NS]
    for ladder in LADDERS:
        account = replace(account, pieces=tuple(_joined(kept, _lengths(ladder, now_s))))
        if size_bytes(account) <= budget_bytes:
            break
    return account


def _lengths(ladder: Sequence[tuple[int, int]], now_s: int) -> Callable[[Piece], int]:
    """How long a piece shall be, by its age."""

    def length_ns(piece: Piece) -> int:
        age_ns = (now_s - piece.end_s) * SECOND_NS
        return next((step_ns for most_ns, step_ns in ladder if age_ns < most_ns), ladder[-1][1])

    return length_ns


def share_bytes(accounts: int) -> int:
    """What each of so many accounts of what is there may take."""
    return OWN_BYTES_MAX // max(accounts, 1)


def merged(account: Account, other: Account) -> Account:
    """`account` with what another one held; its last sample is its own."""
    cuts = sorted({edge for each in (account, other) for piece in each.pieces for edge in (piece.begin_s, piece.end_s)})
    held: dict[tuple[int, int], Amounts] = {}
    for piece in (*account.pieces, *other.pieces):
        inside = [edge for edge in cuts[bisect_left(cuts, piece.begin_s) :] if edge <= piece.end_s]
        for begin_s, end_s in zip(inside, inside[1:], strict=False):
            part = minus(piece.until(end_s), piece.until(begin_s))
            held[begin_s, end_s] = plus(held.get((begin_s, end_s), NOTHING), part)
    return replace(account, pieces=tuple(Piece(*span, amounts) for span, amounts in sorted(held.items())))


# Sums


def byte_seconds(account: Account, since_ns: int, now_ns: int) -> Amounts:
    """How much was held for how long since `since_ns`, up to now; the last sample holds on."""
    if account.sampled_s is None:
        return NOTHING
    since_s = since_ns // SECOND_NS
    total = NOTHING
    for piece in sampled(account, now_ns, account.holds).pieces:
        if piece.end_s > since_s:
            total = plus(total, piece.since(since_s))
    return total
