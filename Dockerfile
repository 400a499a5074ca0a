# syntax=docker/dockerfile:1

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

# Locked packages first: this layer changes with the lock, not with the code.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/serving \
    && /opt/serving/bin/pip install --no-deps --require-hashes -r requirements.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY serving serving
RUN /opt/build/bin/python -m hatchling build -t wheel -d /tmp/wheel \
    && /opt/serving/bin/pip install --no-deps /tmp/wheel/*.whl \
    && /opt/serving/bin/pip check \
    && /opt/serving/bin/pip uninstall --yes pip setuptools


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="serving" org.opencontainers.image.licenses="Apache-2.0"

# LightGBM's library asks for the system's OpenMP, which the slim image lacks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

# The root file system may be read-only: all that is written goes to /var/lib/serving (a volume) and /tmp (a tmpfs).
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/serving --shell /usr/sbin/nologin serving \
    && install -d -o serving -g serving -m 0700 /var/lib/serving \
    && install -d /model_store
COPY --from=build /opt/serving /opt/serving
COPY settings.toml /etc/serving/settings.toml

ENV PATH=/opt/serving/bin:$PATH \
    HOME=/var/lib/serving \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SERVING_SETTINGS=/etc/serving/settings.toml \
    SERVING_SERVER__HOST=0.0.0.0 \
    SERVING_SERVER__PORT=8000 \
    SERVING_STORE__PATH=/model_store \
    SERVING_STATE__PATH=/var/lib/serving

USER 10001:10001
WORKDIR /var/lib/serving
VOLUME /var/lib/serving
EXPOSE 8000
STOPSIGNAL SIGTERM

# Liveness, not readiness: a server that waits for its first model must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-I", "-c", \
    "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['SERVING_SERVER__PORT'] + '/health/live', timeout=4)"]

CMD ["serving", "serve"]
