/* test_model_files.c - a model copied by its descriptions alone opens as the same catalog. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/model_files.h"
#include "common/model/model_hash.h"
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void range_copy(int from, int to, uint64_t offset, uint64_t bytes)
{
    char *copied = mem_new_array(char, bytes + 1);

    assert_int_equal(pread(from, copied, bytes, (off_t)offset), bytes);
    assert_int_equal(pwrite(to, copied, bytes, (off_t)offset), bytes);
    mem_free(copied);
}

/* Header and extra bytes at their places, holes elsewhere. */
static void skeleton_write(struct scratch *scratch, const struct model_file *file)
{
    int from = open(file->path, O_RDONLY | O_CLOEXEC);
    int to = open(scratch_path(scratch, file->name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(from >= 0 && to >= 0);
    assert_int_equal(ftruncate(to, (off_t)file->bytes), 0);
    range_copy(from, to, 0, file->header_bytes);
    range_copy(from, to, file->extra_offset, file->extra_bytes);
    close(from);
    close(to);
}

static void skeleton_opens(const char *model)
{
    char *path = mem_printf("%s/%s", SHOAL_TEST_DATA, model);
    struct error err = {0};
    struct catalog *catalog = catalog_open(path, &err);
    struct catalog *copy;
    struct scratch scratch;
    struct arena arena;
    struct model_files files;
    char hash[MODEL_HASH_BYTES], copied_hash[MODEL_HASH_BYTES];
    uint64_t described = 0, bytes = 0;

    assert_string_equal(err.message, "");
    arena_init(&arena, 1 << 16);
    scratch_open(&scratch);
    assert_true(model_files_find(catalog, &arena, &files, &err));
    for (uint32_t i = 0; i < files.count; i++) {
        assert_true(i == 0 || strcmp(files.files[i - 1].name, files.files[i].name) < 0);
        skeleton_write(&scratch, &files.files[i]);
        described += files.files[i].header_bytes + files.files[i].extra_bytes;
        bytes += files.files[i].bytes;
    }
    assert_true(described < bytes / 2);
    copy = catalog_open(catalog->format == MODEL_GGUF ? scratch_path(&scratch, files.files[0].name)
                                                      : scratch.folder,
                        &err);
    assert_string_equal(err.message, "");
    assert_non_null(copy);
    model_hash(catalog, hash);
    model_hash(copy, copied_hash);
    assert_string_equal(hash, copied_hash);
    catalog_close(copy);
    catalog_close(catalog);
    arena_deinit(&arena);
    scratch_close(&scratch);
    mem_free(path);
}

static void descriptions_suffice(void **state)
{
    (void)state;
    skeleton_opens("deepseek_v3-fp8/model"); /* shards, scales */
    skeleton_opens("llama-bf16/model");      /* one file */
    skeleton_opens("gguf/deepseek_v3/Q4_K_M/model.gguf");
    skeleton_opens("gguf/llama/Q8_0/model.gguf"); /* rope_freqs.weight */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptions_suffice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
