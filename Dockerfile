# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
WORKDIR /src
# jemalloc is compiled from C; bookworm's image brings the compiler and make.
COPY Cargo.toml Cargo.lock build.rs ./
COPY src src
COPY migrations migrations
COPY benches benches
COPY tests tests
COPY examples examples
# There is no repository in here: docker build --build-arg CAMPAIGND_COMMIT=$(git rev-parse --short=12 HEAD)
ARG CAMPAIGND_COMMIT
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin campaignd \
    && strip --strip-debug target/release/campaignd -o /campaignd

FROM debian:bookworm-slim
# curl asks /readyz for the health check; certificates are for the provider. A private Postgres is not in the image: give
# DATABASE_URL.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin campaignd \
    && install -d -o campaignd -g campaignd /var/lib/campaignd
COPY --from=build /campaignd /usr/local/bin/campaignd
ENV CAMPAIGND_DATA_DIR=/var/lib/campaignd \
    CAMPAIGND_HTTP__LISTEN=0.0.0.0:8080 \
    CAMPAIGND_HTTP__METRICS_LISTEN=0.0.0.0:9464 \
    CAMPAIGND_LOG__JSON=true
VOLUME /var/lib/campaignd
USER 10001
EXPOSE 8080 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:9464/readyz"]
ENTRYPOINT ["campaignd"]
CMD ["serve"]
