"""The matches of a search as a picture or a page: frames of the query beside those of the matches."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from hico_core.base.addresses import is_local, locate
from hico_core.base.errors import BadVideo, UsageError
from hico_core.base.storage import write_text, written_beside
from hico_core.corpus.clips.probe import frame_times
from hico_core.data.clock import clock_of_times
from hico_core.data.decode import decode_frames
from hico_core.transfer.evaluation.retrieval import FoundMoment

_SIDE = 128  # pixels of a frame's shorter side
_FRAMES = 3  # per moment
_CAPTION = 18  # pixels
_GREY = (128, 128, 128)


# If matches in several videos are all more similar to the query than this, the similarity says nothing.
_ALIKE = 0.995

ALL_ALIKE = (
    "to this encoder, all matches are nearly identical to the query, so their order means little; that is typical of "
    "an encoder that has learnt nothing"
)


def are_alike(matches: Sequence[FoundMoment]) -> bool:
    """Whether matches of different videos all have a similarity near 1."""
    return len({match.video_id for match in matches}) > 1 and all(match.similarity > _ALIKE for match in matches)


class _Row(NamedTuple):
    """A moment of the query and its match."""

    query: list[Image.Image]
    match: list[Image.Image]
    query_text: str
    match_text: str


def require_sheet_name(path: Path) -> None:
    """Check the extension of a sheet's name before any work is done.

    Raises:
        UsageError: the extension is neither .png nor .html.

    """
    if path.suffix not in {".png", ".html"}:
        raise UsageError(f"--sheet: {path} must end in .png or .html")


def write_sheet(path: Path, query: Path, matches: Sequence[FoundMoment], *, window_seconds: float) -> None:
    """Write frames of each match beside those of the query's moment; a missing video has grey frames.

    Args:
        path: ends in .png or .html; an .html page needs no other file.
        query: the query video.
        matches: from `search`.
        window_seconds: length of a moment.

    """
    rows = [
        _Row(
            _frames(query, match.query_seconds, match.query_seconds + window_seconds),
            _frames(match.source, match.start_seconds, match.end_seconds),
            f"query at {match.query_seconds:.2f} s",
            f"{match.video_id}, {match.start_seconds:.2f} to {match.end_seconds:.2f} s, "
            f"similarity {match.similarity:.4f}",
        )
        for match in matches
    ]
    if path.suffix == ".html":
        write_text(path, _page(query, rows, warning=ALL_ALIKE if are_alike(matches) else ""))
    else:
        with written_beside(path) as beside:
            _picture(query, rows).save(beside, format="PNG")


def _frames(source: Path | str, start: float, end: float) -> list[Image.Image]:
    """Read evenly spaced frames of a moment."""
    place = locate(source)
    try:
        if not is_local(place):
            raise BadVideo(str(source), "is in a bucket")
        clock = clock_of_times(frame_times(place))
        moments = [start + (end - start) * (number + 0.5) / _FRAMES for number in range(_FRAMES)]
        frames = decode_frames(place, clock.shown_at(moments).tolist(), short_side=_SIDE)
        return [Image.fromarray(frame.numpy()) for frame in frames]
    except BadVideo:
        return [Image.new("RGB", (_SIDE, _SIDE), _GREY)] * _FRAMES


def _picture(query: Path, rows: Sequence[_Row]) -> Image.Image:
    """One row per match: the query's moment on the left, the match on the right, captions above."""
    width = max([sum(frame.width for frame in [*row.query, *row.match]) for row in rows], default=_SIDE) + _CAPTION
    heights = [_CAPTION + max(frame.height for frame in [*row.query, *row.match]) for row in rows]
    sheet = Image.new("RGB", (max(width, 480), _CAPTION + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((2, 2), f"left: {query.name}; right: matches", fill="black")
    top = _CAPTION
    for row, height in zip(rows, heights, strict=True):
        draw.text((2, top + 2), f"{row.query_text}: {row.match_text}", fill="black")
        left = 0
        for place, frame in enumerate([*row.query, *row.match]):
            left += _CAPTION if place == len(row.query) else 0
            sheet.paste(frame, (left, top + _CAPTION))
            left += frame.width
        top += height
    return sheet


# Frames of a moment are always side by side; query and match are if there is room for both.
_STYLE = (
    "body{font-family:sans-serif;margin:1em auto;max-width:1100px;padding:0 .5em;overflow-wrap:anywhere}"
    "section{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:.3em 1em;"
    "margin-bottom:1.5em}figure{margin:0}figure div{display:flex;gap:2px}img{flex:1 1 0;min-width:0;max-width:220px}"
    "figcaption{font-size:.85em}h1{font-size:1.3em}.warning{border-left:4px solid #d55e00;padding-left:.6em}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}"
)


def _page(query: Path, rows: Sequence[_Row], *, warning: str) -> str:
    name = html.escape(query.name)
    pairs = ((_figure(row.query, "query", row.query_text), _figure(row.match, "match", row.match_text)) for row in rows)
    body = "".join(f"<section>{asked}{found}</section>\n" for asked, found in pairs)
    note = f'<p class="warning">{html.escape(warning[:1].upper() + warning[1:])}.</p>' if warning else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>Like {name}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body><h1>Moments like those of {name}</h1>\n{note}{body}</body></html>\n"
    )


def _figure(frames: Sequence[Image.Image], kind: str, text: str) -> str:
    pictures = "".join(
        f'<img alt="frame of the {kind}" src="data:image/jpeg;base64,{_jpeg(frame)}">' for frame in frames
    )
    return f"<figure><div>{pictures}</div><figcaption>{html.escape(text)}</figcaption></figure>"


def _jpeg(frame: Image.Image) -> str:
    buffer = io.BytesIO()
    frame.save(buffer, format="JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
