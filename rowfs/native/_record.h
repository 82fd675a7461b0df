/* Records of the journal, and versions of pages in them, as bytes: rowfs.base.journalcode and rowfs.base.pagecode are the
 * specification, and what these make of the same is the same to the byte. Any thread, no Python, no state. */
#ifndef ROWFS_RECORD_H
#define ROWFS_RECORD_H

#include "_base.h"

enum { VERSION_KEY_BYTES = 12, VERSION_ROOM_BYTES = 3200 };

/* What names a version of a page. */
struct version {
    uint32_t branch, page, epoch;
};

/* What writing changes in the records of a disk and of its branch: journalcode.Counts. */
struct counts {
    uint64_t disk;
    int64_t size_bytes, mapped_blocks, modified_ns, changed_ns, branch, written_blocks;
};

/* Where a record stands among its like. */
struct place {
    uint64_t commit, nonce;
    uint32_t number, durable, home;
};

/* A record that is being made. */
struct record {
    char *bytes;
    size_t size; /* until now */
};

/* The value that stores a version of a page under a key, in so much room: how many bytes it has. */
size_t record_version(char *value, const char *key, const int64_t *addresses, const char *owned);
/* How many bytes a record takes at most, in whole blocks. */
size_t record_room(size_t pages, size_t disks, size_t blocks);
/* In this order: begin in so much room, pages, counts, blocks, end. */
void record_begin(struct record *record, char *room);
void record_page(struct record *record, const struct version *version, const int64_t *addresses, const char *owned);
void record_counts(struct record *record, const struct counts *counts);
/* Where the data of the block at this address has to be put. */
char *record_block(struct record *record, uint64_t address);
/* `size` is in whole blocks then. */
void record_end(struct record *record, const struct place *place);

#endif
