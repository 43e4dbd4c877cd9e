/* endpoint.c - addresses as users write them and libzmq takes them. */
#include "common/net/endpoint.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME "tcp://"

static bool port_parse(const char *text, uint16_t *out)
{
    char *end;
    unsigned long value;

    if (strcmp(text, "*") == 0) {
        *out = 0;
        return true;
    }
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    value = strtoul(text, &end, 10);
    if (*end != '\0' || value > UINT16_MAX) {
        return false;
    }
    *out = (uint16_t)value;
    return true;
}

bool endpoint_parse(const char *text, struct endpoint *out, struct error *err)
{
    const char *host = text + strlen(SCHEME);
    const char *colon = strrchr(text, ':');
    struct endpoint parsed = {0};
    size_t length;

    if (strncmp(text, SCHEME, strlen(SCHEME)) != 0 || colon == NULL || colon < host) {
        return error_set(err, ERROR_USAGE, "%s: not of the form tcp://host:port", text);
    }
    length = (size_t)(colon - host);
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
        host++;
        length -= 2;
    }
    if (length == 0 || length >= sizeof(parsed.host) || !port_parse(colon + 1, &parsed.port)) {
        return error_set(err, ERROR_USAGE, "%s: not of the form tcp://host:port", text);
    }
    memcpy(parsed.host, host, length);
    *out = parsed;
    return true;
}

bool endpoint_is_ipv4(const struct endpoint *endpoint)
{
    struct in_addr address;

    return inet_pton(AF_INET, endpoint->host, &address) == 1;
}

bool endpoint_is_loopback(const struct endpoint *endpoint)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, endpoint->host, &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24) == 127;
    }
    if (inet_pton(AF_INET6, endpoint->host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
    }
    return strcmp(endpoint->host, "localhost") == 0;
}

const char *endpoint_format(struct endpoint_text *out, const char *host, uint16_t port)
{
    bool brackets = strchr(host, ':') != NULL;
    char port_text[8] = "*";

    if (port != 0) {
        (void)snprintf(port_text, sizeof(port_text), "%u", port);
    }
    (void)snprintf(out->text, sizeof(out->text), brackets ? "tcp://[%s]:%s" : "tcp://%s:%s", host,
                   port_text);
    return out->text;
}
