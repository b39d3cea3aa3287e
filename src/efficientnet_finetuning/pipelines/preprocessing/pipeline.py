"""source, manifest → train_images, validation_images, test_images → two figures to look at."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.preprocessing.nodes import plot_augmentations, plot_samples, prepare_images


def create_pipeline() -> Pipeline:
    """Decode, resize and one-hot encode all images, and draw some of them."""
    return Pipeline(
        [
            Node(
                prepare_images,
                [
                    "source",
                    "manifest",
                    "class_names",
                    "params:preprocessing",
                    "params:backbone",
                    "preprocessing_checkpoints",
                    "workers",
                ],
                ["train_images", "validation_images", "test_images"],
                name="prepare_images",
                tags="cpu",
            ),
            Node(
                plot_samples,
                ["train_images", "class_names", "params:seed"],
                "sample_grid",
                name="plot_samples",
                tags="cpu",
            ),
            Node(
                plot_augmentations,
                ["train_images", "class_names", "params:finetune.training", "params:seed"],
                "augmentation_grid",
                name="plot_augmentations",
                tags="cpu",
            ),
        ],
        namespace="preprocessing",
        prefix_datasets_with_namespace=False,
    )
