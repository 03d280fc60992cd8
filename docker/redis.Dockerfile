# Redis with the queue's settings, and a data folder that the unprivileged user owns: a new volume takes
# its owner from the image, and without CHOWN nothing could set it right later.

FROM redis:7-bookworm
RUN mkdir -p /data && chown 999:999 /data
COPY docker/redis.conf /usr/local/etc/redis.conf
USER 999:999
CMD ["redis-server", "/usr/local/etc/redis.conf"]
