"""Train, compare, version and track EfficientNet classifiers on any labelled image set."""

import os

# Set before TensorFlow starts. By default it takes all memory of all GPUs and prints a page of build details.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
