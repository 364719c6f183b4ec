"""`hico demo`: shows what HiCo is for, in a few minutes, on synthetic videos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import progress, raising_on_signals, result
from hico_cli.options import Json, refuse_unused
from hico_core.base.choices import Design

if TYPE_CHECKING:
    from hico_core.evidence.demo import DemoResult

_STEPS = 600
_VIDEOS = 360

_ROWS = {
    "random": "untrained encoder",
    "simclr-far-3": "SimCLR, clips from anywhere in a video",
    "hico": "HiCo",
}


def demo(
    context: typer.Context,
    root: Annotated[Path, typer.Option("--root", help="Folder for videos, runs and the report.")] = Path("hico-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Random seed; changes the videos and the initial weights.")] = 1,
    videos: Annotated[
        int, typer.Option(min=3, help="Number of videos to render; every third one is for testing.")
    ] = _VIDEOS,
    corpus_only: Annotated[
        Path | None, typer.Option("--corpus-only", metavar="DIR", help="Only render the videos, into this folder.")
    ] = None,
    design: Annotated[
        Design,
        typer.Option(help="Kind of videos for --corpus-only; fillers adds segments without a topic."),
    ] = "scenes",
    json: Json = False,
) -> None:
    """Show on synthetic videos what HiCo learns and SimCLR forgets: render, split, index, pretrain, probe.

    A synthetic video keeps one topic and changes scene every few seconds; in each segment, the picture moves in one of
    eight ways. Linear probes on three encoders predict motion, scene and topic of videos that were not used for
    training. Takes about three minutes on two cores. If it is interrupted, the same command continues.
    """
    if corpus_only is not None:
        refuse_unused(context, "root", why="has no effect with --corpus-only, which names the folder")
        _make_corpus(corpus_only, seed=seed, videos=videos, design=design, as_json=json)
    elif design != "scenes":
        raise typer.BadParameter(
            "needs --corpus-only; the demo trains on videos without fillers", param_hint="--design"
        )
    else:
        _run(root, seed=seed, videos=videos, as_json=json)


def _run(root: Path, *, seed: int, videos: int, as_json: bool) -> None:
    from hico_core.base.engine import available_cores
    from hico_core.evidence.demo import run_demo, sentence

    with raising_on_signals(), progress("demo", total=1.0, as_json=as_json) as report:
        found = run_demo(
            root,
            seed=seed,
            videos=videos,
            steps=_STEPS,
            processes=available_cores(),
            on_progress=lambda done, what: report(done, what, {"done": round(done, 3), "what": what}),
        )
    shown, runs = sentence(found), [str(run) for run in found.runs]
    accuracies = {arm: {score.probe: score.accuracy for score in scores} for arm, scores in found.scores.items()}
    result(
        "\n".join([_table(found), "", shown, _CAUTION, "", f"Look at the runs: hico report {' '.join(runs)}"]),
        {"scores": accuracies, "sentence": shown, "runs": runs},
        as_json=as_json,
    )


_CAUTION = "This shows a mechanism on synthetic videos, with one seed. It is not a result on HACS or any real video."


def _table(found: "DemoResult") -> str:
    columns = {"action-linear": "motion", "scene-linear": "scene", "topic-linear": "topic"}
    width = max(len(name) for name in _ROWS.values())
    lines = [f"{'Linear-probe accuracy on test videos, %':{width}}  " + "  ".join(f"{c:>14}" for c in columns.values())]
    lines += [
        f"{name:{width}}  " + "  ".join(f"{100 * found.accuracy(arm, probe):14.1f}" for probe in columns)
        for arm, name in _ROWS.items()
    ]
    lines.append(f"{'most frequent class':{width}}  " + "  ".join(f"{100 * found.chance(p):14.1f}" for p in columns))
    return "\n".join(lines)


def _make_corpus(folder: Path, *, seed: int, videos: int, design: Design, as_json: bool) -> None:
    from hico_core.evidence.corpus import CorpusRecipe, make_corpus

    recipe = CorpusRecipe(videos=videos, seed=seed, design=design)
    with raising_on_signals(), progress("videos", total=videos, as_json=as_json) as report:
        labels = make_corpus(
            recipe,
            folder,
            on_video=lambda number: report(number + 1, f"{number + 1}/{videos} videos", {"videos": number + 1}),
        )
    text = (
        f"{videos} videos with {len(labels)} segments in {folder}/train and {folder}/test, their labels in "
        f"{folder}/labels.jsonl\nsplit them: hico split {folder}/train, and hico split {folder}/test --subset test"
    )
    result(text, {"videos": videos, "segments": len(labels), "folder": str(folder)}, as_json=as_json)
