"""A beginning that many prompts share is computed once, as the workers themselves count."""
import concurrent.futures
import random
import unittest

from shoal import Server, wait_until

REQUESTS = 64
COMMON_TOKENS = 1000
OWN_TOKENS = 8


def bodies(count):
    source = random.Random(5)
    common = [source.randrange(20, 1000) for _ in range(COMMON_TOKENS)]
    return [{"prompt": common + [source.randrange(20, 1000) for _ in range(OWN_TOKENS)],
             "max_tokens": 2, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
            for _ in range(count)]


def run(count, *options):
    """(answers, rows of the first stage)"""
    with Server("--layout", "2x1", "--threads", 1, "--draft", "none", *options) as server:
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(lambda body: server.post("/v1/completions", body),
                                    bodies(count)))
        wait_until(lambda: server.status()["scheduler"]["running"] == 0, 10, "all done")
        rows = [worker["rows"] for worker in server.status()["workers"] if worker["stage"] == 0]
    return answers, sum(rows)


def tokens_of(answers):
    return [answer["choices"][0]["token_ids"] for answer in answers]


class PrefixCache(unittest.TestCase):
    def test_a_common_system_prompt_is_computed_once(self):
        few, few_rows = run(4, "--prefix-cache", "off")
        # Each prompt and, for its second token, one row more.
        self.assertEqual(few_rows, 4 * (COMMON_TOKENS + OWN_TOKENS + 1))
        self.assertTrue(all(answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
                            for answer in few))

        answers, rows = run(REQUESTS)
        plain = REQUESTS * (COMMON_TOKENS + OWN_TOKENS + 1)
        print(f"{rows} rows of {plain}: {100 * rows / plain:.1f} %")
        self.assertLess(rows, 0.15 * plain)
        self.assertEqual(tokens_of(answers)[:4], tokens_of(few))
        cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in answers]
        self.assertEqual(sum(cached), plain - rows)


if __name__ == "__main__":
    unittest.main(verbosity=2)
