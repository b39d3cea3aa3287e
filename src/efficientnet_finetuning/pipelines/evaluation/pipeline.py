"""{regime}_model, test_images → {regime}_metrics, {regime}_predictions, {regime}_gallery."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.evaluation.nodes import evaluate_classifier


def create_pipeline(regime: str) -> Pipeline:
    """Evaluate one regime's classifier on the test split, in the regime's namespace."""
    results = ("metrics", "predictions", "gallery")
    evaluate = Node(
        evaluate_classifier,
        ["model", "validation_images", "test_images", "class_names", "params:evaluation"],
        list(results),
        name="evaluate_classifier",
        tags="gpu",
    )
    shared = {name: name for name in ("validation_images", "test_images", "class_names")}
    return Pipeline(
        [evaluate],
        namespace=regime,
        inputs={"model": f"{regime}_model"} | shared,
        outputs={name: f"{regime}_{name}" for name in results},
        parameters={"evaluation"},
    )
