#ifndef SHOAL_NET_KEYS_H
#define SHOAL_NET_KEYS_H

/* The cluster key: one CURVE key pair in one file (mode 0600), copied to every machine. Whoever
 * holds it may join; every connection is encrypted and both sides prove that they hold it (server
 * key known beforehand, client keys checked by ZAP). http://curvezmq.org, RFC 27 of ZeroMQ.
 *
 * File: two lines, "public <40 characters Z85>" and "secret <40 characters Z85>"; lines that begin
 * with # are comments.
 */
#include "common/base/error.h"

#include <stdbool.h>

struct cluster_key {
    bool present; /* false: no encryption (loopback, or --insecure) */
    char public_text[41];
    char secret_text[41];
};

/* Writes a new key; refuses to overwrite. */
bool keys_generate(const char *path, struct error *err) MUST_CHECK;
/* Refuses a file that others may read, and a pair that does not belong together. */
bool keys_read(const char *path, struct cluster_key *out, struct error *err) MUST_CHECK;
/* Local by default: ERROR_USAGE unless the address is loopback, a key is present or insecure was
 * said. `endpoint` as tcp://host:port. */
enum keys_policy { KEYS_REQUIRED, KEYS_INSECURE_ALLOWED };
bool keys_check_endpoint(const char *endpoint, const struct cluster_key *key,
                         enum keys_policy policy, struct error *err) MUST_CHECK;

#endif
