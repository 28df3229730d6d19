"""Writes the numbers of README.md, docs/results.md and docs/scale.md from the tables in figures/.

    make numbers

A sentence below stands once in its document, with a number in the place of each {}. Only numbers
are replaced: whether the words around them still hold is for you to read.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

ROOT = Path(__file__).parents[1]
README, RESULTS, SCALE = "README.md", "docs/results.md", "docs/scale.md"
GAIN = "{:+.1f} ({:.1f} to {:.1f})"  # in points, with its interval
TWO = "{:.3f} and {:.3f}"  # linear and kNN
NUMBER = r"([+-]?\d+(?:\.\d+)?|[A-Za-z]+)"  # or its name, such as "six"
WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
]  # fmt: skip


class Sentence(NamedTuple):
    """A part of a document.

    Attributes:
        document: path from the root of the project.
        template: its text, a format in the place of each number; line breaks do not count.
        values: one per format.
    """

    document: str
    template: str
    values: tuple


def word(n: int) -> str:
    """A small number as it is written in a sentence."""
    return WORDS[n] if n < len(WORDS) else str(n)


def table(name: str) -> pd.DataFrame:
    """A table of the laptop profile as it was drawn."""
    return pd.read_csv(ROOT / "figures" / f"{name}.csv")


def in_points(paired: pd.DataFrame) -> pd.DataFrame:
    """Differences in percentage points, and the ends of their intervals: three columns."""
    low, high = (paired.difference + sign * paired.half_width for sign in (-1, 1))
    return 100 * pd.concat([paired.difference, low, high], axis=1)


def n_stand(paired: pd.DataFrame) -> int:
    """How many differences stand after the correction for their number."""
    return int((paired.p_holm < 0.05).sum())


def sentences() -> Iterator[Sentence]:
    """All sentences whose numbers are written, with what the tables say."""
    yield from story()
    yield from beyond_the_story()
    yield from on_a_gpu()


def story() -> Iterator[Sentence]:
    """Those of notebooks 01 to 06."""
    reads = table("02_read_outs")
    pixels, of_h = reads.iloc[0], reads[1:]
    knn, linear = (of_h.loc[of_h[metric].idxmax()] for metric in ("knn", "linear"))
    average = of_h[of_h.pooled_to == 1].max()
    yield Sentence(
        README,
        "kNN {:.2f} on `h` with its positions kept, {:.2f} on pixels; linear {:.2f} and {:.2f}.",
        (knn.knn, pixels.knn, linear.linear, pixels.linear),
    )
    yield Sentence(
        RESULTS,
        "kNN: {:.2f} on `h` with its positions kept (t = {:.0f}), {:.2f} on pixels; a linear "
        "classifier on all features: {:.2f} ({:.0f} by {:.0f}, t = {:.0f}) and {:.2f}. The paper's "
        "global average: {:.2f} and {:.2f} (",
        (
            knn.knn,
            knn.t,
            pixels.knn,
            linear.linear,
            linear.pooled_to,
            linear.pooled_to,
            linear.t,
            pixels.linear,
            average.knn,
            average.linear,
        ),
    )

    weights = table("04_interpolation_weight").set_index("w")
    share = 100 * weights.agreement
    half, match = 100 * weights.agreement_half_width, weights.background_match
    same = weights.same_image_match[0]
    yield Sentence(
        README,
        "sees the anchor's digit in {:.0f} % of {:.0f} candidates (half-width {:.0f}), while the "
        "background match falls from {:.2f} to {:.2f};",
        (share[0.1], weights.n[0.1], half[0.1], same, match[0.1]),
    )
    yield Sentence(
        RESULTS,
        "A classifier ({:.1f} % on test) sees the anchor's digit in {:.0f} % of {:.0f} candidates "
        "at w = 0.1 (half-width {:.0f} points), in {:.0f} % at 0.4 and in {:.0f} % at w = 1; the "
        "background match falls from {:.2f} (the anchor itself) to {:.2f}, {:.2f} and {:.2f} (",
        (
            100 * weights.classifier_accuracy[0],
            share[0.1],
            weights.n[0.1],
            half[0.1],
            share[0.4],
            share[1],
            same,
            match[0.1],
            match[0.4],
            match[1],
        ),
    )
    times = table("04_mix_times").set_index("mix_below")
    yield Sentence(
        RESULTS,
        "With the anchor at t < 200 only, match falls to {:.2f} and agreement to {:.2f}; at "
        "t < 100 to {:.2f} and {:.2f}; beyond t = 400 agreement stays, and match rises to {:.2f} (",
        (
            *(times.loc[t, what] for t in (200, 100) for what in ("background_match", "agreement")),
            times.background_match[1000],
        ),
    )

    skips = table("04_mix_skips").set_index("mix_skips").loc[1:4]
    yield Sentence(
        RESULTS,
        "agreement is {:.2f}, {:.2f}, {:.2f} and {:.2f}, and match {:.2f}, {:.2f}, {:.2f} and "
        "{:.2f} (`04_mix_skips.csv`)",
        (*skips.agreement, *skips.background_match),
    )

    pairs = table("04_recoloured_pairs").set_index(["training", "w"]).loc["with pairs", 0.1]
    yield Sentence(
        RESULTS,
        "at w = 0.1 it is kept in {:.0f} %, with a match of {:.2f} (",
        (100 * pairs.agreement, pairs.background_match),
    )

    masks = table("03_masks").set_index("images")
    silent, plain = masks.loc["h = 0"], masks.loc["plain"]
    yield Sentence(
        README, "blurred backgrounds (match {:.2f}) and no digit", (silent.background_match,)
    )
    yield Sentence(
        RESULTS,
        "With `h = 0` the partner's digit is named in {:.0f} % (chance {:.0f} %), its background "
        "stays (match {:.2f}), and edges fall from {:.1f} to {:.1f} grey levels.",
        (
            100 * silent.same_as_plain,
            100 * silent.chance,
            silent.background_match,
            plain.edges,
            silent.edges,
        ),
    )
    yield Sentence(
        RESULTS,
        "The mean of `h` over images leaves {:.0f} %, that over positions {:.0f} % (",
        tuple(100 * masks.same_as_plain[["h = mean", "h flat"]]),
    )

    paired = table("06_paired").set_index(["method", "rival", "metric"])
    n_alone = int((paired.difference.abs() > paired.half_width).sum())
    many = table("06_paired_twelve_seeds_three_models").set_index(paired.index.names)

    def gains(of: pd.DataFrame, method: str, rival: str) -> tuple:
        """Difference and the ends of its interval, linear and kNN: six numbers of points."""
        points = in_points(of)
        return tuple(x for metric in ("linear", "knn") for x in points.loc[method, rival, metric])

    yield Sentence(
        README,
        "({} seeds, {} models, points, 95 %): SimCLR by {:+.1f} linear ({:.1f} to {:.1f}) and "
        f"{{:+.1f}} kNN ({{:.1f}} to {{:.1f}}); one more augmented view by {GAIN} and {GAIN}; the "
        f"anchor in other colours by {GAIN} and {GAIN}. {{}} of {{}} differences stand after "
        "Holm's correction.",
        (
            word(int(many.seeds.iloc[0])),
            word(int(many.models.iloc[0])),
            *gains(many, "CLSP-SimCLR", "SimCLR"),
            *gains(many, "CLSP-SimCLR", "third view"),
            *gains(many, "CLSP-SimCLR", "recoloured third view"),
            word(n_stand(many)).capitalize(),
            word(len(many)),
        ),
    )
    for rival, named in (
        ("SimCLR", "SimCLR"),
        ("SimCLR, longer", "SimCLR of the same time"),
        ("third view", "third view"),
        ("recoloured third view", "recoloured third view"),
    ):
        both = (x for of in (paired, many) for x in gains(of, "CLSP-SimCLR", rival))
        yield Sentence(RESULTS, f"| {named} | {GAIN} | {GAIN} | {GAIN} | {GAIN} |", tuple(both))
    nested = many.loc["CLSP-SimCLR", "third view", "linear"]
    yield Sentence(
        RESULTS,
        f"{{}} of {{}} differences stand after Holm's correction, and the third view is {GAIN} and "
        f"{GAIN} ahead of SimCLR. A bootstrap over models and seeds gives intervals about as wide: "
        f"{GAIN} linear over the third view.",
        (
            word(n_stand(many)),
            word(len(many)),
            *gains(many, "third view", "SimCLR"),
            *(100 * nested[["difference", "nested_low", "nested_high"]]),
        ),
    )
    means = table("06_evaluate_twelve_seeds_three_models").set_index("method")
    listed = ("SimCLR", "third view", "recoloured third view", "CLSP-SimCLR")
    yield Sentence(
        RESULTS,
        f"SimCLR {TWO}, third view {TWO}, recoloured third view {TWO}, CLSP-SimCLR {TWO} "
        "(`06_evaluate_twelve",
        tuple(means.loc[name, metric] for name in listed for metric in ("linear", "knn")),
    )
    yield Sentence(
        RESULTS,
        f"CLSP-MoCoV2 minus MoCoV2: {GAIN} and {GAIN}. Of {{}} differences {{}} exclude zero one "
        "by one, {} stand after Holm's correction.",
        (
            *gains(paired, "CLSP-MoCoV2", "MoCoV2"),
            word(len(paired)),
            word(n_alone),
            word(n_stand(paired)),
        ),
    )

    log = table("05_ramp")
    (ramp,) = {run for run in log.run if run.startswith("ramp")}
    first, last = log.groupby("run").first(), log.groupby("run").last()
    yield Sentence(
        RESULTS,
        "ends the first epoch with the spread of its projections at {:.2f} ({:.2f} with it) and "
        "the run at a loss of {:.2f} ({:.2f}); with ten times the weight it stays at "
        "log(2N - 1) = {:.2f},",
        (
            first.spread["no ramp"],
            first.spread[ramp],
            last.loss["no ramp"],
            last.loss[ramp],
            last.loss["no ramp, 10 lambda"],
        ),
    )
    after = table("06_weight_accuracy").set_index("w").linear_mean
    yield Sentence(
        RESULTS,
        "Linear {:.3f}, {:.3f} and {:.3f} at w = 0.1, 0.4 and 1,",
        (after[0.1], after[0.4], after[1]),
    )
    own = table("09_label_free").set_index(["method", "seed"]).linear
    yield Sentence(RESULTS, "still not below SimCLR with this seed, {:.3f} (", (own["SimCLR", 0],))


def beyond_the_story() -> Iterator[Sentence]:
    """Those of notebooks 07 to 11."""
    over = table("07_generation_quality")
    first, last = over.iloc[0], over.iloc[-1]
    relation = table("07_correlation").set_index(["quality", "metric"])
    yield Sentence(
        RESULTS,
        "falls from {:.2f} to {:.2f} and agreement rises from {:.2f} to {:.2f}; kNN of CLSP-SimCLR "
        "goes from {:.3f} to {:.3f}, Spearman's correlation with the distance {:.2f}.",
        (
            first.frechet,
            last.frechet,
            first.agreement,
            last.agreement,
            first["CLSP-SimCLR, knn"],
            last["CLSP-SimCLR, knn"],
            relation.spearman["frechet", "knn"],
        ),
    )
    yield Sentence(
        RESULTS,
        "{} such correlations over {} moments have p = {:.3f} after correction",
        (word(len(relation)).capitalize(), word(len(over)), relation.p_holm.min()),
    )
    by = table("07_protocol").frechet
    yield Sentence(
        RESULTS,
        "steps of DDPM's sampler: from {:.2f} to {:.2f}; the small variance: {:.2f}; half as many "
        "samples: {:.2f}; cut off instead of rounded: {:.2f} (",
        (by[0], by[2], by[3], by[6], by[4]),
    )
    of = table("08_accuracy").set_index("method")
    listed = (
        "interpolation", "recoloured third view", "third view", "class positives",
        "RCG-cluster, 100", "RCG", "inflation",
    )  # fmt: skip
    yield Sentence(
        RESULTS,
        f"interpolation {TWO}, recoloured third view {TWO}, third view {TWO}, class positives "
        f"{TWO}, RCG-cluster {TWO} (100 clusters), RCG {TWO}, inflation (the same candidates as "
        f"anchors) {TWO}.",
        tuple(of[metric][name] for name in listed for metric in ("linear", "knn")),
    )
    yield Sentence(
        RESULTS,
        "class positives show the anchor's digit in {:.2f} of the candidates, RCG in {:.2f}, "
        "RCG-cluster in {:.2f}, of whose clusters a random member would in {:.2f} (interpolation: "
        "{:.2f}).",
        (
            *(of.agreement[name] for name in ("class positives", "RCG", "RCG-cluster, 100")),
            table("08_purity").set_index("clusters").agreement[100],
            of.agreement["interpolation"],
        ),
    )

    travels = table("09_paired").query("set == 'mean'").set_index(["method", "rival"])
    points = in_points(travels)
    pairs = (
        ("CLSP-SimCLR", "SimCLR"), ("CLSP-SimCLR", "third view"),
        ("CLSP-SimCLR", "recoloured third view"), ("CLSP-MoCoV2", "MoCoV2"),
    )  # fmt: skip
    yield Sentence(
        RESULTS,
        "CLSP-SimCLR is {:+.1f} points ({:.1f} to {:.1f}) ahead of SimCLR, "
        f"{GAIN} of the third view, {GAIN} of the recoloured one, and CLSP-MoCoV2 {GAIN} of "
        "MoCoV2;",
        tuple(x for pair in pairs for x in points.loc[pair]),
    )
    few = table("09_few_labels").set_index(["method", "share"]).accuracy
    yield Sentence(
        RESULTS,
        "{:.3f} and {:.3f} with 1 % of the labels, {:.3f} and {:.3f} with 10 %",
        tuple(few[name, share] for share in (0.01, 0.1) for name in ("SimCLR", "CLSP-SimCLR")),
    )

    of = table("11_losses").set_index("method")
    listed = (
        "CLSP-SimCLR", "pairwise NT-Xent", "MV-InfoNCE", "CACR", "MV-DHEL", "SwAV", "CLSP-SwAV",
        "MCL", "independent SimCLR",
    )  # fmt: skip
    yield Sentence(
        RESULTS,
        f"CLSP-SimCLR {TWO}, pairwise NT-Xent {TWO}, MV-InfoNCE {TWO}, CACR {TWO}, MV-DHEL {TWO}; "
        f"SwAV {TWO}, CLSP-SwAV {TWO}; MCL {TWO}, as many SimCLR encoders {TWO}.",
        tuple(of[metric][name] for name in listed for metric in ("linear", "knn")),
    )
    layers = table("11_layers").groupby(["layer", "method"]).background.mean()
    yield Sentence(
        RESULTS,
        "SimCLR {:.2f}, third view {:.2f}, CLSP-SimCLR {:.2f}; at the stem all have {:.2f}.",
        (
            *(layers["level 3", name] for name in ("SimCLR", "third view", "CLSP-SimCLR")),
            layers["stem"].mean(),
        ),
    )


def on_a_gpu() -> Iterator[Sentence]:
    """Those of `benchmarks/cifar10_gpu.py`."""
    of = 100 * table("cifar10/encoders").set_index("method")[["linear", "knn"]]
    one = "{:.1f} and {:.1f}"
    yield Sentence(
        SCALE,
        f"SimCLR {one}, third view {one}, recoloured third view {one}. The half-widths",
        tuple(
            x for name in ("SimCLR", "third view", "recoloured third view") for x in of.loc[name]
        ),
    )


def rewritten(text: str, sentence: Sentence) -> str:
    """The text of a document with the sentence's numbers in it.

    Raises:
        ValueError: the sentence stands there not once.
    """
    parts = re.split(r"(\{[^}]*\})", sentence.template)
    words = [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in parts[::2]]
    found = list(re.finditer(NUMBER.join(words), text))
    if len(found) != 1:
        raise ValueError(
            f"{sentence.document} has {len(found)} times, not once, the sentence: "
            f"{sentence.template}; where its words changed, change docs/write_numbers.py too."
        )
    (match,) = found
    for i in reversed(range(len(sentence.values))):  # from the end, so that places stay as found
        written = parts[2 * i + 1].format(sentence.values[i])
        text = text[: match.start(i + 1)] + written + text[match.end(i + 1) :]
    return text


def main() -> None:
    """Rewrites the documents, and tells what has changed."""
    for sentence in sentences():
        path = ROOT / sentence.document
        before = path.read_text()
        after = rewritten(before, sentence)
        if after != before:
            path.write_text(after)
            print(f"{sentence.document}: {sentence.template.format(*sentence.values)}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
