"""A small set of combinations in which every pair of values of two factors occurs.

Most faults of combined options need two of them to meet; the pairs of a dozen factors fit in a few
dozen runs, all combinations in none. Greedy: each next combination is the best of some random ones
by the number of new pairs. The seed is fixed, so the same factors give the same cover.
"""
import itertools
import random


def all_combinations(factors, allowed=lambda combination: True):
    """Dicts, one for each combination of the factors' values that is allowed."""
    names = list(factors)
    for values in itertools.product(*factors.values()):
        combination = dict(zip(names, values))
        if allowed(combination):
            yield combination


def pairs_of(combination):
    return set(itertools.combinations(sorted(combination.items(), key=str), 2))


def cover(factors, allowed=lambda combination: True, seed=1):
    """A list of allowed combinations that has every pair of values which any allowed one has."""
    candidates = list(all_combinations(factors, allowed))
    open_pairs = set().union(*map(pairs_of, candidates))
    source = random.Random(seed)
    chosen = []
    while open_pairs:
        tried = source.sample(candidates, min(200, len(candidates)))
        best = max(tried, key=lambda one: len(pairs_of(one) & open_pairs))
        if not pairs_of(best) & open_pairs:
            best = next(one for one in candidates if pairs_of(one) & open_pairs)
        open_pairs -= pairs_of(best)
        chosen.append(best)
    return chosen
