#ifndef SHOAL_STAGE_OPTIONS_H
#define SHOAL_STAGE_OPTIONS_H

/* The command line of shoal-worker. Every flag --some-flag is also the variable SHOAL_SOME_FLAG;
 * the flag wins. */
#include <stdbool.h>
#include <stdint.h>

struct worker_options {
    const char *coordinator; /* tcp://host:port */
    const char *model;       /* NULL: the path that the coordinator names */
    uint64_t memory_bytes;   /* 0: what the system allows */
    uint32_t threads;        /* 0: one per core */
    const char *key;         /* NULL: none */
    bool insecure;
    const char *bind_host;         /* NULL: the address toward the coordinator */
    const char *advertise;         /* NULL: bind_host */
    const char *interface;         /* NULL: none; its address is bind_host */
    uint16_t port_begin, port_end; /* 0, 0: any */
    const char *cache;             /* NULL: the user's */
    uint64_t cache_bytes_max;      /* 0: no limit */
    bool verify;                   /* local files against the checksums of their first load */
    int64_t reconnect_seconds;     /* to a lost coordinator; -1: for ever */
    const char *launch_token;      /* "" unless a coordinator started us */
};

/* Prints what is wrong, or the help, and exits (2, or 0) if need be. Strings are borrowed. */
void worker_options_parse(int argc, char **argv, struct worker_options *out);

#endif
