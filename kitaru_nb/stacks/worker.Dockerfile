# The image of workers: Python, uv, and kitaru-nb with what the journal, the store and the runner need. It is the same
# for all flows: a deployment's code and its locked packages come with its snapshot.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG EXTRAS=
ARG VERSION=0.1.0
RUN pip install --no-cache-dir "kitaru-nb[${EXTRAS}]==${VERSION}"
RUN useradd --create-home --uid 1000 worker
USER 1000
WORKDIR /home/worker
# For flows that you start without deploying them, add their files: COPY flows.py .
