# The operator's image: a base with Python, and one directory.
#
# Any base with python3 (3.11 or newer, with its venv module) works: --build-arg BASE_IMAGE=NAME
ARG BASE_IMAGE=docker.io/library/python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/operator

# Wheels only, verified by the hashes in the lock: no compiler is necessary.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN /build/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements/build.txt \
    && /build/bin/pip --python /opt/operator/bin/python3 install --require-hashes --no-deps --only-binary :all: \
        --no-compile -r requirements/runtime.txt

COPY pyproject.toml README.md LICENSE ./
COPY controller controller
# controller/crd.yaml is a link to it.
COPY manifests/crd.yaml manifests/
# Bytecode is compiled here, because nothing can be written at run time. The thousands of generated models of the
# Kubernetes API are left out, because the operator does not import them.
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
# List of the dependencies, with hashes.
COPY requirements/runtime.txt /opt/operator/requirements.txt
ENV PATH=/opt/operator/bin:$PATH
# A number, so that the kubelet can verify runAsNonRoot; no entry in /etc/passwd is necessary.
USER 65532:65532
# Exec form: signals reach the process.
ENTRYPOINT ["artifact-repository-controller"]
CMD ["--help"]
