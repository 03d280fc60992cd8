# Triton for machines without a GPU: the real server out of NVIDIA's PyPI wheel, which has the Python
# backend only; configs/cpu.pbtxt and model.py run the same model.onnx with ONNX Runtime under it.
# With a GPU, docker/compose.gpu.yml takes NVIDIA's own image instead.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m pip install --no-deps --target /wheel nvidia-pytriton==0.7.0
# The server finds its libraries beside the packages' folder (../../nvidia_pytriton.libs), so both keep
# their places. The stub is what runs model.py; it must be the one for this image's Python.
RUN mkdir -p /opt/triton/pytriton \
    && mv /wheel/nvidia_pytriton.libs /opt/triton/ \
    && mv /wheel/pytriton/tritonserver /opt/triton/pytriton/ \
    && cd /opt/triton/pytriton/tritonserver \
    && mv python_backend_stubs/3.11/triton_python_backend_stub backends/python/ \
    && rm -r python_backend_stubs
# model.py hands tensors to ONNX Runtime as DLPack, which needs a version of it that takes them.
RUN python3 -m venv --without-pip /opt/model \
    && python3 -m pip --python /opt/model/bin/python install onnxruntime==1.31.1 numpy==2.4.6

FROM python:3.11-slim-bookworm
COPY --from=build /opt/triton /opt/triton
COPY --from=build /opt/model /opt/model
COPY docker/helm/files/triton_health.py /opt/triton/health.py
COPY model_repository /models
# The stub takes its packages from the first Python in PATH.
ENV PATH=/opt/model/bin:/opt/triton/pytriton/tritonserver/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000 8001 8002
# The python backend leaves its shared memory behind when it is killed, and a container that starts again finds it.
ENTRYPOINT ["sh", "-c", "mine=clicv2-triton-$HOSTNAME-; rm -f /dev/shm/$mine*; exec tritonserver \
  --backend-directory=/opt/triton/pytriton/tritonserver/backends --model-repository=/models \
  --backend-config=python,shm-region-prefix-name=$mine \"$@\"", "tritonserver"]
# Explicit: a model comes and goes by request (`clicv2 models`), not by what is being copied into the folder.
CMD ["--model-config-name=cpu", "--disable-auto-complete-config", "--model-control-mode=explicit", \
     "--load-model=clicv2", "--exit-timeout-secs=15"]
