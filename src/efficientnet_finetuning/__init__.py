"""From any labelled image set to EfficientNet classifiers that are compared, versioned and tracked."""

import os

# Read when TensorFlow starts: it takes all memory of all GPUs otherwise, and prints a page of build details.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
