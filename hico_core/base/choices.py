"""All closed sets of choices, each defined once for options, settings and functions; imports no torch."""

from typing import Literal

# Videos and clips
Subset = Literal["train", "val", "test"]
IdRule = Literal["stem", "relpath"]  # the ID of a video: its file's name, without or with its folders
Profile = Literal["training", "archive", "source"]
KeepOrDrop = Literal["keep", "drop"]  # a shorter last clip of a video, or its sound
VideoEncoder = Literal["libx264", "libx265", "libopenh264", "h264_nvenc"]
Verification = Literal["fast", "full"]
OnCorrupt = Literal["keep-good", "skip", "fail"]
DecoderName = Literal["auto", "pyav", "decord", "torchcodec"]

# Models and runs
Dataset = Literal["hacs", "uk400", "k400"]
EncoderName = Literal[  # encoders that hico can train, besides users' functions
    "s3dg",
    "s3dg-tiny",
    "torchvision:r3d_18",
    "torchvision:mc3_18",
    "torchvision:r2plus1d_18",
    "torchvision:s3d",
]
DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
ZeroNorm = Literal["authors", "unscaled"]  # how LARS scales an all-zero tensor
NumCrops = Literal[1, 3]  # the centre, or three along the longer side
CheckpointFormat = Literal["hico", "authors", "safetensors", "exported", "onnx"]

# Features
WindowPresetName = Literal["anet", "hacs", "thumos", "clip"]
Align = Literal["start", "center"]
Tail = Literal["pad", "drop", "shift"]  # treatment of an incomplete last window
Pool = Literal["avg", "max", "none"]
Layer = Literal["pooled", "projection"]
FileFormat = Literal["npy", "npz", "pt", "parquet"]
OutputFormat = Literal["npy", "npz", "pt", "hdf5", "parquet"]  # hdf5: .npy files that are packed afterwards
DType = Literal["float32", "float16"]
ReadFrom = Literal["clips", "sources"]
RetrievalProtocol = Literal["video", "clip", "coclr"]
Toolkit = Literal["actionformer", "opentad"]
DetectionPreset = Literal["anet", "hacs", "thumos"]

# Synthetic videos
Design = Literal["scenes", "fillers"]
