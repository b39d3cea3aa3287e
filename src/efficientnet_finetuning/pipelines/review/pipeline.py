"""Features, images → review_features → judgement → image_issues and what the report says of the data."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.review.nodes import collect_features, find_issues, judge_images

_IMAGES = ["train_images", "validation_images", "test_images"]


def create_pipeline() -> Pipeline:
    """Judge every image by models that have not seen it, and list what may be wrong with it."""
    collect = Node(
        collect_features,
        ["backbone", "features", *_IMAGES, "params:head", "params:evaluation.flip"],
        "review_features",
        name="collect_features",
        tags="gpu",
    )
    judge = Node(
        judge_images,
        ["review_features", "class_names", "params:head"],
        "judgement",
        name="judge_images",
        tags="cpu",
    )
    issues = Node(
        find_issues,
        ["judgement", "review_features", *_IMAGES, "class_names", "params:seed"],
        ["image_issues", "label_review", "label_sheet"],
        name="find_issues",
        tags="cpu",
    )
    of_the_frozen_backbone = Pipeline(
        [collect, judge],
        namespace="transfer",
        inputs={*_IMAGES, "class_names"},
        outputs={"review_features", "judgement"},
        parameters={"evaluation.flip"},
    )
    return of_the_frozen_backbone + Pipeline([issues], namespace="review", prefix_datasets_with_namespace=False)
