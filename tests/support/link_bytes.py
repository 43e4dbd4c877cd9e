"""What must cross each link, from shapes and a record of the routing alone.

A frame is 64 bytes of header and its payload. A hand-over to the next stage carries one row of f32
for each token of the step. In each layer with experts, in a stage of several members, the member that
serves the sequence sends every other member one dispatch: for each row that visits experts there 4
bytes, 8 for each expert and the row itself; an empty one if no row does. A dispatch with rows is
answered by one combine: a row of f32 for each router group of which all chosen experts lie there, and
one for each other expert. (deploy/docs/adr/0003, worker/stage/dispatch.h.)
"""
import collections

HEADER = 64
FLOAT = 4


class Stage:
    """layers: half-open; workers: ids by member; experts: half-open range of each member; server: the
    member that serves the sequence."""

    def __init__(self, layers, workers, experts, server=0):
        self.layers, self.workers, self.experts, self.server = layers, workers, experts, server

    def owner(self, expert):
        return next(m for m, (begin, end) in enumerate(self.experts) if begin <= expert < end)


def groups_of(config):
    groups = config.get("n_group") or 1
    return groups if groups > 1 else 8


def exchange(config, stage, choices):
    """Of one layer: {member: (rows, parts, combine rows)}; choices: the experts of each row."""
    experts, groups = config["n_routed_experts"], groups_of(config)
    counts = {m: [0, 0, 0] for m in range(len(stage.workers))}
    for chosen in choices:
        owners = collections.defaultdict(set)
        for expert in chosen:
            owners[groups * expert // experts].add(stage.owner(expert))
        for member in range(len(stage.workers)):
            own = [expert for expert in chosen if stage.owner(expert) == member]
            whole = {groups * expert // experts for expert in own
                     if len(owners[groups * expert // experts]) == 1}
            counts[member][0] += bool(own)
            counts[member][1] += len(own)
            counts[member][2] += len(whole) + sum(
                groups * expert // experts not in whole for expert in own)
    return counts


def expected(config, stages, steps, routing):
    """{(from, to): (frames, bytes)}. steps: the positions of each; routing: {(layer, position):
    experts}."""
    links = collections.defaultdict(lambda: [0, 0])

    def send(source, target, payload):
        links[source, target][0] += 1
        links[source, target][1] += HEADER + payload

    row = config["hidden_size"] * FLOAT
    for positions in steps:
        for number, stage in enumerate(stages):
            server = stage.workers[stage.server]
            if number + 1 < len(stages):
                after = stages[number + 1]
                send(server, after.workers[after.server], len(positions) * row)
            for layer in range(*stage.layers):
                if layer < config["first_k_dense_replace"] or len(stage.workers) == 1:
                    continue
                counts = exchange(config, stage, [routing[layer, p] for p in positions])
                for member, (rows, parts, combined) in counts.items():
                    if member == stage.server:
                        continue
                    send(server, stage.workers[member], rows * 4 + parts * 8 + rows * row)
                    if rows > 0:
                        send(stage.workers[member], server, combined * row)
    return {link: tuple(counts) for link, counts in links.items()}
