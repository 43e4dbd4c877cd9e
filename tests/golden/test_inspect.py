"""`shoal inspect` of every family: its figures agree with each other, and what is missing is said."""
import glob
import json
import os
import shutil
import struct
import tempfile
import unittest

from shoal import DATA, random_model, shoal

MODELS = sorted(glob.glob(os.path.join(DATA, "*", "model")))
GGUFS = sorted(glob.glob(os.path.join(DATA, "gguf", "*", "*", "model.gguf")))


def inspect(model):
    return json.loads(shoal("inspect", "--model", model, "--json").stdout)


class Inspect(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "model")

    def assert_consistent(self, found):
        self.assertEqual(found["bytes"], sum(found["parts"].values()))
        self.assertEqual(found["bytes"], sum(t["bytes"] for t in found["types"].values()))
        self.assertEqual(found["kv_bytes_per_token"]["f32"], 4 * found["kv_values_per_token"])
        self.assertEqual(found["kv_bytes_per_token"]["f16"], 2 * found["kv_values_per_token"])
        self.assertEqual(found["missing"], {"files": [], "draft_layers": 0})
        self.assertEqual(found["unused"], [])
        arch = found["architecture"]
        self.assertEqual(len(found["layers"]), arch["layers"] + arch["draft_layers"])
        for layer in found["layers"]:
            self.assertEqual(layer["bytes"], sum(layer["parts"].values()))
            self.assertEqual(layer["bytes"], sum(t["bytes"] for t in layer["types"].values()))
            if layer["kind"] == "dense":
                self.assertNotIn("expert_bytes", layer)
            else:
                self.assertEqual(layer["expert_bytes"] * arch["experts"],
                                 layer["parts"]["experts"])
                self.assertTrue(found["expert_bytes"]["min"] <= layer["expert_bytes"]
                                <= found["expert_bytes"]["max"])

    def test_figures_agree_in_every_family_and_format(self):
        self.assertGreater(len(MODELS), 8)
        self.assertGreater(len(GGUFS), 1)
        for model in MODELS + GGUFS:
            with self.subTest(model=os.path.relpath(model, DATA)):
                found = inspect(model)
                self.assert_consistent(found)
                words = shoal("inspect", "--model", model).stdout
                for line in ("architecture", "parameters", "context", "KV cache", "kind of layer"):
                    self.assertIn(f"\n{line}", f"\n{words}")

    def test_a_config_alone_says_what_the_checkpoint_will(self):
        for model in MODELS:
            with self.subTest(model=os.path.relpath(model, DATA)):
                bare = inspect(os.path.join(model, "config.json"))
                self.assertEqual(bare["format"], "config.json alone")
                wanted = inspect(model)
                for field in ("format", "files"):
                    del bare[field], wanted[field]
                self.assertEqual(bare, wanted)

    def test_missing_files_are_listed(self):
        shutil.copytree(os.path.join(DATA, "qwen2-untied", "model"), self.folder)
        gone = ["model-00002-of-00004.safetensors", "model-00004-of-00004.safetensors"]
        for name in gone:
            os.remove(os.path.join(self.folder, name))
        done = shoal("inspect", "--model", self.folder, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^missing +2 of 4 files:\n +model-00002-of-00004\.safetensors\n"
                         r" +model-00004-of-00004\.safetensors\nshoal inspect: .*is missing")
        done = shoal("inspect", "--model", self.folder, "--json", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(json.loads(done.stdout)["missing"]["files"], gone)

    def test_unused_tensors_are_listed(self):
        shutil.copytree(os.path.join(DATA, "llama-tied", "model"), self.folder)
        path = os.path.join(self.folder, "model.safetensors")
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            data = file.read()
        for i in range(11):
            header[f"extra.{i:02}"] = {"dtype": "U8", "shape": [1],
                                       "data_offsets": [len(data) + i, len(data) + i + 1]}
        text = json.dumps(header).encode()
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data + bytes(11))
        found = inspect(self.folder)
        self.assertEqual(sorted(found["unused"]), [f"extra.{i:02}" for i in range(11)])
        words = shoal("inspect", "--model", self.folder).stdout
        self.assertRegex(words, r"\nunused +11 tensors of unknown names:\n( +extra\.\d\d\n){8}"
                         r" +and 3 more\n")

    def test_a_draft_layer_that_is_not_there_is_said(self):
        with random_model("--hidden", 128, "--experts", 8, "--expert-width", 64, "--vocab",
                          512) as model:
            self.assertEqual(inspect(model)["missing"]["draft_layers"], 0)
            path = os.path.join(model, "config.json")
            with open(path, encoding="utf-8") as file:
                config = json.load(file)
            with open(path, "w", encoding="utf-8") as file:
                json.dump({**config, "num_nextn_predict_layers": 1}, file)
            self.assertEqual(inspect(model)["missing"]["draft_layers"], 1)
            self.assertIn("1 draft layer that config.json announces",
                          shoal("inspect", "--model", model).stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
