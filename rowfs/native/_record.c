/* Making records of the journal. */
#include "_record.h"

#include <endian.h>
#include <string.h>

enum {
    HEADER_BYTES = 24,
    CHECKED_FROM = 8, /* magic and checksum come before */
    ENTRY_BYTES = 4,
    PLACE_BYTES = ENTRY_BYTES + 8 + 8,
    PAGES = 4, /* in rowfs.base.format.TABLES */
    COUNTS = 253,
    DATA = 254,
    PLACE = 255,

    VERSION_HEADER_BYTES = 5,
    CODEC_RUNS = 1,
    CODEC_PLAIN = 2,
    ADDRESS_BYTES = 6,
    PLAIN_BYTES = PAGE_BLOCKS * ADDRESS_BYTES + PAGE_BLOCKS / 8,
    RUNS_MAX = PLAIN_BYTES / (2 + ADDRESS_BYTES),
    OWNED_BIT = 1 << 9,
    MAPPED_BIT = 1 << 10,

    COUNTED_BYTES = 6 * 8,
};

_Static_assert(VERSION_HEADER_BYTES + PLAIN_BYTES + 2 /* of put_address */ <= VERSION_ROOM_BYTES, "room for any version");

/* CRC-32 as zlib has it, eight bytes at a time. */

static uint32_t tables[8][256];

__attribute__((constructor)) static void make_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;

        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xEDB88320 : 0);
        tables[0][byte] = value;
    }
    for (int table = 1; table < 8; table++)
        for (int byte = 0; byte < 256; byte++)
            tables[table][byte] = tables[table - 1][byte] >> 8 ^ tables[0][tables[table - 1][byte] & 0xFF];
}

static uint32_t checksum(uint32_t before, const void *data, size_t size) {
    const unsigned char *at = data;
    uint32_t value = ~before;

    for (; size >= 8; size -= 8, at += 8) {
        uint64_t eight;

        memcpy(&eight, at, 8);
        eight = le64toh(eight) ^ value;
        value = tables[7][eight & 0xFF] ^ tables[6][eight >> 8 & 0xFF] ^ tables[5][eight >> 16 & 0xFF] ^
                tables[4][eight >> 24 & 0xFF] ^ tables[3][eight >> 32 & 0xFF] ^ tables[2][eight >> 40 & 0xFF] ^
                tables[1][eight >> 48 & 0xFF] ^ tables[0][eight >> 56];
    }
    for (; size; size--, at++)
        value = value >> 8 ^ tables[0][(value ^ *at) & 0xFF];
    return ~value;
}

/* Integers */

static char *put_u16(char *at, uint16_t value) {
    value = htole16(value);
    return mempcpy(at, &value, sizeof(value));
}

static char *put_u32(char *at, uint32_t value) {
    value = htole32(value);
    return mempcpy(at, &value, sizeof(value));
}

static char *put_u64(char *at, uint64_t value) {
    value = htole64(value);
    return mempcpy(at, &value, sizeof(value));
}

static char *put_address(char *at, int64_t address) {
    put_u64(at, address); /* two bytes more, which what follows writes over: there is room for them */
    return at + ADDRESS_BYTES;
}

/* Versions of pages */

/* The page as runs: how many bytes, 0 if there are so many that plain is smaller. */
static size_t put_runs(char *body, const int64_t *addresses, const char *owned) {
    uint16_t heads[RUNS_MAX];
    int64_t firsts[RUNS_MAX];
    size_t runs = 0, mapped_runs = 0;
    char *at = body;

    for (size_t slot = 0; slot < PAGE_BLOCKS; slot++) {
        bool owns = owned[slot] != 0, mapped = addresses[slot] != 0;

        if (slot && owns == (owned[slot - 1] != 0) && mapped == (addresses[slot - 1] != 0) &&
            addresses[slot] - addresses[slot - 1] == mapped) {
            heads[runs - 1]++; /* the low bits count slots, less one */
            continue;
        }
        if (runs == RUNS_MAX)
            return 0;
        heads[runs++] = owns * OWNED_BIT | mapped * MAPPED_BIT;
        if (mapped)
            firsts[mapped_runs++] = addresses[slot];
    }
    for (size_t run = 0; run < runs; run++)
        at = put_u16(at, heads[run]);
    for (size_t run = 0; run < mapped_runs; run++)
        at = put_address(at, firsts[run]);
    return at - body;
}

static size_t put_plain(char *body, const int64_t *addresses, const char *owned) {
    char *at = body;

    for (size_t slot = 0; slot < PAGE_BLOCKS; slot++)
        at = put_address(at, addresses[slot]);
    for (size_t slot = 0; slot < PAGE_BLOCKS; slot += 8) {
        unsigned bits = 0;

        for (size_t bit = 0; bit < 8; bit++)
            bits |= (owned[slot + bit] != 0) << bit;
        *at++ = (char)bits;
    }
    return at - body;
}

size_t record_version(char *value, const char *key, const int64_t *addresses, const char *owned) {
    char *body = value + VERSION_HEADER_BYTES;
    size_t size = put_runs(body, addresses, owned);

    value[0] = size ? CODEC_RUNS : CODEC_PLAIN;
    if (size == 0)
        size = put_plain(body, addresses, owned);
    put_u32(value + 1, checksum(checksum(0, key, VERSION_KEY_BYTES), body, size));
    return VERSION_HEADER_BYTES + size;
}

/* Entries */

static char *begin_entry(struct record *record, int table, size_t key_bytes, size_t value_bytes) {
    char *at = record->bytes + record->size;

    *at++ = (char)table;
    *at++ = (char)key_bytes;
    record->size += ENTRY_BYTES + key_bytes + value_bytes;
    return put_u16(at, value_bytes);
}

size_t record_room(size_t pages, size_t disks, size_t blocks) {
    size_t size = HEADER_BYTES + PLACE_BYTES +
                  pages * (ENTRY_BYTES + VERSION_KEY_BYTES + VERSION_HEADER_BYTES + PLAIN_BYTES) +
                  disks * (ENTRY_BYTES + 8 + COUNTED_BYTES) + blocks * (ENTRY_BYTES + 8 + BLOCK_BYTES);

    return (size + 2 /* of put_address */ + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

void record_begin(struct record *record, char *room) {
    record->bytes = room;
    record->size = HEADER_BYTES + PLACE_BYTES;
}

void record_page(struct record *record, const struct version *version, const int64_t *addresses, const char *owned) {
    char *key = begin_entry(record, PAGES, VERSION_KEY_BYTES, 0);
    uint32_t parts[] = {htobe32(version->branch), htobe32(version->page), htobe32(version->epoch)};
    size_t size;

    _Static_assert(sizeof(parts) == VERSION_KEY_BYTES, "a key");
    memcpy(key, parts, sizeof(parts));
    size = record_version(key + VERSION_KEY_BYTES, key, addresses, owned);
    put_u16(key - 2, size);
    record->size += size;
}

void record_counts(struct record *record, const struct counts *counts) {
    char *at = begin_entry(record, COUNTS, 8, COUNTED_BYTES);

    at = put_u64(at, counts->disk);
    at = put_u64(at, counts->size_bytes);
    at = put_u64(at, counts->mapped_blocks);
    at = put_u64(at, counts->modified_ns);
    at = put_u64(at, counts->changed_ns);
    at = put_u64(at, counts->branch);
    put_u64(at, counts->written_blocks);
}

char *record_block(struct record *record, uint64_t address) {
    return put_u64(begin_entry(record, DATA, 8, BLOCK_BYTES), address);
}

void record_end(struct record *record, const struct place *place) {
    size_t size = record->size;
    char *at = record->bytes;

    record->size = HEADER_BYTES;
    at = begin_entry(record, PLACE, 8, 8);
    put_u32(put_u32(put_u64(at, place->nonce), place->durable), place->home);
    at = put_u64(record->bytes + CHECKED_FROM, place->commit);
    put_u32(put_u32(at, place->number), size - HEADER_BYTES);
    memcpy(record->bytes, "rwj1", 4);
    put_u32(record->bytes + 4, checksum(0, record->bytes + CHECKED_FROM, size - CHECKED_FROM));
    record->size = (size + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    memset(record->bytes + size, 0, record->size - size);
}
