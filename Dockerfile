# For the CPU:  docker build -t goldilocks .
# With CUDA:    docker build -t goldilocks:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# To train:     docker run --rm -v "$PWD/logs:/goldilocks/logs" goldilocks model=deep optimizer=nadam
#               and with CUDA `--gpus all` behind `run`
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

WORKDIR /goldilocks
COPY . .
RUN pip install --extra-index-url "$TORCH_INDEX" -e ".[sweep,onnx,parquet]" -c constraints.txt \
    && useradd --create-home --uid 1000 trainer \
    && chown -R trainer logs

USER 1000
ENTRYPOINT ["python", "train.py"]
