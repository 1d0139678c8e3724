# The image with which `docker run --gpus all IMAGE python run_countdown.py ...` trains on a GPU, and without --gpus on a CPU.
# torch's CUDA libraries come with its package; the machine needs NVIDIA's driver and container toolkit alone.
# Not built yet: no container engine was at hand.
#   docker build -t intrinsic .
#   docker build -t intrinsic --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .     # smaller, CPU only
FROM python:3.11-slim
ARG TORCH_INDEX=https://pypi.org/simple
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.txt)" \
    && pip install --no-cache-dir -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e .
CMD ["python", "run_countdown.py", "--help"]
