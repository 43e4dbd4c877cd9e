#ifndef SHOAL_NET_ENDPOINT_H
#define SHOAL_NET_ENDPOINT_H

/* tcp://host:port in its parts. Pure. */
#include "common/base/error.h"

#include <stdint.h>

struct endpoint {
    char host[256]; /* without the brackets of IPv6; "*" is every address */
    uint16_t port;  /* 0: any free one ("*" on the line) */
};

/* ERROR_USAGE names the endpoint. */
bool endpoint_parse(const char *text, struct endpoint *out, struct error *err) MUST_CHECK;
/* 127.0.0.0/8, ::1, localhost. */
bool endpoint_is_loopback(const struct endpoint *endpoint);
/* An IPv4 address in digits: a socket for it needs no IPv6. */
bool endpoint_is_ipv4(const struct endpoint *endpoint);
/* "tcp://host:port" with brackets where they are needed; port 0 is written as *. */
struct endpoint_text {
    char text[300];
};
const char *endpoint_format(struct endpoint_text *out, const char *host, uint16_t port);

#endif
