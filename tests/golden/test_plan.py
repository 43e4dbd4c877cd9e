"""Plans of DeepSeek-R1 on the example clusters: every ledger adds up to the catalog's bytes, what does
not fit says by how much, and what would do really does."""
import functools
import glob
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import unittest

import sparse_gguf
from shoal import DATA, MAKE_CHECKPOINT, PATIENCE, SOURCE, shoal

CONFIG = os.path.join(DATA, "configs", "DeepSeek-R1.json")
CLUSTERS = ["eight-desktops", "epyc-rack", "sixteen-by-64"]
FITS = {"F8": {"eight-desktops": False, "epyc-rack": True, "sixteen-by-64": True},
        "Q4_K_M": {"eight-desktops": True, "epyc-rack": True, "sixteen-by-64": True}}


def cluster_path(name):
    return os.path.join(SOURCE, "deploy", "clusters", f"{name}.yaml")


def aligned(count):
    return (count + 63) // 64 * 64


def pages(count):
    """Parts that a worker may hold or not: what a layer has in common, each expert, embedding, head."""
    return (count + 4095) // 4096 * 4096


class Account:
    """Weights by layer as workers hold them, from what is published; every difference has a name."""

    def __init__(self, config):
        self.config = config
        self.layers = [{"common": 0, "experts": 0} for _ in range(config["num_hidden_layers"])]
        self.draft = {"common": 0, "experts": 0}
        self.draft_own = 0  # what it has beside those of a layer
        self.embedding = self.head = self.published = 0
        self.differences = {"the draft layer's copies of embedding and head": 0}

    def differ(self, why, count):
        self.differences[why] = self.differences.get(why, 0) + count
        return count

    def matrix(self, kind, rows, columns):
        """Panels of 16 rows, each padded to 64 bytes."""
        panels = -(-rows // 16)
        if kind == "F8_E4M3":  # with a row of scales in each panel instead of one for 128 rows
            panel = 16 * columns + 4 * -(-columns // 128)
            published = rows * columns + 4 * -(-rows // 128) * -(-columns // 128)
            self.differ("scales for every 16 rows", panels * panel - 16 * panels * columns
                        - (published - rows * columns))
        elif kind == "BF16":
            panel, published = 16 * columns * 2, rows * columns * 2
        else:
            _, values, size = sparse_gguf.TYPES[kind]
            panel, published = 16 * (columns // values) * size, rows * (columns // values) * size
        held = aligned(panels * (aligned(panel) if kind != "BF16" else panel))
        self.differ("padding of panels", held - panels * panel)
        self.differ("rows beyond the last", (16 * panels - rows) * (panel // 16))
        return held

    def heads(self, kind, rows, columns, widened):
        """W_UK and W_UV: a matrix for each head; of float8 (and, joined, the keys' of blocks) as f32."""
        count = self.config["num_attention_heads"]
        if not widened:
            return count * self.matrix(kind, rows, columns)
        return count * aligned(-(-rows // 16) * 16 * columns * 4)

    def vector(self, kind, values):
        held = aligned(4 * values)
        self.differ("norms and biases as f32", held - values * (4 if kind == "F32" else 2))
        return held

    def key_values(self, kind, published):
        """kv_b_proj in one piece."""
        config = self.config
        rank, nope = config["kv_lora_rank"], config["qk_nope_head_dim"]
        is_f8 = kind == "F8_E4M3"
        before = dict(self.differences)
        held = (self.heads(kind, rank, nope, True)
                + self.heads(kind, config["v_head_dim"], rank, is_f8))
        self.differences = before
        self.differ("W_UK and W_UV as f32", held - published)
        return held

    def add(self, role, layer, kind, dimensions, published):
        """`dimensions`: rows and columns, or one; of stacked experts their number first."""
        self.published += published
        if layer == len(self.layers) and role in ("embedding", "draft_head"):
            self.differ("the draft layer's copies of embedding and head", -published)
            return
        held = [*self.layers, self.draft][layer] if layer is not None else None
        if role == "embedding":
            self.embedding = aligned(published)
        elif role == "final_norm":
            self.head += self.vector(kind, dimensions[-1])
        elif role == "head":
            self.head += self.matrix(kind, *dimensions)
        elif role == "draft_own":
            self.draft_own += (self.vector(kind, dimensions[0]) if len(dimensions) == 1
                               else self.matrix(kind, *dimensions))
        elif len(dimensions) == 1:
            held["common"] += self.vector(kind, dimensions[0])
        elif role == "expert":
            *stack, rows, columns = dimensions
            count = stack[0] if stack else 1
            held["experts"] += sum(self.matrix(kind, rows, columns) for _ in range(count))
        elif role == "key_values":
            held["common"] += self.key_values(kind, published)
        elif role == "head_matrices":
            held["common"] += self.heads(kind, *dimensions[1:], False)
        else:
            held["common"] += self.matrix(kind, *dimensions)

    def total(self, draft_layer=True):
        layers = self.layers + ([self.draft] if draft_layer else [])
        return (self.embedding + self.head + (self.draft_own if draft_layer else 0)
                + sum(layer["common"] + layer["experts"] for layer in layers))

    def stage(self, begin, end, members, draft_layer):
        """What `members` hold together: all of what is common, the experts once."""
        last = end == len(self.layers)
        layers = self.layers[begin:end] + ([self.draft] if last and draft_layer else [])
        experts = self.config["n_routed_experts"]
        common = sum(pages(layer["common"]) for layer in layers)
        common += pages(self.embedding) if begin == 0 or last and draft_layer else 0
        common += pages(self.head) if last else 0
        common += pages(self.draft_own) if last and draft_layer else 0
        return (members * common
                + sum(experts * pages(layer["experts"] // experts) for layer in layers))

    def pipeline(self, draft_layer):
        """What several stages of one worker hold: the draft layer needs the embedding once more."""
        return (self.stage(0, len(self.layers), 1, draft_layer)
                + (pages(self.embedding) if draft_layer else 0))


def role_of(name):
    for word, role in (("shared_head.head", "draft_head"), ("shared_head_head", "draft_head"),
                       ("shared_head", "draft_own"), ("eh_proj", "draft_own"),
                       ("enorm", "draft_own"), ("hnorm", "draft_own"),
                       ("embed_tokens", "embedding"), ("token_embd", "embedding"),
                       ("model.norm", "final_norm"), ("output_norm", "final_norm"),
                       ("lm_head", "head"), ("kv_b_proj", "key_values"), ("attn_kv_b", "key_values"),
                       ("attn_k_b", "head_matrices"), ("attn_v_b", "head_matrices"),
                       (".experts.", "expert"), ("_exps", "expert")):
        if word in name:
            return role
    return "head" if name == "output.weight" else "matrix"


def layer_of(name):
    found = re.search(r"(?:layers|blk)\.(\d+)\.", name)
    return int(found.group(1)) if found else None


def account_of_safetensors(folder, config):
    """Read from the files' headers."""
    tensors = {}
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        header.pop("__metadata__", None)
        tensors.update(header)
    account = Account(config)
    for name, tensor in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        begin, end = tensor["data_offsets"]
        scales = tensors.get(name + "_scale_inv", {"data_offsets": (0, 0)})["data_offsets"]
        account.add(role_of(name), layer_of(name), tensor["dtype"], tensor["shape"],
                    end - begin + scales[1] - scales[0])
    return account


def account_of_gguf(config, joined):
    account = Account(config)
    for name, dimensions, kind, count in sparse_gguf.tensors_of(config, joined):
        role = role_of(name)
        if kind == "F32" and len(dimensions) == 2:  # the router
            account.published += count
            [*account.layers, account.draft][layer_of(name)]["common"] += count
            continue
        account.add(role, layer_of(name), kind, dimensions[::-1], count)
    return account


class Plan(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(CONFIG, encoding="utf-8") as file:
            config = json.load(file)
        cls.folder = tempfile.mkdtemp(prefix="shoal-plan-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        f8 = os.path.join(cls.folder, "f8")
        subprocess.run([MAKE_CHECKPOINT, f8, "--config", CONFIG, "--sparse", "--shards", "163"],
                       check=True, stdout=subprocess.DEVNULL, timeout=300 * PATIENCE)
        cls.models = {"F8": (f8, account_of_safetensors(f8, config))}
        for name, joined in (("Q4_K_M", False), ("Q4_K_M joined", True)):
            folder = os.path.join(cls.folder, name)
            os.mkdir(folder)
            cls.models[name] = (sparse_gguf.write(folder, config, joined=joined),
                                account_of_gguf(config, joined))

    @staticmethod
    @functools.lru_cache(maxsize=None)
    def made(model, cluster, *options):
        """The same plan is made once for all tests."""
        return shoal("plan", "--model", model, "--cluster", cluster, "--json", *options,
                     check=False)

    def plan(self, model, cluster, *options, fits=True):
        done = Plan.made(model, cluster, *options)
        self.assertEqual(done.returncode, 0 if fits else 1, done.stderr)
        plan = json.loads(done.stdout)
        self.assertEqual(plan["fits"], fits)
        return plan

    def assert_adds_up(self, plan, account):
        """Layers and experts are all there once, and every ledger is the sum of its lines."""
        stages = {}
        for worker in plan["workers"]:
            ledger = worker["ledger"]
            self.assertEqual(ledger["total"], sum(ledger[line] for line in (
                "weights", "kv", "buffers", "frames", "fixed")))
            self.assertEqual(worker["missing"], max(0, ledger["total"] - ledger["limit"]))
            stages.setdefault(worker["stage"], []).append(worker)
        next_layer = 0
        for number in sorted(stages):
            members = stages[number]
            begin, end = members[0]["layers"]
            self.assertEqual(begin, next_layer)
            next_layer = end
            self.assertEqual(sum(worker["ledger"]["weights"] for worker in members),
                             account.stage(begin, end, len(members), plan["draft_layer"]))
            experts = sorted(expert for worker in members for first, last in worker["experts"]
                             for expert in range(first, last))
            self.assertEqual(experts, list(range(256)))
        self.assertEqual(next_layer, 61)

    def test_the_accounts_are_the_catalogs(self):
        published = {"F8": 688.6e9, "Q4_K_M": 404.5e9, "Q4_K_M joined": 404.6e9}
        for name, (model, account) in self.models.items():
            with self.subTest(model=name):
                found = json.loads(shoal("inspect", "--model", model, "--json").stdout)
                self.assertEqual(found["bytes"], account.published)
                self.assertAlmostEqual(account.published, published[name], delta=0.1e9)
                # Nothing but the named differences lies between published and held bytes.
                self.assertEqual(account.total(),
                                 account.published + sum(account.differences.values()))
                print(f"{name}: {account.published} bytes published, {account.total()} held:")
                for why, count in account.differences.items():
                    print(f"  {count:+16} {why}")

    def test_ledgers_add_up_on_every_cluster(self):
        for name, (model, account) in self.models.items():
            for cluster in CLUSTERS:
                with self.subTest(model=name, cluster=cluster):
                    fits = FITS[name.split()[0]][cluster]
                    plan = self.plan(model, cluster_path(cluster), fits=fits)
                    self.assert_adds_up(plan, account)
                    one = plan["layout"].endswith("x1")
                    held = sum(worker["ledger"]["weights"] for worker in plan["workers"])
                    self.assertEqual(held == account.pipeline(plan["draft_layer"]), one)
                    print(f"{name} on {cluster}: {plan['layout']}, {held / 1e9:.1f} GB of weights, "
                          f"{'fits' if fits else plan['missing']}")

    def test_a_pipeline_holds_everything_once(self):
        for name, (model, account) in self.models.items():
            with self.subTest(model=name):
                plan = self.plan(model, cluster_path("sixteen-by-64"), "--layout", "16x1",
                                 "--context", 4096)
                self.assert_adds_up(plan, account)
                self.assertEqual(plan["draft_layer"], name == "F8")  # the GGUF files have none
                self.assertEqual(sum(w["ledger"]["weights"] for w in plan["workers"]),
                                 account.pipeline(plan["draft_layer"]))
                self.assertEqual([w["lanes"] for w in plan["workers"]], 16 * [[0]])

    def test_a_draft_layer_that_nobody_asked_for_gives_way(self):
        model, account = self.models["F8"]
        options = ("--layout", "1x16", "--context", 4096)
        with open(cluster_path("sixteen-by-64"), encoding="utf-8") as example:
            text = example.read()
        self.assertIn("memory: 64GB\n", text)
        with tempfile.TemporaryDirectory() as folder:
            def cluster(memory):
                path = os.path.join(folder, f"{memory}.yaml")
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text.replace("memory: 64GB\n", f"memory: {memory}\n"))
                return path
            missing = self.plan(model, cluster("40GB"), *options, "--draft", "none", fits=False)
            tight = cluster(missing["missing"]["would_fit"]["memory_bytes_each"])
            plan = self.plan(model, tight, *options)
            self.assertFalse(plan["draft_layer"])
            self.assert_adds_up(plan, account)
            self.assertEqual(plan, self.plan(model, tight, *options, "--draft", "none"))
            asked_for = self.plan(model, tight, *options, "--draft", "mtp")
            self.assertTrue(asked_for["draft_layer"])
            self.assert_adds_up(asked_for, account)
            self.assertLess(asked_for["placement"]["step_rows_max"],
                            plan["placement"]["step_rows_max"])
            words = shoal("plan", "--model", model, "--cluster", tight, *options).stdout
            self.assertIn("draft layer     left out", words)

    def test_what_does_not_fit_says_by_how_much_and_the_remedies_hold(self):
        model, _ = self.models["F8"]
        plan = self.plan(model, cluster_path("eight-desktops"), fits=False)
        missing = plan["missing"]
        self.assertEqual(missing["bytes"], sum(w["missing"] for w in plan["workers"]))
        self.assertGreater(missing["bytes"], 160e9)  # 676 GB of weights in 512 GB
        self.assertNotIn("placement", plan)
        remedies = missing["would_fit"]
        for field, old, new in (
                ("count", 8, 8 + remedies["workers_more"]),
                ("memory", "64GB", remedies["memory_bytes_each"])):
            with self.subTest(remedy=field), tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                with open(cluster_path("eight-desktops"), encoding="utf-8") as example:
                    text = example.read()
                self.assertIn(f"{field}: {old}\n", text)
                file.write(text.replace(f"{field}: {old}\n", f"{field}: {new}\n"))
                file.flush()
                self.plan(model, file.name)
        words = shoal("plan", "--model", model, "--cluster", cluster_path("eight-desktops"),
                      check=False)
        self.assertEqual(words.returncode, 1)
        self.assertRegex(words.stdout, r"does not fit +worker \d \(desktop-\d\) needs [\d.]+ GB and "
                         r"has 64\.0 GB: [\d.]+ GB too little\n +2\d\d GB are missing in all")
        self.assertIn(f"{remedies['workers_more']} more workers like worker 0", words.stdout)

    def test_a_config_alone_plans_like_the_checkpoint(self):
        model, _ = self.models["F8"]
        for cluster in CLUSTERS:
            fits = FITS["F8"][cluster]
            self.assertEqual(self.plan(CONFIG, cluster_path(cluster), fits=fits),
                             self.plan(model, cluster_path(cluster), fits=fits))

    def test_the_objective_chooses_among_the_layouts(self):
        model, _ = self.models["Q4_K_M"]
        for objective, figure, best in (("latency", lambda p: p["alone"]["token_s"], min),
                                        ("throughput", lambda p: p["full"]["tokens_per_s"], max)):
            plan = self.plan(model, cluster_path("sixteen-by-64"), "--objective", objective)
            figures = {f"{layout['stages']}x{layout['group_size']}": figure(layout["predicted"])
                       for layout in plan["layouts"] if layout["fits"]}
            self.assertGreater(len(figures), 1)
            self.assertEqual(plan["layout"], best(figures, key=figures.get))
            self.assertEqual(figures[plan["layout"]], figure(plan["predicted"]))

    def test_a_context_is_kept_or_refused(self):
        model, _ = self.models["Q4_K_M"]
        plan = self.plan(model, cluster_path("eight-desktops"), "--context", 32768)
        self.assertEqual(plan["context_tokens"], 32768)
        done = shoal("plan", "--model", model, "--cluster", cluster_path("eight-desktops"),
                     "--context", 200000, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("the model's context has 163840 tokens", done.stderr)

    def test_the_placement_is_a_placement_file(self):
        demo = os.path.join(SOURCE, "deploy", "demo-model")
        plan = self.plan(demo, cluster_path("epyc-rack"), "--layout", "2x2", "--context", 1024)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            plan["placement"]["kv_block_count"] = 16  # for this machine
            json.dump(plan["placement"], file)
            file.flush()
            options = ["--model", demo, "--tokens", "[1,2,3]", "-n", 3, "--temperature", 0, "--json"]
            placed = json.loads(shoal("run", *options, "--placement", file.name).stdout)
            whole = json.loads(shoal("run", *options).stdout)
            self.assertEqual(placed["tokens"], whole["tokens"])

    def test_bad_input_is_named(self):
        for arguments, code, message in (
                (["--model", "/nowhere", "--cluster", cluster_path("epyc-rack")], 1, "/nowhere"),
                (["--model", CONFIG, "--cluster", "/nowhere.yaml"], 1, "/nowhere.yaml"),
                (["--model", CONFIG], 2, "--model M and --cluster FILE are needed"),
                (["--model", CONFIG, "--cluster", cluster_path("epyc-rack"), "--layout", "8x1"], 2,
                 "layout 8x1 needs 8 workers, there are 4"),
                (["--model", CONFIG, "--cluster", cluster_path("epyc-rack"), "--objective", "x"], 2,
                 "--objective must be throughput or latency")):
            done = shoal("plan", *arguments, check=False)
            self.assertEqual(done.returncode, code)
            self.assertIn(message, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
