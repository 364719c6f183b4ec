"""A report says what a folder holds, whatever its state, and is a page that a browser shows without the network."""

import html
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import yaml
from browsers import opened
from commands import TINY, assert_one_line, hico
from made_videos import numbered_video

from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import LAST, EncoderOrigin, export_encoder, read_last, write_checkpoint
from hico_core.checkpoints.reading import encoder_of, read_checkpoint
from hico_core.config import AugmentConfig, Config, DataConfig, compose_config, load_config
from hico_core.data.pictures import clip_shape_for, picture_for
from hico_core.encoders.trained import build_encoder
from hico_core.report.charts import bars, histogram, lines, smoothed
from hico_core.report.facts import Curve, read_run
from hico_core.report.page import default_name, describe_checkpoints, describe_origin
from hico_core.report.road_times import RoadTimes
from hico_core.report.sample import EncodedMoments, Moment, Sample, network_before
from hico_core.training.distributed import World
from hico_core.training.fitting import fit_batch
from hico_core.training.loop import prepare
from hico_core.training.started import GitState, Started
from hico_core.training.task import Task

pytestmark = pytest.mark.videos

# A name that would run a program if a page took it for markup.
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a video that failed and two runs, one of which has an evil name and a probe."""
    folder = tmp_path_factory.mktemp("report")
    for number in range(4):
        numbered_video(folder / f"videos/v{number}.mp4", seconds=6 + number)
    (folder / "videos" / f"{EVIL}.mp4").write_bytes(b"no video")
    root = folder / "root"
    assert hico("split", folder / "videos", root=root).returncode == 3
    assert hico("index", root=root).returncode == 0
    for name, epochs in (("one", "3"), ("two", "2")):
        done = hico("pretrain", *TINY, "--epochs", epochs, "--name", name, "-o", "data.workers=0", root=root)
        assert done.returncode == 0, done.stderr
        pretend_to_have_trained(root / "runs" / name, steps=100 * int(epochs))
    (root / "runs" / "two").rename(root / "runs" / EVIL)
    scores = [{"probe": "action-linear", "accuracy": 0.5, "chance": 0.125}]
    (root / "runs" / EVIL / "segment_probes.json").write_text(json.dumps({"scores": scores}))
    return root


def pretend_to_have_trained(run: Path, *, steps: int) -> None:
    """Metrics of a run that learns."""
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    lines = ({**line, "step": step, "visual": 1.4 * 0.99**step, "embedding_std": 0.08} for step in range(1, steps + 1))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def page(root: Path) -> Path:
    # What the runs' own encoders see is all alike, after so few steps.
    done = hico("report", root / "runs" / "one", root / "runs" / EVIL, "--encoder", "pixels")
    assert done.returncode == 0, done.stderr
    path = root / "runs" / "one" / f"report-with-{EVIL}.html"
    assert done.stdout.strip() == str(path)
    return path


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_browser_shows_it_without_the_network(page: Path, width: int, colours: Literal["light", "dark"]) -> None:
    with opened(page, width=width, colours=colours) as visit:
        visit.page.wait_for_load_state("networkidle")
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
        assert len([url for url in visit.requests if url.startswith("file:")]) == 1
        # Nothing is wider than the window; wide tables scroll inside it.
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.locator("img:not([alt]), img[alt='']").count() == 0
        assert visit.page.locator("[role=img]:not([aria-label])").count() == 0
        assert visit.page.locator("figure figcaption").count() == visit.page.locator("figure").count() > 15
        pictures = visit.page.locator("img")
        pictures.last.scroll_into_view_if_needed()
        assert visit.page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)") is True
        ink, paper = (
            visit.page.evaluate(f"getComputedStyle(document.body).{of}") for of in ("color", "backgroundColor")
        )
        assert (brightness(ink) > brightness(paper)) == (colours == "dark")
        axis = visit.page.locator("figure svg text").first
        assert axis.evaluate("e => getComputedStyle(e).fill") == ink


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


@pytest.mark.browser
def test_tables_are_sorted_by_value_from_the_keyboard(page: Path) -> None:
    with opened(page, width=1600) as visit:
        table = visit.page.locator("#runs table")
        head = table.locator("th", has_text="steps")

        def steps() -> list[str]:
            return table.locator("tbody tr td:nth-child(4)").all_text_contents()

        assert steps() == ["300", "200"]
        head.locator("button").focus()
        visit.page.keyboard.press("Enter")
        assert (steps(), head.get_attribute("aria-sort")) == (["200", "300"], "ascending")
        visit.page.keyboard.press("Enter")
        assert (steps(), head.get_attribute("aria-sort")) == (["300", "200"], "descending")
        visit.page.keyboard.press("Home")
        visit.page.goto(page.absolute().as_uri())
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the content"


@pytest.mark.browser
def test_a_clip_plays_when_it_is_pointed_at(page: Path) -> None:
    with opened(page, width=400) as visit:
        film = visit.page.locator(".film").first
        image = film.locator("img")
        size = film.bounding_box()
        assert size is not None and size["width"] == pytest.approx(size["height"], abs=2), "one frame at a time"
        assert image.evaluate("e => getComputedStyle(e).animationName") == "none"
        film.hover()
        assert image.evaluate("e => getComputedStyle(e).animationName") == "play"
        assert image.evaluate("e => getComputedStyle(e).animationTimingFunction") == "steps(6)"
        visit.page.mouse.move(0, 0)
        film.focus()
        assert image.evaluate("e => getComputedStyle(e).animationName") == "play"


@pytest.mark.browser
def test_names_with_markup_are_text(page: Path) -> None:
    with opened(page, width=1600) as visit:
        assert EVIL in visit.page.locator("h1").inner_text()
        assert EVIL in visit.page.locator("#corpus").inner_text()  # the failed video's source
        assert visit.page.locator("img[src=x]").count() == 0
        assert visit.complaints == []


@pytest.mark.browser
def test_it_says_what_it_was_trained_on_and_what_came_out(page: Path) -> None:
    text = page.read_text()
    assert len(text) < 6e6
    for said in (
        "videos that failed",
        "action-linear",
        "train.epochs",
        "Nearest neighbours",
        "PCA of",
        "too early to tell",
    ):
        assert said in text
    with opened(page, width=1600) as visit:
        probes = visit.page.locator("#results tbody tr").all_inner_texts()
        assert [row.split() for row in probes] == [["action-linear", "50.0", "12.5"]]
        visit.page.locator("#settings summary").click()
        # The setting in which the two runs differ stands first.
        assert "train.epochs" in visit.page.locator("#settings tbody tr").first.inner_text() or (
            "warmup" in visit.page.locator("#settings tbody tr").first.inner_text()
        )


def test_a_run_that_has_learnt_nothing_has_advice_and_no_neighbours(root: Path) -> None:
    run = root / "runs" / "short"
    shutil.copytree(root / "runs" / "one", run)
    try:
        pretend_to_have_trained(run, steps=1)
        assert hico("report", run).returncode == 0
        text = (run / "report.html").read_text()
        assert "This encoder has learnt nothing yet: it was trained for 1 step" in text
        assert "model.encoder=s3dg-tiny" in text
        assert "No neighbours and no map" in text
        assert "PCA of" not in text
    finally:
        shutil.rmtree(run)


@pytest.mark.parametrize(
    ("folders", "name"),
    [
        (["a"], "report.html"),
        (["a", "x/b"], "report-with-b.html"),
        (["a", "b", "c"], "report-with-b-c.html"),
        (["a", *(["long name"] * 10)], "report-with-10-others.html"),
        (["a", "試" * 21], "report-with-1-others.html"),  # 63 bytes
    ],
)
def test_a_comparison_never_takes_the_place_of_a_runs_report(folders: list[str], name: str) -> None:
    assert default_name([Path(folder) for folder in folders]) == name


@pytest.mark.parametrize("count", [1, 20, 21, 40, 99, 600])
def test_smoothed_curves_are_means_around_each_point(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    half = count // 40 if count > 20 else 0
    slow = [values[max(place - half, 0) : place + half + 1].mean() for place in range(count)]
    assert np.allclose(smoothed(values), slow)


def test_a_single_point_is_seen() -> None:
    assert "<use" in lines({"one": Curve(np.array([1.0]), np.array([1.0]))}, x="x", y="y").split('id="line2d')[-1]


def test_a_workspace_without_a_run(root: Path, tmp_path: Path) -> None:
    done = hico("report", root, "--output", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text()
    assert re.search(r"<td[^>]*>videos</td>\s*<td[^>]*>\d+ train</td>", text)
    assert "Failed videos" in text
    assert "Curves" not in text


def test_a_run_that_has_not_come_far(root: Path, tmp_path: Path) -> None:
    """No checkpoint, no encoder, half a line of metrics: each is a note, and the rest is shown."""
    run = root / "runs" / "broken"
    shutil.copytree(root / "runs" / "one", run)
    try:
        shutil.rmtree(run / "checkpoints")
        shutil.rmtree(run / "export")
        metrics = (run / "metrics.jsonl").read_text()
        (run / "metrics.jsonl").write_text(metrics[: len(metrics) // 2] + '\n{"step": NaN, "loss": 1}\n[1]\n')
        done = hico("report", run)
        assert done.returncode == 0, done.stderr
        text = (run / "report.html").read_text()
        assert "no checkpoint yet" in text
        assert "no exported encoder yet" in text
        assert "Left out of metrics.jsonl: 3 lines, damaged or incomplete" in text
        assert "Sample clips" in text
        (run / "metrics.jsonl").unlink()
        assert hico("report", run).returncode == 0
        assert "has no steps yet" in (run / "report.html").read_text()
    finally:
        shutil.rmtree(run)


@pytest.mark.parametrize(("epochs", "said"), [(3, False), (30, True)])
def test_a_training_that_was_cut_short_is_named_so(root: Path, tmp_path: Path, epochs: int, said: bool) -> None:
    run = tmp_path / "cut"
    shutil.copytree(root / "runs" / "one", run)
    last = read_last(run / "checkpoints")
    assert last is not None
    last.config["train"]["epochs"] = epochs
    write_checkpoint(run / "checkpoints" / LAST, last)
    done = hico("report", run)
    assert done.returncode == 0, done.stderr
    assert (f"stopped after 3 of {epochs} epochs" in (run / "report.html").read_text()) == said


def test_a_finetuning_run_has_its_confusion_and_accuracy(root: Path) -> None:
    run = root / "runs" / "finetuned"
    shutil.copytree(root / "runs" / "one", run)
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        kept = {key: config[key] for key in ("data", "augment")} | {"dataset": "hmdb51"}
        (run / "config.yaml").write_text(yaml.safe_dump(kept))
        (run / "results.json").write_text(json.dumps({"top1": 0.75, "top5": 1.0}))
        rows = ["a,0,0", "b,0,1", "c,1,1", "d,2,2", "e,2,"]  # the last one could not be read
        (run / "predictions.csv").write_text("\n".join(["video_id,label,predicted", *rows]) + "\n")
        facts = read_run(run)
        assert facts.confusion is not None
        assert facts.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
        done = hico("report", run)
        assert done.returncode == 0, done.stderr
        text = (run / "report.html").read_text()
        assert "Confusion" in text
        assert "finetuning, top1" in text
        assert "Sample clips" not in text
        (run / "predictions.csv").write_text("video_id,label\na,0\n")
        assert_one_line(hico("report", run), 1, "predictions.csv", "damaged")
    finally:
        shutil.rmtree(run)


def test_a_run_outside_of_a_workspace(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "runs" / "one", tmp_path / "elsewhere")
    assert hico("report", tmp_path / "elsewhere").returncode == 0
    assert "is not in a workspace" in (tmp_path / "elsewhere" / "report.html").read_text()


def test_what_is_no_run_is_refused(root: Path, tmp_path: Path) -> None:
    assert_one_line(hico("report", tmp_path), 2, str(tmp_path), "neither a run", "nor a workspace")
    assert hico("report", root, root / "runs" / "one").returncode == 2
    assert hico("report", root / "runs" / "one", root / "runs" / "one").returncode == 2
    probes = root / "runs" / "one" / "segment_probes.json"
    probes.write_text("{")
    assert_one_line(hico("report", root / "runs" / "one"), 1, str(probes), "damaged")
    probes.unlink()


def test_long_runs_become_curves_of_means(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("sampling: {}\n")
    rows = ({"step": step, "loss": float(step), "knn_accuracy": None, "lr": float("nan")} for step in range(1, 100_001))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(tmp_path)
    curve = run.curve("loss")
    assert curve is not None
    assert len(curve.steps) == 600
    assert np.allclose(curve.steps, curve.values)
    assert curve.values[0] == np.arange(1, 168).mean()  # 100,000 steps in 600 parts: the first ones have 167
    assert run.curve("knn_accuracy") is None
    assert run.curve("lr") is None
    assert run.num_unreadable == 0


def test_neighbours_are_of_other_videos_and_the_map_keeps_distances() -> None:
    """Against the definition, one by one."""
    from PIL import Image

    rng = np.random.default_rng(0)
    moments = [Moment(f"v{place // 2}", float(place % 2), None, [Image.new("RGB", (4, 4))]) for place in range(10)]
    features = rng.normal(size=(10, 2))
    look = EncodedMoments(moments, features)
    for query, matches in look.neighbours():
        row = features[moments.index(query)]
        similar = sorted(
            (float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)), moment.video_id, moment.seconds)
            for other, moment in zip(features, moments, strict=True)
            if moment.video_id != query.video_id
        )[::-1]
        found = [(match.similarity, match.moment.video_id, match.moment.seconds) for match in matches]
        assert [one[1:] for one in found] == [one[1:] for one in similar[:4]]
        assert np.allclose([one[0] for one in found], [one[0] for one in similar[:4]])
    places, shares = look.map()
    between = np.linalg.norm(features[:, None] - features[None, :], axis=2)
    assert np.allclose(np.linalg.norm(places[:, None] - places[None, :], axis=2), between)
    assert np.isclose(shares.sum(), 1)


def test_a_single_video_has_nothing_to_be_compared_with() -> None:
    moments = [Moment("v", seconds, None, []) for seconds in (0.0, 1.0)]
    assert EncodedMoments(moments, np.eye(2)).spread() is None


class Broken(torch.nn.Module):
    """An encoder whose training went wrong."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips * torch.nan


def test_an_encoder_whose_features_are_not_finite_is_named() -> None:
    clips = torch.zeros(1, 8, 32, 32, 3, dtype=torch.uint8)
    with pytest.raises(HicoError, match="features that are not finite"):
        Sample([], clips, picture_for(DataConfig(), AugmentConfig())).encoded(Broken())


@pytest.mark.parametrize(
    "chart",
    [bars([("64 x 64", 2), ("32 x 32", 1)], x="videos"), histogram(np.array([10.0, 10, 20]), x="seconds", y="videos")],
)
def test_ticks_of_counts_are_whole_numbers(chart: str) -> None:
    assert ">2<" in chart
    assert not re.search(r">\d+\.\d+<", chart)


def test_names_in_charts_are_text() -> None:
    curve = Curve(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    svg = lines({"a<b>&$x$": curve, "_hidden": curve}, x="x", y="y")
    assert "a&lt;b&gt;&amp;$x$" in svg
    assert "_hidden" in svg
    assert "<script" not in svg


@pytest.fixture
def sharp(root: Path) -> Iterator[Path]:
    """A run whose encoder tells clips apart: its batch norms have seen some."""
    run = root / "runs" / "sharp"
    shutil.copytree(root / "runs" / "one", run)
    config = load_config(run / "config.yaml")
    torch.manual_seed(0)
    encoder = build_encoder(config.model)
    for _ in range(20):
        encoder(torch.randn(8, 3, 8, 32, 32))
    picture, clip = picture_for(config.data, config.augment), clip_shape_for(config.data)
    export_encoder(run / "export/encoder.safetensors", encoder, picture, clip, config.model)
    yield run
    shutil.rmtree(run)


def test_the_encoder_is_compared_with_itself_before_training(sharp: Path) -> None:
    """With the command, quoted as a shell reads it, and without what the run does not record."""
    started = json.loads((sharp / "started.json").read_text())
    (sharp / "started.json").write_text(json.dumps({**started, "command": ["hico", "pretrain", "--root", EVIL]}))
    assert hico("report", sharp).returncode == 0
    text = (sharp / "report.html").read_text()
    frequency = r"same video \d+\.\d % of the time \(\d+ of 12 clips; untrained \d+\.\d %; chance 18\.2 %\)"
    assert re.search(frequency, text), re.search("This encoder.*", text)
    assert f"hico pretrain --root {html.escape(shlex.quote(EVIL), quote=True)}".replace("&#x27;", "&#39;") in text
    (sharp / "started.json").unlink()
    assert hico("report", sharp).returncode == 0
    text = (sharp / "report.html").read_text()
    assert "Not compared with the encoder before training: the run does not record" in text
    assert "untrained" not in text and "Started with" not in text


def test_a_report_runs_no_code_that_a_run_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    config = compose_config(Config, {"model": {"encoder": "python:evil:encoder"}}, origin="test")
    with pytest.raises(HicoError, match="python:evil:encoder is code, which a report does not run"):
        network_before(config, Started(command=[], encoder=None, git={}))


def test_the_encoder_before_training_is_that_of_the_training(root: Path) -> None:
    config = load_config(root / "runs/one/config.yaml")
    task = Task(config=config, root=root, run_dir=root / "runs/one", device="cpu", resume=True)
    parts = prepare(fit_batch(task), device=torch.device("cpu"), init_from=None, world=World(), joined=False)
    before = torch.get_rng_state()
    found = network_before(config, Started(command=[], encoder=None, git={})).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in parts.learner.model.backbone.state_dict().items():
        assert torch.equal(found[name], value)


def test_the_encoder_before_training_from_a_file_is_that_file(root: Path) -> None:
    config = load_config(root / "runs/one/config.yaml")
    file = read_checkpoint(root / "runs/one/export/encoder.safetensors")
    origin = EncoderOrigin(path=str(file.path), sha256=file.sha256)
    found = network_before(config, Started(command=[], encoder=origin, git={})).state_dict()
    assert all(torch.equal(found[name], value) for name, value in encoder_of(file).state_dict().items())
    for changed, said in (({"sha256": "0"}, "has changed since"), ({"path": "/gone.pt"}, "/gone.pt")):
        started = Started(command=[], encoder=origin.model_copy(update=changed), git={})
        with pytest.raises(HicoError, match=said):
            network_before(config, started)


@pytest.mark.parametrize(
    ("git", "seconds", "said"),
    [
        ({}, 0.0, []),
        ({"hico": True}, 0.0, ["Commit 0123456789ab of hico, with uncommitted changes."]),
        ({"folder": False}, 0.0, ["Commit 0123456789ab of the folder in which it was started."]),
        ({}, 3723.4, ["The steps, including those after resuming, took 1:02:03 (hours:minutes:seconds) in all."]),
    ],
)
def test_what_a_run_was_started_from(git: dict[str, bool], seconds: float, said: list[str]) -> None:
    states = {name: GitState(commit="0123456789abcdef", is_dirty=dirty) for name, dirty in git.items()}
    assert describe_origin(Started(command=[], encoder=None, git=states), seconds, None) == said
    assert describe_origin(None, seconds, None) == [line for line in said if "steps" in line]


@pytest.mark.parametrize(
    ("checkpoints", "expected"),
    [
        ([], "none"),
        ([("epoch_0010.pt", 2_300_000), ("last.pt", 100_000)], "epoch_0010.pt (2.3 MB), last.pt (0.1 MB)"),
        ([(f"epoch_{number}.pt", 2_000_000) for number in range(30)], "30 files, 60.0 MB"),
    ],
)
def test_many_checkpoints_are_counted(checkpoints: list[tuple[str, int]], expected: str) -> None:
    assert describe_checkpoints(checkpoints) == expected


def test_how_long_the_road_took() -> None:
    times = RoadTimes(splitting=65, measuring=5.4, training=3600, features=0)
    assert describe_origin(None, 0.0, times) == [
        "hico run took 1:01:10 before this report: 0:01:05 for splitting, 0:00:05 for measuring, 1:00:00 for training "
        "and 0:00:00 for features."
    ]
