# Gateway, worker, or both in one: the same code, with the libraries that EXTRAS names.
#
#   gateway     EXTRAS=gateway,redis,otel          command: serve
#   worker      EXTRAS=gateway,redis,triton,otel   command: worker
#   embedded    EXTRAS=serve                       command: serve     (ONNX Runtime inside: no Redis, no Triton)

FROM python:3.11-slim-bookworm AS build
# Extras of pyproject.toml. A gateway carries no model runtime (ONNX Runtime 66 MB, Triton's client 55 MB).
ARG EXTRAS=serve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# No pip inside: what runs here installs nothing.
RUN python3 -m venv --without-pip /opt/clicv2
# The dependencies first, around an empty package: they stay in the cache when only the code changes.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir clicv2 service training \
    && python3 -m pip --python /opt/clicv2/bin/python install ".[$EXTRAS]" \
    && python3 -m pip --python /opt/clicv2/bin/python uninstall --yes clicv2-complexity
COPY clicv2 clicv2
COPY service service
# Libraries bring their own tests (numpy alone 8 MB), which nobody runs here. Bytecode stays: the root is read-only.
RUN python3 -m pip --python /opt/clicv2/bin/python install --no-deps . \
    && find /opt/clicv2/lib -depth -type d \( -name tests -o -name test \) -exec rm -r {} +

FROM python:3.11-slim-bookworm
COPY --from=build /opt/clicv2 /opt/clicv2
# The shipped model, so that the image works alone; compose and Kubernetes mount a repository over it.
COPY model_repository /models
# All addresses: inside a container the loopback is reached by nobody. Who publishes the port chooses who may come.
ENV PATH=/opt/clicv2/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    CLICV2_MODEL_REPOSITORY=/models
# Of keys only hashes are here; where people put them is a volume.
RUN install -d -o 10001 -g 10001 /keys
ENV CLICV2_KEYS_FILE=/keys/keys.json
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["clicv2"]
CMD ["serve"]
