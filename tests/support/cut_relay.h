#ifndef SHOAL_TESTS_CUT_RELAY_H
#define SHOAL_TESTS_CUT_RELAY_H

/* A TCP relay on loopback that breaks its connections after so many bytes from the server: what a
 * bad cable does, where the test wants it. One connection at a time; a thread of its own. */
#include <stdint.h>

#define CUT_RELAY_MAX 16

struct cut_relay;
/* Connection i is cut once `cuts[i]` bytes came from the server; later ones are left alone. */
struct cut_relay *cut_relay_start(uint16_t server_port, const uint64_t *cuts, uint32_t cut_count);
uint16_t cut_relay_port(const struct cut_relay *relay);
uint32_t cut_relay_connections(const struct cut_relay *relay); /* made so far */
void cut_relay_stop(struct cut_relay *relay);

#endif
