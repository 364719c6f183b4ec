"""Tables and figures of docs/results.md and its appendix from what scripts/evidence/benchmark.py measured.

    python scripts/evidence/results_page.py FOLDER
    python scripts/evidence/results_page.py --restore FOLDER    from docs/measurements/benchmark.parquet, so that the
                                                                benchmark in FOLDER continues from those results

FOLDER is the benchmark's. Its results.parquet is copied to docs/measurements/benchmark.parquet; the parts of
docs/results.md and docs/results-appendix.md between `<!-- begin NAME -->` and `<!-- end NAME -->` and the figures are
written anew.
"""

import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from arms import CONTROLS, CUTS, FIXED_AS_GROWN, MEANINGS, WEIGHTS
from cells import Cell
from findings import QUESTIONS, SUCCESS, PairedDifference, paired, table_of, verdicts
from matplotlib.figure import Figure
from parts import LONG_STEPS, LOOK, SIZES, STEPS, TUNING_SEED, chosen_rates
from results import read_results, write_results
from running import file_of, scores_as_json

from hico_core.base.storage import write_text
from hico_core.evidence.arms import FAR_3, HICO
from hico_core.evidence.segments import Score
from hico_core.evidence.trial import Corpus
from hico_core.transfer.evaluation.probe import mean_and_error

DOCS = Path(__file__).parents[2] / "docs"

PROBES = {
    "action-linear": "action",
    "action-knn": "action, k-NN",
    "scene-linear": "scene (40)",
    "topic-linear": "topic (10)",
    "topic-knn": "topic, k-NN",
    "topic-r1": "topic R@1",
    "video-r1": "same video R@1",
}

# What docs/results.md shows of all arms: its rows, and the setting of each column.
SUMMARY_ARMS = {
    "random": "untrained encoder",
    FAR_3.name: "SimCLR-far",
    "simclr-near": "SimCLR-near",
    HICO.name: "HiCo",
    "supervised": "trained with labels",
}
SUMMARY: dict[str, dict[str, Any]] = {
    "without fillers": {"design": "scenes"},
    "with fillers": {"design": "fillers"},
    "trimmed": {"design": "scenes", "trimmed": True},
    f"{LONG_STEPS:,} steps": {"design": "scenes", "steps": LONG_STEPS},
}

# Pairs whose difference says what one part of HiCo does.
PAIRS = (
    (HICO.name, FAR_3.name),
    (HICO.name, "random"),
    (FAR_3.name, "random"),
    (HICO.name, "simclr-near"),
    (HICO.name, "visual-topical"),
    ("visual-topical", "visual"),
    (HICO.name, "hico-mixed-ids"),
    (HICO.name, "visual-topical-0.3s"),
    (HICO.name, "visual-topical-0.5s"),
    ("hico-0.5s", "visual-topical-0.5s"),
    ("hico-0.5s", "visual-topical-0.3s"),
    ("hico-0.5s", "visual-topical-0.25s"),
    *((arm.name, baseline) for arm in WEIGHTS for baseline in (HICO.name, "hico-mixed-ids")),
    (CUTS.name, HICO.name),
)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def setting(
    results: pd.DataFrame,
    *,
    design: str,
    look: float = LOOK,
    trimmed: bool = False,
    steps: int = STEPS,
    videos: int = 0,
) -> pd.DataFrame:
    """The rows of one setting, and those of the arms that are not trained."""
    chosen = results[(results["design"] == design) & (results["look"] == look) & (results["seed"] != TUNING_SEED)]
    trained = (chosen["steps"] == steps) & (chosen["trimmed"] == trimmed) & (chosen["videos"] == videos)
    return chosen[trained | (chosen["steps"] == 0)]


def arms_table(rows: pd.DataFrame, *, arms: list[str]) -> str:
    """Arms by probes."""
    table = table_of(rows, list(PROBES), arms)
    counts = rows.groupby("arm")["seed"].nunique()
    lines = [
        [arm, MEANINGS[arm], str(counts[arm]), *values]
        for arm, values in zip(table.index, table.to_numpy().tolist(), strict=True)
    ]
    return markdown(["arm", "what it is", "seeds", *PROBES.values()], lines)


def summary_table(results: pd.DataFrame) -> str:
    """The action in the main settings, for the arms that matter most; 600 steps unless the column says otherwise."""
    tables = [table_of(setting(results, **which), ["action-linear"], list(SUMMARY_ARMS)) for which in SUMMARY.values()]
    table = pd.concat(tables, axis=1).reindex(list(SUMMARY_ARMS)).fillna("")
    lines = [[SUMMARY_ARMS[arm], *values] for arm, values in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return markdown(["encoder", *SUMMARY], lines)


def said(difference: PairedDifference) -> str:
    """In points; one seed has no standard error."""
    error = f" ± {100 * difference.standard_error:.1f}" if difference.num_seeds > 1 else ""
    return f"{100 * difference.mean:+.1f}{error}, {difference.won} of {difference.num_seeds}"


def pairs_table(rows: pd.DataFrame) -> str:
    """Paired differences of the action and the topic."""
    lines = []
    for arm, baseline in PAIRS:
        found = [
            paired(rows, arm, baseline, probe) for probe in ("action-linear", "action-knn", "topic-linear", "topic-knn")
        ]
        if found[0].num_seeds > 1:
            lines.append([f"{arm} - {baseline}", *map(said, found)])
    return markdown(["points, seeds won", "action", "action, k-NN", "topic", "topic, k-NN"], lines)


def rule_table(results: pd.DataFrame) -> str:
    """What the rule says."""
    lines = [[v.setting, said(v.difference), "met" if v.met else "**not met**"] for v in verdicts(results, steps=STEPS)]
    return f"> {SUCCESS}\n\n" + markdown(["setting", "HiCo - SimCLR-far, seeds won", "rule"], lines)


def seeds_table(results: pd.DataFrame) -> str:
    """The action by seed, for the arms of `hico demo`."""
    rows = setting(results, design="scenes")
    chosen = rows[(rows["probe"] == "action-linear") & rows["arm"].isin(["random", FAR_3.name, HICO.name])]
    table = (100 * chosen.pivot(index="seed", columns="arm", values="accuracy")).round(1)
    lines = [
        [str(seed), *(f"{row[arm]:.1f}" for arm in ("random", FAR_3.name, HICO.name))] for seed, row in table.iterrows()
    ]
    return markdown(["seed", "untrained", "SimCLR-far", "HiCo"], lines)


def rates_table(results: pd.DataFrame, *, steps: int) -> str:
    """The action by learning rate on the tuning seed; those chosen at 600 steps in bold."""
    tried = results[
        (results["seed"] == TUNING_SEED) & (results["probe"] == "action-linear") & (results["steps"] == steps)
    ]
    chosen = chosen_rates(results)
    rates = sorted(set(tried["rate"].tolist()))
    percent = {
        (arm, rate): f"{100 * accuracy:.1f}"
        for arm, rate, accuracy in zip(*(tried[name].tolist() for name in ("arm", "rate", "accuracy")), strict=True)
    }
    lines = [
        [arm, *(f"**{percent[arm, rate]}**" if chosen[arm] == rate else percent[arm, rate] for rate in rates)]
        for arm in MEANINGS
        if all((arm, rate) in percent for rate in rates) and rates
    ]
    return markdown(["arm", *(f"learning rate {rate:g}" for rate in rates)], lines)


def looks_table(results: pd.DataFrame) -> str:
    """The action against how strongly the videos' looks differ."""
    lines = []
    for look in sorted(results["look"].unique()):
        rows = setting(results, design="scenes", look=look)
        arms = ("random", FAR_3.name, HICO.name)
        table = table_of(rows[rows["arm"].isin(arms)], ["action-linear", "video-r1"], list(arms))
        if len(table) == len(arms):
            difference = paired(rows, HICO.name, FAR_3.name, "action-linear")
            lines.append([f"{look:g}", *table["action-linear"], said(difference), *table["video-r1"]])
    head = ["look", "untrained", "SimCLR-far", "HiCo", "HiCo - SimCLR-far, seeds won"]
    return markdown([*head, *(f"same video R@1, {arm}" for arm in ("untrained", "SimCLR-far", "HiCo"))], lines)


def sizes_table(results: pd.DataFrame) -> str:
    """The action against the number of training videos, over the seeds that were run with fewer than all."""
    few = results[(results["videos"] > 0) & (results["seed"] != TUNING_SEED)]
    rows_of = {
        videos: setting(results[results["seed"].isin(few["seed"])], design="scenes", videos=videos)
        for videos in (*SIZES, 0)
    }
    arms = ("random", "simclr-near", FAR_3.name, HICO.name)
    lines = []
    for videos, rows in rows_of.items():
        table = table_of(rows, ["action-linear"], list(arms))["action-linear"]
        gaps = [said(paired(rows, HICO.name, arm, "action-linear")) for arm in (FAR_3.name, "simclr-near")]
        lines.append([str(videos or "240 (all)"), *(table.get(arm, "") for arm in arms), *gaps])
    head = ["training videos", "untrained", "SimCLR-near", "SimCLR-far", "HiCo"]
    return markdown([*head, "HiCo - SimCLR-far, seeds won", "HiCo - SimCLR-near, seeds won"], lines)


def questions() -> str:
    """Each question and the rule that answers it."""
    return "\n".join(f"- **{part}**: {question}" for part, question in QUESTIONS.items())


def draw_seeds(results: pd.DataFrame, target: Path) -> None:
    """The action, one line per seed, in each setting."""
    panels = [("without fillers", "scenes", False), ("with fillers", "fillers", False), ("trimmed", "scenes", True)]
    arms = ("random", FAR_3.name, HICO.name)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (title, design, trimmed) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        rows = setting(results, design=design, trimmed=trimmed)
        rows = rows[rows["probe"] == "action-linear"]
        table = 100 * rows[rows["arm"].isin(arms)].pivot(index="seed", columns="arm", values="accuracy")
        for _, row in table.iterrows():
            axes.plot(range(3), [row.get(arm) for arm in arms], "o-", color="#0072b2", alpha=0.45, markersize=4)
        axes.axhline(12.5, color="#8a8a8a", linestyle=":", linewidth=1)
        axes.set_xticks(range(3), ["untrained", "SimCLR-far", "HiCo"])
        axes.set_xlim(-0.4, 2.4)
        axes.set_title(title)
        axes.set_ylim(0, 100)
    figure.axes[0].set_ylabel("accuracy on the action, %")
    figure.savefig(target, metadata={"Date": None})


def draw_distances(results: pd.DataFrame, target: Path) -> None:
    """The action against the largest distance between near clips, growing or fixed."""
    rows = setting(results, design="scenes")
    rows = rows[rows["probe"] == "action-linear"]
    growing = {0.5: "hico-0.5s", 1.0: "hico", 2.0: "hico-2s", 4.0: "hico-4s", 8.0: "hico-any"}
    fixed = {0.3: "visual-topical-0.3s", 0.5: "visual-topical-0.5s", 1.0: "visual-topical"}
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    accuracies: dict[str, list[float]] = {arm: [] for arm in rows["arm"].unique()}
    for arm, accuracy in zip(rows["arm"].tolist(), rows["accuracy"].tolist(), strict=True):
        accuracies[arm].append(100 * accuracy)
    for name, arms, colour in (("grows from 0", growing, "#0072b2"), ("fixed", fixed, "#d55e00")):
        known = {at: mean_and_error(accuracies[arm]) for at, arm in arms.items() if arm in accuracies}
        means, errors = (
            [found.mean for found in known.values()],
            [found.standard_error or 0 for found in known.values()],
        )
        axes.errorbar(list(known), means, yerr=errors, fmt="o-", color=colour, label=name, capsize=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.3, 0.5, 1, 2, 4, 8], ["0.3", "0.5", "1", "2", "4", "anywhere"])
    axes.set_xlabel("largest distance between near clips (s)")
    axes.set_ylabel("accuracy on the action, %")
    axes.legend(frameon=False)
    figure.savefig(target, metadata={"Date": None})


def restore(folder: Path) -> None:
    """Write the files of those cells whose results are kept here."""
    results = pd.read_parquet(DOCS / "measurements" / "benchmark.parquet")
    of_corpus, of_cell = list(Corpus._fields), ["arm", "steps", "rate", "trimmed", "videos"]
    for values, rows in results.groupby([*of_corpus, *of_cell, "seconds"]):
        plain = [getattr(value, "item", lambda value=value: value)() for value in values]
        corpus = Corpus(*plain[: len(of_corpus)])
        cell = Cell(corpus=corpus, **dict(zip(of_cell, plain[len(of_corpus) : -1], strict=True)))
        scores = [Score(*row) for row in rows[list(Score._fields)].itertuples(index=False, name=None)]
        write_text(file_of(cell, folder), scores_as_json(cell, scores, seconds=plain[-1]) + "\n")


def or_not_yet(text: str, rows: pd.DataFrame, arms: Iterable[str], part: str) -> str:
    """A table, unless none of its arms has been measured."""
    return (
        text
        if rows["arm"].isin(list(arms)).any()
        else f"Not run yet: `python scripts/evidence/benchmark.py FOLDER --part {part}`."
    )


def parts_of_appendix(results: pd.DataFrame) -> dict[str, str]:
    """The text between each pair of marks of docs/results-appendix.md."""
    names_of_controls = [control.name for control in (*CONTROLS, *FIXED_AS_GROWN, *WEIGHTS, CUTS)]
    main_arms = [arm for arm in MEANINGS if arm not in names_of_controls]
    controls = [FAR_3.name, HICO.name, "visual-topical", *names_of_controls]
    scenes, fillers = (setting(results, design=design) for design in ("scenes", "fillers"))
    tuning = results[results["seed"] == TUNING_SEED]
    cells = results.drop_duplicates(["design", "look", "seed", "arm", "steps", "rate", "trimmed", "videos"])
    parts = {
        "rule": rule_table(results),
        "seeds": seeds_table(results),
        "scenes": arms_table(scenes, arms=main_arms),
        "scenes pairs": pairs_table(scenes),
        "fillers": arms_table(fillers, arms=main_arms),
        "fillers pairs": pairs_table(fillers),
        "trimmed": arms_table(setting(results, design="scenes", trimmed=True), arms=main_arms),
        "controls": or_not_yet(arms_table(scenes, arms=controls), scenes, names_of_controls, "controls"),
        "looks": or_not_yet(looks_table(results), results[results["look"] != LOOK], MEANINGS, "looks"),
        "questions": questions(),
        "sizes": or_not_yet(sizes_table(results), results[results["videos"] > 0], MEANINGS, "sizes"),
        "rates": rates_table(results, steps=STEPS),
        "long rates": or_not_yet(
            rates_table(results, steps=LONG_STEPS), tuning[tuning["steps"] == LONG_STEPS], MEANINGS, "long-rates"
        ),
        "hours": f"{len(cells)} cells; training and probing them took {cells['seconds'].sum() / 3600:.1f} core hours, "
        "beside other work on the machine.",
    }
    for design in ("scenes", "fillers"):
        rows = setting(results, design=design, steps=LONG_STEPS)
        trained = rows[rows["steps"] == LONG_STEPS]
        parts[f"long {design}"] = or_not_yet(arms_table(rows, arms=main_arms), trained, MEANINGS, "long")
        parts[f"long {design} pairs"] = or_not_yet(pairs_table(rows), trained, MEANINGS, "long")
    return parts


def with_parts(text: str, parts: dict[str, str], *, page: Path) -> str:
    """A page's text, with the text between the marks of each part replaced."""
    for name, part in parts.items():
        marked = re.compile(f"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not marked.search(text):
            sys.exit(f"{page}: has no part {name}")
        text = marked.sub(lambda found, part=part: f"{found[1]}{part}\n{found[2]}", text)  # type: ignore[misc]
    return text


def pages(results: pd.DataFrame) -> dict[Path, str]:
    """By page, its text with all its parts anew."""
    parts = {
        DOCS / "results.md": {"rule": rule_table(results), "summary": summary_table(results)},
        DOCS / "results-appendix.md": parts_of_appendix(results),
    }
    return {page: with_parts(page.read_text(), of_page, page=page) for page, of_page in parts.items()}


def main() -> None:
    """Write everything anew."""
    if sys.argv[1] == "--restore":
        restore(Path(sys.argv[2]))
        return
    if read_results(Path(sys.argv[1])).empty:
        sys.exit(f"{sys.argv[1]}: no results of the benchmark here")
    shutil.copyfile(write_results(Path(sys.argv[1])), DOCS / "measurements" / "benchmark.parquet")
    results = pd.read_parquet(DOCS / "measurements" / "benchmark.parquet")
    for page, text in pages(results).items():
        page.write_text(text)
    mpl.rcParams["svg.hashsalt"] = "hico"  # else the names inside the pictures are drawn at random
    draw_seeds(results, DOCS / "figures" / "action-by-seed.svg")
    if results["arm"].isin([control.name for control in CONTROLS]).any():
        draw_distances(results, DOCS / "figures" / "action-by-distance.svg")


if __name__ == "__main__":
    main()
