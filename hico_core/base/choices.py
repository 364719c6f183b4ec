"""Closed choices, each once: what options offer, settings take, and functions tell apart. No torch here."""

from typing import Literal

# Videos and clips
Subset = Literal["train", "val", "test"]
IdRule = Literal["stem", "relpath"]  # what names a video: its file's name, or with the folders before it
Profile = Literal["training", "archive", "source"]
KeepOrDrop = Literal["keep", "drop"]  # the last clip of a video if it is shorter, or its sound
VideoEncoder = Literal["libx264", "libx265", "libopenh264", "h264_nvenc"]
Verification = Literal["fast", "full"]
OnCorrupt = Literal["keep-good", "skip", "fail"]
DecoderName = Literal["auto", "pyav", "decord", "torchcodec"]

# Models and runs
Dataset = Literal["hacs", "uk400", "k400"]
EncoderName = Literal[  # that train here, beside functions of users
    "s3dg",
    "s3dg-tiny",
    "torchvision:r3d_18",
    "torchvision:mc3_18",
    "torchvision:r2plus1d_18",
    "torchvision:s3d",
]
DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
ZeroNorm = Literal["authors", "unscaled"]  # how LARS scales a tensor that is all 0
NumCrops = Literal[1, 3]  # the middle, or three along the longer side
CheckpointFormat = Literal["hico", "authors", "safetensors", "exported", "onnx"]

# Features
WindowPresetName = Literal["anet", "hacs", "thumos", "clip"]
Align = Literal["start", "center"]
Tail = Literal["pad", "drop", "shift"]  # what becomes of a last window that is not full
Pool = Literal["avg", "max", "none"]
Layer = Literal["pooled", "projection"]
FileFormat = Literal["npy", "npz", "pt", "parquet"]
OutputFormat = Literal["npy", "npz", "pt", "hdf5", "parquet"]  # hdf5: .npy files, packed once more
DType = Literal["float32", "float16"]
ReadFrom = Literal["clips", "sources"]
RetrievalProtocol = Literal["video", "clip", "coclr"]
Toolkit = Literal["actionformer", "opentad"]
DetectionPreset = Literal["anet", "hacs", "thumos"]

# Synthetic videos
Design = Literal["scenes", "fillers"]
