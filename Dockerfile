FROM python:3.13-slim AS build
WORKDIR /src
COPY .ci/requirements.txt .ci/requirements-build.txt .ci/
RUN python3 -m venv /opt/watcher \
    && /opt/watcher/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r .ci/requirements.txt \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r .ci/requirements-build.txt
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY watcher watcher
COPY config config
RUN /opt/build/bin/hatchling build -t wheel -d /dist \
    && /opt/watcher/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /dist/*.whl \
    && /opt/watcher/bin/pip uninstall --yes --disable-pip-version-check pip

FROM python:3.13-slim
LABEL org.opencontainers.image.title="clerk-watcher" \
      org.opencontainers.image.description="Know when a Clerk Chat AI-agent execution starts, pauses, succeeds or fails." \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --system --gid 65532 watcher \
    && useradd --system --uid 65532 --gid watcher --home-dir /var/lib/watcher --create-home watcher
COPY --from=build /opt/watcher /opt/watcher
ENV PATH=/opt/watcher/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    WATCHER_STORE_URL=sqlite:////var/lib/watcher/watcher.db \
    WATCHER_HTTP_LISTEN=0.0.0.0:8080
USER 65532:65532
WORKDIR /var/lib/watcher
VOLUME /var/lib/watcher
EXPOSE 8080
ENTRYPOINT ["/opt/watcher/bin/watcher"]
CMD ["run"]
