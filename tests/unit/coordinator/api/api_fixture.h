#ifndef SHOAL_TESTS_API_FIXTURE_H
#define SHOAL_TESTS_API_FIXTURE_H

/* A cluster of one worker without a model, its HTTP side, and a client that reads what comes. */
#include "coordinator/api/api.h"
#include "tests/unit/coordinator/cluster/fake_worker.h"

#include <jansson.h>

#define API_SLOTS 4
#define API_QUEUE 2 /* waiting sequences */

struct api_fixture {
    struct catalog *catalog;
    struct tokenizer *tokenizer;
    struct cluster *cluster;
    struct fake_worker *worker;
    struct api *api;
};
extern struct api_fixture fixture;

/* Group and case fixtures of cmocka. */
int api_model_open(void **state);
int api_model_close(void **state);
int api_open(void **state);
int api_close(void **state);
void api_open_without_logprobs(void);

/* Sends a request; version "HTTP/1.1" or "HTTP/1.0". receive_bytes: SO_RCVBUF, 0: as usual. */
struct api_question {
    const char *version, *path, *body;
    int receive_bytes;
    bool get; /* instead of POST */
};
int api_send(const struct api_question *question);
char *api_read(int fd); /* to the end; mem_free it */
char *api_ask_raw(const char *path, const char *body);
json_t *api_ask(const char *path, const char *body); /* status 200, or the test fails */
/* The events of a stream in an array, chunks' framing aside; [DONE] must be there. */
json_t *api_events(const char *answer);
json_t *api_body(const char *answer);

#endif
