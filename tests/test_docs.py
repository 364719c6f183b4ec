"""What the documentation shows runs as it stands there."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from browsers import opened
from made_videos import numbered_video
from PIL import Image
from playwright.sync_api import TimeoutError as PageTimeout

import hico_core
import hico_core.interop
from hico_cli.main import app
from hico_core.base.errors import UsageError
from hico_core.base.failures import Failure, FailureLine
from hico_core.checkpoints.frozen import load_frozen
from hico_core.corpus.index import SCHEMA
from hico_core.corpus.workspace.records import VideoRecord
from hico_core.evidence.corpus import SegmentLabel
from hico_core.training.log import StepMetrics
from hico_core.training.started import GitState, Started
from hico_core.transfer.evaluation.comparison import ComparedRow
from hico_core.transfer.evaluation.retrieval import Retrieval
from hico_core.transfer.extraction.manifest import ManifestRow
from hico_core.transfer.finetuning.train import FinetuneMetrics

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
TEXTS = PAGES + [
    path
    for folder in ("hico_core", "hico_cli", "scripts", "tests")
    for path in sorted((ROOT / folder).rglob("*.*"))
    if path.suffix in {".md", ".py", ".sh", ".yaml"}
]


def anchors_of(page: Path) -> set[str]:
    """What a link to a heading of the page may end in: "## The road, so far" -> "the-road-so-far"."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def options_of(command: object, path: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """By command, such as "hico features show": the options that it takes."""
    inner: dict[str, object] = getattr(command, "commands", {})
    found = {" ".join(("hico", *path)): {name for p in command.params for name in (*p.opts, *p.secondary_opts)}}  # type: ignore[attr-defined]
    for name, child in inner.items():
        found |= options_of(child, (*path, name))
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in target]
    for target in targets:
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        assert not anchor or anchor in anchors_of(there), target


def test_files_that_are_named_are_there() -> None:
    """In pages, comments and docstrings: seen from the checkout's root, or from hico_core."""
    bases = (ROOT, ROOT / "hico_core")
    folders = {path.name for base in bases for path in base.iterdir() if path.is_dir()}
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in TEXTS
        for name in re.findall(r"(?<![\w./<-])[a-z_]+/[a-z_/]*[a-z_]+\.(?:md|py|sh)\b", path.read_text())
        if name.partition("/")[0] in folders and not any((base / name).exists() for base in bases)
    ]
    assert gone == []


def test_nothing_points_out_of_the_repository() -> None:
    """A reader has the checkout only, none of the documents of those who wrote it."""
    outside = re.compile(r"\bsee DESIGN|DESIGN, section|\bfacts/|\bissue ?\d")
    assert [str(path) for path in TEXTS if path != Path(__file__) and outside.search(path.read_text())] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    """Of every `hico ...` in a block of commands or between backticks."""
    known = options_of(typer.main.get_command(app))
    blocks = re.findall(r"```(?:console|bash)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(hico [^`]+)`", page.read_text())
    for line in lines:
        words = line.split(" #")[0].replace("\\|", " ").replace("|", " ").split()
        if "hico" not in words and "hico_cli" not in words:
            continue
        place = next(place for place, word in enumerate(words) if word in ("hico", "hico_cli"))
        named = words[place + 1 :]
        if not named or words[place - 1 : place] == ["pip"] or named[0].startswith(("'", "[")):
            continue
        command = " ".join(["hico", *(named[:2] if " ".join(["hico", *named[:2]]) in known else named[:1])])
        options = [word.partition("=")[0] for word in named if re.fullmatch(r"--?[a-zA-Z][a-z-]*(=.*)?", word)]
        if command.startswith("hico -"):
            command = "hico"
        assert command in known, line
        assert set(options) <= known[command] | {"--help", "-h", "--debug"}, (line, set(options) - known[command])


@pytest.mark.videos
def test_the_python_of_the_python_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but what the page asks for: a folder of videos."""
    for number in range(2):
        numbered_video(tmp_path / f"videos/v_{number}.mp4", seconds=3)
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert len(examples) >= 14
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    assert names["summary"].num_done == 2  # type: ignore[attr-defined]
    assert names["run"].num_steps == 2  # type: ignore[attr-defined]
    assert names["measured"].recall[1] == 1.0  # type: ignore[attr-defined]
    assert names["array"].shape == (6, 128)  # type: ignore[attr-defined]
    assert [match.video_id for match in names["found"].moments] == ["1"]  # type: ignore[attr-defined]


@pytest.mark.videos
@pytest.mark.processes
def test_the_example_file(tmp_path: Path) -> None:
    """As a person runs it, but for less time: one row for each video but the query, whatever ids leave out of names."""
    for name in ("v_a.mp4", "v_b.mp4", "v_c.mkv"):
        numbered_video(tmp_path / "videos" / name, seconds=3)
    text = (DOCS / "example.py").read_text()
    for usual, short in (("train.batch_size=4", "train.batch_size=2"), ("train.epochs=20", "train.epochs=2")):
        assert usual in text
        text = text.replace(usual, short)
    (tmp_path / "example.py").write_text(text)
    command = [sys.executable, "-W", "error", "example.py", "videos"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    with Image.open(tmp_path / "matches.png") as picture:
        assert picture.height == 18 + 2 * (18 + 128)  # a title, and for each match a caption and frames


def test_the_encoder_of_the_encoders_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry is used with a file of weights or random ones, not by its name alone."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "encoders.md").read_text(), re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    untrained = load_frozen("python:mine:encoder=random")
    torch.save(untrained.network.state_dict(), tmp_path / "weights.pt")
    trained = load_frozen(f"python:mine:encoder={tmp_path / 'weights.pt'}")
    assert all(map(torch.equal, trained.network.parameters(), untrained.network.parameters()))
    with pytest.raises(UsageError, match="no weights given; write python:mine:encoder=FILE"):
        load_frozen("python:mine:encoder")


# Pages with all that was measured, each with a short page for readers.
APPENDICES = {
    "results-appendix.md": "results.md",
    "results-real-appendix.md": "results-real.md",
    "benchmarks-cpu-appendix.md": "benchmarks-cpu.md",
}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in APPENDICES], ids=lambda page: page.name)
def test_pages_are_short(page: Path) -> None:
    """Apart from tables that scripts fill in."""
    most = {"README.md": 900, "results.md": 900}.get(page.name, 1500)
    text = re.sub(r"<!-- begin .*?<!-- end ", "", page.read_text(), flags=re.DOTALL)
    words = [word for word in text.split() if any(map(str.isalnum, word))]  # the bars of tables are none
    assert len(words) <= most


@pytest.mark.parametrize("appendix", APPENDICES)
def test_numbers_of_a_short_page_stand_in_its_appendix(appendix: str) -> None:
    numbers, known = (
        set(re.findall(r"\d+\.\d+", (DOCS / name).read_text())) for name in (APPENDICES[appendix], appendix)
    )
    assert numbers - known == set()


@pytest.mark.parametrize("package", [hico_core, hico_core.interop])
def test_a_shell_lists_what_there_is_to_import(package: ModuleType) -> None:
    assert dir(package) == sorted(package.__all__)
    assert all(callable(getattr(package, name)) for name in package.__all__)


@pytest.mark.parametrize("name", hico_core.__all__)
def test_what_is_imported_from_the_top(name: str) -> None:
    assert callable(getattr(hico_core, name))
    with pytest.raises(AttributeError, match="has no attribute 'splitvideos'"):
        hico_core.splitvideos  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.processes
def test_the_top_loads_nothing_slow() -> None:
    code = "import sys, hico_core; sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# Heading of docs/formats.md -> the columns and keys of that file.
FORMATS: dict[str, Iterable[str]] = {
    "index.parquet": SCHEMA.names,
    "records/ID.json": [*VideoRecord.model_fields, *Failure.model_fields],
    "failures.jsonl": FailureLine.model_fields,
    "runs/NAME": [
        *(field.name for metrics in (StepMetrics, FinetuneMetrics) for field in dataclasses.fields(metrics)),
        *Started.model_fields,
        *GitState.model_fields,
    ],
    "features/NAME": ManifestRow.model_fields,
    "retrieval/NAME-PROTOCOL.json": [field.name for field in dataclasses.fields(Retrieval)],
    "compare/NAME": [field.name for field in dataclasses.fields(ComparedRow)],
    "labels.jsonl of a synthetic corpus": [field.name for field in dataclasses.fields(SegmentLabel)],
}


@pytest.mark.parametrize(("heading", "name"), [(heading, name) for heading in FORMATS for name in FORMATS[heading]])
def test_every_column_and_key_is_explained_where_its_file_is(heading: str, name: str) -> None:
    sections = re.split(r"^## ", (DOCS / "formats.md").read_text(), flags=re.MULTILINE)
    (section,) = (text for text in sections if text.startswith(f"{heading}\n"))
    assert f"`{name}`" in section


def texts_in_code() -> set[str]:
    """All that stands in strings of the code, each placeholder of an f-string being an end."""
    files = [path for folder in ("hico_core", "hico_cli") for path in (ROOT / folder).rglob("*.py")]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_messages_that_are_explained_are_those_of_the_code() -> None:
    messages = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(messages) > 20
    known = texts_in_code()
    assert [message for message in messages if not any(message in text for text in known)] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


@pytest.mark.processes
@pytest.mark.browser
def test_every_page_is_in_the_site_and_readable_without_a_network(site: Path) -> None:
    names = [str(path.relative_to(DOCS).with_suffix("")) for path in sorted(DOCS.rglob("*.md"))]
    with opened(site / "index.html", width=400) as visit:
        for name in names:
            visit.page.goto((site / f"{name}.html").as_uri())
            assert visit.page.locator("h1").count() == 1, name
            assert [text for text in visit.complaints if "file:" not in text] == [], name
            assert all(url.startswith(("file:", "data:", "blob:")) for url in visit.requests), visit.requests


@pytest.mark.processes
@pytest.mark.browser
def test_the_site_can_be_searched_from_a_folder(site: Path) -> None:
    with opened(site / "index.html", width=1200) as visit:
        found = visit.page.locator('.md-search-result__link[href*="settings.html"]').first
        for _ in range(5):  # what is typed before the page listens is lost
            visit.page.locator("input.md-search__input").fill("nesterov")
            with suppress(PageTimeout):
                found.wait_for(state="attached", timeout=15_000)
                break
            visit.page.reload()
        assert found.count()
        assert [text for text in visit.complaints if "file:" not in text] == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in visit.requests), visit.requests
