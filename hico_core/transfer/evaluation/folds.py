"""Folds of cross-validation whose groups are never on both sides: clips of one scene, person or camera stay together.

Pure functions of labels and groups; nothing is random, so that a comparison can be repeated and extended.
"""

# N clips, G groups, K folds, C classes.

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hico_core.base.errors import UsageError, counted


def folds_by_group(labels: Sequence[str], groups: Sequence[str], num_folds: int) -> np.ndarray:
    """The fold in which each clip is tested, 0 to K - 1: (N,) int64.

    The largest groups are placed first, each into the smallest fold; of equal ones, into the one that has fewest clips
    of the group's classes. A fold that would then hold all groups of some class is avoided: nothing could be trained on
    that class.

    Args:
        labels: class of each clip.
        groups: group of each clip.
        num_folds: at least 2.

    Raises:
        UsageError: there are fewer groups than folds.

    """
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    classes, label_N = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        raise UsageError(f"all clips are in one group, {str(names[0])!r}; two groups or more can be tested apart")
    if len(names) < num_folds:
        raise UsageError(f"--folds {num_folds}: there are only {len(names)} groups; give --folds {len(names)}")
    clips_GC = np.zeros((len(names), len(classes)), dtype=np.int64)
    np.add.at(clips_GC, (group_N, label_N), 1)
    placed_KC = np.zeros((num_folds, len(classes)), dtype=np.int64)
    totals_C = clips_GC.sum(axis=0)
    fold_G = np.zeros(len(names), dtype=np.int64)
    for group in np.argsort(-clips_GC.sum(axis=1), kind="stable"):
        new_KC = placed_KC + clips_GC[group]
        whole_classes_K = ((new_KC == totals_C) & (clips_GC[group] > 0)).sum(axis=1)
        alike_K = (placed_KC * (clips_GC[group] / totals_C)).sum(axis=1)
        # The last key counts most.
        fold = np.lexsort((alike_K, placed_KC.sum(axis=1), whole_classes_K))[0]
        placed_KC[fold] += clips_GC[group]
        fold_G[group] = fold
    found: np.ndarray = fold_G[group_N]
    return found


def remarks_on_groups(labels: Sequence[str], groups: Sequence[str], tested_in: np.ndarray) -> list[str]:
    """What a reader of the results should know about classes and groups, a sentence each.

    Args:
        labels: class of each clip.
        groups: group of each clip.
        tested_in: the fold in which each clip is tested, in all others it is trained on; -1 is never tested.

    Raises:
        UsageError: no class is both trained on and tested.

    """
    label_N = np.asarray(labels)
    untrained = [
        (label, fold)
        for fold in np.unique(tested_in[tested_in >= 0])
        for label in np.unique(label_N[tested_in == fold])
        if label not in label_N[tested_in != fold]
    ]
    strangers = sorted({str(label) for label, _ in untrained})
    num_lost = sum(((label_N == label) & (tested_in == fold)).sum() for label, fold in untrained)
    if num_lost == (tested_in >= 0).sum():
        raise UsageError("no class has clips both to train and to test on; each class needs two groups or more")
    remarks = []
    if strangers:
        remarks.append(
            f"class {_some(strangers)}: all its clips are tested together, so that nothing was trained on it and "
            f"{counted(int(num_lost), 'test clip')} must be wrong; give it clips in other groups"
        )
    classes_of = Counter(group for group, _ in set(zip(groups, labels, strict=True)))
    num_pure = sum(count == 1 for count in classes_of.values())
    if num_pure and len(classes_of) < len(label_N):
        remarks.append(f"{num_pure} of {counted(len(classes_of), 'group')} have clips of one class only")
    return remarks


def _some(names: Sequence[str], most: int = 3) -> str:
    """a, b, c and 2 more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
