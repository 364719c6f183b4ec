# hico in a container. On a GPU: docker build --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 -t hico .
#     docker build -t hico .
#     docker run --rm --shm-size=8g -v "$PWD:/data" hico run videos       (--gpus all on a GPU)
#     docker run --rm --entrypoint scripts/quickstart.sh -w /opt/hico hico
# Any base with apt and Python 3.10 to 3.13 in it will do. PyTorch's own packages bring CUDA; the base only needs the driver.
ARG BASE=debian:12-slim
FROM ${BASE}

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/hico
COPY . .
RUN bash scripts/setup.sh

ENV PATH=/opt/hico/.venv/bin:$PATH
WORKDIR /data
ENTRYPOINT ["hico"]
