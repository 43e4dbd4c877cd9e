#ifndef SHOAL_TESTS_SUPPORT_LINK_SIM_H
#define SHOAL_TESTS_SUPPORT_LINK_SIM_H

/* Links within one thread that fail on demand: frames are copied through the wire format, held back
 * for some calls, lost, swapped, damaged, or the pair breaks; all by a seeded random, so that a
 * failing run repeats.
 */
#include "common/net/link.h"

struct sim_faults {
    uint64_t seed;
    uint32_t lose_percent;
    uint32_t swap_percent;    /* with the frame sent before it, if that is still on its way */
    uint32_t damage_percent;  /* one bit flips */
    uint32_t busy_percent;    /* send and receive answer LINK_AGAIN */
    uint32_t delay_polls_max; /* a frame arrives after up to this many receives */
    uint64_t break_after;     /* frames sent in all until the pair breaks; 0: never */
};

struct sim_pair;
/* ends[0] stands with worker 0 and leads to worker 1, ends[1] the other way round. The pair is
 * freed when both ends are destroyed. */
struct sim_pair *sim_pair_create(const struct sim_faults *faults, struct link *ends[2]);
/* Changes what happens from now on; frames under way keep their fate. */
void sim_pair_set_faults(struct sim_pair *pair, const struct sim_faults *faults);

#endif
