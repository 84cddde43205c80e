# CPU: docker build -t notbugs .
# CUDA: docker build -t notbugs:cuda --build-arg INDEX=https://download.pytorch.org/whl/cu126 .
# With Dask: --build-arg EXTRAS=onnx-gradients,dask
FROM python:3.12-slim
ARG INDEX=https://download.pytorch.org/whl/cpu EXTRAS=onnx-gradients
WORKDIR /source
COPY pyproject.toml README.md LICENSE CITATION.cff constraints.txt ./
COPY notbugs notbugs
# With gradients of ONNX models: without them attacks are weaker. The version of PyTorch is that of constraints.txt, from the index of the device
RUN pip install --no-cache-dir --extra-index-url "$INDEX" -c constraints.txt ".[$EXTRAS]" && rm -rf /source
# A user without rights; models and data are mounted below /work
RUN useradd --uid 1000 --create-home notbugs
USER notbugs
WORKDIR /work
ENTRYPOINT ["notbugs"]
CMD ["--help"]
