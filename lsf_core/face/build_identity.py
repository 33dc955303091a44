"""Identity space of the template: sampled heads, similarity alignment, principal modes."""

from __future__ import annotations

import numpy as np

from lsf_core.face.build_mpfb import AGES, GENDERS, RACES, MpfbHead

DETAIL_LIMIT = 0.3
"""Largest weight of a local modelling target: beyond this MakeHuman's heads turn into caricatures."""
AGE_STOPS = (0.0, 0.1875, 0.5, 1.0)
"""MakeHuman's age scale at baby, child, young, old."""


def _macro_weights(rng: np.random.Generator) -> dict[str, float]:
    """One random draw of MakeHuman's macro sliders -> weight of each macro target."""
    race = dict(zip(RACES, rng.dirichlet([0.6, 0.6, 0.6]), strict=True))
    male = rng.beta(0.5, 0.5)
    gender = {"female": 1 - male, "male": male}
    value = rng.uniform(0.12, 1.0) if rng.random() < 0.6 else rng.normal(0.5, 0.12)
    age = dict.fromkeys(AGES, 0.0)
    value = float(np.clip(value, 0.12, 1.0))
    upper = int(np.searchsorted(AGE_STOPS[1:-1], value, side="right")) + 1
    share = (value - AGE_STOPS[upper - 1]) / (AGE_STOPS[upper] - AGE_STOPS[upper - 1])
    age[AGES[upper - 1]], age[AGES[upper]] = 1 - share, share

    def three(name: str, spread: float) -> dict[str, float]:
        position = float(np.clip(rng.normal(0, spread), -1, 1))
        return {f"min{name}": max(-position, 0), f"average{name}": 1 - abs(position), f"max{name}": max(position, 0)}

    muscle, weight = three("muscle", 0.4), three("weight", 0.5)
    found = {f"{r}-{g}-{a}": race[r] * gender[g] * age[a] for r in RACES for g in GENDERS for a in AGES}
    found |= {f"universal-{g}-{a}-{m}-{w}": gender[g] * age[a] * muscle[m] * weight[w]
              for g in GENDERS for a in AGES for m in muscle for w in weight}
    return {name: w for name, w in found.items() if w > 1e-4}


def _detail_pairs(names: list[str]) -> list[tuple[str, ...]]:
    """Group opposite targets (incr/decr, up/down, in/out, ...) so that a draw uses one of them at most."""
    opposites = (("incr", "decr"), ("up", "down"), ("in", "out"), ("forward", "backward"), ("concave", "convex"),
                 ("compress", "uncompress"))
    known = set(names)
    groups: list[tuple[str, ...]] = []
    for name in names:
        stem, _, ending = name.rpartition("-")
        partner = next((f"{stem}-{b}" for a, b in opposites if ending == a), None)
        second = any(ending == b and f"{stem}-{a}" in known for a, b in opposites)
        if not second:
            groups.append((name, partner) if partner is not None and partner in known else (name,))
    return groups


def mpfb_identities(head: MpfbHead, count: int, seed: int) -> np.ndarray:
    """`count` random MakeHuman heads (count, V, 3), metres, not aligned: ancestry, sex, age, weight, muscle
    and details."""
    rng = np.random.default_rng(seed)
    macros, details = head.macros(), head.details()
    groups = _detail_pairs([n for n in details if not n.startswith("asym/")])
    partner_side = {n: n.replace("/l-", "/r-") for n in details if "/l-" in n}
    heads = np.empty((count, len(head.base), 3))
    for i in range(count):
        vertices = head.base + sum(w * macros[name] for name, w in _macro_weights(rng).items())
        for group in groups:
            if any("/r-" in n for n in group) or rng.random() < 0.4:
                continue
            name = group[rng.integers(len(group))]
            weight = DETAIL_LIMIT * rng.random()
            vertices = vertices + weight * details[name]
            if name in partner_side:
                vertices = vertices + weight * details[partner_side[name]]
        heads[i] = vertices
    return heads


def align(heads: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted similarity alignment (Umeyama 1991, eq. 34-43) of heads (N, V, 3) to target (V, 3); weight
    (V,)."""
    w = weight / weight.sum()
    goal = target - w @ target
    out = np.empty_like(heads)
    for i, head in enumerate(heads):
        moved = head - w @ head
        u, s, vt = np.linalg.svd((goal * w[:, None]).T @ moved)
        flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
        scale = np.trace(np.diag(s) @ flip) / (w @ (moved**2).sum(axis=1))
        out[i] = scale * moved @ (u @ flip @ vt).T + w @ target
    return out


def principal_modes(heads: np.ndarray, mirror: np.ndarray, weight: np.ndarray, count: int
                    ) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Mean and principal modes of heads (N, V, 3), each mode times its standard deviation.

    Every head also enters mirrored, so that the mean is symmetric and each mode is symmetric or
    antisymmetric. Vertices count by weight (V,) plus a little everywhere. -> mean (V, 3), modes (count, V,
    3), explained share of the variance by the first 16, the first 32 and all modes.
    """
    flip = np.array([-1.0, 1.0, 1.0])
    both = np.concatenate([heads, heads[:, mirror] * flip])
    mean = both.mean(axis=0)
    for _ in range(3):
        both = align(both, mean, weight)
        mean = both.mean(axis=0)
        mean = (mean + mean[mirror] * flip) / 2
    root = np.sqrt(weight + 0.05)[:, None]
    centred = (both - mean).reshape(len(both), -1)
    weighted = ((both - mean) * root).reshape(len(both), -1)
    values, vectors = np.linalg.eigh(weighted @ weighted.T / len(both))
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    # rows of the scores are whitened: variance 1 over the sample
    scores = vectors[:, :count] * np.sqrt(len(both))
    modes = (scores.T @ centred / len(both)).reshape(count, -1, 3)
    # an eigenvector has no sign of its own: the largest displacement points to the positive side of its axis
    flat = modes.reshape(count, -1)
    largest = flat[np.arange(count), np.abs(flat).argmax(axis=1)]
    modes *= np.where(largest < 0, -1.0, 1.0)[:, None, None]
    return mean, modes, [float(values[:n].sum() / values.sum()) for n in (16, 32, count)]
