#!/usr/bin/env bash
# The published ports that fixtures and benchmarks compare with, each in an environment of its own under .peers/.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

environment() {
    test -x ".peers/$1/bin/python" || "$python" -m venv ".peers/$1"
    ".peers/$1/bin/python" -m pip install -q torch==2.13.0 'numpy<2.4'
}

environment alphagenome_pytorch
# Declares Python 3.12 and runs on 3.11; without the flag an older project of the same name would come.
.peers/alphagenome_pytorch/bin/python -m pip install -q --no-deps --ignore-requires-python alphagenome-pytorch==0.3.1
.peers/alphagenome_pytorch/bin/python -m pip install -q pandas pyarrow safetensors einops tqdm huggingface_hub
# what agblocks.adapters needs there, to adapt the port itself
.peers/alphagenome_pytorch/bin/python -m pip install -q pydantic annotated-types ruamel.yaml

environment enformer_pytorch
.peers/enformer_pytorch/bin/python -m pip install -q enformer-pytorch==0.8.12 'numpy<2.4'

environment borzoi_pytorch
.peers/borzoi_pytorch/bin/python -m pip install -q borzoi-pytorch==0.5.1 transformers==4.57.6 'numpy<2.4'
