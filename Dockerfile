# One image, one binary, no root. Build: docker build -t hayloft .
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends clang cmake g++ libclang-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Incremental state helps only the next build in the same folder; line tables make the binary six times as large.
ENV CARGO_INCREMENTAL=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN cargo build --release --locked --package cli --bin hayloft

FROM debian:12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /data
COPY --from=build /src/target/release/hayloft /usr/local/bin/hayloft
COPY LICENSE /usr/share/doc/hayloft/LICENSE
USER 65532:65532
ENV HOME=/data
VOLUME /data
EXPOSE 5000 5001 11434
ENTRYPOINT ["/usr/local/bin/hayloft"]
CMD ["serve", "--data", "/data", "--registry-listen", "0.0.0.0:5000", "--agent-listen", "0.0.0.0:5001", "--runtime-listen", "0.0.0.0:11434"]
