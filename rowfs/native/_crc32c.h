/* CRC-32C of blocks (Castagnoli: RFC 3720, B.4). No Python, no state but tables: any thread. */
#ifndef ROWFS_CRC32C_H
#define ROWFS_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CRC32C_BLOCK_BYTES = 4096 };

/* The sum of each of so many blocks, which lie one behind the other. `crc32c_begin` has to have returned. */
void crc32c_blocks(const void *data, size_t blocks, uint32_t *sums);
/* Whether the blocks have these sums; 0: of one that may be anything. */
bool crc32c_match(const void *data, size_t blocks, const uint32_t *sums);
/* Makes the tables, and chooses what this processor can do. As often as wanted, by one thread at a time. */
void crc32c_begin(void);

#endif
