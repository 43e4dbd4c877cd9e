"""The bundled demo model: its golden completions token by token, and its evaluation file with eight
requests in flight over HTTP."""
import collections
import concurrent.futures
import json
import os
import unittest

from shoal import DEMO, Server, read_jsonl, shoal

README_OVERALL = 99.0  # percent, deploy/demo-model/README.md


class Demo(unittest.TestCase):
    def test_golden_completions(self):
        for row in read_jsonl(os.path.join(DEMO, "golden.jsonl")):
            got = json.loads(shoal("run", "--model", DEMO, "--json", "--kv-type", "f32",
                                   "--temperature", 0, "-n", len(row["completion_ids"]) + 8,
                                   "--tokens", json.dumps(row["prompt_ids"]), "--layout",
                                   "3x1").stdout)
            self.assertEqual(got["tokens"], row["completion_ids"])
            self.assertEqual(got["finish_reason"], row["finish"])

    def test_evaluation_file(self):
        questions = read_jsonl(os.path.join(DEMO, "eval", "questions.jsonl"))
        right = collections.Counter()
        with Server("--layout", "2x1", "--kv-type", "f32") as server:
            def ask(question):
                answer = server.post("/v1/chat/completions", {
                    "temperature": 0, "max_tokens": 256,
                    "messages": [{"role": "user", "content": question["question"]}]})
                message = answer["choices"][0]["message"]
                self.assertEqual(message["reasoning_content"], message["reasoning"])
                self.assertNotIn("<think>", message["content"])
                return message["content"] == question["expected"]

            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for question, good in zip(questions, pool.map(ask, questions)):
                    right[question["task"]] += good
                    right["all"] += good
        score = 100 * right["all"] / len(questions)
        print(f"overall {score:.1f} %, wrong by task: "
              f"{ {t: 60 - n for t, n in right.items() if t != 'all' and n < 60} }")
        self.assertGreaterEqual(score, README_OVERALL - 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
