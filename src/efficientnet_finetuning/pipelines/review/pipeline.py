"""features, images → review_features → judgement → image_issues and the report's review of the data."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.review.nodes import (
    collect_features,
    find_issues,
    find_shortcuts,
    find_value_of_more_images,
    find_weak_spots,
    judge_images,
    measure_images,
)

_IMAGES = ["train_images", "validation_images", "test_images"]
_JUDGED = ["judgement", "review_features", "image_properties"]


def create_pipeline() -> Pipeline:
    """Predict every image with models that did not see it, and list possible problems."""
    collect = Node(
        collect_features,
        ["backbone", "features", *_IMAGES, "params:head", "params:evaluation.flip", "workers"],
        "review_features",
        name="collect_features",
        tags="gpu",
    )
    judge = Node(
        judge_images,
        ["review_features", "manifest", "class_names", "params:head"],
        "judgement",
        name="judge_images",
        tags="cpu",
    )
    of_the_data = [
        Node(measure_images, ["manifest", *_IMAGES], "image_properties", name="measure_images"),
        Node(
            find_issues,
            [*_JUDGED, *_IMAGES, "class_names", "params:seed"],
            ["image_issues", "label_review", "label_sheet"],
            name="find_issues",
        ),
        Node(find_shortcuts, ["manifest", "image_properties", "params:seed"], "shortcuts", name="find_shortcuts"),
        Node(
            find_weak_spots,
            [*_JUDGED, *_IMAGES, "class_names", "params:seed"],
            ["weak_spots", "weak_spot_sheet"],
            name="find_weak_spots",
        ),
    ]
    curve = Node(
        find_value_of_more_images,
        ["review_features", "manifest", "class_names", "params:head", "params:seed"],
        ["more_images", "data_curve"],
        name="find_value_of_more_images",
        tags="cpu",
    )
    of_the_frozen_backbone = Pipeline(
        [collect, judge, curve],
        namespace="transfer",
        inputs={*_IMAGES, "manifest", "class_names", "workers"},
        outputs={"review_features", "judgement", "more_images", "data_curve"},
        parameters={"evaluation.flip", "seed"},
    )
    return of_the_frozen_backbone + Pipeline(
        of_the_data, tags="cpu", namespace="review", prefix_datasets_with_namespace=False
    )
