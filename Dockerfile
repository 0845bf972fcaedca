# The studio in a container: see docs/container.md. The same image runs on a CPU and, where it is given one, on a GPU.
FROM python:3.12-slim

# More words for pip, such as an index of PyTorch built for the CPU alone, which makes the image several GB smaller.
ARG PIP_OPTIONS=""
RUN useradd --create-home --uid 1000 painter && mkdir /studio && chown painter /studio
WORKDIR /source
# What changes seldom comes first, so that a change of the program builds the last layer alone.
RUN pip install --no-cache-dir ${PIP_OPTIONS} torch torchvision
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY configs configs
COPY benchmarks benchmarks
COPY nst_lightning nst_lightning
RUN pip install --no-cache-dir ${PIP_OPTIONS} '.[studio,video]'

USER painter
WORKDIR /studio
VOLUME /studio
EXPOSE 7860
# What asks for 0.0.0.0 has to give a token: NST_STUDIO_TOKEN.
ENV PYTHONUNBUFFERED=1 TORCH_HOME=/studio/.torch
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
ENTRYPOINT ["nst", "studio", "--host", "0.0.0.0", "--folder", "/studio"]
