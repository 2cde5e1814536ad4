# amibus in a small image, without root: docker build -t amibus .
#
# It builds with BuildKit and with the older builder alike, so there are no cache mounts. The first stage compiles OpenSSL,
# librdkafka, SQLite and jemalloc too: some minutes. What that takes (a C and C++ compiler, make, perl) is in the image.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN CARGO_PROFILE_RELEASE_STRIP=symbols cargo build --release --locked --package amibus --bin amibus

FROM debian:bookworm-slim
# The numbers are fixed, so that a volume keeps its owner from one image to the next.
RUN groupadd --gid 10001 amibus \
 && useradd --uid 10001 --gid amibus --no-create-home --home-dir /var/lib/amibus --shell /usr/sbin/nologin amibus \
 && install -d -m 0700 -o amibus -g amibus /var/lib/amibus
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/amibus /usr/local/bin/amibus
COPY docker/amibus-health /usr/local/bin/amibus-health
USER 10001:10001
# The journal of commands: without a volume, a new container forgets which commands it has carried out.
VOLUME /var/lib/amibus
# Whether the process lives. It wants `listen = "127.0.0.1:9438"` in [http], or 0.0.0.0 in place of 127.0.0.1.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["amibus-health", "/live"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["amibus"]
CMD ["run", "-c", "/etc/amibus/amibus.toml"]
