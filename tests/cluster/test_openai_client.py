"""The official `openai` client against workers that `mpirun` started in another terminal: chat,
completions, streams, and errors as the client's own exception types."""
import os
import subprocess
import sys
import unittest

VENV = os.environ.get("SHOAL_TEST_VENV", "")
try:
    import openai
except ImportError:
    python = os.path.join(VENV, "bin", "python")
    if VENV and os.path.exists(python) and not os.environ.get("SHOAL_IN_VENV"):
        os.execve(python, [python, *sys.argv], {**os.environ, "SHOAL_IN_VENV": "1"})
    print("skipped: the openai package is not installed (tests/run installs it)")
    sys.exit(77)

from shoal import PATIENCE, WORKER, Server, wait_until

QUESTION = [{"role": "user", "content": "What is 4738 + 956?"}]


class OpenAiClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--workers", 3, "--control", "tcp://127.0.0.1:0", "--model-name", "demo",
                            "--kv-type", "f32", ready=False)
        line = wait_until(lambda: next((l for l in cls.server.text().splitlines()
                                        if "--coordinator tcp://" in l), None), 30, "the invitation")
        cls.mpirun = subprocess.Popen(
            ["mpirun", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "-n", "3", WORKER,
             "--coordinator", line.split("--coordinator ")[1].strip()],
            stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        cls.server.wait_ready()
        cls.client = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.server.port}/v1",
                                   api_key="none", max_retries=0, timeout=120 * PATIENCE)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        code = cls.server.stop()
        assert code == 0, code
        cls.mpirun.terminate()
        cls.mpirun.wait(30 * PATIENCE)

    def test_workers_are_one_island(self):
        for worker in self.server.status()["workers"]:
            self.assertEqual({link["kind"] for link in worker["links"]}, {"mpi"})

    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list()], ["demo"])
        self.assertEqual(self.client.models.retrieve("demo").id, "demo")

    def test_chat(self):
        answer = self.client.chat.completions.create(model="demo", messages=QUESTION, temperature=0)
        message = answer.choices[0].message
        self.assertEqual(message.content, "The answer is 5694.")
        self.assertIn("8+6+0=14", message.reasoning_content)
        self.assertEqual(message.reasoning, message.reasoning_content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.prompt_tokens, 18)
        self.assertEqual(answer.usage.total_tokens,
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_chat_streamed(self):
        thinking = text = ""
        finish = usage = None
        for chunk in self.client.chat.completions.create(
                model="demo", messages=QUESTION, temperature=0, stream=True,
                stream_options={"include_usage": True}):
            if chunk.usage:
                usage = chunk.usage
            for choice in chunk.choices:
                thinking += getattr(choice.delta, "reasoning_content", None) or ""
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        self.assertEqual(text, "The answer is 5694.")
        self.assertIn("8+6+0=14", thinking)
        self.assertEqual(finish, "stop")
        self.assertEqual(usage.prompt_tokens, 18)

    def test_several_choices_differ(self):
        answer = self.client.completions.create(model="demo", prompt="First Citizen:", n=3, seed=5,
                                                temperature=1, max_tokens=24)
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2])
        self.assertEqual(len({c.text for c in answer.choices}), 3)
        answer = self.client.chat.completions.create(model="demo", messages=QUESTION, n=2, seed=5,
                                                     temperature=0)
        self.assertEqual([c.message.content for c in answer.choices], ["The answer is 5694."] * 2)

    def test_completions(self):
        whole = self.client.completions.create(model="demo", prompt="First Citizen:", max_tokens=24,
                                               temperature=0.8, seed=3)
        self.assertEqual(whole.choices[0].finish_reason, "length")
        self.assertEqual(whole.usage.completion_tokens, 24)
        streamed = "".join(
            chunk.choices[0].text for chunk in self.client.completions.create(
                model="demo", prompt="First Citizen:", max_tokens=24, temperature=0.8, seed=3,
                stream=True))
        self.assertEqual(streamed, whole.choices[0].text)

    def test_stop_string(self):
        answer = self.client.chat.completions.create(model="demo", messages=QUESTION, temperature=0,
                                                     stop=["is 56"])
        self.assertEqual(answer.choices[0].message.content, "The answer ")
        self.assertEqual(answer.choices[0].finish_reason, "stop")

    def test_chat_logprobs(self):
        asked = dict(model="demo", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3)
        choice = self.client.chat.completions.create(**asked).choices[0]
        content = choice.logprobs.content
        text = b"".join(bytes(entry.bytes) for entry in content).decode()
        self.assertTrue(text.endswith(choice.message.content))
        for entry in content:
            self.assertEqual(len(entry.top_logprobs), 3)
            self.assertEqual((entry.top_logprobs[0].token, entry.top_logprobs[0].logprob),
                             (entry.token, entry.logprob))
            self.assertLessEqual(entry.logprob, 0)
        streamed = []
        for chunk in self.client.chat.completions.create(**asked, stream=True):
            for part in chunk.choices:
                streamed += part.logprobs.content if part.logprobs else []
        self.assertEqual(streamed, content)

    def test_completion_logprobs_with_echo(self):
        answer = self.client.completions.create(
            model="demo", prompt="First Citizen:", max_tokens=3, temperature=0, logprobs=2, echo=True,
            extra_body={"prompt_logprobs": 1, "return_token_ids": True})
        choice = answer.choices[0]
        logprobs = choice.logprobs
        self.assertTrue(choice.text.startswith("First Citizen:"))
        self.assertIsNone(logprobs.token_logprobs[0])
        self.assertEqual(len(logprobs.tokens), answer.usage.total_tokens)
        for offset, token in list(zip(logprobs.text_offset, logprobs.tokens))[1:]:
            self.assertEqual(choice.text[offset:offset + len(token)], token)
        self.assertEqual(len(choice.prompt_logprobs), answer.usage.prompt_tokens)
        self.assertEqual(len(choice.token_ids), 3)

    def test_biases_penalties_and_tiers(self):
        answer = self.client.chat.completions.create(
            model="demo", messages=QUESTION, temperature=0, max_tokens=4, logit_bias={"77": 100},
            presence_penalty=0.5, frequency_penalty=-0.5, service_tier="flex",
            extra_body={"repetition_penalty": 1.1, "min_p": 0.05, "top_k": 40, "return_token_ids": True})
        self.assertEqual(answer.choices[0].token_ids, [77] * 4)
        self.assertEqual(answer.service_tier, "flex")
        self.assertEqual(answer.usage.completion_tokens, 4)

    def test_usage_tells_what_was_cached_and_thought(self):
        long = [{"role": "user", "content": "word " * 300}]
        asked = dict(model="demo", messages=long, temperature=0, max_tokens=2)
        self.client.chat.completions.create(**asked)
        usage = self.client.chat.completions.create(**asked).usage
        self.assertGreater(usage.prompt_tokens_details.cached_tokens, 0)
        self.assertLess(usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens)
        usage = self.client.chat.completions.create(model="demo", messages=QUESTION,
                                                    temperature=0).usage
        self.assertGreater(usage.completion_tokens_details.reasoning_tokens, 10)
        self.assertLess(usage.completion_tokens_details.reasoning_tokens, usage.completion_tokens)

    def test_errors_are_the_clients_own_types(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="other", messages=QUESTION)
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model="demo", messages=QUESTION, temperature=-1)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.completions.create(model="demo", prompt=[5] * 5000, max_tokens=1)
        with self.assertRaises(openai.BadRequestError) as other:
            self.client.chat.completions.create(model="demo", messages=QUESTION,
                                                logit_bias={"77": 101})
        self.assertEqual(other.exception.param, "logit_bias")
        self.assertIn("4096", str(caught.exception))


if __name__ == "__main__":
    unittest.main(verbosity=2)
