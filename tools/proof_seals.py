"""Flips a bit in many sealed blocks of a pool: each has to be found by its read and by the checker, and put right.

proof_seals.py [--blocks N] [--seed N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rowfs.base.errors import BlockDamagedError
from rowfs.base.units import BLOCK_BYTES, MIB, PAGE_BLOCKS, PageIndex
from rowfs.store.check import check_pool
from rowfs.store.diskio import point_of
from rowfs.store.pool import Pool, init_pool

TIMES = 8  # as many blocks are there as are damaged


def main() -> int:
    """Print what came of it; 1 if anything is not as it has to be."""
    parser = argparse.ArgumentParser(prog="proof_seals.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--dir", type=Path)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="proof-seals-", dir=options.dir) as directory:
        outcome = prove(Path(directory) / "pool", options.blocks, random.Random(options.seed))
    print(", ".join(f"{count} {what}" for what, count in outcome.items()))
    wanted = {"damaged": options.blocks, "found by reads": options.blocks, "found by the checker": options.blocks}
    return 0 if outcome == wanted | {"wrong bytes": 0, "repaired": options.blocks, "left": 0} else 1


def prove(path: Path, blocks: int, rng: random.Random) -> dict[str, int]:
    """Damage so many blocks of a new pool, find them and put them right: how many of each."""
    image = rng.randbytes(blocks * TIMES * BLOCK_BYTES)
    init_pool(str(path))
    pool = Pool(str(path))
    disk = pool.create_disk("disk", len(image))
    for at in range(0, len(image), MIB):
        pool.write(disk, at, image[at : at + MIB])
    snapshot = pool.snapshot(disk, "s")
    pool.sealer.run()
    pool.commit()
    places = [
        pool.versions.page(point_of(disk), PageIndex(block // PAGE_BLOCKS)).addresses[block % PAGE_BLOCKS]
        for block in range(blocks * TIMES)
    ]
    damaged = set(rng.sample(range(blocks * TIMES), blocks))
    _flip(path / "data", [places[block] for block in sorted(damaged)], rng)
    found = wrong = 0
    for block in range(blocks * TIMES):
        target = disk if block % 2 else snapshot
        try:
            data = pool.read(target, block * BLOCK_BYTES, BLOCK_BYTES)
            wrong += data != image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        except BlockDamagedError:
            found += block in damaged
    pool.close()
    checked = _damage_found(path)
    pool = Pool(str(path))
    repaired = sum(
        pool.io.restore(places[block], image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]) for block in damaged
    )
    pool.close()
    return {
        "damaged": len(damaged),
        "found by reads": found,
        "found by the checker": checked,
        "wrong bytes": wrong,
        "repaired": repaired,
        "left": _damage_found(path),
    }


def _flip(data: Path, addresses: list[int], rng: random.Random) -> None:
    with open(data, "r+b") as file:
        for address in addresses:
            at = address * BLOCK_BYTES + rng.randrange(BLOCK_BYTES)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def _damage_found(path: Path) -> int:
    return sum(finding.check == "data" for finding in check_pool(str(path), data=True)[0])


if __name__ == "__main__":
    sys.exit(main())
