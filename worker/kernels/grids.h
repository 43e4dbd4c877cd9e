#ifndef SHOAL_KERNELS_GRIDS_H
#define SHOAL_KERNELS_GRIDS_H

/* The grids of the IQ formats as the kernels look them up: four int8 values in each word, two words
 * for a row of eight. quant_tables.h has the source of the numbers. */
#include <stdint.h>

struct grids {
    uint32_t iq2xxs[256 * 2];
    uint32_t iq2xs[512 * 2];
    uint32_t iq2s[1024 * 2];
    uint32_t iq1[2048 * 2]; /* values times 8: shifts by an eighth are then ones */
    uint32_t iq3xxs[256];
    uint32_t iq3s[512];
};

/* Constant once grids_expand has run, which kernels_for sees to. */
extern struct grids grids;
void grids_expand(void); /* any thread, any number of times */

#endif
