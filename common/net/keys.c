/* keys.c - the cluster key file.
 *
 * The file is the cluster's only secret, so one that others may read is refused, as ssh does with
 * its own. A pair that was edited or cut is caught here, at start, where the message can name the
 * file; later it would show as a silent handshake failure on another machine.
 */
#include "common/net/keys.h"

#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/net/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define KEY_CHARACTERS 40
#define FILE_BYTES_MAX ((size_t)4096)

static bool pair_write(int fd, const char *path, const struct buffer *text, struct error *err)
{
    ssize_t written;

    do {
        written = write(fd, text->data, text->length);
    } while (written < 0 && errno == EINTR);
    if (written != (ssize_t)text->length || fsync(fd) != 0) {
        return error_set_errno(err, "%s: cannot write the key", path);
    }
    return true;
}

bool keys_generate(const char *path, struct error *err)
{
    struct cluster_key key = {0};
    struct buffer text;
    bool ok;
    int fd;

    if (zmq_curve_keypair(key.public_text, key.secret_text) != 0) {
        return error_set(err, ERROR_SYSTEM, "this libzmq has no CURVE: %s",
                         zmq_strerror(zmq_errno()));
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno == EEXIST ? error_set(err, ERROR_USAGE,
                                           "%s exists already: a key is never overwritten", path)
                               : error_set_errno(err, "%s", path);
    }
    buffer_init(&text);
    buffer_printf(&text, "# shoal cluster key: copy to every machine, keep it secret\n");
    buffer_printf(&text, "public %s\nsecret %s\n", key.public_text, key.secret_text);
    ok = pair_write(fd, path, &text, err);
    explicit_bzero(text.data, text.length);
    explicit_bzero(&key, sizeof(key));
    buffer_deinit(&text);
    (void)close(fd);
    if (!ok) {
        (void)unlink(path);
    }
    return ok;
}

/* `line` without its end; true unless it is one of ours and malformed. */
static bool line_parse(const char *line, size_t length, struct cluster_key *out, struct error *err)
{
    static const char *const words[] = {"public ", "secret "};
    char *const texts[] = {out->public_text, out->secret_text};

    if (length > 0 && line[length - 1] == '\r') {
        length--;
    }
    if (length == 0 || line[0] == '#') {
        return true;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        size_t skip = strlen(words[i]);

        if (length > skip && memcmp(line, words[i], skip) == 0) {
            if (length - skip != KEY_CHARACTERS || memchr(line + skip, '\0', KEY_CHARACTERS)) {
                return error_set(err, ERROR_INPUT, "the %skey has %zu characters instead of %d",
                                 words[i], length - skip, KEY_CHARACTERS);
            }
            memcpy(texts[i], line + skip, KEY_CHARACTERS);
            texts[i][KEY_CHARACTERS] = '\0';
            return true;
        }
    }
    return error_set(err, ERROR_INPUT, "a line is neither \"public KEY\" nor \"secret KEY\"");
}

static bool pair_check(const struct cluster_key *key, struct error *err)
{
    char derived[KEY_CHARACTERS + 1];
    uint8_t binary[32];

    if (key->public_text[0] == '\0' || key->secret_text[0] == '\0') {
        return error_set(err, ERROR_INPUT, "the %s key is missing",
                         key->public_text[0] == '\0' ? "public" : "secret");
    }
    if (zmq_z85_decode(binary, key->public_text) == NULL ||
        zmq_z85_decode(binary, key->secret_text) == NULL ||
        zmq_curve_public(derived, key->secret_text) != 0) {
        return error_set(err, ERROR_INPUT, "a key has characters that are not Z85");
    }
    explicit_bzero(binary, sizeof(binary));
    if (strcmp(derived, key->public_text) != 0) {
        return error_set(err, ERROR_INPUT, "public and secret key do not belong together");
    }
    return true;
}

static bool text_parse(const char *text, struct cluster_key *out, struct error *err)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");

        if (!line_parse(text, length, out, err)) {
            return false;
        }
        text += length + (text[length] == '\n');
    }
    return pair_check(out, err);
}

bool keys_read(const char *path, struct cluster_key *out, struct error *err)
{
    struct cluster_key key = {.present = true};
    struct stat status;
    size_t length;
    char *text;
    bool ok;

    if (stat(path, &status) != 0) {
        return error_set_errno(err, "key file %s", path);
    }
    if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return error_set(err, ERROR_INPUT,
                         "key file %s has mode %04o: others may use it; chmod 600", path,
                         (unsigned)status.st_mode & 07777u);
    }
    if (!file_read(path, FILE_BYTES_MAX, &text, &length, err)) {
        return false;
    }
    ok = text_parse(text, &key, err) || error_wrap(err, "key file %s", path);
    explicit_bzero(text, length);
    mem_free(text);
    if (ok) {
        *out = key;
    }
    explicit_bzero(&key, sizeof(key));
    return ok;
}

bool keys_check_endpoint(const char *endpoint, const struct cluster_key *key,
                         enum keys_policy policy, struct error *err)
{
    struct endpoint parsed;

    if (!endpoint_parse(endpoint, &parsed, err)) {
        return false;
    }
    if (endpoint_is_loopback(&parsed) || key->present || policy == KEYS_INSECURE_ALLOWED) {
        return true;
    }
    return error_set(err, ERROR_USAGE,
                     "%s is not a loopback address: give a cluster key (shoal keygen, --key), or "
                     "say --insecure",
                     endpoint);
}
