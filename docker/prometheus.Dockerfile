# Prometheus, with a data folder that the unprivileged user owns: a new volume takes its owner from the image, and
# without CHOWN nothing could set it right later. Configuration and rules are mounted, so that a change needs no image.

FROM prom/prometheus:v2.53.0
USER 0:0
RUN mkdir -p /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
