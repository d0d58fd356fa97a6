# Two images for CPUs (docs/guides/containers.md):
#   docker build --target serve --tag rabtriever .               the server
#   docker build --target pipeline --tag rabtriever-pipeline .   training, MLflow and Prefect as well

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
# the index that torch without CUDA comes from is chosen by uv, as `UV_TORCH_BACKEND=cpu make setup` does
ENV UV_TORCH_BACKEND=cpu UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 VIRTUAL_ENV=/opt/venv
RUN pip install --no-cache-dir uv && uv venv /opt/venv
WORKDIR /build
COPY pyproject.toml requirements.lock ./
RUN uv pip install -c requirements.lock -r pyproject.toml --extra serve
COPY . .
RUN uv pip install --no-deps .

FROM build AS build-pipeline
RUN uv pip install -c requirements.lock -r pyproject.toml --extra train --extra ops --extra irds

FROM python:${PYTHON}-slim AS base
RUN useradd --uid 10001 --create-home rabtriever && install -d -o rabtriever -g rabtriever /project /project/mlruns
# /tmp: with `docker run --user` nobody's home can be written to
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/tmp/numba GIT_PYTHON_REFRESH=quiet \
    DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true HF_HUB_OFFLINE=1
WORKDIR /project
USER rabtriever

FROM base AS pipeline
COPY --from=build-pipeline /opt/venv /opt/venv
VOLUME /project
CMD ["python", "-m", "flows.worker"]

FROM base AS serve
COPY --from=build /opt/venv /opt/venv
VOLUME /project/mlruns
EXPOSE 8100
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8100/readyz', timeout=4)"]
CMD ["rabtriever", "serve", "--host", "0.0.0.0", "--port", "8100"]
