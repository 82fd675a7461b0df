/* The instruction of SSE 4.2 takes 8 bytes in each cycle, but has its result after three. So a block is summed up in three
 * parts side by side, whose sums are put together: that of a part with n bytes behind it is moved past these by tables. */
#include "_crc32c.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

enum {
    POLYNOMIAL = 0x82F63B78, /* reflected */
    AT_ONCE = 16, /* blocks that are summed up before they are looked at: they are in the processor's cache then */
    PART_WORDS = 170,        /* of 8 bytes; three times this is all of a block but 16 bytes */
    REST_WORDS = CRC32C_BLOCK_BYTES / 8 - 3 * PART_WORDS,
};

static uint32_t bytewise[8][256];  /* [n]: of a byte with n bytes of zeros behind it */
static uint32_t past_part[4][256]; /* [n]: of byte n of a sum with a part of zeros behind it */
static bool has_instruction;

static uint32_t sum_by_tables(const unsigned char *data, size_t words, uint32_t sum) {
    for (; words > 0; words--, data += 8) {
        uint32_t low, high;

        memcpy(&low, data, 4);
        memcpy(&high, data + 4, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        low = __builtin_bswap32(low);
        high = __builtin_bswap32(high);
#endif
        low ^= sum;
        sum = bytewise[7][low & 255] ^ bytewise[6][low >> 8 & 255] ^ bytewise[5][low >> 16 & 255] ^
              bytewise[4][low >> 24] ^ bytewise[3][high & 255] ^ bytewise[2][high >> 8 & 255] ^
              bytewise[1][high >> 16 & 255] ^ bytewise[0][high >> 24];
    }
    return sum;
}

#if defined(__x86_64__)
static uint32_t move_past_part(uint32_t sum) {
    return past_part[0][sum & 255] ^ past_part[1][sum >> 8 & 255] ^ past_part[2][sum >> 16 & 255] ^
           past_part[3][sum >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t sum_by_instruction(const unsigned char *data) {
    uint64_t first = UINT32_MAX, second = 0, third = 0, words[3];
    uint32_t sum;

    for (size_t at = 0; at < PART_WORDS; at++, data += 8) {
        memcpy(&words[0], data, 8);
        memcpy(&words[1], data + 8 * PART_WORDS, 8);
        memcpy(&words[2], data + 16 * PART_WORDS, 8);
        first = _mm_crc32_u64(first, words[0]);
        second = _mm_crc32_u64(second, words[1]);
        third = _mm_crc32_u64(third, words[2]);
    }
    data += 16 * PART_WORDS;
    sum = move_past_part(move_past_part((uint32_t)first) ^ (uint32_t)second) ^ (uint32_t)third;
    for (size_t at = 0; at < REST_WORDS; at++, data += 8) {
        memcpy(&words[0], data, 8);
        sum = (uint32_t)_mm_crc32_u64(sum, words[0]);
    }
    return sum;
}
#endif

void crc32c_blocks(const void *data, size_t blocks, uint32_t *sums) {
    const unsigned char *block = data;

    for (; blocks > 0; blocks--, block += CRC32C_BLOCK_BYTES) {
#if defined(__x86_64__)
        if (has_instruction) {
            *sums++ = ~sum_by_instruction(block);
            continue;
        }
#endif
        *sums++ = ~sum_by_tables(block, CRC32C_BLOCK_BYTES / 8, UINT32_MAX);
    }
}

bool crc32c_match(const void *data, size_t blocks, const uint32_t *sums) {
    uint32_t found[AT_ONCE];

    for (size_t at = 0; at < blocks; at += AT_ONCE) {
        size_t some = blocks - at < AT_ONCE ? blocks - at : AT_ONCE;
        uint32_t any = 0, wrong = 0;

        for (size_t i = 0; i < some; i++)
            any |= sums[at + i];
        if (any == 0)
            continue;
        crc32c_blocks((const char *)data + at * CRC32C_BLOCK_BYTES, some, found);
        for (size_t i = 0; i < some; i++)
            wrong |= sums[at + i] ? sums[at + i] ^ found[i] : 0;
        if (wrong)
            return false;
    }
    return true;
}

void crc32c_begin(void) {
    static const unsigned char zeros[8 * PART_WORDS];

    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t sum = byte;

        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? POLYNOMIAL : 0);
        bytewise[0][byte] = sum;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int n = 1; n < 8; n++)
            bytewise[n][byte] = bytewise[n - 1][byte] >> 8 ^ bytewise[0][bytewise[n - 1][byte] & 255];
    for (int n = 0; n < 4; n++)
        for (uint32_t byte = 0; byte < 256; byte++)
            past_part[n][byte] = sum_by_tables(zeros, PART_WORDS, byte << 8 * n);
#if defined(__x86_64__)
    has_instruction = __builtin_cpu_supports("sse4.2");
#endif
}
