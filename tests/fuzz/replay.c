/* replay.c - runs a fuzz target over its corpus with any compiler: every file of the folder named by
 * the argument, whole, cut at every length up to 4 KiB, and with every byte of the first KiB
 * flipped once. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An exact-size copy, so that a sanitizer sees every read beyond the end. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy) {
        abort();
    }
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void mutate(uint8_t *data, size_t size)
{
    run(data, size);
    for (size_t cut = 0; cut < size && cut < 4096; cut++) {
        run(data, cut);
    }
    for (size_t i = 0; i < size && i < 1024; i++) {
        data[i] ^= 0x5a;
        run(data, size);
        data[i] ^= 0x5a;
    }
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(1 << 20);

    if (!file || !data) {
        perror(path);
        exit(1);
    }
    size_t size = fread(data, 1, 1 << 20, file);
    fclose(file);
    mutate(data, size);
    free(data);
    return 1;
}

int main(int argc, char **argv)
{
    int count = 0;

    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        struct dirent *entry;

        while (folder && (entry = readdir(folder))) {
            char path[4096];

            if (entry->d_name[0] != '.') {
                snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
                count += replay_file(path);
            }
        }
        if (folder) {
            closedir(folder);
        }
    }
    printf("%d files replayed\n", count);
    return count > 0 ? 0 : 1;
}
