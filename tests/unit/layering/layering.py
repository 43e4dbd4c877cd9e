#!/usr/bin/env python3
"""layering.py ROOT - checks what the folder tree promises.

* Includes are written from the root and point along the table ROOMS.
* A library's header is included behind its one door only (DOORS).
* malloc and its kin are called in common/base only, output is printed in coordinator/cli only.
* Pure rooms take no clock, file, log, thread or socket.

Prints each breach as file:line: what, and exits 1 if there is one. Works on text: comments and
strings are blanked first.
"""
import os
import re
import sys

BASE, MODEL, TEXT, PLAN, NET = (f"common/{r}" for r in ("base", "model", "text", "plan", "net"))
ENGINE, CLUSTER, GRAMMAR, JOBS, API, WEB, SIMULATE, CLI = (
    f"coordinator/{r}"
    for r in ("engine", "cluster", "grammar", "jobs", "api", "web", "simulate", "cli"))
TEAM, KERNELS, KV, LAYERS, STAGE = (
    f"worker/{r}" for r in ("team", "kernels", "kv", "layers", "stage"))

# room → what it may include besides itself
ROOMS = {
    "proto": set(),
    BASE: set(),
    MODEL: {BASE},
    TEXT: {BASE, MODEL},
    PLAN: {BASE, MODEL},
    NET: {BASE, PLAN, "proto"},
    ENGINE: {BASE, PLAN},
    SIMULATE: {BASE, MODEL, PLAN, ENGINE},
    GRAMMAR: {BASE, TEXT},
    CLUSTER: {BASE, MODEL, PLAN, NET, ENGINE},
    JOBS: {BASE, TEXT, CLUSTER},
    API: {BASE, TEXT, GRAMMAR, CLUSTER, JOBS, WEB},
    WEB: {BASE, TEXT, GRAMMAR, CLUSTER, JOBS, API},
    CLI: {BASE, MODEL, TEXT, PLAN, NET, ENGINE, SIMULATE, GRAMMAR, CLUSTER, JOBS, API, WEB},
    TEAM: {BASE},
    KERNELS: {BASE, MODEL, TEAM},
    KV: {BASE, MODEL, TEAM},
    LAYERS: {BASE, MODEL, KERNELS, KV},
    STAGE: {BASE, MODEL, PLAN, NET, TEAM, KERNELS, KV, LAYERS},
}
PURE = (PLAN, ENGINE, SIMULATE)

# Kernels take the team that runs them, so whoever calls kernels hands a team through.
ALSO = {
    LAYERS: {TEAM},
}

# header → where it may be included
DOORS = {
    "mpi.h": ("common/net/link_mpi.c", "common/net/mpi_world.c"),
    "zmq.h": (NET + "/",),
    "zmq_utils.h": (NET + "/",),
    "microhttpd.h": (API + "/",),
    "pcre2.h": (TEXT + "/",),
    "utf8proc.h": (TEXT + "/",),
    "curl/curl.h": (CLI + "/",),
    "cblas.h": (KERNELS + "/",),
    "openblas/cblas.h": (KERNELS + "/",),
    "sqlite3.h": (JOBS + "/",),
    "cyaml/cyaml.h": (CLUSTER + "/cluster_words.c",),
    "yaml.h": (CLUSTER + "/yaml_place.c",),
    "hwloc.h": (TEAM + "/", STAGE + "/"),
    "immintrin.h": (KERNELS + "/",),
}
GENERATED = re.compile(r"\.pb-c\.h$")

# free() of what a library allocated: nothing of ours.
LIBRARY_MEMORY = {
    "json_dumps": "jansson gives a string that the caller frees",
    "realpath": "libc allocates the answer when no buffer is given",
    "getline": "libc grows the line",
    "utf8proc": "utf8proc_map allocates its answer",
    "protobuf": "protobuf-c unpacks with the system allocator",
}

IMPURE_HEADERS = {
    f"{BASE}/clock.h", f"{BASE}/file.h", f"{BASE}/log.h", f"{BASE}/ring.h", "pthread.h",
    "threads.h", "stdatomic.h", "time.h", "sys/time.h", "unistd.h", "fcntl.h", "poll.h",
    "sys/socket.h", "sys/stat.h", "sys/mman.h", "sys/random.h", "netdb.h", "signal.h",
}
IMPURE_CALLS = re.compile(
    r"\b(fopen|open|read|write|fprintf|clock_gettime|gettimeofday|time|rand|random|getenv|usleep)\s*\(")
ALLOCATION = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|reallocarray|strdup|strndup|asprintf"
                        r"|posix_memalign|aligned_alloc)\s*\(")
FREE = re.compile(r"(?<![\w.>])free\s*\(\s*\(?([\w>.\-\[\]()\s*]*)\)")
PRINT = re.compile(r"(?<![\w.>])(printf|vprintf|puts|putchar|perror)\s*\("
                   r"|(?<![\w.>])v?f(printf|puts|putc|write)\s*\([^;]*\b(stdout|stderr)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def blank(text):
    """Comments and literals become spaces; line numbers stay."""
    def spaces(match):
        token = match.group(0)
        keep = token[0] if token[0] in "\"'" else ""
        body = "".join("\n" if c == "\n" else " " for c in token)
        return keep + body[1:-1] + keep if keep else body
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", spaces, text,
                  flags=re.S)


def room_of(path):
    parts = path.split("/")
    return parts[0] if parts[0] == "proto" else "/".join(parts[:2])


class Check:
    def __init__(self, root):
        self.root = root
        self.breaches = []

    def breach(self, path, text, offset, what):
        self.breaches.append(f"{path}:{text.count(chr(10), 0, offset) + 1}: {what}")

    def includes(self, path, room, text):
        allowed = ROOMS[room] | ALSO.get(room, set())
        for match in INCLUDE.finditer(text):
            quote, name = match.groups()
            if GENERATED.search(name):
                if room != NET:
                    self.breach(path, text, match.start(),
                                f"{name}: generated types never leave {NET}")
                continue
            if quote == '"':
                target = room_of(name)
                if not os.path.exists(os.path.join(self.root, name)):
                    self.breach(path, text, match.start(), f'"{name}" is not a path from the root')
                elif target != room and target not in allowed:
                    self.breach(path, text, match.start(), f"{room} may not include {target}")
            elif name in DOORS and not path.startswith(DOORS[name]):
                self.breach(path, text, match.start(),
                            f"<{name}> belongs to {' and '.join(DOORS[name])}")
            if room in PURE and name in IMPURE_HEADERS:
                self.breach(path, text, match.start(), f"{room} is pure: no {name}")

    def calls(self, path, room, text, code):
        if room != BASE:
            for match in ALLOCATION.finditer(code):
                self.breach(path, code, match.start(), f"{match.group(1)}() outside {BASE}")
            if not any(word in text for word in LIBRARY_MEMORY):
                for match in FREE.finditer(code):
                    self.breach(path, code, match.start(),
                                f"free() outside {BASE}, and no library's memory in sight "
                                f"({', '.join(LIBRARY_MEMORY)})")
        if room not in (BASE, CLI):
            for match in PRINT.finditer(code):
                self.breach(path, code, match.start(), f"output outside {CLI}: {match.group(0)}")
        if room in PURE:
            for match in IMPURE_CALLS.finditer(code):
                self.breach(path, code, match.start(), f"{room} is pure: no {match.group(1)}()")

    def file(self, path):
        room = room_of(path)
        with open(os.path.join(self.root, path), encoding="utf-8") as file:
            text = file.read()
        if room not in ROOMS:
            self.breaches.append(f"{path}:1: {room} is not a room; the table in layering.py has them")
            return
        self.includes(path, room, text)
        self.calls(path, room, text, blank(text))

    def tree(self):
        count = 0
        for top in ("proto", "common", "coordinator", "worker"):
            for folder, _, names in os.walk(os.path.join(self.root, top)):
                for name in sorted(names):
                    if name.endswith((".c", ".h")):
                        self.file(os.path.relpath(os.path.join(folder, name), self.root))
                        count += 1
        return count


def self_test():
    """The checker sees what it must and nothing in comments."""
    assert ALLOCATION.search(blank("x = malloc(3);"))
    assert not ALLOCATION.search(blank("/* malloc(3) */ mem_malloc(2); a->realloc(1);"))
    assert PRINT.search('fprintf(stderr, "x")') and not PRINT.search("fprintf(file, 1)")
    assert PRINT.search(blank('printf("a");')) and not PRINT.search(blank("snprintf(a);"))
    assert room_of("common/net/link.h") == NET and room_of("proto/x.c") == "proto"
    assert blank('a "b\n" // c\n/*\n*/').count("\n") == 3


def main():
    self_test()
    check = Check(sys.argv[1])
    count = check.tree()
    print("\n".join(check.breaches) or f"{count} files, each in its place")
    return 1 if check.breaches or count < 20 else 0


if __name__ == "__main__":
    sys.exit(main())
