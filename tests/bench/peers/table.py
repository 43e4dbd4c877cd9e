"""From samples of both sides to ratios and shares, and their table."""
import statistics

import lines

HEAD = (f"{'':38} {'shoal tokens/s':>24}  {'best peer':>24}  {'ratio':>19} {'floor':>7}  "
        f"{'of limit':>8} {'aim':>5} {'peer':>5}")


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def best_peer(samples):
    """The name of the fastest side that is not ours, by its median; None: there is none."""
    peers = [name for name in samples if not name.startswith("shoal") and samples[name]]
    return max(peers, key=lambda name: statistics.median(samples[name]), default=None)


def result_of(line, samples, limits, failures):
    """samples: {side: [per round]}; ours are {"tokens_per_s", "memory", "arithmetic"}, peers' a
    number."""
    ours = samples["shoal"]
    speeds = [sample["tokens_per_s"] for sample in ours]
    share = statistics.median(sample[line.limit] for sample in ours)
    result = {"line": line.name, "title": line.title, "shoal": spread(speeds), "limit": line.limit,
              "share": share, "aim": line.aim, "limits": limits, "failures": failures}
    peer = best_peer(samples)
    if peer:
        ratios = [our / its for our, its in zip(speeds, samples[peer])]
        result |= {"peer": peer, "peer_speed": spread(samples[peer]), "ratio": spread(ratios),
                   "peer_share": share / statistics.median(ratios),
                   "peers": {name: spread(values) for name, values in samples.items()
                             if not name.startswith("shoal") and values}}
    elif line.known:
        result |= {"peer": "baseline", "peer_share": line.known,
                   "ratio": spread([sample[line.limit] / line.known for sample in ours])}
    if "shoal 1x1" in samples:
        result["of_one_process"] = spread(
            [our / one["tokens_per_s"] for our, one in zip(speeds, samples["shoal 1x1"])])
    return result


def speed_text(values):
    return f"{values['median']:.2f} ({values['least']:.2f}-{values['most']:.2f})"


def row(line, result):
    if "failed" in result:
        return f"{line.title:38} failed: {result['failed']['shoal'][:80]}"
    peer = ratio = floor = its = "-"
    if "peer_speed" in result:
        peer = speed_text(result["peer_speed"])
    if "ratio" in result:
        ratio = speed_text(result["ratio"])
        its = f"{100 * result['peer_share']:.0f}%"
    if line.floor:
        missed = "ratio" in result and result["ratio"]["median"] < line.floor
        floor = f"{'!' if missed else ''}{line.floor:.1f}{'*' if line.must else ''}"
    text = (f"{line.title:38} {speed_text(result['shoal']):>24}  {peer:>24}  {ratio:>19} "
            f"{floor:>7}  {100 * result['share']:>7.0f}% {100 * line.aim:>4.0f}% {its:>5}")
    if "peer_speed" in result:
        text += f"  {result['peer']}"
    elif "ratio" in result:
        text += "  baseline"
    if "of_one_process" in result:
        text += f"; {100 * result['of_one_process']['median']:.0f}% of 1x1"
    return text


def foot(limits):
    parts = []
    for key, unit, scale in (("read_bytes_per_s", "GB/s read", 1e9),
                             ("int8_operations_per_s", "Top/s int8", 1e12),
                             ("f32_operations_per_s", "Top/s f32", 1e12)):
        values = [limit[key] / scale for limit in limits]
        if values:
            parts.append(f"{statistics.median(values):.2f} {unit} ({min(values):.2f}-{max(values):.2f})")
    return ("floor: * must hold, ! missed. Limits, median of all runs (least-most): "
            + ", ".join(parts) + ".\nbaseline: the best peer's share of its limit on "
            + lines.BASELINE + ".")
