"""Two network namespaces joined by a veth pair: two hosts on one machine.

A script that calls two_hosts() runs twice: outside it makes the namespaces and takes them down;
inside (SHOAL_SPACES is set) it is in the first one, HERE, and starts what belongs to the other,
THERE, with `ip netns exec`. Where the kernel refuses namespaces the script ends as skipped.
"""
import os
import subprocess
import sys

HERE, THERE = "10.77.0.1", "10.77.0.2"
NETWORK = "10.77.0.0/24"
SPACES = os.environ.get("SHOAL_SPACES", "").split(",")


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def two_hosts():
    """Returns inside; outside it exits with what the script said inside, or 77 when skipped."""
    if SPACES == [""]:
        sys.exit(outside())


def outside():
    first, second = (f"shoal{os.getpid()}{side}" for side in "ab")
    made = ip("netns", "add", first)
    if made.returncode != 0:
        print(f"skipped: the kernel refuses network namespaces: {made.stderr.strip()}")
        return 77
    try:
        steps = [
            ("netns", "add", second),
            ("-n", first, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns",
             second),
            *((("-n", space, *rest)) for space, address in ((first, HERE), (second, THERE))
              for rest in (("addr", "add", f"{address}/24", "dev", "veth0"),
                           ("link", "set", "veth0", "up"), ("link", "set", "lo", "up"))),
        ]
        for step in steps:
            done = ip(*step)
            assert done.returncode == 0, f"ip {' '.join(step)}: {done.stderr}"
        return subprocess.run(["ip", "netns", "exec", first, sys.executable, *sys.argv],
                              env={**os.environ, "SHOAL_SPACES": f"{first},{second}"},
                              check=False).returncode
    finally:
        ip("netns", "del", first)
        ip("netns", "del", second)
