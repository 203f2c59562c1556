# The image of one deployment's workers: exactly the packages that were locked when it was made, so that nothing is
# installed when a worker starts. Build it in the folder of this file, which has the lock and its wheels.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
WORKDIR /locked
COPY requirements.lock ./
COPY wheels ./wheels
RUN pip install --no-cache-dir uv
RUN uv pip install --system --no-cache --no-deps --require-hashes -r requirements.lock
RUN useradd --create-home --uid 1000 worker
USER 1000
WORKDIR /home/worker
