/* bench_tokenizer.c - the time that tokenizer_encode takes, and what it gives.
 *
 *   bench.tokenizer MODEL TEXTS IDS
 *
 * TEXTS: UTF-8, the texts separated by NUL; each is encoded by itself, on one thread. The ids of
 * all texts go to IDS as u32. Prints the process's CPU time of the encoding alone: no start, no
 * file. Driven by bench_tokenizer.py, which measures another library on the same texts.
 */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/text/tokenizer.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define TEXTS_BYTES_MAX ((size_t)1 << 30)

static double cpu_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / (double)NS_PER_S;
}

static bool encode_all(const struct tokenizer *tokenizer, const char *texts, size_t length,
                       struct token_list *ids, struct error *err)
{
    for (size_t at = 0; at < length; at += strlen(texts + at) + 1) {
        struct text_span span = {texts + at, strlen(texts + at), SPECIAL_PARSE};

        if (!tokenizer_encode(tokenizer, &span, 1, ids, err)) {
            return false;
        }
    }
    return true;
}

static bool run(char **argv, struct error *err)
{
    struct token_list ids = {0};
    char *texts = NULL;
    size_t length = 0;
    double opened_s = cpu_s();
    struct tokenizer *tokenizer = tokenizer_open(argv[1], err);

    opened_s = cpu_s() - opened_s;
    bool good = tokenizer != NULL && file_read(argv[2], TEXTS_BYTES_MAX, &texts, &length, err);
    double encoded_s = cpu_s();
    good = good && encode_all(tokenizer, texts, length, &ids, err);
    encoded_s = cpu_s() - encoded_s;
    good = good && file_write(argv[3], ids.ids, ids.count * sizeof(*ids.ids), 0644, err);
    if (good) {
        printf("{\"bytes\":%zu,\"tokens\":%zu,\"open_s\":%.4f,\"encode_s\":%.6f}\n", length,
               ids.count, opened_s, encoded_s);
    }
    token_list_deinit(&ids);
    mem_free(texts);
    tokenizer_close(tokenizer);
    return good;
}

int main(int argc, char **argv)
{
    struct error err = {0};

    if (argc != 4) {
        (void)fprintf(stderr, "usage: bench.tokenizer MODEL TEXTS IDS\n");
        return 2;
    }
    if (!run(argv, &err)) {
        (void)fprintf(stderr, "bench.tokenizer: %s\n", err.message);
        return 1;
    }
    return 0;
}
