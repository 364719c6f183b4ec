"""From a folder of videos to a picture of what is like what: `python example.py VIDEOS`, then look at matches.png."""

import sys
from pathlib import Path

from hico_core import FeatureExtractor, build_index, extract_features, pretrain, split_videos
from hico_core.config import load_config
from hico_core.transfer.evaluation.match_sheet import write_sheet
from hico_core.transfer.evaluation.retrieval import search_video
from hico_core.transfer.extraction.manifest import require_features


def main(videos: Path) -> None:
    """Split, index, pretrain a small encoder, extract features, and look for the first video among all of them."""
    split_videos(videos)
    print(build_index())
    # A small encoder for a few minutes on a CPU; pretrain() alone is the paper's, for hours on a GPU.
    settings = ["model.encoder=s3dg-tiny", "train.batch_size=4", "train.epochs=20", "optim.warmup_epochs=1"]
    run = pretrain(load_config(overrides=settings), on_step=lambda step: print(step.step, step.loss))
    extractor = FeatureExtractor.from_checkpoint(run.encoder)
    extract_features(encoder=extractor)

    folder = Path("hico-data/features") / run.run_dir.name
    rows = list(require_features(folder).values())  # one per video
    query = Path(rows[0].source)
    # The best moment of each of the other videos.
    found = search_video(query, folder, rows, extractor=extractor, top=10, own=False, one_per_video=True)
    write_sheet(Path("matches.png"), query, found.moments, window_seconds=found.window_seconds)


if __name__ == "__main__":  # the loader's processes import this file
    main(Path(sys.argv[1]))
