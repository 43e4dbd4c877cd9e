"""How far logits are apart, over the positions where that can be asked: those whose routing agrees."""
import math


def rows_of(prompts):
    """{(prompt, position): row of its logits}"""
    places = [(i, position) for i, tokens in enumerate(prompts) for position in range(len(tokens))]
    return {place: row for row, place in enumerate(places)}


def agreeing_rows(prompts, routing, other):
    """Rows whose every layer chose the same experts in both; all of a model without experts."""
    rows = rows_of(prompts)
    assert len(routing) == len(other)
    for mine, theirs in zip(routing, other):
        place = (mine["id"], mine["pos"])
        assert place == (theirs["id"], theirs["pos"]) and mine["layer"] == theirs["layer"]
        if set(mine["experts"]) != set(theirs["experts"]):
            rows.pop(place, None)
    return sorted(rows.values())


def standard_deviation(values):
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def relative_error(got, wanted, rows, width):
    """rms(got - wanted) over these rows, over the standard deviation of all wanted values."""
    total = math.fsum((got[i] - wanted[i]) ** 2
                      for row in rows for i in range(row * width, (row + 1) * width))
    return math.sqrt(total / (len(rows) * width)) / standard_deviation(wanted)
