# Alertmanager, with a data folder that the unprivileged user owns, for the same reason as Prometheus.

FROM prom/alertmanager:v0.27.0
USER 0:0
RUN mkdir -p /alertmanager && chown 65534:65534 /alertmanager
USER 65534:65534
