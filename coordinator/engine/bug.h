#ifndef SHOAL_ENGINE_BUG_H
#define SHOAL_ENGINE_BUG_H

/* Faults that a test variant of the engine can be told to have, to show that the simulation finds
 * them. In every other build BUG is false and its branches are gone. */
#if defined(ENGINE_BUGS)
#include <stdint.h>
extern uint32_t engine_bug; /* 0: none */
#define BUG(number) (engine_bug == (number))
#else
#define BUG(number) false
#endif

#endif
