"""{regime}_model, {regime}_held_out, test_images → {regime}_metrics, {regime}_predictions, {regime}_gallery."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.evaluation.nodes import evaluate_classifier


def create_pipeline(regime: str) -> Pipeline:
    """Evaluate one regime's classifier on the test split, in the regime's namespace."""
    results = ("metrics", "predictions", "gallery")
    inputs = ["model", "held_out", "test_images", "class_names", "params:evaluation", "workers"]
    evaluate = Node(evaluate_classifier, inputs, list(results), name="evaluate_classifier", tags="gpu")
    own = {name: f"{regime}_{name}" for name in ("model", "held_out")}
    shared = {name: name for name in ("test_images", "class_names", "workers")}
    return Pipeline(
        [evaluate],
        namespace=regime,
        inputs=own | shared,
        outputs={name: f"{regime}_{name}" for name in results},
        parameters={"evaluation"},
    )
