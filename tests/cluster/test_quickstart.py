"""deploy/quickstart as a newcomer runs it, with the programs that are already built."""
import os
import signal
import subprocess
import tempfile
import time
import unittest
import uuid

from shoal import BIN, MARK, PATIENCE, SOURCE, wait_for_none_left

QUICKSTART = os.path.join(SOURCE, "deploy", "quickstart")


class Quickstart(unittest.TestCase):
    def setUp(self):
        self.mark = uuid.uuid4().hex
        self.output = tempfile.NamedTemporaryFile("w+", prefix="shoal-quickstart-")

    def tearDown(self):
        self.output.close()

    def text(self):
        with open(self.output.name, errors="replace", encoding="utf-8") as file:
            return file.read()

    def start(self, *options):
        # A session of its own, in which Ctrl-C goes to the whole foreground group as in a terminal.
        # A shell that started us in the background made us ignore SIGINT; a newcomer's did not.
        return subprocess.Popen(
            [QUICKSTART, *options], stdout=self.output, stderr=self.output,
            stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={**os.environ, MARK: self.mark, "SHOAL_BUILD": os.path.dirname(BIN)})

    def whole(self, *options):
        begin = time.monotonic()
        process = self.start(*options)
        code = process.wait(120 * PATIENCE)
        text = self.text()
        self.assertEqual(code, 0, text)
        print(f"quickstart {' '.join(options)}: {time.monotonic() - begin:.1f} s")
        self.assertIn("The answer is 5694.", text)
        self.assertIn("9.9 is larger.", text)
        return text

    def test_two_answers_and_a_table(self):
        text = self.whole()
        table = text[text.index("what ran where"):]
        for word in ("worker", "layers", "experts", "memory", "link"):
            self.assertIn(word, table.lower())
        self.assertIn("zmq", table)
        self.assertIn("deploy/quickstart --keep", table)
        self.assertIn("deploy/quickstart --link mpi", table)
        # Thinking is shown before the answer.
        self.assertLess(text.index("8+6+0=14"), text.index("The answer is 5694."))
        wait_for_none_left(self.mark)

    def test_the_same_over_mpi(self):
        text = self.whole("--link", "mpi")
        table = text[text.index("what ran where"):]
        self.assertIn("mpi", table)
        wait_for_none_left(self.mark)

    def interrupted(self, moment, *options):
        for _ in range(20):  # it takes half a second in all, so the moment may be over
            self.output.seek(0)  # the processes write on from there
            self.output.truncate()
            process = self.start(*options)
            while moment not in self.text() and process.poll() is None:
                time.sleep(0.002)
            if process.poll() is None:
                break
            self.assertEqual(process.returncode, 0, self.text())
        os.killpg(process.pid, signal.SIGINT)
        self.assertEqual(process.wait(40 * PATIENCE), 130, self.text())
        wait_for_none_left(self.mark)

    def test_ctrl_c_while_it_starts(self):
        self.interrupted("2. a coordinator")

    def test_ctrl_c_at_any_moment(self):
        # In the first milliseconds the server is forked but not yet itself.
        for ms in range(40):
            process = self.start()
            time.sleep(0.002 * ms)
            os.killpg(process.pid, signal.SIGINT)
            self.assertIn(process.wait(40 * PATIENCE), (130, -signal.SIGINT), self.text())
        wait_for_none_left(self.mark)

    def test_ctrl_c_while_it_answers(self):
        self.interrupted("> What is")

    def test_ctrl_c_ends_a_kept_server(self):
        self.interrupted("until Ctrl-C", "--keep")

    def test_ctrl_c_over_mpi(self):
        self.interrupted("> What is", "--link", "mpi")

    def test_wrong_options(self):
        done = subprocess.run([QUICKSTART, "--fast"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--fast", done.stderr)
        done = subprocess.run([QUICKSTART, "--help"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0)
        self.assertIn("--link mpi", done.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
