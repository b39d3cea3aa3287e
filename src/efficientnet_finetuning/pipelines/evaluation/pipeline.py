"""{regime}_model, test_images → {regime}_metrics, {regime}_predictions."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.evaluation.nodes import evaluate_classifier


def create_pipeline(regime: str) -> Pipeline:
    """Evaluate one regime's classifier on the test split, in the regime's namespace."""
    evaluate = Node(
        evaluate_classifier,
        ["model", "test_images", "class_names", "params:evaluation"],
        ["metrics", "predictions"],
        name="evaluate_classifier",
        tags="gpu",
    )
    return Pipeline(
        [evaluate],
        namespace=regime,
        inputs={"model": f"{regime}_model", "test_images": "test_images", "class_names": "class_names"},
        outputs={"metrics": f"{regime}_metrics", "predictions": f"{regime}_predictions"},
        parameters={"evaluation"},
    )
