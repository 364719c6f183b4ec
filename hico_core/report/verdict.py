"""Judges whether a run has learnt anything, in a sentence or two, and gives advice if it has not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hico_core.base.errors import counted
from hico_core.model.heads import EMBEDDING_DIM
from hico_core.report.results import ProbeRow
from hico_core.transfer.evaluation.intervals import in_context, percent
from hico_core.transfer.extraction.extract import ALIKE

# Fewer steps than `_FEWEST` hardly change a new encoder; with fewer than `_ENOUGH`, its loss is still falling.
_FEWEST, _ENOUGH = 20, 300

# A loss of at least this fraction of the chance loss may be due to a lucky batch.
_NEAR_CHANCE = 0.95

# After few steps, clips of different videos may differ by less than this, which the reader should know.
_SIMILAR = 0.9

# Embeddings whose standard deviation is below this fraction of that of evenly spread ones are nearly alike.
_PART_OF_EVEN_SPREAD = 0.1


class Agreement(NamedTuple):
    """How often the nearest neighbour of a clip is of the same kind."""

    part: float  # fraction of the clips
    chance: float  # the same for a random neighbour
    num_clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about a pretraining run; None if unknown."""

    encoder: str  # as `model.encoder` names it
    steps: int
    loss: float | None  # contrastive term, at the end
    num_candidates: int  # number of clips among which the near one is to be found
    spread: float | None  # standard deviation of the embeddings, at the end
    similarity: float | None = None  # mean cosine similarity of clips of different videos
    same_video: Agreement | None = None
    before: Agreement | None = None  # the same for the encoder before training
    is_warm_start: bool = False  # started from the weights of a file
    same_class: Agreement | None = None  # of the nearest neighbour in another video; None without labels
    probes: Sequence[ProbeRow] = ()

    @property
    def chance_loss(self) -> float:
        """InfoNCE if all candidates are equally likely."""
        return math.log(self.num_candidates)

    @property
    def has_gained(self) -> bool | None:
        """Whether training has made neighbours of the same video more frequent; None if unknown."""
        if self.same_video is None or self.before is None:
            return None
        return self.same_video.part > self.before.part


class Verdict(NamedTuple):
    """The judgement on a run."""

    level: Literal["nothing", "begun", "learnt"]
    text: str
    advice: str = ""  # what to do


_MEASURE = (
    "This number alone does not show what was learnt: if colours and places are enough to tell videos apart, even an "
    "untrained encoder can do so. Measure it with labels: hico probe, hico compare."
)
_CALMER = "Train again with a lower optim.base_lr or a longer optim.warmup_epochs."


def num_candidates(*, batch_size: int, clips_per_video: int) -> int:
    """The near clip and all clips of the other videos of a step: HiCo's and SimCLR's loss compare with all of these."""
    return 1 + (batch_size - 1) * clips_per_video


def judge_pretraining(evidence: Evidence) -> Verdict:
    """Judge whether pretraining has taught the encoder anything."""
    nothing = _why_nothing(evidence)
    if nothing is not None:
        return nothing
    facts = [_loss_beside_chance(evidence), *_likeness(evidence), *_of_neighbours(evidence)]
    facts += [f"{row.probe}: {row.in_words()}" for row in evidence.probes[:1]]
    known = "; ".join(facts)
    if evidence.steps < _ENOUGH:
        opening = f"After {evidence.steps} steps, it is too early to tell whether this encoder is learning"
        return Verdict("begun", f"{opening}: {known}.", _longer(evidence))
    if evidence.has_gained is False:
        than = "it did before training" if evidence.is_warm_start else "an untrained one"
        opening = f"After {evidence.steps} steps, this encoder finds clips of the same video no more often than {than}"
        return Verdict("begun", f"{opening}: {known}.", _MEASURE)
    opening = f"After {evidence.steps} steps, this encoder has learnt to recognise clips of the same video"
    return Verdict("learnt", f"{opening}: {known}.")


def _why_nothing(evidence: Evidence) -> Verdict | None:
    even = 1 / math.sqrt(EMBEDDING_DIM)  # the narrower embeddings of small encoders have a larger one
    if evidence.steps == 0:
        return Verdict("nothing", "This run has not completed a training step yet.", _longer(evidence))
    if evidence.steps < _FEWEST:
        steps = counted(evidence.steps, "step")
        alike = ", and all clips look alike to it" if (evidence.similarity or 0) > ALIKE else ""
        return Verdict(
            "nothing", f"This encoder has learnt nothing yet: it was trained for {steps}{alike}.", _longer(evidence)
        )
    if evidence.spread is not None and evidence.spread < _PART_OF_EVEN_SPREAD * even:
        return Verdict(
            "nothing",
            "Training has collapsed: all clips get nearly the same embedding (standard deviation "
            f"{evidence.spread:.2g}; for evenly spread embeddings, {even:.2g}).",
            _CALMER,
        )
    if evidence.similarity is not None and evidence.similarity > ALIKE:
        return Verdict(
            "nothing",
            f"After {evidence.steps} steps, this encoder does not distinguish clips: the mean similarity of clips from "
            f"different videos is {evidence.similarity:.5f}.",
            _CALMER,
        )
    if evidence.loss is not None and evidence.loss >= _NEAR_CHANCE * evidence.chance_loss:
        return Verdict(
            "nothing",
            f"After {evidence.steps} steps, this encoder has learnt nothing yet: {_loss_beside_chance(evidence)}.",
            _longer(evidence),
        )
    return None


def _longer(evidence: Evidence) -> str:
    smaller = "" if evidence.encoder == "s3dg-tiny" else "a smaller encoder (model.encoder=s3dg-tiny) or "
    return (
        "Train for longer: learning takes at least a few hundred steps. If a step takes too long, make it cheaper "
        f"with {smaller}smaller clips (data.crop_size)."
    )


def _likeness(evidence: Evidence) -> list[str]:
    if evidence.similarity is None or evidence.similarity < _SIMILAR:
        return []
    return [
        f"clips of different videos are still very similar (mean similarity {evidence.similarity:.2f}; 1: identical)"
    ]


def _loss_beside_chance(evidence: Evidence) -> str:
    if evidence.loss is None:
        return "the run has no contrastive loss"
    return (
        f"the contrastive loss is {evidence.loss:.2f}, chance is {evidence.chance_loss:.2f} (the logarithm of the "
        f"number of candidates, {evidence.num_candidates})"
    )


def _before(evidence: Evidence) -> str:
    return "before training" if evidence.is_warm_start else "untrained"


def _of_neighbours(evidence: Evidence) -> list[str]:
    said = (
        (evidence.same_video, "of a clip is from the same video", evidence.before),
        (evidence.same_class, "in another video is of the same class", None),
    )
    return [
        f"the nearest neighbour {words} {_frequency(found, before, _before(evidence))}"
        for found, words, before in said
        if found is not None
    ]


def _frequency(found: Agreement, before: Agreement | None, words: str) -> str:
    """62.2 % of the time (61 of 98 clips; untrained 40.8 %; chance 3.0 %)."""
    compared = "" if before is None else f"; {words} {percent(before.part)}"
    count = f"{found.part * found.num_clips:.0f} of {counted(found.num_clips, 'clip')}"
    return f"{percent(found.part)} of the time ({count}{compared}; chance {percent(found.chance)})"


def judge_finetuning(tested: ProbeRow | None) -> Verdict:
    """Judge whether a finetuned classifier is better than chance on its test videos."""
    if tested is None or tested.num_test is None or tested.chance is None:
        return Verdict("begun", "This classifier has not been tested yet.", "Test it with hico evaluate.")
    sure = tested.interval is not None and tested.interval.low > tested.chance
    accuracy = in_context(tested.accuracy, tested.num_test, chance=tested.chance)
    if sure:
        return Verdict("learnt", f"This classifier is better than chance: accuracy {accuracy}.")
    return Verdict(
        "nothing",
        f"This classifier is not reliably better than chance: accuracy {accuracy}.",
        "Train for longer, or test on more videos.",
    )
