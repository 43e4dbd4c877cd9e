#ifndef SHOAL_CLUSTER_TOKEN_RATE_H
#define SHOAL_CLUSTER_TOKEN_RATE_H

/* Tokens per second over the last ten seconds, counting only the time in which there was a
 * sequence: how fast the cluster is, not how often it is asked. Pure; times are the caller's. */
#include <stdint.h>

#define TOKEN_RATE_SECONDS 10

struct token_rate {
    uint64_t tokens[TOKEN_RATE_SECONDS + 1]; /* ring by second */
    int64_t busy_ns[TOKEN_RATE_SECONDS + 1];
    int64_t second;   /* the newest in the ring */
    uint32_t open;    /* sequences */
    int64_t since_ns; /* busy time is counted up to here */
};

void token_rate_open(struct token_rate *rate, int64_t now_ns);  /* a sequence begins */
void token_rate_close(struct token_rate *rate, int64_t now_ns); /* and ends */
void token_rate_count(struct token_rate *rate, int64_t now_ns); /* one token */
double token_rate_per_s(struct token_rate *rate, int64_t now_ns);

#endif
