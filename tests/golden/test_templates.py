"""`shoal template` with every family's name and every published template's file."""
import json
import os
import unittest

from shoal import DATA, read_jsonl, shoal

TEMPLATES = os.path.join(DATA, "templates")
NAMES = ["deepseek-r1", "deepseek-v3", "deepseek-v3.1", "deepseek-v2", "deepseek-r1-tojson",
         "deepseek-r1-distill-qwen", "deepseek-r1-distill-llama", "llama-3.3", "llama-3.2",
         "qwen2.5", "qwen3", "deepseek-v3-2412", "deepseek-r1-2501", "deepseek-v3-0324",
         "deepseek-r1-0528", "deepseek-v3.1-2508", "qwen3-v2"]


def render(option, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    output = shoal("template", "--chat-template", option, text_input=lines).stdout
    return [json.loads(line) for line in output.split("\n") if line]


class Templates(unittest.TestCase):
    def check(self, option, rows):
        answers = render(option, rows)
        self.assertEqual(len(answers), len(rows))
        for row, answer in zip(rows, answers):
            with self.subTest(option=option, conversation=row["name"]):
                self.assertEqual(answer.get("text"), row.get("text"))
                self.assertEqual("error" in answer, "error" in row)

    def test_renderings_are_jinjas_by_name_and_by_file(self):
        for name in NAMES:
            rows = []
            for kind in ["", "-more"]:
                path = os.path.join(TEMPLATES, f"{name}{kind}.jsonl")
                rows += read_jsonl(path) if os.path.exists(path) else []
            self.assertGreater(len(rows), 10)
            self.check(name, rows)
            file = os.path.join(TEMPLATES, f"{name}.jinja")
            if os.path.exists(file):
                self.check(file, rows)

    def test_an_unknown_name_lists_the_known_ones(self):
        done = shoal("template", "--chat-template", "chatty", check=False, text_input="")
        self.assertNotEqual(done.returncode, 0)
        for name in NAMES:
            self.assertIn(name, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
