/* token_rate.c - the speed shown to people, from a ring of seconds. */
#include "coordinator/cluster/token_rate.h"

#include "common/base/check.h"
#include "common/base/clock.h"

#define RING (TOKEN_RATE_SECONDS + 1)

/* Opens the seconds up to now, and counts the time since the last call if there was work. */
static void advance(struct token_rate *rate, int64_t now_ns)
{
    int64_t second = now_ns / NS_PER_S;

    if (second - rate->second > RING) {
        rate->second = second - RING; /* all of the ring is older than it holds */
    }
    while (rate->second < second) {
        rate->second++;
        rate->tokens[rate->second % RING] = 0;
        rate->busy_ns[rate->second % RING] = 0;
    }
    for (int64_t s = second - TOKEN_RATE_SECONDS; rate->open > 0 && s <= second; s++) {
        int64_t begin_ns = s * NS_PER_S > rate->since_ns ? s * NS_PER_S : rate->since_ns;
        int64_t end_ns = (s + 1) * NS_PER_S < now_ns ? (s + 1) * NS_PER_S : now_ns;

        if (s >= 0 && end_ns > begin_ns) {
            rate->busy_ns[s % RING] += end_ns - begin_ns;
        }
    }
    rate->since_ns = now_ns;
}

void token_rate_open(struct token_rate *rate, int64_t now_ns)
{
    advance(rate, now_ns);
    rate->open++;
}

void token_rate_close(struct token_rate *rate, int64_t now_ns)
{
    ASSERT(rate->open > 0);
    advance(rate, now_ns);
    rate->open--;
}

void token_rate_count(struct token_rate *rate, int64_t now_ns)
{
    advance(rate, now_ns);
    rate->tokens[now_ns / NS_PER_S % RING]++;
}

double token_rate_per_s(struct token_rate *rate, int64_t now_ns)
{
    uint64_t tokens = 0;
    int64_t busy_ns = 0;

    advance(rate, now_ns);
    for (int i = 0; i < RING; i++) {
        tokens += rate->tokens[i];
        busy_ns += rate->busy_ns[i];
    }
    return busy_ns > 0 ? (double)tokens * (double)NS_PER_S / (double)busy_ns : 0;
}
