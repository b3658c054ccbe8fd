"""Packaging. Tools are configured in pyproject.toml; everything about the package stands here."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

EXTRAS = {
    # Builds and predictions on several processes or a cluster (--beam_runner).
    "beam": ["apache-beam>=2.70"],
    # DICOM films with their compressed transfer syntaxes.
    "dicom": [
        "pydicom>=3.0",
        "pylibjpeg>=2.0",
        "pylibjpeg-libjpeg>=2.1",
        "pylibjpeg-openjpeg>=2.3",
    ],
    # Reading and writing PyTorch checkpoints.
    "convert": ["torch>=2.6"],
    # Writing a classifier as ONNX (torch exports through onnxscript), and running it.
    "onnx": ["onnx>=1.19", "onnxruntime>=1.23", "onnxscript>=0.7", "torch>=2.13"],
    # Scoring generated reports, and finding them in the training set; METEOR also wants Java on the PATH.
    "generate": ["pycocoevalcap>=1.2", "rapidfuzz>=3.9", "rouge-score>=0.1.2", "sacrebleu>=2.4"],
    # CheXbert F1, RadGraph F1 and others; their weights come from their authors. Brings PyTorch, whose torch.load runs
    # no code of a checkpoint from 2.6 on. The upper bound is there because we use names inside of radeval.
    "clinical": ["radeval>=2.2.1,<2.3", "torch>=2.6"],
    # Data and workdirs in Google Cloud Storage, gs://...
    "gcs": ["gcsfs>=2026.1"],
    # The page of `medvill web`; with DICOM, below.
    "web": ["prometheus-client>=0.21", "starlette>=1.0", "uvicorn>=0.40"],
    # Several copies of a model. Earlier ones fail with the protobuf that pip gives them (2.54), or let pages of other
    # sites end what runs (2.53).
    "ray": ["ray[serve]>=2.60"],
    # Where metrics go beside the workdir (--config.log.sinks).
    "mlflow": ["mlflow>=3.5"],
    "trackio": ["trackio>=0.20"],
    "wandb": ["wandb>=0.22"],
    # The documentation as a site (docs/conf.py); its notebooks need nothing else.
    "docs": ["myst-nb>=1.3", "myst-parser>=5.0", "sphinx>=8.2", "sphinx-book-theme>=1.1.4"],
    # By the newest CUDA that the driver takes: 12 or 13.
    "cuda": ["jax[cuda12]>=0.10"],
    "cuda13": ["jax[cuda13]>=0.10"],
    # Also to compile for TPUs where there is none (--mode=compile): libtpu is the compiler.
    "tpu": ["jax[tpu]>=0.10"],
}
# Official downloads beyond JPEG.
EXTRAS["prep"] = [*EXTRAS["beam"], *EXTRAS["dicom"]]
EXTRAS["web"] += EXTRAS["dicom"]
EXTRAS["ray"] += EXTRAS["web"]
EXTRAS["test"] = [
    *EXTRAS["prep"],
    *EXTRAS["web"],
    *EXTRAS["generate"],
    *EXTRAS["gcs"],
    *EXTRAS["onnx"],
    # The page in a browser, Debian's Chromium, and what keeps people out of it.
    "axe-playwright-python>=0.1.4",
    "gcp-storage-emulator>=2024.8",
    "hypothesis>=6.100",
    # The released code computes its BLEU with it.
    "nltk>=3.9",
    "playwright>=1.50",
    "pyright>=1.1.400",
    "pytest>=8",
    # Tests run on all cores.
    "pytest-xdist>=3.6",
    "filelock>=3.15",
    "ruff>=0.9",
    # The reference for areas under curves and F1.
    "scikit-learn>=1.5",
    # The reference that parity is measured against, so an exact version.
    "torch==2.13.0",
]

setup(
    name="medvill_jax",
    version=runpy.run_path(str(HERE / "medvill_jax" / "version.py"))["VERSION"],
    description="Medical vision-language pre-training that people can really run: MedViLL in JAX/Flax",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["medvill_jax*", "data_prep*", "configs*"]),
    package_data={
        "configs": ["*.json"],
        "data_prep": ["sources/*.json"],
        "medvill_jax": ["py.typed", "app/*.safetensors", "web/static/*", "web/demo/**/*"],
    },
    entry_points={"console_scripts": ["medvill=medvill_jax.cli.main:main"]},
    install_requires=[
        "absl-py>=2.1",
        "etils[epath]>=1.12",
        "flax>=0.12",
        "grain>=0.2.18",
        "huggingface_hub>=1.0",
        "importlib_resources>=6.0",  # TFDS imports it without asking for it
        "jax>=0.10",
        "matplotlib>=3.9",
        "ml-collections>=1.1",
        "numpy>=2.0",
        "opencv-python-headless>=4.10",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12,<1",  # from 1.0 the top level is its v1 API, which has none of the names we use
        "pillow>=11.0",
        "pyyaml>=6.0",
        "safetensors>=0.5",
        "scipy>=1.13",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
        "tensorstore>=0.1.84",
        "tokenizers>=0.21",
        "tqdm>=4.66",
        "transformers>=5.0",
    ],
    extras_require=EXTRAS,
)
