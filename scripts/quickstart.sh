#!/usr/bin/env bash
# The whole pipeline on a small corpus: split, index, pretrain, extract-features. The first call installs hico, which
# downloads PyTorch; the rest takes 2 to 5 minutes on two CPU cores.
#     scripts/quickstart.sh                     on 8 videos that it makes itself
#     VIDEOS=folder scripts/quickstart.sh       on your own
set -euo pipefail
root=$(realpath -m "${HICO_ROOT:-quickstart-data}")
videos=$(realpath -m "${VIDEOS:-$root/videos}")
echo "Installing hico into .venv (the first time: minutes, up to 6 GB); the commands then take 2 to 5 minutes"
source "$(dirname "$0")/setup.sh"
export HICO_ROOT="$root"

if [ -z "${VIDEOS:-}" ]; then
    python scripts/make_corpus.py "$videos"
fi

hico split "$videos" || [ $? -eq 3 ] # 3: some videos failed and are listed; the others suffice
hico index

# A demonstration, not a recipe: short small clips, a small batch, and no colour jitter, so that 50 steps
# already teach the encoder something. The recipe itself: hico pretrain --dataset hacs
hico pretrain --dataset hacs --name quickstart --resume \
    --batch-size 8 --epochs 50 --max-steps 50 \
    -o data.num_frames=8 -o data.frame_stride=8 -o data.crop_size=64 \
    -o augment.colour_probability=0 -o augment.grey_probability=0 \
    -o optim.base_lr=20 -o optim.lars_exclude_bn=true

hico extract-features --name quickstart

echo
echo "Clips     $root/train"
echo "Index     $root/index.parquet, $root/training.txt"
echo "Encoder   $root/runs/quickstart/export/encoder.safetensors"
echo "Features  $root/features/quickstart"
echo "To use hico in this shell: source $VIRTUAL_ENV/bin/activate"
echo "Next: docs/tutorial.md, with videos of your own"
