# Two images from one file; docs/container.md tells which to take and what has been tried.
#
#   docker build --target runtime --tag litepool .        serves models/ as it was at build time; holds no TensorFlow
#   docker build --target full --tag litepool:full .      converts whatever is mounted at /models when it starts
#
# A tag moves: for builds that can be repeated, give the digest too, as in
# --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:... . Any image with python3 (3.11 to 3.13) and its venv
# module will do; every stage starts from the same one, because a venv holds the path of its interpreter.
#
# Behind a package mirror: --secret id=pip,src=pip.conf and, for a private authority, --secret id=ca,src=ca.pem with
# `cert = /run/secrets/ca` in that pip.conf. Secrets are in no layer.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm


FROM ${PYTHON_IMAGE} AS base
# Bytecode is written once, here and below, and never at run time: a container starts from the same files every time,
# and could not keep it (read-only root, files that belong to root). The official Python images come without any for
# the standard library. `unchecked-hash` because engines may change the times of files that they copy between stages.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages|dist-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && groupadd --gid 10001 litepool \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
        litepool


# ---- build: pip lives in /opt/build and stays behind; /opt/litepool is what the images get --------------------------

FROM base AS build
WORKDIR /src
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/litepool
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PYTHON=/opt/litepool/bin/python \
    PIP_ROOT_USER_ACTION=ignore
COPY requirements/runtime.lock requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    /opt/build/bin/pip install --no-compile --require-hashes --requirement requirements/runtime.lock

# Layers of packages change with the locks, and the layer of Litepool itself, which is small, with its code.
FROM build AS runtime-packages
RUN /opt/litepool/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/litepool/lib

# TensorFlow's C++ headers, 280 MB, are for those who build extensions.
FROM build AS full-packages
COPY requirements/serve.lock requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    /opt/build/bin/pip install --no-compile --require-hashes --requirement requirements/serve.lock \
 && rm -rf /opt/litepool/lib/python3.*/site-packages/tensorflow/include \
 && /opt/litepool/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/litepool/lib

# What builds the wheel is added to packages that no image gets.
FROM build AS wheel
COPY requirements/build.lock requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    /opt/build/bin/pip install --no-compile --require-hashes --requirement requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /dist .

# Installed twice: beside its packages, to see that the lock has all that it needs, and alone in /layer, to be copied.
FROM build AS litepool
COPY --from=wheel /dist /dist
RUN /opt/build/bin/pip install --no-compile --no-deps --no-index /dist/*.whl \
 && /opt/build/bin/pip check \
 && /opt/build/bin/pip install --no-compile --no-deps --no-index --ignore-installed --root /layer /dist/*.whl \
 && /opt/litepool/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /layer -p / /layer


# ---- what both images say about themselves --------------------------------------------------------------------------

FROM base AS common
LABEL org.opencontainers.image.title="litepool" \
      org.opencontainers.image.description="Serves Keras and TFLite models over HTTP at the speed of the interpreter" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nobody has a home here; what wants one (Keras) gets the temporary folder, the only one that can always be written.
ENV PATH=/opt/litepool/bin:$PATH \
    HOME=/tmp \
    LITEPOOL_CACHE_DIR=/var/cache/litepool \
    LITEPOOL_HOST=0.0.0.0 \
    LITEPOOL_MODELS_DIR=/models \
    LITEPOOL_PORT=8000
WORKDIR /
EXPOSE 8000
# The images have no curl. http.client, unlike urllib, takes no notice of proxy settings; -I and -S skip what is not
# needed.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-ISc", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LITEPOOL_PORT']), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
# No shell in between: SIGTERM reaches the server itself.
ENTRYPOINT ["litepool"]
CMD ["serve"]


# ---- full: with TensorFlow, for models that are mounted -------------------------------------------------------------

FROM common AS full
COPY --from=full-packages /opt/litepool /opt/litepool
# A volume mounted here for the first time takes this owner over.
RUN install --directory --owner litepool --group litepool /var/cache/litepool /models
COPY --from=litepool /layer /
# The first start converts, which takes as long as the models want; /healthz answers 503 until then.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-ISc", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LITEPOOL_PORT']), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
USER 10001:10001


# ---- runtime: without TensorFlow, for the models of this folder -----------------------------------------------------

FROM full AS converted
COPY models /models
RUN litepool warm-cache /models && chmod -R a+rX,go-w /var/cache/litepool

FROM common AS runtime
COPY --from=runtime-packages /opt/litepool /opt/litepool
COPY --from=litepool /layer /
COPY models /models
# Owned by root: what is served cannot be changed by what serves it.
COPY --from=converted --chown=0:0 /var/cache/litepool /var/cache/litepool
# Which of them /predict serves; in `full` that is for whoever mounts the models to say.
ENV LITEPOOL_DEFAULT_MODEL=digits
USER 10001:10001
