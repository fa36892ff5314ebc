# The operator's image: a base with Python, and one folder.
#
# Any base with python3 (3.11 or newer, with its venv module) serves: --build-arg BASE_IMAGE=NAME
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/operator

# Wheels only, each checked against the lock: nothing is compiled, so no base needs a compiler.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN /build/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements/build.txt \
    && /build/bin/pip --python /opt/operator/bin/python3 install --require-hashes --no-deps --only-binary :all: \
        --no-compile -r requirements/runtime.txt

COPY pyproject.toml README.md LICENSE ./
COPY controller controller
# Bytecode is made here, since nothing can be written at run time; not of the thousands of generated models of the
# Kubernetes API, which this operator does not import.
RUN /build/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/operator/bin/python3 install --no-deps --no-index --no-compile /wheels/*.whl \
    && /opt/operator/bin/python3 -m compileall -q --invalidation-mode unchecked-hash \
        -x '/kubernetes/(aio/)?client/(api|models)/' /opt/operator/lib

FROM ${BASE_IMAGE}
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="artifact-repository-controller" \
      org.opencontainers.image.description="Turns ArtifactRepository objects into repositories of a local OCI registry" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/operator /opt/operator
# The list of all that is in it, with hashes.
COPY requirements/runtime.txt /opt/operator/requirements.txt
ENV PATH=/opt/operator/bin:$PATH
# By number, so that the kubelet can see that it is not root (runAsNonRoot); it needs no entry in /etc/passwd.
USER 65532:65532
# No shell in between: signals reach the process.
ENTRYPOINT ["artifact-repository-controller"]
CMD ["--help"]
