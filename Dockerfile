# rae_dit on NVIDIA GPUs. The CUDA libraries come with the packages; the host has the driver.
#   docker build -t rae_dit .
#   docker run --gpus all --shm-size=16g -v /data:/data -v "$PWD/runs:/rae_dit/runs" rae_dit \
#       --config=configs/dit_dino.py --workdir=runs/a --config.data.path=/data/imagenet
# --shm-size: loader processes hand images over in /dev/shm, of which Docker gives 64 MB.
# CUDA=cuda12 (docker build --build-arg) for drivers older than 580.
FROM python:3.12-slim
ARG CUDA=cuda13
WORKDIR /rae_dit
# The packages first: a change of the code alone does not install them again.
COPY requirements.txt requirements-${CUDA}.txt requirements-gcs.txt ./
RUN pip install --no-cache-dir -r requirements.txt -r requirements-${CUDA}.txt -r requirements-gcs.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e .
ENTRYPOINT ["python", "-m", "rae_dit.main"]
