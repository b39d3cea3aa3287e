"""source, manifest → train_images, validation_images, test_images → two figures to look at."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.preprocessing.nodes import plot_augmentations, plot_samples, prepare_images

_SET = ["source", "manifest", "class_names"]
_DRAWN = ["train_images", "class_names"]


def create_pipeline() -> Pipeline:
    """Decode, resize and one-hot encode all images, and draw some of them."""
    nodes = [
        Node(
            prepare_images,
            [*_SET, "params:preprocessing", "params:backbone", "preprocessing_checkpoints", "workers"],
            ["train_images", "validation_images", "test_images"],
            name="prepare_images",
        ),
        Node(plot_samples, [*_DRAWN, "params:seed"], "sample_grid", name="plot_samples"),
        Node(
            plot_augmentations,
            [*_DRAWN, "params:finetune.training", "params:seed"],
            "augmentation_grid",
            name="plot_augmentations",
        ),
    ]
    return Pipeline(nodes, tags="cpu", namespace="preprocessing", prefix_datasets_with_namespace=False)
