"""images, manifest → cross_validation_answers → comparison and verdict on all images."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.cross_validation.nodes import judge_folds, predict_folds


def create_pipeline() -> Pipeline:
    """Compare transfer and fine-tuning by cross-validation over all images."""
    inputs = ("train_images", "validation_images", "test_images", "manifest", "class_names", "workers")
    shared = ("dataset", "backbone", "preprocessing", "evaluation", "device", "seed")
    predict = Node(
        predict_folds,
        {name: name for name in inputs}
        | {name: f"params:{name}" for name in shared}
        | {"head": "params:transfer.head", "training": "params:finetune.training", "checkpoints": "checkpoints"},
        "cross_validation_answers",
        name="predict_folds",
        tags="gpu",
    )
    judge = Node(
        judge_folds,
        ["cross_validation_answers", "class_names"],
        ["cross_validation_comparison", "cross_validation_verdict"],
        name="judge_folds",
        tags="cpu",
    )
    return Pipeline(
        [predict, judge],
        namespace="cross_validation",
        inputs=set(inputs),
        outputs={"cross_validation_answers", "cross_validation_comparison", "cross_validation_verdict"},
        parameters={*shared, "transfer.head", "finetune.training"},
    )
